import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engine.codecs import Decoded
from engine.errors import UnavailableError
from engine.records import RecordBatch
from engine.runtime.metrics import Metrics
from engine.runtime.preparing import Preparing, prepare_codecs
from engine.runtime.shell import Limits
from engine.stream import Sink, Stream
from engine.topology import Topology

METRICS = Metrics()
LIMITS = Limits(retry_first_s=0.0, retry_max_s=0.0)


class Awaited:
    """A codec whose registry is down for the first calls."""

    type = str

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0
        self.sinks: list[str] = []

    async def prepare_sink(self, topic: str) -> None:
        self.sinks.append(topic)

    async def prepare(self, batch: RecordBatch) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise UnavailableError("registry down")

    def decode_batch(self, batch: RecordBatch) -> Decoded[str]:
        return Decoded([raw and raw.decode() for raw in batch.values])

    def encode_column(self, values: Sequence[str]) -> list[bytes | None]:
        return [value.encode() for value in values]


def plan_of(**source: Any) -> Any:
    app = Topology("waits", partitions=1)

    @app.pipeline(app.source("in", **source))
    def copy(lines: Stream[str, str]) -> Sink:
        return lines.to("out")

    return app.plan()


def batch() -> RecordBatch:
    return RecordBatch("in", 0, [0], [0], [b"k"], [b"v"], position=0, next_offset=1)


def preparing(codec: Awaited) -> Preparing:
    made = Preparing.of(plan_of(codec=codec), LIMITS, METRICS)
    assert made is not None
    return made


async def never() -> bool:
    raise AssertionError("it takes no time")


@pytest.mark.parametrize("failures", [0, 3])
async def test_preparing_a_batch_is_ready_once_its_codec_is(failures: int) -> None:
    codec = Awaited(failures)
    assert await preparing(codec).ready(batch(), never)
    assert codec.calls == failures + 1


def test_preparing_is_nothing_where_no_codec_needs_it() -> None:
    assert Preparing.of(plan_of(value_type=str), LIMITS, METRICS) is None


async def test_preparing_a_topic_without_such_a_codec_is_ready_at_once() -> None:
    assert await Preparing({"other": Stuck(0)}, LIMITS, METRICS).ready(batch(), never)


class Stuck(Awaited):
    """A codec whose registry never answers."""

    cancelled = False

    async def prepare(self, batch: RecordBatch) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_preparing_lets_its_task_go_on_and_ends_as_soon_as_nobody_wants_the_batch() -> None:
    codec, asked = Stuck(0), []

    async def meanwhile() -> bool:
        asked.append(codec.cancelled)
        return len(asked) < 3

    assert not await preparing(codec).ready(batch(), meanwhile)
    assert asked == [False, False, False] and codec.cancelled


async def test_preparing_what_goes_wrong_meanwhile_is_raised_and_leaves_nothing_behind() -> None:
    codec = Stuck(0)

    async def meanwhile() -> bool:
        raise UnavailableError("a commit failed")

    with pytest.raises(UnavailableError, match="a commit failed"):
        await preparing(codec).ready(batch(), meanwhile)
    assert codec.cancelled


async def test_prepare_codecs_reaches_every_topic_that_is_written() -> None:
    codec = Awaited(0)
    app = Topology("waits", partitions=1)

    @app.pipeline(app.source("in", value_type=str))
    def copy(lines: Stream[str, str]) -> list[Sink]:
        return [lines.to("one", codec=codec), lines.to("two", codec=codec), lines.to("three")]

    await prepare_codecs(app.plan(), LIMITS)
    assert codec.sinks == ["one", "two"]


class Late(Awaited):
    """A codec whose registry is down for the first registrations."""

    async def prepare_sink(self, topic: str) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise UnavailableError("registry down")
        self.sinks.append(topic)


def writes(codec: Awaited) -> Any:
    app = Topology("waits", partitions=1)

    @app.pipeline(app.source("in", value_type=str))
    def copy(lines: Stream[str, str]) -> Sink:
        return lines.to("out", codec=codec)

    return app.plan()


async def test_prepare_codecs_tries_a_sink_again_until_its_registry_is_up() -> None:
    codec = Late(3)
    await prepare_codecs(writes(codec), LIMITS)
    assert (codec.sinks, codec.calls) == (["out"], 4)


async def test_prepare_codecs_gives_a_sink_up_after_a_while_and_says_so() -> None:
    with pytest.raises(UnavailableError, match="sink 'out' cannot be written, so the worker does not start: registry down"):
        await prepare_codecs(writes(Late(1_000)), Limits(retry_first_s=0.001, retry_max_s=0.01), sinks_wait_s=0.05)
