"""The plan of an app: which topics there are, who reads them, and what a start must find unchanged.

A pipeline is cut where a `key_by` has to move records to other partitions: the part before writes a repartition topic, the part
after reads it. Both parts run in the same task numbers, and one task runs the parts of all pipelines for its number.

    orders ──► key_by ──► [shop-revenue-window-repartition-1] ──► window ──► revenue
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.errors import ConfigError
from engine.graph import Node, PipelineGraph, SourceSpec
from engine.records import TopicPartition
from engine.topics import OWN_RECORD_BYTES_MAX, TopicSpec, check_topic

INTERNAL_RETENTION_MS = -1
DELETE_RETENTION_MS = 7 * 24 * 3_600_000
CONTROL_RETENTION_MS = 7 * 24 * 3_600_000
"""What is asked for is done at once; afterwards a key that was to be erased must not stand there for ever."""
ALIGNMENT_RETENTION_MS = 3_600_000
"""What a worker says there is renewed every second, and nobody reads what was said before he came."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an app needs from the outside, and its graphs.

    Attributes:
        pipelines: For each pipeline the topics that it reads: its sources, then its repartition topics.
        broadcasts: Topics that every task reads as a whole.
        repartitions: Repartition topic of each repartition node.
        signatures: For each stateful operator ("pipeline/operator") what must stay the same over one state.
        max_skew_ms: How far a source partition may run ahead of the slowest (`engine.runtime.alignment`); None for as far as it likes.
    """

    app_id: str
    partitions: int
    epoch: int
    on_error: str
    max_ahead_ms: int | None
    graphs: Mapping[str, PipelineGraph]
    pipelines: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, SourceSpec]
    repartitions: Mapping[Node, str]
    outputs: Mapping[str, TopicSpec]
    signatures: Mapping[str, str] = field(default_factory=dict)
    broadcasts: Mapping[str, SourceSpec] = field(default_factory=dict)
    max_skew_ms: int | None = None

    @property
    def fed_topics(self) -> dict[str, SourceSpec]:
        """Every topic that others write for the app: sources and broadcast topics."""
        return {**self.sources, **self.broadcasts}

    @property
    def broadcast_inputs(self) -> tuple[TopicPartition, ...]:
        """Every partition that every task reads."""
        return tuple(TopicPartition(topic, n) for topic, spec in self.broadcasts.items() for n in range(spec.broadcast_partitions))

    @property
    def input_topics(self) -> tuple[str, ...]:
        """Every topic of which a task reads its own partition: sources, repartition topics, what people tell the tasks."""
        return (*self.sources, *self.repartitions.values(), self.control_topic)

    @property
    def internal_topics(self) -> tuple[str, ...]:
        """The repartition topics."""
        return tuple(self.repartitions.values())

    @property
    def changelog_topic(self) -> str:
        """The compacted topic that is the truth about the state."""
        return f"{self.app_id}-changelog-{self.epoch}"

    @property
    def alignment_topic(self) -> str:
        """Where the workers tell one another how far their sources have come; one partition, and only with `max_skew_ms`."""
        return f"{self.app_id}-alignment-{self.epoch}"

    @property
    def epoch_topics(self) -> tuple[str, ...]:
        """The topics that end with the epoch."""
        return (self.changelog_topic, *self.internal_topics, self.alignment_topic)

    @property
    def dead_letter_topic(self) -> str:
        """Where bad records go."""
        return f"{self.app_id}-dlq"

    @property
    def control_topic(self) -> str:
        """Where edits of state and savepoints are asked for (`engine.control`)."""
        return f"{self.app_id}-control"

    @property
    def audit_topic(self) -> str:
        """What became of what was asked for, with who, when and why; one partition, kept for ever."""
        return f"{self.app_id}-audit"

    @property
    def epochs_topic(self) -> str:
        """Which epoch the app is in: one partition, one key."""
        return f"{self.app_id}-epochs"

    def in_epoch(self, epoch: int) -> "Plan":
        """Return the plan with the internal topics of another epoch."""
        names = {topic: f"{topic.removesuffix(f'-{self.epoch}')}-{epoch}" for topic in self.repartitions.values()}
        return replace(
            self,
            epoch=epoch,
            repartitions={node: names[topic] for node, topic in self.repartitions.items()},
            pipelines={name: tuple(names.get(topic, topic) for topic in topics) for name, topics in self.pipelines.items()},
        )

    def transactional_id(self, number: int) -> str:
        """Return the id of the one producer of a task."""
        return f"{self.app_id}-{number}"

    def readers(self, topic: str) -> tuple[str, ...]:
        """Return the names of the pipelines that read a topic."""
        return tuple(name for name, topics in self.pipelines.items() if topic in topics)

    def topic_specs(self, *, create_sources: bool = False) -> list[TopicSpec]:
        """Return every topic with what it must be like; sources are the user's own and only checked unless told otherwise."""
        large = {"max.message.bytes": str(OWN_RECORD_BYTES_MAX)}
        specs = {topic: TopicSpec(topic, self.partitions, create=create_sources) for topic in self.sources}
        for topic, source in self.broadcasts.items():
            create = create_sources or source.own
            specs[topic] = TopicSpec(topic, source.broadcast_partitions, compacted=source.own, create=create)
        for topic in self.internal_topics:
            specs[topic] = TopicSpec(topic, self.partitions, retention_ms=INTERNAL_RETENTION_MS, config=large)
        config = large | {"delete.retention.ms": str(DELETE_RETENTION_MS)}
        specs[self.changelog_topic] = TopicSpec(self.changelog_topic, self.partitions, compacted=True, config=config)
        if self.max_skew_ms is not None:
            short = {"segment.ms": str(ALIGNMENT_RETENTION_MS // 6)}
            specs[self.alignment_topic] = TopicSpec(self.alignment_topic, 1, retention_ms=ALIGNMENT_RETENTION_MS, config=short)
        for topic, spec in self.outputs.items():
            specs.setdefault(topic, spec)
        specs.setdefault(self.dead_letter_topic, TopicSpec(self.dead_letter_topic, self.partitions, retention_ms=-1, config=large))
        specs[self.control_topic] = TopicSpec(self.control_topic, self.partitions, retention_ms=CONTROL_RETENTION_MS, config=large)
        specs[self.audit_topic] = TopicSpec(self.audit_topic, 1, retention_ms=-1, config=large)
        specs[self.epochs_topic] = TopicSpec(self.epochs_topic, 1, compacted=True)
        return list(specs.values())


def make_plan(
    app_id: str,
    graphs: Sequence[PipelineGraph],
    *,
    partitions: int,
    epoch: int = 1,
    on_error: str = "dlq",
    max_ahead_ms: int | None = None,
    max_skew_ms: int | None = None,
) -> Plan:
    """Return the plan of some pipelines.

    Raises:
        ConfigError: Two declarations contradict each other (a topic compacted here and not there, a pipeline in a circle).
    """
    pipelines: dict[str, tuple[str, ...]] = {}
    sources: dict[str, SourceSpec] = {}
    broadcasts: dict[str, SourceSpec] = {}
    repartitions: dict[Node, str] = {}
    outputs: dict[str, TopicSpec] = {}
    signatures: dict[str, str] = {}
    for graph in graphs:
        reads: list[str] = []
        moved: list[str] = []
        for node in graph.nodes:
            if node.source is not None and node.is_broadcast:
                broadcasts[node.source.topic] = node.source
            elif node.source is not None:
                sources[node.source.topic] = node.source
                reads.append(node.source.topic)
            elif node.kind == "repartition":
                repartitions[node] = f"{app_id}-{graph.name}-{node.name}-{epoch}"
                moved.append(repartitions[node])
            for topic, compacted in _written(node):
                spec = TopicSpec(topic, partitions, compacted=compacted, retention_ms=None if compacted else -1)
                if outputs.setdefault(topic, spec) != spec:
                    raise ConfigError(f"pipeline {graph.name!r}: topic {topic!r} is compacted in one place and not in another")
            if node.signature:
                signatures[f"{graph.name}/{node.name}"] = node.signature
        if not reads:
            raise ConfigError(f"pipeline {graph.name!r} reads only broadcast tables; it needs a source whose records look into them")
        pipelines[graph.name] = (*reads, *moved)
    plan = Plan(
        app_id=app_id,
        partitions=partitions,
        epoch=epoch,
        on_error=on_error,
        max_ahead_ms=max_ahead_ms,
        graphs={graph.name: graph for graph in graphs},
        pipelines=pipelines,
        sources=sources,
        repartitions=repartitions,
        outputs=outputs,
        signatures=signatures,
        broadcasts=broadcasts,
        max_skew_ms=max_skew_ms,
    )
    for topic in plan.epoch_topics:
        check_topic(topic, f"app {app_id!r}: its own topic")
    return plan


def _written(node: Node) -> list[tuple[str, bool]]:
    """Return the user's topics that a node writes, and whether they are compacted."""
    written = [(side.topic, False) for side in node.sides]
    if node.sink is not None:
        written.append((node.sink.topic, node.sink.compacted))
    return written
