"""What the tests of whole tasks share: one pipeline over orders, and batches of them."""

from collections.abc import Callable, Sequence
from typing import Any

from engine.records import RecordBatch
from engine.task import Task
from engine.testing.driver import START_MS
from engine.topology import Topology
from tests.engine.shop_records import shop


def header(record: Any, name: str) -> str:
    return str(dict(record.headers)[name], "utf-8")


def through(declare: Callable[[Any], Any], **options: Any) -> Topology:
    """Return a topology whose one pipeline writes what `declare` makes of the orders to "out"."""
    topology, orders = shop(**options)
    topology.pipeline(orders, name="work")(lambda stream: declare(stream).to("out"))
    return topology


def batch_of(values: Sequence[bytes | None], *, start: int = 0, keys: list[bytes | None] | None = None) -> RecordBatch:
    """Return a batch of the orders topic, partition 0."""
    count = len(values)
    offsets = list(range(start, start + count))
    return RecordBatch("orders", 0, offsets, [0] * count, keys or [None] * count, values, position=start, next_offset=start + count)


def feed(task: Task, batch: RecordBatch) -> None:
    for pipeline in task.plan.readers(batch.topic):
        task.process(pipeline, batch, START_MS)
    task.finish_batch(batch)
