"""How streams meet: the checks and graph nodes behind `Stream.merge`, `join`, `lookup` and `as_of`.

What meets must be *co-partitioned*: equal keys lie in the same partition number, so that one task sees both. A stream whose key was
set by `key_by` goes through a repartition topic; one that comes from a source as it is has to be there already, and each record is
checked (`engine.operators.require_key`): another partitioner than Kafka's own is refused with that reason, not joined to nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, cast, overload

from engine.codecs import JsonCodec
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError
from engine.graph import MakeOperator, Node, SideSpec
from engine.missing import STREAM_HINTS, Hinted
from engine.operators.join import Bounds, JoinSpec, Within, join_operator
from engine.operators.join_sides import How
from engine.operators.lookup import LookupHow, as_of_operator, lookup_operator
from engine.operators.merge import Merge
from engine.operators.window_join import WindowJoinSpec, joining_window, window_join_operator
from engine.selectors import Selector, compile_selector
from engine.windows import Window

if TYPE_CHECKING:
    from engine.stream import Stream
    from engine.table import Table

K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")


class Joins(Hinted, Generic[K, V]):
    """The methods of `Stream` by which streams meet others and tables."""

    _is, _hints = "a stream", STREAM_HINTS

    def _stands_in(self) -> str:
        return f"pipeline {cast('Stream[K, V]', self)._graph.name!r}"

    @overload
    def join(
        self,
        other: "Stream[K, W]",
        *,
        within: Within | Window,
        how: Literal["inner"] = ...,
        bounds: Bounds = ...,
        lateness: Duration = ...,
        late_to: str | None = ...,
        name: str = ...,
    ) -> "Stream[K, tuple[V, W]]": ...
    @overload
    def join(
        self,
        other: "Stream[K, W]",
        *,
        within: Within | Window,
        how: How,
        bounds: Bounds = ...,
        lateness: Duration = ...,
        late_to: str | None = ...,
        name: str = ...,
    ) -> "Stream[K, tuple[V | None, W | None]]": ...
    def join(
        self,
        other: "Stream[K, W]",
        *,
        within: Within | Window | None = None,
        how: How = "inner",
        bounds: Bounds = "[]",
        lateness: Duration = "0s",
        late_to: str | None = None,
        name: str = "join",
    ) -> "Stream[K, Any]":
        """Pair the records of a key in this stream and another that lie within a distance of each other, or in the same window.

        Args:
            within: (lo, hi), signed: lo <= other.timestamp - this.timestamp <= hi, such as ("-1m", "5m"); or a tumbling or hopping
                window: pairs come out when it closes, once for each window that holds both.
            how: Whether a record without partner comes out too, the missing side None: "inner" (never), "left", "right", "outer".
            bounds: "[]" takes both ends in; "(" and ")" leave an end out. For distances only.
            lateness: How long after its end a window still takes late records; its pairs come out that much later. For windows
                only: with a distance a record is late when the watermark is beyond it, so let the watermarks wait (`bounded`).
            late_to: Topic for records that came too late; they are counted in any case.
        Returns:
            Pairs (this value, other value), at the later of the two times, or those of a window at its end - 1 ms.
        """
        return _join(cast("Stream[K, V]", self), other, within, how, bounds, lateness, late_to, name)

    @overload
    def lookup(
        self, table: "Table[Any, W]", on: Selector | None = ..., *, how: Literal["inner"] = ..., name: str = ...
    ) -> "Stream[Any, tuple[V, W]]": ...
    @overload
    def lookup(
        self, table: "Table[Any, W]", on: Selector | None = ..., *, how: LookupHow, name: str = ...
    ) -> "Stream[Any, tuple[V, W | None]]": ...
    def lookup(
        self, table: "Table[Any, W]", on: Selector | None = None, *, how: LookupHow = "inner", name: str = "lookup"
    ) -> "Stream[Any, Any]":
        """Pair each record with the row that a table holds for its key when the record comes.

        Args:
            on: Field or callable that gives the key of the row; the stream is keyed by it from here on (not for a broadcast
                table, which every task holds whole). None: the key of the stream.
            how: "left" keeps a record without a row, with None in its place; "inner" drops and counts it.
        """
        return _lookup(cast("Stream[K, V]", self), table, on, how, name)

    @overload
    def as_of(
        self, table: "Table[Any, W]", on: Selector | None = ..., *, how: Literal["inner"] = ..., name: str = ...
    ) -> "Stream[Any, tuple[V, W]]": ...
    @overload
    def as_of(
        self, table: "Table[Any, W]", on: Selector | None = ..., *, how: LookupHow, name: str = ...
    ) -> "Stream[Any, tuple[V, W | None]]": ...
    def as_of(
        self, table: "Table[Any, W]", on: Selector | None = None, *, how: LookupHow = "inner", name: str = "as_of"
    ) -> "Stream[Any, Any]":
        """Pair each record with the row as it was at the record's event time; the table needs versions (`table(name, versions=)`).

        A record waits until the watermark of the stream and the table has reached its time; the arguments are those of `lookup`.
        """
        return _as_of(cast("Stream[K, V]", self), table, on, how, name)


class Common(TypedDict):
    """What joins by distance and by window declare alike: see `engine.operators.join_sides.SidesSpec`."""

    how: How
    late_to: str | None
    key_type: Any
    left_type: Any
    right_type: Any


def merge_streams(streams: "Sequence[Stream[Any, Any]]") -> "Stream[Any, Any]":
    """Return the union of streams: see `Stream.merge`."""
    first = streams[0]
    check_same_keys(streams, "merge")
    if any(stream._rekeyed != first._rekeyed for stream in streams):
        streams = [stream._co_partitioned("merge") for stream in streams]
    types = list(dict.fromkeys(stream._value_type for stream in streams))
    value_type: Any = Any if Any in types else types[0]
    for other_type in types[1:] if value_type is not Any else ():
        value_type = value_type | other_type
    node = Node("merge", "merge", inputs_of(streams), lambda context: Merge(context, len(streams)), first._key_type, value_type)
    return streams[0]._with(first._graph.add(node), value_type=value_type)


def _join(
    left: "Stream[Any, Any]",
    right: "Stream[Any, Any]",
    within: Within | Window | None,
    how: How,
    bounds: Bounds,
    lateness: Duration,
    late_to: str | None,
    name: str,
) -> "Stream[Any, tuple[Any, Any]]":
    """Return the join of two streams: see `Stream.join`."""
    what = left._what(name)
    if is_table(right):
        raise ConfigError(
            f"{what}: that is a table, and join pairs two streams; write lookup(table) for the row of now, or as_of(table) for the row "
            "as it was at the record's event time"
        )
    check_same_keys([left, right], name)
    if within is None:
        raise ConfigError(
            f"{what}: within= is missing; say how far apart in event time records may be, such as within=('-1m', '5m'), or in which "
            "windows they meet, such as within=windows.tumbling('1m')"
        )
    common = Common(how=how, late_to=late_to, key_type=left._key_type, left_type=left._value_type, right_type=right._value_type)
    lateness_ms = duration_ms(lateness, f"lateness of {what}")
    if isinstance(within, Window):
        make, signature = _joined_by_window(within, bounds, lateness_ms, common, what)
    else:
        make, signature = _joined_by_distance(within, bounds, lateness_ms, common, what)
    streams = [left._placed(name), right._placed(name)]
    value_type = pair_type(left._value_type, right._value_type, how)
    sides = () if late_to is None else (SideSpec(late_to, JsonCodec(Any)),)
    node = Node("join", name, inputs_of(streams), make, left._key_type, value_type, f"{name} {signature}", sides)
    return streams[0]._with(left._graph.add(node), value_type=value_type)


def _joined_by_distance(within: Within, bounds: Bounds, lateness_ms: int, common: "Common", what: str) -> tuple[MakeOperator, str]:
    if lateness_ms:
        raise ConfigError(
            f"{what}: lateness={lateness_ms} ms is for windows; within={within!r} has none to close: give the sources a longer "
            "delay, such as watermark=bounded('1m')"
        )
    if not isinstance(within, tuple) or len(within) != 2:
        raise ConfigError(
            f"{what}: within={within!r} is not a pair of durations; write one such as ('-1m', '5m'), or a window such as "
            "windows.tumbling('1m')"
        )
    lower_ms, upper_ms = (duration_ms(bound, f"within of {what}", minimum_ms=None) for bound in within)
    spec = JoinSpec(lower_ms, upper_ms, bounds, **common)
    return join_operator(spec, what), f"{lower_ms} {upper_ms} {spec.how}" + ("" if bounds == "[]" else f" {bounds}")


def _joined_by_window(within: Window, bounds: Bounds, lateness_ms: int, common: "Common", what: str) -> tuple[MakeOperator, str]:
    if bounds != "[]":
        raise ConfigError(f"{what}: bounds={bounds!r} is for distances; a window holds its start and not its end")
    spec = WindowJoinSpec(joining_window(within, what), lateness_ms, **common)
    return window_join_operator(spec, what), f"{within!r} {spec.how}"


def _lookup(stream: "Stream[Any, Any]", table: "Table[Any, Any]", on: Selector | None, how: LookupHow, name: str) -> "Stream[Any, Any]":
    """Return a stream with the present rows of a table: see `Stream.lookup`."""
    what = _check_lookup(stream, table, how, name)
    select = None
    if table._broadcast:
        if on is not None:
            select = compile_selector(on, stream._value_type, f"on of {what}").get
        else:
            check_same_keys([stream, table._changes], name)
    else:
        stream = _keyed_for(stream, table, on, name)
    value_type = pair_type(stream._value_type, table._value_type, how)
    make = lookup_operator(table._origin, table._steps, how, select)
    node = stream._node_after("lookup", make, name=name, value_type=value_type)
    node.reads = (table._origin,)
    return stream._with(node, value_type=value_type)


def _as_of(stream: "Stream[Any, Any]", table: "Table[Any, Any]", on: Selector | None, how: LookupHow, name: str) -> "Stream[Any, Any]":
    """Return a stream with the rows of a table as they were: see `Stream.as_of`."""
    what = _check_lookup(stream, table, how, name)
    if table._broadcast:
        raise ConfigError(f"{what}: a broadcast table keeps no versions; use lookup, or app.table(..., versions='1d')")
    if table._versions_ms is None:
        raise ConfigError(
            f"{what}: the table keeps only the present values; declare it with versions, such as table('users', versions='1d')"
        )
    stream = _keyed_for(stream, table, on, name)
    value_type = pair_type(stream._value_type, table._value_type, how)
    make = as_of_operator(table._origin, table._steps, how, stream._key_type, stream._value_type)
    node = Node("as_of", name, inputs_of([stream, table._changes]), make, stream._key_type, value_type, "as_of")
    return stream._with(stream._graph.add(node), value_type=value_type)


def _check_lookup(stream: "Stream[Any, Any]", table: "Table[Any, Any]", how: str, name: str) -> str:
    what = stream._what(name)
    if hasattr(table, "_node"):
        raise ConfigError(
            f"{what}: a stream is not a table; make one of it, stream.table('name'), or declare it with app.table('topic', Type). "
            "Two streams meet by join(other, within=...)"
        )
    if not is_table(table):
        raise ConfigError(f"{what}: {table!r} is not a table; make one with table('name') or app.table('topic', Type)")
    if table._changes._graph is not stream._graph:
        raise ConfigError(f"{what}: a table of another pipeline cannot take part; name its source in @app.pipeline")
    if how not in ("inner", "left"):
        raise ConfigError(f"{what}: how={how!r} is not known; use 'inner' or 'left'")
    return what


def _keyed_for(stream: "Stream[Any, Any]", table: "Table[Any, Any]", on: Selector | None, name: str) -> "Stream[Any, Any]":
    """Return a stream that lies where the rows of a table do."""
    if on is not None:
        stream = stream.key_by(on)
    check_same_keys([stream, table._changes], name)
    return stream._placed(name)


def check_same_keys(streams: "Sequence[Stream[Any, Any]]", operator: str) -> None:
    """Refuse streams that cannot meet.

    Raises:
        ConfigError: They belong to different pipelines, or their keys have different types.
    """
    first = streams[0]
    for other in streams[1:]:
        if is_table(other):
            raise ConfigError(
                f"{first._what(operator)}: that is a table, not a stream; write table.changes() for the stream of its changes"
            )
        given = getattr(other, "_graph", None)
        if given is None:
            raise ConfigError(f"{first._what(operator)}: {other!r} is not a stream of this pipeline")
        if given is not first._graph:
            raise ConfigError(f"{first._what(operator)}: a stream of another pipeline cannot take part; name its source in @app.pipeline")
        if other._key_type != first._key_type:
            raise ConfigError(
                f"{first._what(operator)}: keys differ, {_name(first._key_type)} and {_name(other._key_type)}; use key_by first"
            )


def is_table(thing: object) -> bool:
    """Return whether it is a `Table`, which this module cannot name."""
    return hasattr(thing, "_origin")


def inputs_of(streams: "Sequence[Stream[Any, Any]]") -> tuple[tuple[Node, int], ...]:
    """Return the input ports of a node that reads streams in this order."""
    return tuple((stream._node, stream._output) for stream in streams)


def pair_type(left: Any, right: Any, how: str) -> Any:
    """Return the type of the pairs that a join gives."""
    if how in ("right", "outer"):
        left = left if left is Any else left | None
    if how in ("left", "outer"):
        right = right if right is Any else right | None
    return tuple.__class_getitem__((left, right))


def _name(key_type: Any) -> str:
    return getattr(key_type, "__name__", str(key_type))
