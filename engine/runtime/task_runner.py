"""One task of a worker: the coroutine that opens it, feeds it, commits it and closes it (phases: `engine.runtime.lifecycle`).

The poll loop only puts batches into the task's queue. Everything that changes the task happens in the coroutine here, one thing
after another, so a commit stops this task and no other, and needs no lock:

    piece ─ piece ─ piece ─ commit ─ piece ─ …        a piece is a cut of a batch that fits into some 20 ms
                      └ the transaction is on its way: other tasks go on

What the transport is told: input partitions are paused until the task is open, and while its queue is full.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from engine.block import MIN_TIME
from engine.errors import DiskError, FencedError, StateError, UnavailableError
from engine.records import RecordBatch, TopicPartition
from engine.runtime.alignment import align, announce
from engine.runtime.breakdown import RefusedOutputError, TaskDroppedError, closed_how, describe, stack_of
from engine.runtime.broadcast_feed import BroadcastFeed
from engine.runtime.checkpointing import TaskCheckpoints
from engine.runtime.collector import collect_young
from engine.runtime.committing import Transactions
from engine.runtime.cutting import PieceSize, cut_piece
from engine.runtime.holder import Holder
from engine.runtime.intake import EndOfInput, Intake
from engine.runtime.lifecycle import Lifecycle, Phase
from engine.runtime.merging import Merging
from engine.runtime.opening import Opened, open_task
from engine.runtime.opening_errors import STOPPED, EndedError
from engine.runtime.pacing import CommitPace
from engine.runtime.questions import Questions
from engine.runtime.quiet import Steadiness, observe
from engine.runtime.savepointing import TaskSavepoints
from engine.runtime.shell import Shell
from engine.runtime.threads import in_thread

log = logging.getLogger(__name__)


class TaskRunner:
    """Runs one task from assignment to revocation."""

    def __init__(self, shell: Shell, number: int, inputs: Sequence[TopicPartition]) -> None:
        self.number = number
        self.inputs = tuple(inputs)
        self.positions: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.failure: str | None = None
        self.is_input_ended = False
        self.questions = Questions(shell.limits.commit_interval_ms)
        self._doubt: str | None = None
        self._shell = shell
        self._metrics = shell.metrics.task(number)
        self._life = Lifecycle()
        self._intake = Intake(shell.transport, self.inputs, shell.limits.queue_records_max, self._metrics)
        self._merging = Merging(shell.plan, self._intake, shell.transport)
        self._active_s: dict[TopicPartition, float] = {}
        self._busy = self._committing = False
        self._opened: Opened | None = None
        self._broadcasts: BroadcastFeed | None = None
        self._savepoints: TaskSavepoints | None = None
        self._transactions: Transactions | None = None
        self.holder = Holder(f"task {number}")
        self._piece = PieceSize(shell.limits.piece_ms / 1_000, shell.limits.piece_records_max)
        self._pace = CommitPace(shell.limits, number, shell.turns, self._intake.wake)
        self._counters_before: Counter[tuple[str, str, str]] = Counter()
        self._attempts = 0
        self._tick_due_s = 0.0
        self._checkpoints: TaskCheckpoints | None = None

    # -- what the runner calls

    @property
    def phase(self) -> Phase:
        """Where the task stands."""
        return self._life.phase

    def start(self, before: Holder | None = None) -> None:
        """Begin to open the task, once the one who held it before on this worker has ended."""
        self._metrics.held = True
        announce(self._shell.alignment, self.inputs)
        self.holder.start(self._run(before))

    def offer(self, batch: RecordBatch) -> None:
        """Take a batch from the poll loop."""
        self._intake.offer(batch)

    def end_input(self, topics: Sequence[str]) -> None:
        """Say that these topics will bring no more records than are queued already (bounded runs)."""
        self.is_input_ended = True
        self._intake.end(topics)

    def doubt(self, reason: str) -> None:
        """Drop the task and open it again, because its position may lie outside the log; opening it finds out."""
        self._doubt = reason
        self._intake.wake()

    def in_hand(self) -> str | None:
        """Return what the task has to do before it may stand still, None for nothing."""
        if self._committing:
            return "its transaction does not end"
        if self._busy or self._intake:
            return "a batch is in hand"
        return "changes are not committed" if self._opened is not None and self._opened.task.dirty else None

    def free_inputs(self) -> list[TopicPartition]:
        """Return the inputs that nobody holds back."""
        return [partition for partition in self.inputs if not self._intake.is_held(partition)]

    def where(self) -> str:
        """Return the stack of the task's coroutine."""
        return stack_of(self.holder.running)

    def is_drained(self) -> bool:
        """Return whether everything taken has been processed and committed."""
        return self.phase is Phase.RUNNING and self._opened is not None and not self._intake.held and self.in_hand() is None

    async def close(self, timeout_s: float) -> None:
        """Take no more input, let the batch in hand end, commit, let go; after the timeout, or if it is not open, uncommitted."""
        running = self.holder.running
        if running is None or running.done():
            return
        if self.phase is Phase.RUNNING:
            self._life.to(Phase.CLOSING)
            self._intake.wake()
            done, _ = await asyncio.wait([running], timeout=timeout_s)
            if not done:
                log.warning("task %d: not done within %.1f s; what is uncommitted is done again by the next owner", self.number, timeout_s)
        await self.holder.end(timeout_s)

    def outcome(self) -> BaseException | None:
        """Return the error that ended the task, None while it runs or when it was closed."""
        running = self.holder.running
        return None if running is None or not running.done() or running.cancelled() else running.exception()

    # -- the life

    async def _run(self, before: Holder | None) -> None:
        try:
            await self.holder.follow(before)
            while True:
                try:
                    await self._open()
                except STOPPED as error:
                    await self._fail(error)
                except (FencedError, UnavailableError, StateError, OSError) as error:
                    self._metrics.open_failures += 1
                    await self._recover(error)
                    continue
                try:
                    await self._serve()
                    return
                except (RefusedOutputError, EndedError, TaskDroppedError, StateError) as error:
                    if isinstance(error, StateError) and not isinstance(error, DiskError):
                        await self._empty_store()
                    if self.phase is Phase.CLOSING:  # perhaps only since the store is being emptied
                        log.warning("task %d: %s: %s", self.number, closed_how(error), describe(error))
                        return
                    if isinstance(error, RefusedOutputError | EndedError):
                        self._shell.transport.pause(self.inputs)
                        await self._fail(error)
                    await self._recover(error)
        finally:
            self._life.to(Phase.CLOSED)
            self._metrics.held = False
            await self._release()

    async def _open(self) -> None:
        opened = await open_task(self._shell, self.number, self.inputs)
        now_s = self._shell.clock.monotonic_s()
        self._opened = opened
        self._broadcasts = BroadcastFeed(self._shell, opened.task, on_gap=self.doubt, wake=self._intake.wake)
        await self._broadcasts.open()
        self._transactions = Transactions(self._shell, self.number, opened)
        self._savepoints = TaskSavepoints(self._shell, opened.task, opened.store, self._intake, self._commit)
        self.positions, self.committed = dict(opened.positions), dict(opened.positions)
        self._pace.start(now_s)
        self._checkpoints = TaskCheckpoints(
            self._shell.checkpoints, self.number, self._shell.limits.checkpoint_interval_ms, self._shell.clock, self._metrics
        )
        self._tick_due_s = now_s
        self._steadiness = Steadiness(now_s, self._shell.clock.now_ms())
        self._counters_before = Counter(self._metrics.counters)
        self._active_s.clear()
        self._doubt = None
        self.is_input_ended = False
        self.holder.check()
        self._metrics.opens += 1
        self._show_watermarks()
        self._metrics.running = 1
        self.questions.open(opened.task)
        self._life.to(Phase.RUNNING)

    async def _recover(self, error: Exception) -> None:
        """Let go of everything, wait until the ownership is confirmed after the error, and a back-off that doubles."""
        failed_s = self._shell.clock.monotonic_s()
        was_running = self.phase is Phase.RUNNING
        self._life.to(Phase.BROKEN)
        limits = self._shell.limits
        delay_s = min(limits.retry_first_s * 2**self._attempts, limits.retry_max_s)
        self._attempts = min(self._attempts + 1, 16)
        what = "dropped" if was_running else "could not be opened"
        log.warning("task %d: %s: %s; opened again in %.1f s at the earliest", self.number, what, describe(error), delay_s)
        if was_running:
            self._shell.transport.pause(self.inputs)
        await self._release()
        await asyncio.sleep(delay_s)
        while self._shell.transport.membership_confirmed_s() <= failed_s:  # heartbeats notify nobody
            self.holder.check()
            await asyncio.sleep(limits.retry_first_s)
        self.holder.check()
        announce(self._shell.alignment, self.inputs if was_running else ())  # what fails again and again is not waited for
        self._life.to(Phase.OPENING)

    async def _empty_store(self) -> None:
        """What cannot be read is worth nothing: the store is rebuilt from the changelog."""
        assert self._opened is not None
        try:
            await in_thread(self._opened.store.clear)
        except StateError as error:
            log.warning("task %d: the store could not be emptied: %s", self.number, error)

    async def _fail(self, error: Exception) -> NoReturn:
        """Hold nothing and wait for a person, saying so once a minute, until the partition is revoked."""
        self._life.to(Phase.FAILED)
        self.failure = str(error)
        await self._release()
        while True:
            self.holder.check()
            log.error("task %d: stopped: %s", self.number, error)
            await asyncio.sleep(60)

    async def _release(self) -> None:
        """Let go of producer and store; uncommitted changes are lost, on purpose."""
        opened, self._opened = self._opened, None
        self.questions.close()
        self._pace.stop(self._shell.clock.monotonic_s())
        self._intake.shut()
        if self._shell.alignment is not None:
            self._shell.alignment.leave(self.inputs)
        self._metrics.running = self._metrics.held_partitions = 0
        self._busy = self._committing = False
        if self._savepoints is not None:
            await self._savepoints.close()
        if self._checkpoints is not None:
            self._checkpoints.stop()
        if self._broadcasts is not None:
            await self._broadcasts.close()
        if opened is not None:
            await opened.close()

    # -- running

    async def _serve(self) -> None:
        assert self._opened is not None and self._broadcasts is not None and self._savepoints is not None
        await self._broadcasts.catch_up(lambda: self.phase is Phase.RUNNING, self._commit)
        self._intake.open(self._opened.positions)
        self._savepoints.hold()
        while self.phase is Phase.RUNNING:
            if self._doubt is not None:
                raise TaskDroppedError(self._doubt)
            now_s = self._shell.clock.monotonic_s()
            if (item := self._merging.next(self._opened.task, now_s)) is not None:
                await self._take(item)
            else:
                await self._intake.wait(min(self._tick_due_s - now_s, self._pace.wait_s(self._opened.task, now_s)))
            await self._turn(more=item is not None and bool(self._intake))
        await self._commit()

    async def _turn(self, *, more: bool) -> None:
        """Do what is due: tell the clock, commit, take a checkpoint; `more`: input is at hand that is not processed."""
        clock = self._shell.clock
        now_s = clock.monotonic_s()
        assert self._opened is not None and self._broadcasts is not None and self._savepoints is not None
        await self._savepoints.turn()
        if not self._savepoints.is_stopped:
            self._broadcasts.take()
            align(self._shell.alignment, self._opened.task, self._intake)
        self._metrics.held_partitions = self._intake.held
        if now_s >= self._tick_due_s:
            self._tick(now_s)
        if self._pace.is_due(self._opened.task, now_s, more=more):
            await self._commit()
            collect_young()
            self._pace.restart(now_s, clock.monotonic_s())
        if self._checkpoints is not None:
            await self._checkpoints.take_if_due(self._opened.store)

    async def _take(self, item: RecordBatch | EndOfInput) -> None:
        assert self._opened is not None
        task = self._opened.task
        self._busy = True
        if isinstance(item, EndOfInput):
            task.end_of_input(item.topic)
        else:
            await self._take_batch(item)
        self._busy = False

    async def _take_batch(self, batch: RecordBatch) -> None:
        """Process a batch in pieces, with the loop let go after each; stop between two pieces when closing."""
        assert self._opened is not None
        shell, task = self._shell, self._opened.task
        partition, pipelines = TopicPartition(batch.topic, batch.partition), shell.plan.readers(batch.topic)
        start, alignment = 0, shell.alignment
        is_aligned = alignment is not None and partition.topic in task.sources
        while self.phase is Phase.RUNNING:
            size, before = self._piece.records, 0
            if alignment is not None and is_aligned:
                size, before = min(size, alignment.records(partition)), task.sources[partition.topic].watermark
            piece = cut_piece(batch, start, size)
            started_s, working_s = shell.clock.monotonic_s(), shell.clock.working_s()
            if len(piece):
                if shell.preparing is not None and not await shell.preparing.ready(piece, lambda: self._goes_on(partition)):
                    break
                await shell.deliver(pipelines, piece, task)
            # To find all entries of a key may take long.
            is_long = piece.topic == shell.plan.control_topic
            await in_thread(task.finish_batch, piece) if is_long else task.finish_batch(piece)
            self._piece.took(len(piece), shell.clock.working_s() - working_s, shell.clock.monotonic_s() - started_s)
            self.positions[partition] = piece.next_offset
            if len(piece):
                self._active_s[partition] = started_s
            self._intake.done(partition, len(piece))
            self._metrics.records += len(piece)
            self._metrics.batches += 1
            self._pace.records += len(piece)
            await asyncio.sleep(0)
            start += len(piece)
            if alignment is not None and is_aligned:
                alignment.went(partition, len(piece), task.sources[partition.topic].watermark - before)
            if start >= len(batch):
                return
            await self._turn(more=True)
            if self._intake.is_held(partition):
                break
        if self._intake.is_held(partition):
            self._intake.set_aside(cut_piece(batch, start, len(batch)))

    async def _goes_on(self, partition: TopicPartition) -> bool:
        await self._turn(more=False)
        return self.phase is Phase.RUNNING and self._doubt is None and not self._intake.is_held(partition)

    def _tick(self, now_s: float) -> None:
        """Tell the task the wall clock, and which of its inputs are quiet; while a savepoint is taken time stands still for it.

        A commit of its own that takes long is no gap: answers go on coming meanwhile, and say whether there is anything to read.
        """
        assert self._opened is not None and self._savepoints is not None
        self._tick_due_s = now_s + self._shell.limits.tick_ms / 1_000
        shell = self._shell
        shell.pulse.beat(now_s)
        if self._savepoints.is_stopped:
            self._steadiness.interrupt()
            return
        now_ms = shell.clock.now_ms()
        restarted_s = max(shell.pulse.restarted_s, self._steadiness.restarted_s(now_s, now_ms))
        quiet = observe(shell.transport, shell.plan.sources, self.positions, self._active_s, restarted_s, now_s, self._metrics)
        self._opened.task.advance_clock(now_ms, quiet)

    # -- committing

    async def _commit(self) -> None:
        assert self._opened is not None and self._transactions is not None
        opened, shell, metrics = self._opened, self._shell, self._metrics
        started_s = shell.clock.monotonic_s()
        self._tick(started_s)
        now_ms = shell.clock.now_ms()
        self._committing = True
        commit = opened.task.prepare_commit(now_ms)
        is_last = self.phase is not Phase.RUNNING
        if commit is None:
            await self._transactions.report(is_last=is_last)
        else:
            position = await self._transactions.commit(commit, now_ms, is_last=is_last)
            try:
                opened.task.committed(position)
            except StateError as error:  # the transaction is through, so the restore brings the same changes
                raise TaskDroppedError(f"the store did not take a commit: {error}") from error
            self.committed.update(commit.offsets)
            self._attempts = 0
            if self._checkpoints is not None and commit.changes:
                self._checkpoints.changed()
            metrics.commits += 1
            metrics.commit_seconds += shell.clock.monotonic_s() - started_s
            metrics.output_records += sum(map(len, commit.outputs.values()))
            metrics.changelog_records += len(commit.changes)
            self._show_watermarks()
            metrics.counters = self._counters_before + opened.task.counters
        self._committing = False
        self.questions.answer()

    def _show_watermarks(self) -> None:
        """Put the committed watermarks into the metrics; an input without any time yet has none."""
        assert self._opened is not None
        watermarks = self._opened.task.watermarks()
        self._metrics.watermark_ms = {name: watermark for name, watermark in watermarks.items() if watermark > MIN_TIME}
