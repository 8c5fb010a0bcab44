"""What all tasks of a worker share: the settings, and everything that reaches the outside world."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.plan import Plan
from engine.records import RecordBatch, TopicPartition
from engine.runtime.alignment import Alignment
from engine.runtime.checkpointing import Checkpoints
from engine.runtime.clock import Clock
from engine.runtime.metrics import Metrics
from engine.runtime.quiet import Pulse
from engine.runtime.transport.protocol import Transport
from engine.runtime.turns import Turns
from engine.task import Task
from engine.topics import TopicSpec
from state.store import Store

if TYPE_CHECKING:
    from engine.runtime.preparing import Preparing

OpenStore = Callable[[int], Store]
Deliver = Callable[[Sequence[str], RecordBatch, Task], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a worker. Every buffer has one, and every wait.

    Attributes:
        commit_interval_ms: A task commits when this much time has passed since its last commit and anything has changed; 0: commits follow
            one another (`engine.runtime.pacing`).
        checkpoint_interval_ms: How often a checkpoint of each store is taken, which also makes it survive a crash of the machine.
        commit_records_max: Input or output records after which a task commits early.
        commit_bytes_max: The same for the bytes of output values: a transaction has to get through within 10 s.
        queue_records_max: Fetched records that wait for a task; then its partitions are paused until half are gone.
        piece_ms: Aimed-at time of one uninterrupted stretch of processing.
        piece_records_max: Most records of such a stretch, however fast it goes.
        tick_ms: How often a task is told the wall clock.
        close_timeout_s: What a revocation waits for the batch in hand and its commit; then the task is dropped uncommitted.
        grace_s: The same for a shutdown.
        retry_first_s, retry_max_s: Back-off between attempts to open a task.
        stall_ms: A task that stands still for so long although there is input is opened again (`engine.runtime.watchdog`); None: never.
        cache_entries_max: Decoded entries of state that stay in memory, over all tasks of the worker.
        broker_wait_ms: How long a worker that starts waits for a broker (`engine.runtime.broker_wait`); None: as long as it takes.
        purge_interval_s: How often repartition topics are purged behind the committed offsets.
    """

    commit_interval_ms: int = 200
    checkpoint_interval_ms: int = 60_000
    commit_records_max: int = 100_000
    commit_bytes_max: int = 16 << 20
    queue_records_max: int = 50_000
    piece_ms: int = 20
    piece_records_max: int = 16_384
    tick_ms: int = 100
    close_timeout_s: float = 5.0
    grace_s: float = 10.0
    retry_first_s: float = 0.1
    retry_max_s: float = 5.0
    purge_interval_s: float = 30.0
    stall_ms: int | None = 60_000
    broker_wait_ms: int | None = 300_000
    cache_entries_max: int = 262_144


@dataclass(slots=True)
class Shell:
    """The surroundings of a worker's tasks.

    Attributes:
        open_store: Opens (or creates) the store of a task number; called in a thread, since it may take long.
        deliver: Takes a batch to the pipelines that read it; returns when all of them are done with it.
        alignment: Who waits for whom; None when nobody has to.
        preparing: Gets what codecs need before a batch is delivered; None where no codec needs anything.
        checkpoints: Where checkpoints are kept; None where stores are only flushed.
        output_partitions: Number of partitions of each output topic.
        record_bytes_max: Largest record that each of them takes; tasks look into it as they run.
        turns: Whose turn it is to commit where commits follow one another.
    """

    plan: Plan
    transport: Transport
    open_store: OpenStore
    deliver: Deliver
    clock: Clock
    limits: Limits
    metrics: Metrics
    pulse: Pulse
    alignment: Alignment | None = None
    preparing: "Preparing | None" = None
    checkpoints: Checkpoints | None = None
    output_partitions: dict[str, int] = field(default_factory=dict)
    record_bytes_max: dict[str, int] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)

    async def look_at_topics(self, topics: Sequence[str]) -> None:
        """Learn what the tasks must know of the topics that they write to."""
        self.output_partitions.update(await self.transport.partition_counts(topics))
        self.record_bytes_max.update(await self.transport.record_bytes_max(topics))

    async def ensure_outputs(self, outputs: Iterable[TopicPartition]) -> None:
        """Create topics that no declaration names (`ctx.side`) before the first record goes to them.

        Raises:
            ConfigError: One is there with another number of partitions.
        """
        new = {topic for topic, _ in outputs if topic not in self.output_partitions}
        if new:
            specs = [TopicSpec(topic, self.plan.partitions, retention_ms=-1) for topic in sorted(new)]
            await self.transport.ensure_topics(specs)
            await self.look_at_topics(sorted(new))
