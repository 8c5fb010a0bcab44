"""Broadcast tables: topics of which every task reads every partition, so that each holds the whole table.

    rates ──► task 0, task 1, … all of it        orders-0 ──► task 0        orders-1 ──► task 1

The rows, and how far each partition has been read, are state of the task like any other: what a task looks up comes from its log.
A task is given records of other topics only after it has read the broadcast ones to their end. Such a table has no time: it holds
nobody's watermark back. A bad record goes to the dead letters once, from the task with its partition's number.
"""

from typing import TYPE_CHECKING, Any

from engine.block import MIN_TIME, Block
from engine.errors import RecordError
from engine.graph import SourceSpec
from engine.inputs import Input
from engine.keys import key_codec
from engine.records import RecordBatch, TopicPartition
from state.values import msgpack_codec

if TYPE_CHECKING:
    from engine.task import Task


class BroadcastInput(Input):
    """A broadcast topic as an input of one pipeline."""

    watermark = MIN_TIME
    idle = True

    def __init__(self, task: "Task", spec: SourceSpec) -> None:
        self._task = task
        self._spec = spec
        self._decode_key = key_codec(spec.key_type).decode

    def block(self, batch: RecordBatch, now_ms: int) -> Block:
        decoded = self._spec.codec.decode_batch(batch)
        keys: list[Any] = []
        values: list[Any] = []
        rows: list[int] = []
        for row, value in enumerate(decoded.values):
            if row in decoded.skipped:
                continue
            deletes = batch.values[row] is None
            error: Exception | None = None if deletes else decoded.errors.get(row)
            if error is None:
                try:
                    key = self._key(batch.keys[row], None if deletes else value)
                except Exception as raised:  # noqa: BLE001  # selectors are user code: the record is bad
                    error = raised
            if error is not None:
                self._refuse(batch, row, error)
                continue
            keys.append(key)
            values.append(value)
            rows.append(row)
        timestamps = [batch.timestamps[row] for row in rows]
        return Block(keys, values, timestamps, MIN_TIME, MIN_TIME, [MIN_TIME] * len(rows), batch, rows)

    def _key(self, raw_key: bytes | None, value: Any) -> Any:
        key = self._spec.key.get(value) if self._spec.key is not None and value is not None else None
        if key is None and raw_key is not None:
            key = self._decode_key(raw_key)
        if key is None:
            raise RecordError("the record has no key, and a row of a table needs one; give the table key=...")
        return key

    def _refuse(self, batch: RecordBatch, row: int, error: Exception) -> None:
        task = self._task
        if task.plan.on_error == "fail":
            raise error
        if batch.partition % task.plan.partitions == task.number:
            task.dead_letter(batch, row, ",".join(task.broadcast_readers(batch.topic)), "source", error)


class BroadcastPositions:
    """How far a task has read each partition of the broadcast topics; None for one that it has never seen."""

    def __init__(self, task: "Task") -> None:
        self._cells = task.state.keyed("_task/broadcasts", key_codec(str), msgpack_codec(int))
        self._partitions = task.plan.broadcast_inputs

    def all(self) -> dict[TopicPartition, int | None]:
        """Return the next offset of every partition."""
        return {partition: self._cells.get(_name(partition)) for partition in self._partitions}

    def move(self, batch: RecordBatch) -> None:
        """Take note that a batch has been read."""
        self._cells.put(_name(TopicPartition(batch.topic, batch.partition)), batch.next_offset)


def _name(partition: TopicPartition) -> str:
    return f"{partition.partition}/{partition.topic}"
