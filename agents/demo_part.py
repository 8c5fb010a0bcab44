"""One app of the demo: its plan and its worker, and what it has come to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from engine.plan import Plan
from engine.records import TopicPartition
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.stores import open_rocks_store
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.topology import Topology

SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Part:
    """An app that takes part in a demo."""

    plan: Plan
    broker: MemoryBroker
    runner: Runner

    def processed(self, topic: str) -> int:
        """Return how many records the tasks have taken from a source; what went through a repartition topic is not counted twice."""
        tasks, partitions = self.runner.tasks, [TopicPartition(topic, number) for number in range(self.plan.partitions)]
        return sum(tasks[one.partition].positions.get(one, 0) for one in partitions if one.partition in tasks)

    @property
    def watermark_ms(self) -> int | None:
        """The lowest watermark of all tasks, None before there is one."""
        return min((ms for task in self.runner.metrics.tasks.values() for ms in task.watermark_ms.values()), default=None)

    def topics_of(self, pipeline: str) -> list[str]:
        """Return the topics that a pipeline writes, its sinks first."""
        nodes = self.plan.graphs[pipeline].nodes
        sinks = [node.sink.topic for node in nodes if node.sink is not None]
        return [*sinks, *(side.topic for node in nodes for side in node.sides)]

    def newest(self, topic: str, count: int) -> list[Any]:
        """Return values from the ends of a topic's partitions, newest event time last."""
        found: list[tuple[int, bytes]] = []
        for number in range(self.plan.partitions):
            partition = TopicPartition(topic, number)
            end = self.broker.log(partition).last_stable_offset
            batch = self.broker.read(partition, max(0, end - 2 * count))
            found += [(ts, value) for ts, value in zip(batch.timestamps, batch.values, strict=True) if value is not None]
        return [msgspec.json.decode(value) for _, value in sorted(found)[-count:]]

    def counted(self, topic: str) -> int:
        """Return the number of records in a topic."""
        partitions = [TopicPartition(topic, number) for number in range(self.plan.partitions)]
        return sum(len(self.broker.read(partition, 0)) for partition in partitions)

    def counter(self, pipeline: str, counter: str) -> int:
        """Return a counter of a pipeline's operators, over all tasks."""
        tasks = self.runner.metrics.tasks.values()
        return sum(count for task in tasks for name, count in task.counters.items() if name[0] == pipeline and name[2] == counter)

    def results(self) -> dict[str, Any]:
        """Return what each pipeline has come to as plain data."""
        return {
            pipeline: {
                "late": self.counter(pipeline, "late_records"),
                "outputs": {
                    topic: {"records": self.counted(topic), "newest": self.newest(topic, SAMPLES)} for topic in self.topics_of(pipeline)
                },
            }
            for pipeline in self.plan.graphs
        }


def make_plans(topologies: Sequence[Topology]) -> list[Plan]:
    """Return the plans of apps whose traffic is of another day than the clock's."""
    return [replace(topology.plan(), max_ahead_ms=None) for topology in topologies]


def make_part(plan: Plan, broker: MemoryBroker, folder: Path) -> Part:
    """Return an app with its topics on a broker, where other apps may have theirs, and its state in a folder of its own."""
    for spec in plan.topic_specs(create_sources=True):
        broker.ensure_topic(spec)

    def open_store(number: int) -> Any:
        return open_rocks_store(folder / plan.app_id / str(number))

    transport = MemoryTransport(broker, group_id=plan.app_id)
    return Part(plan, broker, Runner(plan, transport, open_store=open_store, create_sources=True, limits=Limits(commit_interval_ms=1_000)))
