"""What one seed makes: a broker, an app, workers and their disks, traffic; and how it all comes to rest again."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from engine.errors import UnavailableError
from engine.plan import Plan
from engine.records import TopicPartition
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.testing.clock import LoopClock, virtual_loop
from engine.topics import TopicSpec
from state.store import Position
from tests.simulation.app import PIPELINES, AppChoice, make_plan
from tests.simulation.commands import Commands
from tests.simulation.disk import Bucket, Disk
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Trace
from tests.simulation.network import Weather
from tests.simulation.oracle import Expected
from tests.simulation.process import Process
from tests.simulation.traffic import Traffic
from tests.simulation.verdict import Spans, expected_of, is_complete

HEALS_WITHIN_S = 120.0


class World:
    """Everything of one seed.

    Attributes:
        errors: What has been found wrong so far.
        folder: For files; whoever made the world cleans it up.
        own: Random numbers for what is not part of the app's traffic.
        processes: All that ever ran in this epoch, in the order in which they began.
        spans: What of the outputs does not count, once a savepoint has been restored.
        furthest_ms: The furthest that any wall clock was ever ahead.
        skew_ms: `max_skew` of all workers, where no source can become idle; None where each has its own, or none.
    """

    def __init__(self, seed: int) -> None:
        self.random = random = Random(f"{seed} world")
        self.clock = LoopClock(virtual_loop())
        self.trace = Trace(self.clock)
        chosen = random.sample(PIPELINES, random.choice([2, 3, 4]))
        pipelines = tuple(name for name in PIPELINES if name in chosen)
        self.choice = AppChoice(random.choice([1, 2, 2, 3]), pipelines, idle=random.random() < 0.3)
        self.own = Random(f"{seed} commands and savepoints")
        self.choice = replace(self.choice, tally=self.own.random() < 0.4)
        self.plan = make_plan(self.choice)
        self.broker = MemoryBroker(self.clock)
        for name in ("orders", "clicks", *(["notes"] if self.choice.tally else [])):
            self.broker.create_topic(TopicSpec(name, self.choice.partitions))
        for spec in self.plan.topic_specs():
            if spec.create:
                self.broker.ensure_topic(spec)
        self.weather = Weather(self.clock, Random(f"{seed} weather"))
        self.traffic = Traffic(self.broker, self.clock, self.choice, Random(f"{seed} traffic"))
        self.ledger = Ledger(self.broker, self.plan)
        self.commands = Commands(self.broker, self.clock, self.plan, self.own, self.trace.say)
        self.spans: Spans | None = None
        self.is_rescaled = False
        self.errors: list[str] = []
        self.processes: list[Process] = []
        self.disks: dict[str, Disk] = {}
        self.bucket = Bucket(Random(f"{seed} bucket"))
        self.folder = tempfile.TemporaryDirectory(prefix="simulation-")
        self.furthest_ms = 0
        self.skew_ms = Random(f"{seed} skew").choice([None, 1_000, 1_000, 5_000])
        self._seeds = Random(f"{seed} processes")
        self.trace.say(f"seed {seed}: {self.choice}")

    def start(self, name: str) -> Process:
        """Start a process of a worker; none of that name may run."""
        disk = self.disks.setdefault(name, Disk(Random(self._seeds.random())))
        process = Process(
            name, self.plan, self.broker, self.clock, disk, self.weather, Random(self._seeds.random()),
            folder=Path(self.folder.name) / f"{len(self.processes)}", bucket=self.bucket, skew_ms=self.skew_ms, on_store=self._on_store,
            say=self.trace.say,
        )  # fmt: skip
        self.processes.append(process)
        self.trace.say(f"{name} starts")
        process.start()
        return process

    def begin_again(self, plan: Plan, cuts: Mapping[TopicPartition, int]) -> None:
        """Go on in another epoch, on other disks, perhaps with more partitions; of the outputs, what lies between the cuts and now does
        not count."""
        ends = self.output_ends()
        self.is_rescaled = plan.partitions != self.plan.partitions
        self.choice = self.traffic.choice = replace(self.choice, partitions=plan.partitions)
        self.broker.add_partitions(dict.fromkeys({"orders", "clicks"} - set(plan.sources), plan.partitions))  # sent to all the same
        self.commands.go_on_with(plan)
        self.spans = {partition: (cut, ends[partition]) for partition, cut in cuts.items()}
        self.plan, self.ledger = plan, Ledger(self.broker, plan)
        self.processes, self.disks = [], {}

    def output_ends(self) -> dict[TopicPartition, int]:
        """Return where the outputs end."""
        topics = [*self.plan.outputs, self.plan.dead_letter_topic]
        counts = self.broker.partition_counts(topics)
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(counts.get(topic, 0))]
        return {partition: self.broker.log(partition).last_stable_offset for partition in partitions}

    def running(self) -> list[Process]:
        """Return the processes that run."""
        return [process for process in self.processes if process.alive and process.running is not None and not process.running.done()]

    def _on_store(self, operation: str, number: int, position: Position) -> None:
        error = self.ledger.check_position(number, position) if operation == "apply" else None
        if error is not None:
            self.errors.append(error)

    # -- coming to rest

    def _calm_down(self) -> None:
        self.weather.calm = True
        now_s = self.clock.monotonic_s()
        for process in self.processes:
            process.bomb, process.full_disk = None, False
            process.line.cut_ends_s = process.line.mute_ends_s = 0.0
            process.line.thaws_s = min(process.line.thaws_s, now_s)

    async def heal(self, what: str) -> None:
        """Let no more faults happen, and wait until everything is done."""
        self.trace.say(f"no more faults, until there is {what}")
        self._calm_down()
        if self.random.random() < 0.3:
            self._start_healer()
        for process in self.processes:
            process.clock.offset_ms = self.furthest_ms
        expected = self.expected()
        deadline_s = self.clock.monotonic_s() + HEALS_WITHIN_S
        while not (is_complete(self.broker, expected, self.spans) and self._is_read()):
            self.find_failures()
            if self.errors:
                return
            if self.clock.monotonic_s() > deadline_s:
                self.errors.append(f"after {HEALS_WITHIN_S} s without a fault there is not {what}")
                return
            if not self.running():  # the last one was about to stop, or has not found the broker
                self._start_healer()
            await asyncio.sleep(0.5)

    def expected(self) -> Expected:
        """Return what must come out of what was sent so far."""
        return expected_of(self.broker, self.plan, is_rescaled=self.is_rescaled)

    async def until_read(self) -> None:
        """Let no more faults happen, and wait until everything that was sent has been read."""
        self._calm_down()
        deadline_s = self.clock.monotonic_s() + HEALS_WITHIN_S
        while not self._is_read():
            if self.clock.monotonic_s() > deadline_s:
                self.errors.append(f"after {HEALS_WITHIN_S} s without a fault not everything is read")
                return
            if not self.running():
                self._start_healer()
            await asyncio.sleep(0.5)

    def _start_healer(self) -> None:
        self.start(f"healer-{len(self.processes)}").clock.offset_ms = self.furthest_ms

    def _is_read(self) -> bool:
        """Return whether the sources and the commands have been read to their ends, and that is committed."""
        group = self.broker.group(self.plan.app_id).offsets
        topics = [*self.plan.sources, self.plan.control_topic]
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(self.choice.partitions)]
        ends = {partition: self.broker.log(partition).high_watermark for partition in partitions}
        if any(
            group.get(partition, 0) != end for partition, end in ends.items() if self.spans is None or partition.topic in self.plan.sources
        ):
            return False
        if self.spans is None:
            return True
        self.ledger.follow()  # what the group was told may be from before the savepoint was restored
        known = [self.ledger.offsets(number) for number in range(self.choice.partitions)]
        return all(not end or known[partition.partition].get(partition.topic) == end for partition, end in ends.items())

    def find_failures(self) -> None:
        """Note what has ended or stopped against its will."""
        for process in self.processes:
            error = process.failure()
            if error is not None and not isinstance(error, UnavailableError):  # that is how a worker without a broker ends at its start
                self.errors.append(f"{process.name} ended with {type(error).__name__}: {error}")
        for process in self.running():
            for number, task in process.runner.tasks.items():
                if task.failure is not None:
                    self.errors.append(f"{process.name}: task {number} stopped: {task.failure}")

    async def stop_all(self) -> None:
        """Stop what runs in order, and wait for what is dead."""
        for process in self.running():
            process.runner.stop()
        for process in self.processes:
            left = await process.until_gone()
            if left:
                self.errors.append(f"{process.name} has ended, but not its tasks {left}")
        self.find_failures()
