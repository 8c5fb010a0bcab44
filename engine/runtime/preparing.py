"""What a codec needs from outside before it can decode a batch: schemas of a registry, by the ids in the records.

The core waits for nothing, so the shell asks the codec first. While the registry is down the task waits here, with a back-off that
doubles: it commits what came before, its queue fills, its partitions are paused, the other tasks go on, and nothing is lost or
called bad. Each attempt is counted (`preparation_failures`), and as long as there are attempts the watchdog leaves the task alone: to
open it again would not bring the registry back. A codec that hangs instead of failing makes none. A worker that is to end, or loses the
partition, does not wait. What the registry does not know is no reason to wait: the codec refuses that record.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, runtime_checkable

from engine.errors import UnavailableError
from engine.graph import SideSpec, SinkSpec
from engine.plan import Plan
from engine.records import RecordBatch
from engine.runtime.metrics import Metrics
from engine.runtime.shell import Limits

log = logging.getLogger(__name__)

SINKS_WAIT_S = 60.0
MEANWHILE_S = 0.1


@runtime_checkable
class Prepares(Protocol):
    """A codec that gets something before it decodes."""

    async def prepare(self, batch: RecordBatch) -> None:
        """Get what `decode_batch` will need; called before each batch, and fast where there is nothing to get.

        Raises UnavailableError if it cannot be had now. A record that can never be decoded is left to `decode_batch`.
        """
        ...


@runtime_checkable
class PreparesSink(Protocol):
    """A codec that needs something from outside before it can encode: the id of its schema."""

    async def prepare_sink(self, topic: str) -> None:
        """Get what `encode_column` will need for a topic; called once, when the worker starts.

        Raises ConfigError if it never will (an incompatible schema), UnavailableError if it cannot be had now.
        """
        ...


@runtime_checkable
class PreparesSource(Protocol):
    """A codec that can see at the start whether it will be able to decode."""

    async def prepare_source(self, topic: str) -> None:
        """Check what stands in a topic; called once, when the worker starts.

        Raises ConfigError if its records can never be decoded, UnavailableError if that cannot be seen now.
        """
        ...


async def prepare_codecs(plan: Plan, limits: Limits, *, sinks_wait_s: float = SINKS_WAIT_S) -> None:
    """Prepare the codecs of all topics that a plan reads or writes.

    Args:
        sinks_wait_s: How long in all sinks may be tried again while something outside does not answer.

    Raises:
        ConfigError: A sink cannot be written, or a source never decoded.
        UnavailableError: A sink could not be prepared for so long.
    """
    for topic, spec in plan.fed_topics.items():
        if isinstance(spec.codec, PreparesSource):
            try:
                await spec.codec.prepare_source(topic)
            except UnavailableError as error:
                log.warning("source %s is not checked at the start: %s", topic, error)  # its partitions will wait
    deadline = asyncio.get_running_loop().time() + sinks_wait_s
    for graph in plan.graphs.values():
        for node in graph.nodes:
            sinks: list[SinkSpec | SideSpec] = [*node.sides] if node.sink is None else [node.sink, *node.sides]
            for sink in sinks:
                if isinstance(sink.codec, PreparesSink):
                    await _prepare_sink(sink.codec, sink.topic, limits, deadline)


async def _prepare_sink(codec: PreparesSink, topic: str, limits: Limits, deadline: float) -> None:
    """Prepare a sink; while that cannot be done, try again with a back-off until the deadline (by the loop's clock)."""
    now, delay_s = asyncio.get_running_loop().time, limits.retry_first_s
    while True:
        try:
            await codec.prepare_sink(topic)
            return
        except UnavailableError as error:
            if now() + delay_s > deadline:
                raise UnavailableError(f"sink {topic!r} cannot be written, so the worker does not start: {error}") from error
            log.warning("sink %s is not ready: %s; tried again in %.1f s", topic, error, delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, limits.retry_max_s)


class Preparing:
    """Prepares batches of the sources that need it, while their task goes on with all that is no input.

    Args:
        codecs: Of the topics whose batches are prepared.
    """

    def __init__(self, codecs: Mapping[str, Prepares], limits: Limits, metrics: Metrics) -> None:
        self._codecs = codecs
        self._limits = limits
        self._metrics = metrics

    @classmethod
    def of(cls, plan: Plan, limits: Limits, metrics: Metrics) -> "Preparing | None":
        """Return what prepares the batches of an app, None if no source needs it."""
        codecs = {topic: spec.codec for topic, spec in plan.sources.items() if isinstance(spec.codec, Prepares)}
        return cls(codecs, limits, metrics) if codecs else None

    async def ready(self, batch: RecordBatch, meanwhile: Callable[[], Awaitable[bool]]) -> bool:
        """Return True when a batch can be decoded, False as soon as nobody wants it any more.

        Args:
            meanwhile: Called every tenth of a second that it takes: does what is due (a commit of what came before), and returns
                whether the batch is wanted still.
        """
        codec = self._codecs.get(batch.topic)
        if codec is None:
            return True
        work = asyncio.ensure_future(prepare_batch(codec, batch, self._limits, lambda: self._failed(batch.partition)))
        try:
            while True:
                await asyncio.wait([work], timeout=MEANWHILE_S)
                if work.done():
                    work.result()
                    return True
                if not await meanwhile():
                    return False
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])

    def _failed(self, number: int) -> None:
        self._metrics.task(number).preparation_failures += 1


async def prepare_batch(codec: Prepares, batch: RecordBatch, limits: Limits, failed: Callable[[], None] = lambda: None) -> None:
    """Prepare a batch; as long as that cannot be done, say so by `failed` and try again with a back-off."""
    delay_s = limits.retry_first_s
    while True:
        try:
            await codec.prepare(batch)
            return
        except UnavailableError as error:
            failed()
            log.warning(
                "%s partition %d waits before offset %d: %s; tried again in %.1f s",
                batch.topic,
                batch.partition,
                batch.position,
                error,
                delay_s,
            )
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, limits.retry_max_s)
