"""Inputs of a pipeline: from the columns of a topic to blocks, with the watermark of that input.

`SourceState` is shared by all pipelines of a task that read the topic: a batch is decoded once, and there is one watermark.
`RepartitionInput` belongs to one pipeline: it reads what the upstream tasks wrote, and the minimum of what they say is its time.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from engine import untyped
from engine.block import Block, advance
from engine.graph import Node, SourceSpec
from engine.keys import KeyCodec, key_codec
from engine.operators.base import Emit
from engine.operators.repartition import BARRIER_HEADERS, CLAMPED_HEADER, EVERYWHERE, EVERYWHERE_HEADER, Barrier, Control
from engine.records import RecordBatch
from engine.replays import replays_in
from engine.source_rows import ROWS, RowReader, Rows
from engine.watermarks import SourceClock, SourceTime, Valve, ValveState, merge_times, merge_upstreams
from state.overlay import TaskState
from state.values import msgpack_codec

C = TypeVar("C")

if TYPE_CHECKING:
    from engine.plan import Plan
    from engine.task import Task


class Input:
    """One input of a pipeline; `emit` leads to its operators."""

    emit: Emit

    @property
    def watermark(self) -> int:
        """Watermark in force."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """Whether nothing is to be expected for the moment, so that others need not wait for this input."""
        raise NotImplementedError

    def held_by(self) -> list[int]:
        """Return the numbers of the upstream tasks that hold the others back."""
        return []

    def block(self, batch: RecordBatch, now_ms: int) -> Block:
        """Decode a batch; the watermark moves with it."""
        raise NotImplementedError


class SourceState:
    """A source topic in one task: decoding, dead letters for what cannot be decoded, watermark and idleness."""

    def __init__(self, task: "Task", spec: SourceSpec) -> None:
        self._task = task
        self._spec = spec
        self._clock = SourceClock(spec.watermark)
        self._cells = task.state.keyed(f"_task/source/{spec.topic}", key_codec(str), msgpack_codec(SourceTime), merge=merge_times)
        self._reader = RowReader(spec)
        self._clock.open(self._cells.get("") or SourceTime(), task.now_ms)

    @property
    def watermark(self) -> int:
        """Watermark in force."""
        return self._clock.time.watermark

    @property
    def idle(self) -> bool:
        """Whether the idle time has passed without a record."""
        return self._clock.time.idle

    def block(self, batch: RecordBatch, now_ms: int) -> Block:
        """Return the block of a batch; the first pipeline that asks does the work for all."""
        block: Block | None = batch.attached.get(self)
        if block is None:
            block = batch.attached[self] = self._make_block(batch, now_ms)
        return block

    def times(self, batch: RecordBatch) -> Sequence[int]:
        """Return the event time of each row of a batch that is still to come; a bad row has that of the row before it.

        The batch is read for it once: a piece that is cut out of it later takes along what was read.
        """
        rows: Rows | None = batch.attached.get(ROWS)
        if rows is None:
            rows = batch.attached[ROWS] = self._reader.read(batch)
        return rows.all_times(batch)

    def observe(self, now_ms: int, quiet: bool) -> Block | None:
        """Take note of the wall clock; return a block if the watermark or the idleness has changed by it."""
        return self._moved(lambda: self._clock.observe(now_ms, quiet))

    def end(self) -> Block | None:
        """Move the watermark to the end of time; return the block that says so, None if it was there."""
        return self._moved(self._clock.end)

    def _moved(self, move: Callable[[], None]) -> Block | None:
        old = self._clock.time
        move()
        new = self._clock.time
        if new == old:
            return None
        self._cells.put("", new)
        return advance(old.watermark, new.watermark)

    def _make_block(self, batch: RecordBatch, now_ms: int) -> Block:
        start = self.watermark
        if not len(batch):
            return advance(start, start)
        rows: Rows = batch.attached.get(ROWS) or self._reader.read(batch)
        for row, error in rows.errors.items():
            self._refuse(batch, row, error)
        counters, topic = self._task.counters, self._spec.topic
        if rows.skipped:
            counters["", topic, "records_skipped"] += len(rows.skipped)
        limit_ms = None if self._task.plan.max_ahead_ms is None else now_ms + self._task.plan.max_ahead_ms
        taken = self._clock.take(rows.timestamps, rows.values, now_ms, limit_ms)
        if taken.ahead:
            counters["", topic, "records_ahead"] += taken.ahead
        self._cells.put("", self._clock.time)
        block = Block(rows.keys, rows.values, rows.timestamps, start, self.watermark, taken.before, batch, rows.numbers)
        return self._without(block, taken.errors) if taken.errors else block

    def _without(self, block: Block, errors: Mapping[int, Exception]) -> Block:
        """Return a block without the records at which the watermark class raised; they go to the dead letters."""
        assert block.batch is not None
        for index, error in errors.items():
            self._refuse(block.batch, block.row(index), error)
        return block.take([index for index in range(len(block)) if index not in errors])

    def _refuse(self, batch: RecordBatch, row: int, error: Exception) -> None:
        """Send a bad record to the dead letters, once for all pipelines that it is for."""
        plan, replay = self._task.plan, replays_in(batch).get(row)
        readers = [name for name in plan.readers(self._spec.topic) if replay is None or replay.is_for(plan.app_id, name)]
        if not readers:
            return  # the replay of another app; each pipeline counts it
        if plan.on_error == "fail":
            raise error
        self._task.dead_letter(batch, row, ",".join(readers), "source", error)


class SourceInput(Input):
    """A source topic as an input of one pipeline: without the records that are replayed for others."""

    def __init__(self, state: SourceState, task: "Task", pipeline: str) -> None:
        self._state = state
        self._task = task
        self._pipeline = pipeline

    @property
    def watermark(self) -> int:
        return self._state.watermark

    @property
    def idle(self) -> bool:
        return self._state.idle

    def block(self, batch: RecordBatch, now_ms: int) -> Block:
        block = self._state.block(batch, now_ms)
        replays = replays_in(batch)
        if not replays:
            return block
        app_id, pipeline = self._task.plan.app_id, self._pipeline
        others = {row for row, replay in replays.items() if not replay.is_for(app_id, pipeline)}
        if not others:
            return block
        self._task.counters[pipeline, batch.topic, "replays_passed_over"] += len(others)
        return block.take([index for index in range(len(block)) if block.row(index) not in others])


class RepartitionInput(Input):
    """The reading half of a repartition: records, and the watermark of all upstream tasks together.

    Attributes:
        barriers: For a savepoint that is being taken the upstream tasks that have nothing more to say before it.
    """

    def __init__(self, state: TaskState, node: Node, name: str, plan: "Plan") -> None:
        self._epoch = plan.epoch
        self._codec: KeyCodec = key_codec(node.key_type)
        self._decode_value = untyped.decoder(node.value_type)
        self._cells = state.keyed(
            name, key_codec(str), msgpack_codec(ValveState), merge=partial(merge_upstreams, upstreams=plan.partitions)
        )
        self._valve = Valve(plan.partitions, self._cells.get(""))
        self._upstreams = plan.partitions
        self.barriers: dict[str, set[int]] = {}

    def is_drained(self, savepoint: str) -> bool:
        """Return whether everything that belongs to a savepoint has been read."""
        return len(self.barriers.get(savepoint, ())) == self._upstreams

    @property
    def watermark(self) -> int:
        return self._valve.watermark

    @property
    def idle(self) -> bool:
        return self._valve.idle

    def held_by(self) -> list[int]:
        return self._valve.held_by()

    def block(self, batch: RecordBatch, now_ms: int) -> Block:
        start = self._valve.watermark
        if None not in batch.keys:
            rows: list[int] | range = range(len(batch))
            before = [start] * len(batch)
        else:
            rows, before = self._take_controls(batch)
        timestamps = [batch.timestamps[row] for row in rows]
        if timestamps and min(timestamps) <= 0:
            timestamps = [_true_time(batch, row) for row in rows]
        return Block(
            [EVERYWHERE if (key := batch.keys[row]) is None else self._codec.decode(key) for row in rows],
            [self._decode_value(batch.values[row]) for row in rows],  # and a value
            timestamps,
            start,
            self._valve.watermark,
            before,
            batch,
            rows,
        )

    def _take_controls(self, batch: RecordBatch) -> tuple[list[int], list[int]]:
        rows: list[int] = []
        before: list[int] = []
        for row, key in enumerate(batch.keys):
            if key is not None or EVERYWHERE_HEADER in batch.headers[row]:
                rows.append(row)
                before.append(self._valve.watermark)
                continue
            if BARRIER_HEADERS[0] in batch.headers[row]:
                barrier = msgspec.json.decode(batch.values[row] or b"", type=Barrier)
                if barrier.epoch == self._epoch:
                    self.barriers.setdefault(barrier.savepoint, set()).add(barrier.upstream)
                continue
            control = msgspec.json.decode(batch.values[row] or b"", type=Control)
            if control.epoch == self._epoch:
                self._valve.input(control.upstream, control.watermark, idle=control.idle)
        self._cells.put("", self._valve.state())
        return rows, before


def _true_time(batch: RecordBatch, row: int) -> int:
    """Return an event time before 1970: Kafka has no timestamps below 0, so a header carries it."""
    for name, value in batch.headers[row]:
        if name == CLAMPED_HEADER:
            return int(value)
    return batch.timestamps[row]
