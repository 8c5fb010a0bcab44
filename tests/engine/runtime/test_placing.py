"""From lines to columns: which key, which time, which partition; what is left open is taken from the value."""

import json
from pathlib import Path
from typing import Any

from engine import Struct
from engine.codecs import JsonCodec
from engine.graph import SourceSpec
from engine.records import TopicPartition
from engine.runtime.placing import LINES_AT_ONCE, Placer, read_lines
from engine.runtime.record_lines import LineRecord, parse_line
from engine.selectors import compile_selector
from engine.watermarks import bounded
from state.hashing import partition_of

PARTITIONS = 12


class Visit(Struct):
    user: str
    ts: int


SOURCE = SourceSpec(
    "visits", JsonCodec(Visit), compile_selector("user", Visit, "key"), str, compile_selector("ts", Visit, "time"), bounded("0s")
)


def line(**fields: Any) -> LineRecord:
    return parse_line(json.dumps(fields).encode())


def place(source: SourceSpec | None, *lines: LineRecord) -> tuple[list[tuple[int, int, bytes | None]], Placer]:
    """Return (partition, timestamp, key) of lines that all go to different partitions or come in order, and the placer."""
    placer = Placer("visits", PARTITIONS, source, 77)
    columns = placer.place(lines)
    rows = [
        (partition.partition, timestamp_ms, key)
        for partition, column in columns.items()
        for timestamp_ms, key in zip(column.timestamps, column.keys, strict=True)
    ]
    return rows, placer


def test_a_line_with_only_a_value_is_read_as_its_source_reads_it() -> None:
    rows, _ = place(SOURCE, line(value={"user": "ann", "ts": 5}))
    assert rows == [(partition_of(b"ann", PARTITIONS), 5, b"ann")]


def test_a_line_goes_where_its_declared_key_belongs_whatever_else_it_says() -> None:
    rows, _ = place(SOURCE, line(value={"user": "ann", "ts": 5}, key="bob", partition=3, timestamp_ms=6))
    assert rows == [(partition_of(b"ann", PARTITIONS), 6, b"bob")]


def test_a_line_that_the_source_cannot_read_is_placed_by_its_own_key_and_noted() -> None:
    rows, placer = place(SOURCE, line(value={"user": "ann", "ts": 5}), line(value={"user": 1}, key="bob"), line(value="?", partition=15))
    assert rows == [(partition_of(b"ann", PARTITIONS), 5, b"ann"), (partition_of(b"bob", PARTITIONS), 5, b"bob"), (3, 5, None)]
    assert (placer.records, placer.undecodable.total()) == (3, 2)


def test_a_line_without_a_source_uses_what_it_says_itself() -> None:
    rows, _ = place(None, line(value=1), line(value=2, key="ann", timestamp_ms=9), line(value=3, partition=4))
    assert rows == [(0, 77, None), (partition_of(b"ann", PARTITIONS), 9, b"ann"), (4, 9, None)]


def test_a_key_function_that_raises_leaves_the_record_to_the_task() -> None:
    def key(visit: Visit) -> str:
        raise ValueError("no key")

    source = SourceSpec("visits", JsonCodec(Visit), compile_selector(key, Visit, "key"), str, None, bounded("0s"))
    rows, placer = place(source, line(value={"user": "ann", "ts": 5}, key="bob"))
    assert rows == [(partition_of(b"bob", PARTITIONS), 77, b"bob")]
    assert placer.undecodable == {"no key": 1}


def test_records_keep_their_order_within_a_partition() -> None:
    placer = Placer("visits", 1, SOURCE, 0)
    columns = placer.place([line(value={"user": "ann", "ts": ts}) for ts in (3, 1, 2)])
    assert columns[TopicPartition("visits", 0)].timestamps == [3, 1, 2]


def test_reading_a_long_file_gives_every_line_once_and_counts_from_one(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text('{"value":1}\n\n' * LINES_AT_ONCE + "bad\n" + '{"value":2}\r\n{"value":3}')
    chunks = list(read_lines(path))
    assert [record.value for records, _ in chunks for record in records] == [b"1"] * LINES_AT_ONCE + [b"2", b"3"]
    assert [str(bad).split(": ")[0] for _, bads in chunks for bad in bads] == [f"{path}, line {2 * LINES_AT_ONCE + 1}"]
