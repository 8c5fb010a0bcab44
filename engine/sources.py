"""Topics to read: what `app.source`, `app.table` and their like return, to stand in `@app.pipeline(...)`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from engine.agg.aggregate import without_none
from engine.cep.rules.compiled import Frame
from engine.durations import Duration
from engine.errors import ConfigError
from engine.graph import Node, PipelineGraph, SourceSpec
from engine.operators.table import TableFromStream
from engine.operators.upgrading import row_upgrade
from engine.stream import Stream
from engine.table import Table, stored_table


class Source(Stream[Any, Any]):
    """A topic to read. It stands in `@app.pipeline(source)`; the pipeline function gets a stream of its own for it."""

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        self._value_type = spec.codec.type

    def __getattribute__(self, name: str) -> Any:
        if name in _STREAM_METHODS:
            topic = object.__getattribute__(self, "spec").topic
            raise ConfigError(f"source {topic!r}: {name}() belongs inside a pipeline; use the stream that @app.pipeline(...) hands in")
        return object.__getattribute__(self, name)

    def _stands_in(self) -> str:
        return f"source {self.spec.topic!r}"

    def open(self, graph: PipelineGraph, shared: dict[Any, Any]) -> Any:
        """Return what the pipeline function gets: the stream of this source within one pipeline."""
        node = graph.add(Node("source", self.spec.topic, key_type=self.spec.key_type, value_type=self.spec.codec.type, source=self.spec))
        return Stream[Any, Any](graph, node, key_type=self.spec.key_type, value_type=self.spec.codec.type, rekeyed=False, shared=shared)


_STREAM_METHODS = frozenset(name for name in dir(Stream) if not name.startswith("_") and callable(getattr(Stream, name)))


class TableSource(Source):
    """A topic to read as a table: the newest record of each key; one without a value deletes the row."""

    def __init__(self, spec: SourceSpec, name: str, versions: Duration | None, upgrade: Callable[[Any], Any] | None) -> None:
        super().__init__(spec)
        self.name = name
        self.versions = versions
        self.upgrade = upgrade

    def open(self, graph: PipelineGraph, shared: dict[Any, Any]) -> Table[Any, Any]:
        """Return the table within one pipeline; each pipeline keeps its own."""
        table: Table[Any, Any] = super().open(graph, shared).table(self.name, self.versions, self.upgrade)
        return table


class BroadcastSource(Source):
    """A topic to read as a table that every task holds whole."""

    def __init__(self, spec: SourceSpec, name: str, upgrade: Callable[[Any], Any] | None) -> None:
        super().__init__(spec)
        self.name = name
        self.upgrade = upgrade

    def open(self, graph: PipelineGraph, shared: dict[Any, Any]) -> Table[Any, Any]:
        """Return the table within one pipeline; each pipeline keeps its own."""
        stream: Stream[Any, Any] = super().open(graph, shared)
        if hasattr(self.spec.codec.type, "stream_to_table"):
            raise ConfigError(
                f"{stream._what(self.name)}: a broadcast table holds values as they come, and these are changes of rows; "
                "write the table of changes to a topic and broadcast that"
            )
        key_type, row_type = self.spec.key_type, without_none(self.spec.codec.type)
        upgrade = row_upgrade(self.upgrade, row_type, stream._what(self.name))
        make = partial(TableFromStream, key_type=key_type, value_type=row_type, retention_ms=None, upgrade=upgrade)
        return stored_table(stream, self.name, make, row_type, None, broadcast=True, upgrade=upgrade)


class RulesSource(Source):
    """A topic of live rules: stands in `stream.detect(rules=…)`. In `@app.pipeline(…)` it hands in itself.

    Attributes:
        frames: What its rules must fit, by "pipeline/operator" that reads them.
    """

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.frames: dict[str, Frame] = {}

    def open(self, graph: PipelineGraph, shared: dict[Any, Any]) -> "RulesSource":
        return self

    def node_in(self, graph: PipelineGraph, shared: dict[Any, Any]) -> Node:
        """Return where the rules come into a pipeline; once, however many operators read them."""
        key = ("rules", self.spec.topic)
        if key not in shared:
            shared[key] = graph.add(Node("source", self.spec.topic, key_type=str, value_type=self.spec.codec.type, source=self.spec))
        node: Node = shared[key]
        return node


__all__ = ["BroadcastSource", "RulesSource", "Source", "TableSource"]
