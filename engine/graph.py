"""The declared graph: nodes that know how to make their operator, and edges between their outputs and inputs.

A graph is only a description. `engine.stream` builds it through the public face, `engine.plan` turns it into topics, and
`engine.task` into operators, one set a task.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.codecs import Codec
from engine.operators.base import Operator, OperatorContext
from engine.selectors import Compiled
from engine.topics import check_topic
from engine.watermarks import WatermarkStrategy

MakeOperator = Callable[[OperatorContext], Operator]


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source topic and how to read it.

    Attributes:
        tombstones: Records without a value are read too: they delete the row of their key.
        broadcast_partitions: Every task reads all partitions of the topic, this many; 0 for a topic whose partitions are shared out.
        own: The app makes the topic where it is missing, compacted.
    """

    topic: str
    codec: Codec[Any]
    key: Compiled | None
    key_type: Any
    time: Compiled | None
    watermark: WatermarkStrategy
    tombstones: bool = False
    broadcast_partitions: int = 0
    own: bool = False


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A topic that a pipeline writes to."""

    topic: str
    codec: Codec[Any]
    key: Compiled | None = None
    compacted: bool = False


@dataclass(frozen=True, slots=True)
class SideSpec:
    """A topic that an operator writes to beside its main output."""

    topic: str
    codec: Codec[Any]

    def __post_init__(self) -> None:
        check_topic(self.topic, "late_to or timeouts_to")


@dataclass(frozen=True, slots=True)
class Combining:
    """Two operators that together do what one does: the first before a repartition topic, the second behind it."""

    first: MakeOperator
    value_type: Any
    second: MakeOperator


@dataclass(eq=False, slots=True)
class Node:
    """One operator of a pipeline.

    Attributes:
        name: Unique within the pipeline; it names state and internal topics of a stateful operator.
        inputs: (node, output number) in the order of the ports.
        make: Makes the operator for a task; None for sources, sinks and repartitions, which the task knows itself.
        signature: What must not change between two starts over the same state; "" for a stateless operator.
        reads: Nodes of tables whose state the operator looks into; they stand before it in the graph.
        combining: How the operator can be split in two, so that less has to cross a repartition topic; None if it cannot.
        key_field: The field that a key_by reads, None for a callable and for other operators.
    """

    kind: str
    name: str
    inputs: tuple[tuple["Node", int], ...] = ()
    make: MakeOperator | None = None
    key_type: Any = str
    value_type: Any = Any
    signature: str = ""
    sides: tuple[SideSpec, ...] = ()
    source: SourceSpec | None = None
    sink: SinkSpec | None = None
    reads: tuple["Node", ...] = ()
    combining: Callable[[], Combining | None] | None = None
    key_field: str | None = None

    @property
    def is_input(self) -> bool:
        """Whether records come in here: a source, or a repartition topic (what writes to it sends them away)."""
        return self.source is not None or self.kind == "repartition"

    @property
    def is_broadcast(self) -> bool:
        """Whether every task gets every record that comes in here."""
        return self.source is not None and self.source.broadcast_partitions > 0


@dataclass(eq=False, slots=True)
class PipelineGraph:
    """The nodes of one pipeline, inputs before the nodes that read them."""

    name: str
    description: str = ""
    nodes: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> Node:
        """Add a node; a name already taken by another operator gets a number behind it ("window-2")."""
        taken = {other.name for other in self.nodes if other.source is None}
        name, number = node.name, 2
        while name in taken:
            name, number = f"{node.name}-{number}", number + 1
        node.name = name
        self.nodes.append(node)
        return node

    def readers(self, node: Node) -> list[tuple[Node, int, int]]:
        """Return (reader, its port, output of `node`) for everyone who reads a node."""
        return [(reader, port, output) for reader in self.nodes for port, (read, output) in enumerate(reader.inputs) if read is node]

    def crossing(self) -> list[Node]:
        """Return the inputs whose records reach some operator by two ways (a stream that is split and merged, a self join)."""
        return [node for node in self.nodes if node.is_input and not node.is_broadcast and self._crosses(node)]

    def _crosses(self, start: Node) -> bool:
        reached = {start}
        for node in self.nodes:
            ways = sum(upstream in reached for upstream, _ in node.inputs) + sum(table in reached for table in node.reads)
            if ways > 1:
                return True
            if ways and not node.is_input:
                reached.add(node)
        return False


class Sink:
    """The end of a pipeline: what `Stream.to` returns and a pipeline function must return."""

    def __init__(self, graph: PipelineGraph, node: Node) -> None:
        self.graph = graph
        self.node = node

    @property
    def topic(self) -> str:
        """Name of the topic that is written."""
        assert self.node.sink is not None
        return self.node.sink.topic
