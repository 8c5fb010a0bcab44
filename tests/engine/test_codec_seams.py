"""Codecs that skip rows of a batch, and codecs that say themselves what a field name means."""

from collections.abc import Sequence
from typing import Any

import pytest

from engine.codecs import Decoded, JsonCodec
from engine.errors import ConfigError, RecordError
from engine.records import RecordBatch
from engine.selectors import Compiled
from engine.stream import Sink, Stream
from engine.task import Task
from engine.testing import TestDriver
from engine.topology import Topology
from state.memory import MemoryStore


class Lines:
    """Text, one value a record; "#..." is skipped, "?..." is bad."""

    type = str

    def decode_batch(self, batch: RecordBatch) -> Decoded[str]:
        decoded: Decoded[str] = Decoded([])
        for row, raw in enumerate(batch.values):
            text = (raw or b"").decode()
            decoded.values.append(text)
            if text.startswith("#"):
                decoded.skipped.add(row)
            if text.startswith("?"):
                decoded.errors[row] = RecordError("a question")
        return decoded

    def encode_column(self, values: Sequence[str]) -> list[bytes | None]:
        return [value.encode() for value in values]

    def select(self, name: str) -> Compiled:
        if name != "initial":
            raise ConfigError(f"lines have no {name!r}")
        return Compiled(lambda text: text[0], str, name)


def topology(codec: Any, **options: Any) -> Topology:
    app = Topology("lines", partitions=1)

    @app.pipeline(app.source("in", codec=codec, **options))
    def copy(lines: Stream[str, str]) -> Sink:
        return lines.to("out", codec=JsonCodec(str))

    return app


def run(values: list[str]) -> tuple[list[Any], list[Any]]:
    with TestDriver(topology(Lines(), key="initial")) as driver:
        for value in values:
            driver.send("in", value.encode(), key=b"k", at=1_000, partition=0)
        return [(r.key, r.value) for r in driver.read("out")], driver.read("lines-dlq")


@pytest.mark.parametrize("value_type", [dict, Any, list])
def test_json_that_is_nested_too_deeply_is_a_bad_record(value_type: Any) -> None:
    """msgspec raises RecursionError: the batch would be tried again and again, and its task stand still for ever."""
    codec: JsonCodec[Any] = JsonCodec(value_type)
    good = b"[1]" if value_type is list else b'{"a": 1}'
    for deep in (b'{"a":' * 100_000, b"[" * 100_000):
        decoded = codec.decode_batch(RecordBatch("t", 0, range(3), [0] * 3, [None] * 3, [good, deep, good], 0, 3))
        assert (decoded.values[0], decoded.values[2], list(decoded.errors)) == (decoded.values[2], decoded.values[0], [1])
        assert "not a valid" in str(decoded.errors[1])


def test_skipped_rows_are_neither_records_nor_dead_letters() -> None:
    out, dead = run(["alpha", "#beta", "gamma"])
    assert out == [("a", "alpha"), ("g", "gamma")]
    assert dead == []


def test_skipped_rows_beside_bad_ones_are_passed_over() -> None:
    out, dead = run(["#a", "?b", "c"])
    assert out == [("c", "c")]
    assert len(dead) == 1


def test_skipped_rows_of_one_batch_keep_the_columns_together() -> None:
    batch = RecordBatch("in", 0, [0, 1, 2, 3], [1, 2, 3, 4], [None] * 4, [b"#x", b"a", b"#y", b"b"], position=0, next_offset=4)
    task = Task(topology(Lines(), key="initial").plan(), 0, MemoryStore(), now_ms=0)
    block = task.sources["in"].block(batch, 0)
    assert (list(block.keys), list(block.values), list(block.timestamps)) == (["a", "b"], ["a", "b"], [2, 4])
    assert [block.row(i) for i in range(2)] == [1, 3]
    assert task.counters["", "in", "records_skipped"] == 2


def test_select_of_a_codec_decides_about_field_names() -> None:
    with pytest.raises(ConfigError, match="lines have no 'other'"):
        topology(Lines(), key="other")
