"""A topology: the sources and pipelines of one app, as declared. `App` holds one; a `TestDriver` runs one without any worker."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Generic, ParamSpec, TypeVar, cast

from engine.agg.aggregate import without_none
from engine.cep.rules import Rule
from engine.codecs import Codec, JsonCodec, Selects
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError
from engine.graph import PipelineGraph, SourceSpec
from engine.keys import key_codec
from engine.operators.combine import combine_before_moving
from engine.plan import Plan, make_plan
from engine.selectors import Compiled, Selector, compile_selector
from engine.sources import BroadcastSource, RulesSource, Source, TableSource
from engine.stream import Sink, Stream
from engine.table import Table
from engine.topics import check_topic
from engine.watermarks import Watermark, watermark_strategy

P = ParamSpec("P")
R = TypeVar("R")


class Pipeline(Generic[P, R]):
    """A declared pipeline. Calling it calls the function that declared it, so it stays usable in tests."""

    def __init__(self, topology: "Topology", graph: PipelineGraph, function: Callable[P, R], sources: Sequence[Source]) -> None:
        self.topology = topology
        self.graph = graph
        self.sources = tuple(sources)
        self._function = function
        self.__name__ = graph.name
        self.__doc__ = function.__doc__

    @property
    def name(self) -> str:
        """Name of the pipeline, part of the names of its state and internal topics."""
        return self.graph.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def ask(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: a pipeline has no reply."""
        raise ConfigError(f"pipeline {self.name!r} cannot be asked: send to its source topic and read its output topic")

    cast = send = ask


class Topology:
    """Sources and pipelines of an app.

    Args:
        app_id: Prefix of internal topics and transactional ids, and the consumer group.
        partitions: Number of partitions of every topic of the app.
        on_error: "dlq" sends bad records to `<app>-dlq`, "fail" stops the worker.
        max_ahead_ms: A record more than this ahead of the wall clock moves no watermark; None switches the limit off.
        max_skew_ms: A source partition more than this ahead of the slowest one waits for it; None switches that off.
    """

    def __init__(
        self,
        app_id: str,
        *,
        partitions: int = 12,
        on_error: str = "dlq",
        max_ahead_ms: int | None = 3_600_000,
        max_skew_ms: int | None = None,
    ) -> None:
        if on_error not in ("dlq", "fail"):
            raise ConfigError(f"on_error={on_error!r} is not known; use 'dlq' or 'fail'")
        if partitions < 1:
            raise ConfigError(f"partitions={partitions!r}: an app needs at least one partition")
        self.app_id = app_id
        self.partitions = partitions
        self.on_error = on_error
        self.max_ahead_ms = max_ahead_ms
        self.max_skew_ms = max_skew_ms
        self.sources: dict[str, Source] = {}
        self.pipelines: dict[str, Pipeline[Any, Any]] = {}

    def source(
        self,
        topic: str,
        value_type: Any = None,
        *,
        codec: Codec[Any] | None = None,
        key: Selector | None = None,
        key_type: Any = None,
        time: Selector | None = None,
        watermark: Watermark | None = None,
    ) -> Source:
        """Declare a source topic: see `App.source`."""
        source = Source(self._spec(f"source {topic!r}", topic, value_type, codec, key, key_type, time, watermark))
        self.sources[topic] = source
        return source

    def table(
        self,
        topic: str,
        value_type: Any = None,
        *,
        codec: Codec[Any] | None = None,
        key: Selector | None = None,
        key_type: Any = None,
        time: Selector | None = None,
        watermark: Watermark | None = None,
        name: str | None = None,
        versions: Duration | None = None,
        upgrade: Callable[[Any], Any] | None = None,
    ) -> TableSource:
        """Declare a topic to read as a table: see `App.table`."""
        what = f"table {topic!r}"
        spec = replace(self._spec(what, topic, value_type, codec, key, key_type, time, watermark), tombstones=True)
        if versions is not None:
            duration_ms(versions, f"versions of {what}", minimum_ms=1)
        source = self.sources[topic] = TableSource(spec, name or topic, versions, upgrade)
        return source

    def broadcast(
        self,
        topic: str,
        value_type: Any = None,
        *,
        codec: Codec[Any] | None = None,
        key: Selector | None = None,
        key_type: Any = None,
        partitions: int = 1,
        name: str | None = None,
        upgrade: Callable[[Any], Any] | None = None,
    ) -> BroadcastSource:
        """Declare a topic to read as a table that every task holds whole: see `App.broadcast`."""
        what = f"broadcast {topic!r}"
        if type(partitions) is not int or partitions < 1:
            raise ConfigError(f"{what}: partitions={partitions!r} is not allowed; say how many the topic has, at least 1")
        spec = self._spec(what, topic, value_type, codec, key, key_type, None, None)
        source = BroadcastSource(replace(spec, tombstones=True, broadcast_partitions=partitions), name or topic, upgrade)
        self.sources[topic] = source
        return source

    def rules(self, topic: str, *, partitions: int = 1) -> RulesSource:
        """Declare a topic of live rules: see `App.rules`."""
        what = f"rules {topic!r}"
        if type(partitions) is not int or partitions < 1:
            raise ConfigError(f"{what}: partitions={partitions!r} is not allowed; say how many the topic has, at least 1")
        spec = self._spec(what, topic, Rule, None, None, None, None, None)
        source = RulesSource(replace(spec, tombstones=True, broadcast_partitions=partitions, own=True))
        self.sources[topic] = source
        return source

    def _spec(
        self,
        what: str,
        topic: str,
        value_type: Any,
        codec: Codec[Any] | None,
        key: Selector | None,
        key_type: Any,
        time: Selector | None,
        watermark: Watermark | None,
    ) -> SourceSpec:
        if (value_type is None) == (codec is None):
            raise ConfigError(f"{what}: give exactly one of value_type (JSON) and codec")
        check_topic(topic, what)
        if topic in self.sources:
            raise ConfigError(f"{what} is declared twice; keep the first and use it in several pipelines")
        strategy = watermark_strategy(watermark, what)
        used = codec or JsonCodec(value_type, what)
        compiled_key = None if key is None else _select(used, key, f"key of {what}")
        if key_type is None:
            key_type = str if compiled_key is None else without_none(compiled_key.type)
        key_codec(key_type, f"key of {what}")
        compiled_time = None if time is None else _select(used, time, f"time of {what}")
        if compiled_time is not None and without_none(compiled_time.type) not in (int, Any):
            raise ConfigError(
                f"time of {what}: {compiled_time.text!r} is a {getattr(compiled_time.type, '__name__', compiled_time.type)}; "
                "event time is an int, milliseconds since the epoch (give a callable that converts)"
            )
        return SourceSpec(topic, used, compiled_key, key_type, compiled_time, strategy)

    def pipeline(self, *sources: Any, name: str | None = None) -> Callable[[Callable[P, R]], Pipeline[P, R]]:
        """Declare a pipeline: see `App.pipeline`."""

        def declare(function: Callable[P, R]) -> Pipeline[P, R]:
            return self._declare(function, sources, name or function.__name__)

        return declare

    def _declare(self, function: Callable[P, R], sources: Sequence[Any], name: str) -> Pipeline[P, R]:
        if not sources:
            raise ConfigError(f"pipeline {name!r} reads nothing; write @app.pipeline(source, ...)")
        for source in sources:
            if not isinstance(source, Source) or self.sources.get(source.spec.topic) is not source:
                raise ConfigError(f"pipeline {name!r}: {source!r} is not a source of this app; make one with app.source('topic', Type)")
        if name in self.pipelines:
            raise ConfigError(f"two pipelines are called {name!r}; give one of them another name=")
        graph = PipelineGraph(name, inspect.getdoc(function) or "")
        shared: dict[Any, Any] = {}
        streams = [source.open(graph, shared) for source in dict.fromkeys(sources)]
        try:
            result: Any = cast(Callable[..., R], function)(*streams)
        except ConfigError as error:
            if repr(name) in str(error):
                raise
            raise ConfigError(f"pipeline {name!r}: {error}") from error
        sinks = list(result) if isinstance(result, Iterable) and not isinstance(result, Stream) else [result]
        for sink in sinks:
            if not isinstance(sink, Sink):
                given = "a Stream" if isinstance(sink, Stream) else "a Table" if isinstance(sink, Table) else repr(sink)
                raise ConfigError(f"pipeline {name!r} returned {given}; return what .to('topic') gives, or a list of it")
            if sink.graph is not graph:
                raise ConfigError(f"pipeline {name!r} returned a sink of another pipeline, to {sink.topic!r}")
        combine_before_moving(graph)
        pipeline = Pipeline(self, graph, function, sources)
        self.pipelines[name] = pipeline
        return pipeline

    def plan(self, *, partitions: int | None = None, only: Iterable[str] | None = None) -> Plan:
        """Return topics and graphs, checked as a whole.

        Args:
            partitions: Instead of the app's own number (tests).
            only: Names of the pipelines to run; None for all.
        """
        names = list(self.pipelines) if only is None else list(only)
        if not names:
            raise ConfigError(f"app {self.app_id!r} has no pipeline; declare one with @app.pipeline(source)")
        return make_plan(
            self.app_id,
            [self.pipelines[name].graph for name in names],
            partitions=partitions or self.partitions,
            on_error=self.on_error,
            max_ahead_ms=self.max_ahead_ms,
            max_skew_ms=self.max_skew_ms,
        )


def _select(codec: Codec[Any], selector: Selector, what: str) -> Compiled:
    """Return the selector of a source; the codec decides what a field name means if it wants to."""
    if isinstance(selector, str) and isinstance(codec, Selects):
        return codec.select(selector)
    return compile_selector(selector, codec.type, what)


__all__ = ["Pipeline", "Source", "Topology"]
