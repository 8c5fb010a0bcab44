"""The public face of tables: `Table`, from `Stream.table(name)`, `app.table(topic, …)` and `app.broadcast(topic, …)`.

    users = changes.table("users")                                       Table[str, User]: the newest record of each key
    users.filter(lambda user: user.active)
         .group_by("country").aggregate(users=agg.count())               goes down when a user leaves
         .to("users-by-country")                                         upserts and tombstones

A table hands on changes, pairs of the old and the new value, so that whoever comes after can take back what a row did. Streams look
into tables by `Stream.lookup` and `Stream.as_of`; tables join by key, or by a foreign key that a row of the one holds.

Like streams, tables are descriptions. The rows lie in the task of the partition that their key says.
"""

import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast, overload

from engine.agg import Aggregate
from engine.agg.aggregate import without_none
from engine.agg.retracting import RetractingFolding
from engine.codecs import Codec
from engine.durations import Duration, duration_ms
from engine.errors import ConfigError
from engine.graph import MakeOperator, Node, Sink
from engine.joins import check_same_keys, inputs_of, pair_type
from engine.keys import key_codec
from engine.missing import GROUPS_HINTS, TABLE_HINTS, Hinted
from engine.operators.base import OperatorContext
from engine.operators.foreign_key import Asks, ForeignKeyJoin, ForeignKeys, Subscriptions
from engine.operators.stateless import Map
from engine.operators.table import Regroup, Step, StepChanges, TableFromStream, TableView
from engine.operators.table_aggregate import TableAggregate
from engine.operators.table_join import TableHow, TableJoin
from engine.operators.upgrading import Upgrade, pair_upgrade, row_upgrade
from engine.selectors import Selector, compile_selector, return_type

if TYPE_CHECKING:
    from engine.stream import Stream

K = TypeVar("K")
K2 = TypeVar("K2")
V = TypeVar("V")
W = TypeVar("W")
S = TypeVar("S")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class RowChange(Protocol[V_co]):
    """A value that says what happened to a row: a table of such values holds the rows. See `cdc.tables`."""

    @property
    def row(self) -> V_co | None:
        """The row that it is about."""
        ...

    @staticmethod
    def stream_to_table(stream: Any, name: str, versions_ms: int | None, upgrade: Callable[[Any], Any] | None) -> Any:
        """Return the table of a stream of such values."""
        ...


class RowChanges(Protocol[K_co, V_co]):
    """A stream of `RowChange`, to a type checker: its table holds the rows."""

    def _record_type(self) -> tuple[K_co, RowChange[V_co]]: ...


class Table(Hinted, Generic[K, V]):
    """Keyed state that hands on its changes.

    Args:
        changes: Its changes (old, new), partitioned by key.
        origin: The node whose operator holds the rows.
        steps: What `filter` and `map` have put between the rows and this table.
        versions_ms: How far back the value as of a time can be asked for; None if only the present value is kept.
        broadcast: Every task holds all rows.
        upgrade: Makes what fits out of rows that were stored with another type.
    """

    _is, _hints = "a table", TABLE_HINTS

    def __init__(
        self,
        changes: "Stream[K, Any]",
        value_type: Any,
        *,
        origin: Node,
        steps: tuple[Step, ...] = (),
        versions_ms: int | None = None,
        broadcast: bool = False,
        upgrade: Upgrade | None = None,
    ) -> None:
        self._changes = changes
        self._value_type = value_type
        self._origin = origin
        self._steps = steps
        self._versions_ms = versions_ms
        self._broadcast = broadcast
        self._upgrade = upgrade

    def filter(self, predicate: Callable[[V], object]) -> "Table[K, V]":
        """Keep the rows whose value satisfies a predicate; a row that no longer does is deleted from the result."""
        self._changes._check_callable(predicate, "filter")
        table = self._step("filter", lambda value: value if predicate(value) else None, self._value_type)
        table._upgrade = self._upgrade
        return table

    def map(self, function: Callable[[V], W | None]) -> "Table[K, W]":
        """Replace each value; None leaves the row out. The function must give the same for the same value, old or new."""
        self._changes._check_callable(function, "map")
        table = self._step("map", function, without_none(return_type(function)))
        return cast("Table[K, W]", table)

    @overload
    def group_by(self, selector: str) -> "GroupedTable[Any, V]": ...
    @overload
    def group_by(self, selector: Callable[[V], K2]) -> "GroupedTable[K2, V]": ...
    def group_by(self, selector: Selector) -> "GroupedTable[Any, V]":
        """Group the rows by a field or a callable of the value, to aggregate them."""
        changes = self._partitioned("group_by")
        what = changes._what("group_by")
        compiled = compile_selector(selector, self._value_type, what)
        key_type = without_none(compiled.type)
        key_codec(key_type, what)
        untyped = self._value_type is Any
        node = _node(changes, "key_by", "group_by", lambda context: Regroup(context, compiled.get, untyped=untyped), key_type)
        return GroupedTable(changes._with(node, key_type=key_type, rekeyed=True)._co_partitioned("group_by"), self._value_type)

    @overload
    def join(self, other: "Table[K, W]", *, on: None = ..., how: Literal["inner"] = ..., name: str = ...) -> "Table[K, tuple[V, W]]": ...
    @overload
    def join(self, other: "Table[Any, W]", *, on: Selector, how: Literal["inner"] = ..., name: str = ...) -> "Table[K, tuple[V, W]]": ...
    @overload
    def join(
        self, other: "Table[Any, W]", *, on: Selector | None = ..., how: TableHow, name: str = ...
    ) -> "Table[K, tuple[V | None, W | None]]": ...
    def join(self, other: "Table[Any, Any]", *, on: Selector | None = None, how: TableHow = "inner", name: str = "join") -> "Table[K, Any]":
        """Join with another table: by key, or by a foreign key.

        Args:
            on: The field (or callable of this table's value) that holds the key of the other table; None joins by key.
            how: "inner", "left", and by key also "right" and "outer": which rows come out without a partner.
        Returns:
            A table of pairs with this table's key.
        """
        changes = self._partitioned(name)
        if not isinstance(other, Table):
            mend = "; make one of it, stream.table('name'), or let it look into this one: stream.lookup(table)"
            told = f"a stream is not a table{mend}" if hasattr(other, "_node") else f"{other!r} is not a table"
            raise ConfigError(f"{changes._what(name)}: {told}")
        others = other._partitioned(name)
        if on is not None:
            return _join_on_foreign_key(self, other, on, how, name)
        check_same_keys([changes, others], name)
        if how not in ("inner", "left", "right", "outer"):
            raise ConfigError(f"{changes._what(name)}: how={how!r} is not known; use 'inner', 'left', 'right' or 'outer'")
        types, upgrades = (self._value_type, other._value_type), (self._upgrade, other._upgrade)
        value_type = pair_type(*types, how)
        node = Node(
            "table_join",
            name,
            inputs_of([changes, others]),
            lambda context: TableJoin(context, how, changes._key_type, types, upgrades),
            changes._key_type,
            change_type(value_type),
            f"table join {how}",
        )
        changes._graph.add(node)
        pairs = changes._with(node, value_type=change_type(value_type))
        return Table(pairs, value_type, origin=node, upgrade=pair_upgrade(*upgrades))

    def changes(self) -> "Stream[K, tuple[V | None, V | None]]":
        """Return the changes as a stream of pairs: old and new value, None where there is no row."""
        return self._partitioned("changes")

    def to(self, topic: str, *, codec: Codec[V] | None = None, compacted: bool = True) -> Sink:
        """Write the table to a topic: the new value of each row that changes, and a tombstone for each that goes."""
        rows = self._partitioned("to")._then("map", lambda context: Map(context, lambda change: change[1]), value_type=self._value_type)
        return rows.to(topic, codec=cast("Codec[Any] | None", codec), compacted=compacted)

    def _stands_in(self) -> str:
        return self._changes._stands_in()

    def _step(self, kind: str, step: Step, value_type: Any) -> "Table[K, Any]":
        changes = self._changes
        if not self._broadcast:
            changes = changes._then(kind, lambda context: StepChanges(context, step), value_type=change_type(value_type))
        return Table(
            changes,
            value_type,
            origin=self._origin,
            steps=(*self._steps, step),
            versions_ms=self._versions_ms,
            broadcast=self._broadcast,
        )

    def _partitioned(self, operator: str) -> "Stream[K, Any]":
        """Return the changes, each of which comes in one task; refused for a broadcast table, whose changes come in all."""
        if self._broadcast:
            raise ConfigError(
                f"{self._changes._what(operator)}: every task holds the whole of a broadcast table and would do it again; "
                "streams look into it by lookup; for this declare it with app.table(...)"
            )
        return self._changes


class GroupedTable(Hinted, Generic[K, V]):
    """A table by groups; `aggregate` says what comes out of each."""

    _is, _hints = "a table by groups", GROUPS_HINTS

    def __init__(self, changes: "Stream[K, Any]", value_type: Any) -> None:
        self._changes = changes
        self._value_type = value_type

    def _stands_in(self) -> str:
        return self._changes._stands_in()

    @overload
    def aggregate(self, *, into: type[S], key_as: str = ..., **aggregates: Aggregate) -> "Table[K, S]": ...
    @overload
    def aggregate(self, *, into: None = ..., key_as: str = ..., **aggregates: Aggregate) -> "Table[K, dict[str, Any]]": ...
    def aggregate(self, *, into: type[Any] | None = None, key_as: str = "key", **aggregates: Aggregate) -> "Table[K, Any]":
        """Aggregate the rows of each group; what a row added is taken back when it changes or goes.

        Args:
            into: A Struct (or dataclass) with the result's fields; a dict otherwise.
            key_as: Name of the field that takes the group's key.
            aggregates: count, sum, mean, variance, min, max or distinct; the others cannot take a value back.
        Returns:
            A table with a row for each group that has rows.
        """
        changes = self._changes
        what = changes._what("aggregate")
        folding = RetractingFolding(changes._aggregates(aggregates, "aggregate"), self._value_type, key_as=key_as, into=into, what=what)
        key_type, value_type = changes._key_type, into or dict
        node = changes._node_after(
            "table_aggregate",
            lambda context: TableAggregate(context, folding, key_type),
            name="aggregate",
            value_type=change_type(value_type),
            signature="table aggregate " + " ".join(sorted(aggregates)),
        )
        return Table(changes._with(node, value_type=change_type(value_type)), value_type, origin=node)


def make_table(
    stream: "Stream[K, Any]", name: str, versions: Duration | None, upgrade: Callable[[Any], Any] | None = None
) -> Table[K, Any]:
    """Return a stream as a table: see `Stream.table`.

    Values that are changes themselves say how: see `RowChange`.
    """
    what = stream._what(f"table({name!r})" if isinstance(name, str) else "table")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{what}: {name!r} is not a name; it names the table's state")
    versions_ms = None if versions is None else duration_ms(versions, f"versions of {what}", minimum_ms=1)
    value_type = stream._value_type
    own_way = getattr(typing.get_origin(value_type) or value_type, "stream_to_table", None)
    if own_way is not None:
        return cast("Table[K, Any]", own_way(stream, name, versions_ms, upgrade))
    key_type = stream._key_type
    row_type = without_none(value_type)
    upgrading = row_upgrade(upgrade, row_type, what)

    def make(context: OperatorContext) -> TableFromStream:
        return TableFromStream(context, key_type, row_type, versions_ms, upgrading)

    return stored_table(stream._placed(name), name, make, row_type, versions_ms, upgrade=upgrading)


def stored_table(
    stream: "Stream[K, Any]",
    name: str,
    make: MakeOperator,
    row_type: Any,
    versions_ms: int | None,
    *,
    broadcast: bool = False,
    upgrade: Upgrade | None = None,
) -> Table[K, Any]:
    """Return the table that an operator (a `RowsOperator`) makes of a stream.

    Args:
        stream: Placed by its key.
        row_type: Type of the rows that the operator holds.
        upgrade: What the operator upgrades its rows by, for joins that keep them too.
    """
    signature = "table" if versions_ms is None else "table with versions"
    node = stream._node_after("table", make, name=name, value_type=change_type(row_type), signature=signature)
    changes = stream._with(node, value_type=change_type(row_type))
    return Table(changes, row_type, origin=node, versions_ms=versions_ms, broadcast=broadcast, upgrade=upgrade)


def change_type(value_type: Any) -> Any:
    """Return the type of the changes of a table."""
    optional = value_type if value_type is Any else value_type | None
    return tuple.__class_getitem__((optional, optional))


def _join_on_foreign_key(left: Table[Any, Any], right: Table[Any, Any], on: Selector, how: str, name: str) -> Table[Any, Any]:
    changes, others = left._changes, right._changes
    what = changes._what(name)
    if others._graph is not changes._graph:
        check_same_keys([changes, others], name)
    if how not in ("inner", "left"):
        raise ConfigError(f"{what}: how={how!r} is not known for a foreign key; use 'inner' or 'left'")
    compiled = compile_selector(on, left._value_type, f"on of {what}")
    foreign_type = without_none(compiled.type)
    if Any not in (foreign_type, others._key_type) and foreign_type != others._key_type:
        raise ConfigError(f"{what}: on={compiled.text} gives {foreign_type!r}, and the other table's key is {others._key_type!r}")
    get, left_key, right_key = compiled.get, changes._key_type, others._key_type
    left_type, right_type = left._value_type, right._value_type
    upgrades = (left._upgrade, right._upgrade)
    kept = left_type if left_type is Any else left_type | None
    keys = changes._node_after(
        "foreign_key",
        lambda context: ForeignKeys(context, get, untyped=left_type is Any),
        name=f"{name}-keys",
        value_type=tuple.__class_getitem__((kept, kept, int)),
        signature="foreign key",
    )
    keyed = changes._with(keys, value_type=keys.value_type)
    asks = _node(keyed, "key_by", f"{name}-asks", lambda context: Asks(context, get, left_key), right_key, tuple[bytes, int])
    asked = keyed._with(asks, key_type=right_key, value_type=tuple[bytes, int], rekeyed=True)._co_partitioned(f"{name}-asks")
    answer = tuple.__class_getitem__((int, right_type if right_type is Any else right_type | None))

    def subscriptions(context: Any) -> Subscriptions:
        view = TableView(context, right._origin, right._steps)
        return Subscriptions(context, view, right_key, left_key, untyped=right_type is Any)

    answers = Node(
        "foreign_key", f"{name}-subscriptions", inputs_of([asked, others]), subscriptions, left_key, answer, "foreign key subscriptions"
    )
    changes._graph.add(answers)
    answered = asked._with(answers, key_type=left_key, value_type=answer, rekeyed=True)._co_partitioned(f"{name}-answers")
    value_type = pair_type(left_type, right_type, how)
    node = Node(
        "table_join",
        name,
        inputs_of([keyed, answered]),
        lambda context: ForeignKeyJoin(context, cast(Any, how), left_key, (left_type, right_type), upgrades),
        left_key,
        change_type(value_type),
        f"foreign key join {how}",
    )
    changes._graph.add(node)
    return Table(changes._with(node, value_type=change_type(value_type)), value_type, origin=node, upgrade=pair_upgrade(*upgrades))


def _node(stream: "Stream[Any, Any]", kind: str, name: str, make: MakeOperator, key_type: Any, value_type: Any = None) -> Node:
    """Add a node that gives records another key."""
    given = stream._value_type if value_type is None else value_type
    return stream._graph.add(Node(kind, name, inputs_of([stream]), make, key_type, given))


__all__ = ["GroupedTable", "RowChange", "RowChanges", "Table", "change_type", "make_table", "stored_table"]
