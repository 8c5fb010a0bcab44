"""The runner: the shell of a worker. It polls, hands batches to tasks, and opens and closes them as the group decides.

    transport.poll ──► task 0's queue ──► TaskRunner 0  (process, commit)
                  └──► task 7's queue ──► TaskRunner 7

Rebalances are eager: on_revoked ends all tasks (the batch in hand, a last commit, all within a bound), on_assigned makes new
ones and returns at once, since heartbeats wait for it; fencing and restoring happen in the tasks' own coroutines.

A task that cannot go on because of user code (`on_error="fail"`) or a bug ends the worker: the other tasks commit first, then
`run` raises. Everything else (fenced, broker away, disk full) is retried inside the task.
"""

import asyncio
import logging
from collections.abc import Sequence

from engine.errors import ConfigError, StateError, UnavailableError
from engine.plan import Plan
from engine.records import RecordBatch, TopicPartition
from engine.runtime.alignment import Alignment
from engine.runtime.breakdown import describe
from engine.runtime.broker_wait import BrokerWait
from engine.runtime.checkpointing import Checkpoints
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.epochs import read_epoch
from engine.runtime.holder import Holder
from engine.runtime.lifecycle import Phase
from engine.runtime.metrics import Metrics
from engine.runtime.preparing import Preparing, prepare_codecs
from engine.runtime.quiet import Pulse
from engine.runtime.shell import Deliver, Limits, OpenStore, Shell
from engine.runtime.skew_reports import SkewReports
from engine.runtime.standby import Standby
from engine.runtime.task_runner import TaskRunner
from engine.runtime.transport.protocol import Transport
from engine.runtime.watchdog import Watchdog
from engine.task import Task

log = logging.getLogger(__name__)

POLL_S = 0.1


class Runner:
    """Runs the tasks of a plan that a consumer group gives to this worker.

    Args:
        open_store: Opens the store of a task number; called in a thread.
        deliver: How a batch reaches its pipelines; None processes it directly.
        clock: None for the machine's.
        create_sources: Create missing source topics too (tests, bounded runs); otherwise they must exist.
        checkpoints: Where checkpoints of the stores are kept; None for nowhere: stores are only flushed.
    """

    def __init__(
        self,
        plan: Plan,
        transport: Transport,
        *,
        open_store: OpenStore,
        deliver: Deliver | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        create_sources: bool = False,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.plan = plan
        self.transport = transport
        self.metrics = metrics or Metrics()
        self.tasks: dict[int, TaskRunner] = {}
        self.standbys: dict[int, Standby] = {}
        self._leaving: dict[int, Holder] = {}
        self._limits = limits or Limits()
        self.clock = clock
        self._create_sources = create_sources
        take, pulse = deliver or self._process, Pulse(clock.monotonic_s())
        self._shell = Shell(plan, transport, open_store, take, clock, self._limits, self.metrics, pulse)
        self._shell.preparing = Preparing.of(plan, self._limits, self._shell.metrics)
        self._shell.checkpoints = checkpoints
        if plan.max_skew_ms is not None:
            self._shell.alignment = Alignment(plan.max_skew_ms, plan)
        self._skew_reports: SkewReports | None = None
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()
        retries = {"retry_first_s": self._limits.retry_first_s, "retry_max_s": self._limits.retry_max_s}
        self._broker_wait = BrokerWait(self._limits.broker_wait_ms, self._stopping, **retries)
        self._purged: dict[TopicPartition, int] = {}
        self._purge: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        stall_ms = self._limits.stall_ms
        self._watchdog = None if stall_ms is None else Watchdog(self._shell, lambda: self.tasks, self._restart, stall_ms)

    async def run(self) -> None:
        """Run until `stop` is called.

        Raises:
            ConfigError: A topic is missing or does not fit.
            UnavailableError: The broker cannot be reached at the start for `broker_wait_ms`; later on that is retried for ever.
            Exception: What user code raised under `on_error="fail"`, or a bug; the other tasks have committed.
        """
        try:
            await self.start()
            while not self._stopping.is_set():
                await self.turn()
        finally:
            await self.shut_down()
        self.raise_failure()

    def stop(self) -> None:
        """Ask `run` to end: the tasks finish the batch in hand, commit and close within the grace period."""
        self._stopping.set()

    def wait_for_nobody(self) -> None:
        """From now on no partition waits for a slower one: all input is there, and the slower one may have no more."""
        self._shell.alignment = None
        if self._skew_reports is not None:
            self._skew_reports.stop()

    def not_ready(self) -> list[str]:
        """Return why the worker is not ready: tasks that do not run, or stand still. It is ready when there is nothing."""
        if self._broker_wait.reason:
            return [self._broker_wait.reason]
        if not self.metrics.rebalances:
            return ["the group has not assigned anything yet"]
        reasons = [] if self._watchdog is None else self._watchdog.reasons()
        for number, task in sorted(self.tasks.items()):
            metrics = self.metrics.task(number)
            if task.phase is not Phase.RUNNING:
                left = f", {metrics.restore_lag} changelog offsets left, about {metrics.restore_seconds_left:.0f} s"
                reasons.append(f"task {number} is {task.phase.value}{left if metrics.restore_lag else ''}")
        return reasons

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called, or a task ended the worker."""
        return self._stopping.is_set()

    async def wait_stopped(self) -> None:
        """Wait until everything is closed."""
        await self._stopped.wait()

    # -- the parts of run

    async def start(self) -> None:
        """Connect, find out the epoch, check the topics, join the group; return early when nobody wants that any more."""
        through = self._broker_wait.through
        if not (await through(self.transport.start) and await through(self._look_at_topics)):
            return
        if not await self._broker_wait.unless_stopped(prepare_codecs(self.plan, self._limits)):
            return
        if not await through(lambda: self.transport.subscribe(self.plan.input_topics, self)):
            return
        if self._shell.alignment is not None:
            self._skew_reports = SkewReports(self._shell, self._shell.alignment)
            self._skew_reports.start()
        if self._watchdog is not None:
            self._watching = asyncio.create_task(self._watchdog.run(), name="watchdog")

    async def _look_at_topics(self) -> None:
        """Find out the epoch, make the topics that are missing and ours, check all of them."""
        transport = self.transport
        await transport.ensure_topics([spec for spec in self.plan.topic_specs() if spec.name == self.plan.epochs_topic])
        epoch = await read_epoch(transport, self.plan)
        plan = self.plan = self._shell.plan = self.plan if epoch is None else self.plan.in_epoch(epoch.epoch)
        specs = plan.topic_specs(create_sources=self._create_sources)
        await transport.ensure_topics(specs)
        await self._shell.look_at_topics([spec.name for spec in specs])

    async def turn(self) -> None:
        """Poll once and hand over what came; raises nothing that time can mend."""
        self._shell.pulse.beat(self.clock.monotonic_s())
        try:
            async with asyncio.timeout(None if self._limits.stall_ms is None else self._limits.stall_ms / 1_000):
                batches = await self.transport.poll(POLL_S)
        except (UnavailableError, TimeoutError) as error:
            log.warning("poll failed: %s; tried again in %.1f s", describe(error), self._limits.retry_first_s)
            await asyncio.sleep(self._limits.retry_first_s)
            return
        except StateError as error:
            await self._look_for_gaps(error)
            return
        for batch in batches:
            task = self.tasks.get(batch.partition)
            if task is not None:
                task.offer(batch)
        self._purge_if_due()
        if any(task.outcome() is not None for task in self.tasks.values()) or self._bystander_failure() is not None:
            self._stopping.set()

    def _bystander_failure(self) -> BaseException | None:
        """Return what is no task's fault and ends the worker all the same."""
        failure: BaseException | None = None if self._watchdog is None else self._watchdog.failure
        if failure is None and self._watching is not None and self._watching.done() and not self._watching.cancelled():
            failure = self._watching.exception()
        return failure or (None if self._skew_reports is None else self._skew_reports.failure())

    async def _look_for_gaps(self, error: StateError) -> None:
        """A position lies outside its log: find the tasks that it may be, and let them find out as they open again."""
        log.warning("poll failed: %s", error)
        inputs = [partition for task in self.tasks.values() if task.phase is Phase.RUNNING for partition in task.inputs]
        try:
            begins, ends = await self.transport.begin_offsets(inputs), await self.transport.end_offsets(inputs)
        except UnavailableError:
            return
        for task in self.tasks.values():
            if any(not begins[p] <= position <= ends[p] for p, position in task.positions.items() if p in begins):
                task.doubt(str(error))

    async def shut_down(self) -> None:
        """Close all tasks within the grace period, then leave the group."""
        if self._purge is not None:
            self._purge.cancel()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._skew_reports is not None:
            await self._skew_reports.close()
        await self._close_all(self._limits.grace_s)
        await self._keep_standbys(frozenset())
        await self.transport.stop()
        if self._shell.checkpoints is not None:
            await self._shell.checkpoints.close()
        self._stopped.set()

    def raise_failure(self) -> None:
        """Raise what ended a task for good, if anything did."""
        for number, task in sorted(self.tasks.items()):
            error = task.outcome()
            if error is not None:
                log.error("task %d ended the worker: %s", number, describe(error))
                raise error
        failure = self._bystander_failure()
        if failure is not None:
            raise failure

    async def _process(self, pipelines: Sequence[str], batch: RecordBatch, task: Task) -> None:
        for pipeline in pipelines:
            task.process(pipeline, batch, self.clock.now_ms())

    # -- the group: RebalanceListener

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """End all tasks: with what they have, within the bound."""
        if partitions:
            log.info("revoked: %s", _numbers(partitions))
        await self._close_all(self._limits.close_timeout_s)
        self.tasks = {number: task for number, task in self.tasks.items() if task.outcome() is not None}

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Begin to open a task for each partition number, once the copy of it that may be here is closed; keep other copies."""
        self.metrics.rebalances += 1
        owned = {partition.partition for partition in partitions}
        await self._keep_standbys(frozenset() if self._stopping.is_set() else self.transport.standby_numbers() - owned)
        log.info("assigned: %s", _numbers(partitions) or "nothing")
        if self._stopping.is_set():
            return
        for number in sorted({partition.partition for partition in partitions}):
            inputs = [TopicPartition(topic, number) for topic in self.plan.input_topics]
            missing = [topic for topic, _ in inputs if TopicPartition(topic, number) not in partitions]
            if missing:
                log.error("task %d is not run here: the group gave %s to another member", number, ", ".join(missing))
                continue
            self._begin(number, inputs)

    async def _restart(self, task: TaskRunner) -> None:
        """Close a task and open it again, if it is still this worker's."""
        await task.close(self._limits.close_timeout_s)
        if self.tasks.get(task.number) is task and task.outcome() is None and not self._stopping.is_set():
            self._left(task.number, task.holder)
            self._begin(task.number, task.inputs)

    def _left(self, number: int, holder: Holder) -> None:
        """Keep in mind who may still hold what belongs to a task; one that waits for another holds nothing."""
        before = self._leaving.get(number)
        if before is None or not before.is_unfinished:
            self._leaving[number] = holder

    def _begin(self, number: int, inputs: Sequence[TopicPartition]) -> None:
        task = self.tasks[number] = TaskRunner(self._shell, number, inputs)
        task.start(self._leaving.get(number))

    async def _keep_standbys(self, numbers: frozenset[int]) -> None:
        """Keep copies of these tasks and no others; what goes on is not touched."""
        gone = [self.standbys.pop(number) for number in sorted(self.standbys.keys() - numbers)]
        await asyncio.gather(*(standby.close() for standby in gone))
        for standby in gone:
            self._left(standby.number, standby.holder)
        for number in sorted(numbers - self.standbys.keys()):
            standby = self.standbys[number] = Standby(self._shell, number)
            standby.start(self._leaving.get(number))

    async def _close_all(self, timeout_s: float) -> None:
        await asyncio.gather(*(task.close(timeout_s) for task in self.tasks.values()))
        for number, task in self.tasks.items():
            self._left(number, task.holder)

    # -- purging

    def _purge_if_due(self) -> None:
        if self._purge is None or self._purge.done():
            self._purge = asyncio.create_task(self._purge_later(), name="purge")

    async def _purge_later(self) -> None:
        """Delete what all readers of the repartition topics have behind them."""
        await asyncio.sleep(self._limits.purge_interval_s)
        internal = set(self.plan.internal_topics)
        before = {
            partition: offset
            for task in self.tasks.values()
            if task.phase is Phase.RUNNING
            for partition, offset in task.committed.items()
            if partition.topic in internal and offset > self._purged.get(partition, 0)
        }
        if not before:
            return
        try:
            await self.transport.delete_records(before)
            self._purged.update(before)
        except (UnavailableError, ConfigError) as error:
            log.warning("repartition topics could not be purged: %s; tried again later", error)


def _numbers(partitions: frozenset[TopicPartition]) -> str:
    """Return partitions for a log line: "topic: 0 3 7; other: 0 3 7"."""
    by_topic: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        by_topic.setdefault(topic, []).append(number)
    return "; ".join(f"{topic}: {' '.join(map(str, numbers))}" for topic, numbers in by_topic.items())
