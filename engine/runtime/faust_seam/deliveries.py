"""A pipeline as a genuine Faust agent: it takes whole record batches from a channel of its own.

    runner ── Delivery(batch, task) ──► channel ──► async for delivery in stream: task.process(...) ──► done

The channel is not a topic: Faust's acks, offsets and rebalances have nothing to do with it. Its queue is a plain one, not one
under Faust's flow control, which drops what is queued whenever the group of the plain agents rebalances.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faust.channels import Channel
from faust.types import AppT
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from engine.records import RecordBatch
from engine.runtime.clock import Clock
from engine.runtime.shell import Deliver
from engine.task import Task


@dataclass(eq=False, slots=True)
class Delivery:
    """A batch on its way through an agent; `done` takes the outcome, so the agent itself never fails."""

    batch: RecordBatch
    task: Task
    clock: Clock
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def process(self, pipeline: str) -> None:
        """Let a pipeline work on the batch."""
        if self.done.done():
            return  # nobody waits any more: the task was dropped
        try:
            self.task.process(pipeline, self.batch, self.clock.now_ms())
        except Exception as error:  # noqa: BLE001  # handed to the runner, which ends the task with it
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


class BatchChannel(Channel[Delivery]):
    """An in-memory channel whose queue rebalances leave alone."""

    @property
    def queue(self) -> "ThrowableQueue[Delivery]":
        """Return the queue: of one place, since the runner waits for each delivery."""
        if self._queue is None:
            self._queue = ThrowableQueue(maxsize=1, flow_control=FlowControlEvent(initially_suspended=False))
        return self._queue


def batch_channel(app: AppT) -> BatchChannel:
    """Return a channel for one pipeline."""
    return BatchChannel(app)


def agent_function(pipeline: str, *, module: str, description: str) -> Callable[[AsyncIterable[Delivery]], Awaitable[None]]:
    """Return the function of the agent that runs a pipeline; in logs it has the place of the function that declared it."""

    async def run(stream: AsyncIterable[Delivery]) -> None:
        async for delivery in stream:
            delivery.process(pipeline)

    run.__name__ = run.__qualname__ = pipeline
    run.__module__, run.__doc__ = module, description
    return run


def deliver_through(channels: Mapping[str, BatchChannel], clock: Clock) -> Deliver:
    """Return the runner's hook that takes a batch through the agents, one pipeline after the other."""

    async def deliver(pipelines: Sequence[str], batch: RecordBatch, task: Any) -> None:
        for pipeline in pipelines:
            channel = channels[pipeline]
            assert channel.subscriber_count == 1, f"the agent of pipeline {pipeline!r} does not run"
            delivery = Delivery(batch, task, clock)
            try:
                await channel.put(delivery)  # type: ignore[arg-type]  # Faust says events; a stream takes any value
                await delivery.done
            finally:
                delivery.done.cancel()

    return deliver
