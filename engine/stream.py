"""The public face of a pipeline: `Stream` and `Sink`. Each method adds a node to the graph and returns a new stream.

    orders.key_by("currency").window(windows.tumbling("1m")).aggregate(orders=agg.count()).to("revenue")

Nothing runs here. What can be known to be wrong (a field that the type does not have, a negative lateness) is a `ConfigError`
at this point, with the pipeline and the operator in its message.

A `key_by` moves records to the partition of their new key, through a repartition topic, but only when an operator follows for
which the key matters; `key_by(...).to(...)` alone does not need one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, Unpack, cast, overload

from engine.agg import Aggregate
from engine.agg.aggregate import without_none
from engine.cep import Match, Pattern, Skip
from engine.cep import skip as cep_skip
from engine.cep.matcher import RECORDS_MAX, OnTooMany
from engine.cep.recognize import Recognizer
from engine.cep.rules import RuleMatch
from engine.codecs import Codec, JsonCodec
from engine.detecting import DetectKeywords, DetectOptions, detect_matches, detect_rows
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError
from engine.functions import check_function
from engine.graph import MakeOperator, Node, PipelineGraph, SideSpec, Sink, SinkSpec
from engine.joins import Joins, merge_streams
from engine.keys import key_codec
from engine.live_rules import detect_rules
from engine.operators import stateless
from engine.operators.aggregate import AggregateSpec, aggregate_operator
from engine.operators.arrivals import Ties
from engine.operators.ordered import event_time_order_operator
from engine.operators.process import Handler, ProcessFunction, process_operator, result_type
from engine.operators.require_key import RequireKey, RequirePlace
from engine.selectors import Selector, compile_selector, return_type
from engine.table import RowChanges, Table, make_table
from engine.topics import check_topic
from engine.triggers import Trigger
from engine.windowed import WindowedStream
from engine.windows import Window

if TYPE_CHECKING:
    from engine.sources import RulesSource

K = TypeVar("K")
K2 = TypeVar("K2")
V = TypeVar("V")
W = TypeVar("W")
S = TypeVar("S")


class Stream(Joins[K, V]):
    """An endless sequence of keyed records with event times. Streams are descriptions: they are immutable and cheap."""

    def __init__(
        self, graph: PipelineGraph, node: Node, *, output: int = 0, key_type: Any, value_type: Any, rekeyed: bool, shared: dict[Any, Any]
    ) -> None:
        self._graph = graph
        self._node = node
        self._output = output
        self._key_type = key_type
        self._value_type = value_type
        self._rekeyed = rekeyed
        self._shared = shared

    # -- stateless

    def filter(self, predicate: Callable[[V], object]) -> "Stream[K, V]":
        """Keep the records whose value satisfies a predicate."""
        self._check_callable(predicate, "filter")
        return self._then("filter", lambda context: stateless.Filter(context, predicate))

    def map(self, function: Callable[[V], W]) -> "Stream[K, W]":
        """Replace each value; annotate the result type if a `key_by` with a stateful operator follows and it is a Struct."""
        self._check_callable(function, "map")
        stream = self._then("map", lambda context: stateless.Map(context, function), value_type=return_type(function))
        return cast("Stream[K, W]", stream)

    def flat_map(self, function: Callable[[V], Iterable[W]]) -> "Stream[K, W]":
        """Replace each value by any number of values, which keep its key and event time."""
        self._check_callable(function, "flat_map")
        stream = self._then("flat_map", lambda context: stateless.FlatMap(context, function), value_type=result_type(function))
        return cast("Stream[K, W]", stream)

    @overload
    def key_by(self, selector: str) -> "Stream[Any, V]": ...
    @overload
    def key_by(self, selector: Callable[[V], K2]) -> "Stream[K2, V]": ...
    def key_by(self, selector: Selector) -> "Stream[Any, V]":
        """Set the key from the value: a field name or a callable. Records with the same key meet in the same partition."""
        compiled = compile_selector(selector, self._value_type, self._what("key_by"))
        key_type = without_none(compiled.type)  # a record that gives None goes to the dead letters
        key_codec(key_type, self._what("key_by"))
        node = self._graph.add(
            Node(
                "key_by",
                "key_by",
                ((self._node, self._output),),
                lambda context: stateless.KeyBy(context, compiled.get),
                key_type=key_type,
                value_type=self._value_type,
                key_field=compiled.field,
            )
        )
        return self._with(node, key_type=key_type, rekeyed=True)

    def merge(self, *others: "Stream[K, W]") -> "Stream[K, V | W]":
        """Return the records of this stream and of others, in the order of arrival; time is the minimum of all."""
        return merge_streams([self, *others])

    def branch(self, rest: str | None = None, **predicates: Callable[[V], object]) -> "dict[str, Stream[K, V]]":
        """Split by predicates: the first that holds takes the record.

        Args:
            rest: Name of one more branch for what no predicate takes; without it such records are counted and dropped.
        """
        if not predicates:
            raise ConfigError(
                f"{self._what('branch')}: give at least one predicate, such as large=lambda order: order.amount_cents > 10_000"
            )
        if rest in predicates:
            raise ConfigError(f"{self._what('branch')}: {rest!r} is the name of the rest and of a predicate")
        functions = tuple(predicates.values())
        for function in functions:
            self._check_callable(function, "branch")
        node = self._node_after("branch", lambda context: stateless.Branch(context, functions, rest=rest is not None))
        names = [*predicates, *([rest] if rest is not None else [])]
        return {name: self._with(node, output=number) for number, name in enumerate(names)}

    # -- stateful

    def window(
        self, window: Window, *, lateness: Duration = "0s", late_to: str | None = None, trigger: Trigger | None = None
    ) -> "WindowedStream[K, V]":
        """Group the records of each key into windows of event time.

        Args:
            lateness: How long after its end a window still takes late records (allowed lateness).
            late_to: Topic for records that came too late for every window; they are counted in any case.
            trigger: When results come out, if not once at the end: see `engine.triggers`.
        """
        what = self._what("window")
        if not isinstance(window, Window):
            raise ConfigError(f"{what}: {window!r} is not a window; use windows.tumbling('1m'), windows.session('30m'), …")
        if trigger is not None and not isinstance(trigger, Trigger):
            raise ConfigError(f"{what}: trigger={trigger!r} is not a trigger; use triggers.on_late(), triggers.every(records=100), …")
        return WindowedStream(self._keyed("window"), window, duration_ms(lateness, f"lateness of {what}"), late_to, trigger)

    @overload
    def aggregate(
        self, *, emit: Literal["update", "record"] = ..., into: type[S], key_as: str = ..., **aggregates: Aggregate
    ) -> "Stream[K, S]": ...
    @overload
    def aggregate(
        self, *, emit: Literal["update", "record"] = ..., into: None = ..., key_as: str = ..., **aggregates: Aggregate
    ) -> "Stream[K, dict[str, Any]]": ...
    def aggregate(
        self, *, emit: Literal["update", "record"] = "update", into: type[Any] | None = None, key_as: str = "key", **aggregates: Aggregate
    ) -> "Stream[K, Any]":
        """Keep running totals of each key: the latest once a commit ("update"), or one result a record ("record")."""
        keyed = self._keyed("aggregate")
        if emit not in ("update", "record"):
            raise ConfigError(f"{self._what('aggregate')}: emit={emit!r} is not known; use 'update' or 'record'")
        spec = AggregateSpec(
            aggregates=self._aggregates(aggregates, "aggregate"),
            emit=emit,
            into=into,
            key_as=key_as,
            key_type=self._key_type,
            value_type=self._value_type,
        )
        signature = "aggregate " + " ".join(sorted(aggregates))
        node = keyed._node_after(
            "aggregate", aggregate_operator(spec, self._what("aggregate")), value_type=into or dict, signature=signature
        )
        return keyed._with(node, value_type=into or dict)

    def process(self, handler: ProcessFunction | type[Handler] | type[Any], *, name: str | None = None) -> "Stream[K, Any]":
        """Run your own code on each record: `fn(record, ctx)`, or a class with state and timers (see `engine.operators.process`)."""
        name = name or getattr(handler, "__name__", "process").lower().strip("<>")
        keyed = self._keyed(name)
        what = self._what(name)
        node = keyed._node_after(
            "process",
            process_operator(handler, key_type=self._key_type, what=what),
            name=name,
            value_type=result_type(getattr(handler, "on_record", handler)),
            signature=f"process {name}",
        )
        return keyed._with(node, value_type=node.value_type)

    @overload
    def detect(
        self,
        pattern: Pattern,
        *,
        skip: Skip | None = ...,
        ties: Ties | None = ...,
        **options: Unpack[DetectKeywords],
    ) -> "MatchStream[K, V]": ...
    @overload
    def detect(self, pattern: Recognizer, **options: Unpack[DetectKeywords]) -> "Stream[Any, dict[str, Any]]": ...
    @overload
    def detect(self, *, rules: "RulesSource", **options: Unpack[DetectKeywords]) -> "Stream[K, RuleMatch]": ...
    def detect(
        self,
        pattern: Pattern | Recognizer | None = None,
        *,
        rules: "RulesSource | None" = None,
        skip: Skip | None = None,
        timeouts_to: str | None = None,
        late_to: str | None = None,
        name: str = "detect",
        max_partials: int = 10_000,
        max_records: int = RECORDS_MAX,
        on_too_many: OnTooMany = "drop_oldest",
        ties: Ties | None = None,
        history: int = 0,
    ) -> "Stream[Any, Any]":
        """Find a pattern in the records of each key, in event-time order (see `engine.cep`).

        Args:
            pattern: A pattern, whose matches come out, or what `cep.match_recognize(sql)` gives, whose rows come out as dicts. SQL
                says itself what to skip and how to sort.
            rules: Instead of a pattern: live rules, from `app.rules(topic)`; what they find comes out as `RuleMatch` records. They say
                themselves what to skip and how to sort.
            skip: What a match does to others that overlap it; None for `cep.skip.none`.
            timeouts_to: Topic for partial matches that ran out of time, as `cep.TimedOut` records: what they had and what they waited
                for; those of rules that ask for it (`"timeouts": true`) as `cep.RuleTimedOut`.
            late_to: Topic for records that came after the watermark had passed them.
            max_partials: Limit on the partial matches alive for one key.
            max_records: Limit on the records that they hold (about): a loop without an end holds all that it took.
            on_too_many: What happens beyond a limit: "drop_oldest" or "drop_newest" forgets partial matches (counted as
                "dropped_partials"), "fail" makes the record a bad one.
            ties: Sorts records of the same time by what this gives for their value; otherwise they keep the order of arrival.
            history: How many finished matches and near misses of each key are kept in the state, for `explain`; 0 for none.
        """
        options = DetectOptions(name, late_to, max_partials, max_records, on_too_many, history)
        options.check(self._what(name))
        if rules is not None:
            if pattern is not None or skip is not None or ties is not None:
                raise ConfigError(f"{self._what(name)}: with rules= there is no pattern, skip or ties; the rules say it")
            return detect_rules(self, rules, options, timeouts_to)
        if pattern is None:
            raise ConfigError(f"{self._what(name)}: give a pattern, such as cep.begin('name'), or rules=app.rules('topic')")
        if isinstance(pattern, Recognizer):
            if skip is not None or ties is not None:
                raise ConfigError(f"{self._what(name)}: skip and ties are not for SQL; it has AFTER MATCH SKIP and ORDER BY")
            return detect_rows(self, pattern, options, timeouts_to)
        keyed, node = detect_matches(self, pattern, options, skip or cep_skip.none, timeouts_to, ties)
        return MatchStream(keyed._graph, node, key_type=self._key_type, value_type=Match, rekeyed=False, shared=keyed._shared)

    def in_event_time_order(self) -> "Stream[K, V]":
        """Hold records back until the watermark passes them, and hand them on sorted by event time, ties by arrival."""
        keyed = self._keyed("in_event_time_order")
        make = event_time_order_operator(self._key_type, self._value_type)
        return keyed._with(keyed._node_after("in_event_time_order", make, signature="in_event_time_order"))

    @overload
    def table(
        self: "RowChanges[K, W]", name: str, versions: Duration | None = ..., upgrade: Callable[[Any], W] | None = ...
    ) -> "Table[K, W]": ...
    @overload
    def table(self, name: str, versions: Duration | None = ..., upgrade: Callable[[Any], V] | None = ...) -> "Table[K, V]": ...
    def table(self, name: str, versions: Duration | None = None, upgrade: Callable[[Any], Any] | None = None) -> "Table[K, Any]":
        """Keep the newest value of each key, as a table that hands on its changes; a value of None deletes the row.

        Args:
            name: Names the state.
            versions: Keep earlier values too, as far back as this in event time, for `as_of`; the highest event time is then the
                newest, whatever the order of arrival.
            upgrade: Makes a row of today's type out of one stored before that no longer fits, given as plain data.
        """
        return make_table(self, name, versions, upgrade)

    # -- the end

    def to(self, topic: str, *, key: Selector | None = None, codec: Codec[V] | None = None, compacted: bool = False) -> Sink:
        """Write the records to a topic, as JSON unless a codec says otherwise.

        Args:
            key: Where to read the record key from; None keeps the key of the stream.
            compacted: Create the topic with cleanup.policy=compact: the newest record of each key stays.
        """
        what = self._what(f"to({topic!r})")
        check_topic(topic, what)
        compiled = None if key is None else compile_selector(key, self._value_type, f"key of {what}")
        sink = SinkSpec(topic, codec or JsonCodec(Any), compiled, compacted)
        node = self._graph.add(
            Node("sink", f"to-{topic}", ((self._node, self._output),), key_type=self._key_type, value_type=self._value_type, sink=sink)
        )
        return Sink(self._graph, node)

    # -- building blocks

    if TYPE_CHECKING:  # what `RowChanges` knows a stream of changes by; a stream is invariant in its values

        def _record_type(self) -> tuple[K, V]: ...

    def _what(self, operator: str) -> str:
        return f"pipeline {self._graph.name!r}, {operator}"

    def _check_callable(self, function: object, operator: str) -> None:
        check_function(function, self._what(operator))

    def _aggregates(self, aggregates: Mapping[str, Aggregate], operator: str) -> dict[str, Aggregate]:
        if not aggregates:
            raise ConfigError(f"{self._what(operator)}: give at least one aggregate, such as orders=agg.count()")
        for name, aggregate in aggregates.items():
            if not isinstance(aggregate, Aggregate):
                raise ConfigError(f"{self._what(operator)}: {name}={aggregate!r} is not an aggregate; use agg.count(), agg.sum('field'), …")
        return dict(aggregates)

    def _with(
        self, node: Node, *, output: int = 0, key_type: Any = None, value_type: Any = None, rekeyed: bool | None = None
    ) -> "Stream[Any, Any]":
        return Stream(
            self._graph,
            node,
            output=output,
            key_type=self._key_type if key_type is None else key_type,
            value_type=self._value_type if value_type is None else value_type,
            rekeyed=self._rekeyed if rekeyed is None else rekeyed,
            shared=self._shared,
        )

    def _node_after(
        self,
        kind: str,
        make: MakeOperator,
        *,
        name: str | None = None,
        value_type: Any = None,
        signature: str = "",
        sides: Sequence[SideSpec] = (),
    ) -> Node:
        return self._graph.add(
            Node(
                kind,
                name or kind,
                ((self._node, self._output),),
                make,
                key_type=self._key_type,
                value_type=self._value_type if value_type is None else value_type,
                signature=signature,
                sides=tuple(sides),
            )
        )

    def _then(self, kind: str, make: MakeOperator, *, value_type: Any = None) -> "Stream[K, Any]":
        return self._with(self._node_after(kind, make, value_type=value_type), value_type=value_type)

    def _keyed(self, reader: str) -> "Stream[K, V]":
        """Return this stream as an operator needs it for which keys matter: partitioned by its key, and without null keys."""
        if self._rekeyed:
            return self._co_partitioned(reader)
        key = ("require_key", self._node, self._output)
        if key not in self._shared:
            self._shared[key] = self._node_after("require_key", RequireKey)
        return cast("Stream[K, V]", self._with(self._shared[key]))

    def _placed(self, reader: str) -> "Stream[K, V]":
        """Return this stream where its records meet those of others with the same key: in the partition that the key says."""
        if self._rekeyed:
            return self._co_partitioned(reader)
        keyed = self._keyed(reader)
        key = ("require_place", keyed._node)
        if key not in self._shared:
            self._shared[key] = keyed._node_after("require_place", RequirePlace)
        return cast("Stream[K, V]", self._with(self._shared[key]))

    def _co_partitioned(self, reader: str) -> "Stream[K, V]":
        if not self._rekeyed:
            return self
        key = ("repartition", self._node, self._output)
        if key not in self._shared:
            self._shared[key] = self._graph.add(
                Node(
                    "repartition",
                    f"{reader}-repartition",
                    ((self._node, self._output),),
                    key_type=self._key_type,
                    value_type=self._value_type,
                    signature="repartition",
                )
            )
        return cast("Stream[K, V]", self._with(self._shared[key], rekeyed=False))


class MatchStream(Stream[K, Match[V]], Generic[K, V]):
    """The matches of a pattern."""

    def select(self, function: Callable[[Match[V]], W]) -> Stream[K, W]:
        """Shape each match into a value: the same as `map`, by the name that the field uses."""
        return self.map(function)


__all__ = ["MatchStream", "Sink", "Stream"]
