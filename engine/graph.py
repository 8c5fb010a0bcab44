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
from engine.watermarks import WatermarkStrategy

MakeOperator = Callable[[OperatorContext], Operator]


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source topic and how to read it."""

    topic: str
    codec: Codec[Any]
    key: Compiled | None
    key_type: Any
    time: Compiled | None
    watermark: WatermarkStrategy


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


@dataclass(eq=False, slots=True)
class Node:
    """One operator of a pipeline.

    Attributes:
        name: Unique within the pipeline; it names state and internal topics of a stateful operator.
        inputs: (node, output number) in the order of the ports.
        make: Makes the operator for a task; None for sources, sinks and repartitions, which the task knows itself.
        signature: What must not change between two starts over the same state; "" for a stateless operator.
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


@dataclass(eq=False, slots=True)
class PipelineGraph:
    """The nodes of one pipeline, inputs before the nodes that read them."""

    name: str
    description: str = ""
    nodes: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> Node:
        """Add a node; a name already taken gets a number behind it ("window-2")."""
        taken = {other.name for other in self.nodes}
        name, number = node.name, 2
        while name in taken:
            name, number = f"{node.name}-{number}", number + 1
        node.name = name
        self.nodes.append(node)
        return node

    def readers(self, node: Node) -> list[tuple[Node, int, int]]:
        """Return (reader, its port, output of `node`) for everyone who reads a node."""
        return [(reader, port, output) for reader in self.nodes for port, (read, output) in enumerate(reader.inputs) if read is node]
