"""`changes.table(name)`: the rows of a source table, out of its change stream.

    users = app.source("pg.public.users", codec=debezium(User), key="id", time="source_ms")

    @app.pipeline(users)
    def by_country(changes: Stream[int, Change[User]]) -> Sink:
        return changes.table("users").group_by("country").aggregate(users=agg.count()).to("users-by-country")

The table holds rows, not changes, and hands on (old row, new row) as every table does. How it gets there:

    source ─► Spread ─► [repartition] ─► ChangesTable ─────────────► what reads the table
                                           ▲      └─► Departures ─► [repartition] ─► Arrivals ─┐
                                           └──────────────────── old rows of key changes ──────┘

Position guards, truncates and rows without keys: `cdc.table_operator`, `cdc.table_changes`, `cdc.keyless`.

Limit: the table must see the whole stream. A `filter` of changes before it would hide deletes; filter the table instead.
"""

from collections.abc import Callable
from typing import Any, get_args

from cdc.table_changes import Arrivals, Departures, Handover, Moved, Spread
from cdc.table_operator import ChangesTable
from engine.errors import ConfigError
from engine.graph import Node, SourceSpec
from engine.joins import inputs_of
from engine.operators.base import OperatorContext
from engine.operators.upgrading import row_upgrade
from engine.stream import Stream
from engine.table import Table, stored_table

FORMAT = 1
"""Of the table's state; it is part of the signature, so that a change of it is noticed at the start."""


def table_of_changes(
    stream: Stream[Any, Any], name: str, versions_ms: int | None, upgrade: Callable[[Any], Any] | None = None
) -> Table[Any, Any]:
    """Return the table of a stream of `Change[Row]`.

    Raises:
        ConfigError: The type of the rows is not known.
    """
    arguments = get_args(stream._value_type)
    if not arguments:
        raise ConfigError(f"{stream._what(name)}: the rows of Change have no type here; use codec=debezium(Row)")
    row_type, key_type, source = arguments[0], stream._key_type, _source_of(stream)
    spread = stream._graph.add(
        Node(
            "changes",
            f"{name}-changes",
            inputs_of([stream]),
            lambda context: Spread(context, row_type, key_type, source),
            key_type,
            Moved,
            f"changes {FORMAT}",
        )
    )
    moved = stream._with(spread, value_type=Moved, rekeyed=True)._co_partitioned(name)
    upgrading = row_upgrade(upgrade, row_type, stream._what(name))

    def make(context: OperatorContext) -> ChangesTable:
        return ChangesTable(context, key_type, row_type, versions_ms, upgrading)

    table: Table[Any, Any] = stored_table(moved, name, make, row_type, versions_ms, upgrade=upgrading)
    origin = table._origin
    origin.signature = f"{origin.signature} of changes {FORMAT}"
    departures = Node(
        "departures", f"{name}-departures", ((origin, 0),), lambda context: Departures(context, origin, key_type), key_type, Handover
    )
    stream._graph.add(departures)
    left = table._changes._with(departures, value_type=Handover, rekeyed=True)._co_partitioned(f"{name}-departures")
    arrivals = Node("arrivals", f"{name}-arrivals", inputs_of([left]), lambda context: Arrivals(context, origin), key_type, Handover)
    arrivals.reads = (origin,)
    stream._graph.add(arrivals)
    return table


def _source_of(stream: Stream[Any, Any]) -> SourceSpec | None:
    """Return the source whose key a stream has, None if it has another one since."""
    node = stream._node
    while node.source is None:
        if node.kind not in ("filter", "require_key", "require_place", "in_event_time_order") or len(node.inputs) != 1:
            return None
        node = node.inputs[0][0]
    return node.source


__all__ = ["table_of_changes"]
