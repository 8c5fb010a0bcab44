"""The shop's database as a stream: what follows from its change stream, by Debezium, exactly once whatever the connector repeats.

    pg.public.users ──┬─► users-feed, orders-feed          upserts and tombstones: the newest row of each key, for a lake
    pg.public.orders ─┼─► domain-events                    order-placed, order-paid, user-moved, out of what changed in a row
                      └─► placed-orders                    each new order with its user as it was then (`as_of`)
    outbox.event.shop ──► domain-events                    events that the shop wrote itself, in the transaction of its rows

`streamforge worker agents.changes` runs it beside the plain shop. The connector's `topic.prefix` is `pg`; with Avro set
`CHANGES_REGISTRY` to the address of the schema registry. The copies of the tables in other databases: `streamforge replicate`.
"""

import os
from collections.abc import Iterator
from typing import Any

from agents.change_records import DomainEvent, Order, User, new_orders, order_events, placed_order, user_events, written_event
from cdc import Change, OutboxEvent, Registry, debezium, outbox
from engine import App, Context, Record, Sink, Stream, ValueState, bounded

_url = os.environ.get("CHANGES_REGISTRY")
_registry = Registry(_url) if _url else None

app = App("shop-changes", broker="memory://", state_dir="var/changes", partitions=3)

_watermark = bounded("1s", idle="5s")
users = app.source("pg.public.users", codec=debezium(User, registry=_registry), key="id", time="source_ms", watermark=_watermark)
orders = app.source("pg.public.orders", codec=debezium(Order, registry=_registry), key="id", time="source_ms", watermark=_watermark)
outbox_events = app.source("outbox.event.shop", codec=outbox(dict, registry=_registry), key=lambda event: event.id, key_type=str)


class OncePerId:
    """Hands on the first event of an id."""

    seen = ValueState(bool, default=False, ttl="7d")

    def on_record(self, record: Record[str, OutboxEvent[dict[str, Any]]], ctx: Context) -> Iterator[DomainEvent]:
        """Take one event."""
        if not self.seen.get():
            self.seen.set(True)
            yield written_event(record.value)


@app.pipeline(users, orders)
def rows(users: Stream[int, Change[User]], orders: Stream[int, Change[Order]]) -> list[Sink]:
    """Tables out of changes, and what follows from them."""
    people, sales = users.table("users", versions="1d"), orders.table("orders")
    placed = sales.changes().flat_map(new_orders).as_of(people, on="user_id", how="left").map(placed_order)
    return [
        people.to("users-feed"),
        sales.to("orders-feed"),
        people.changes().flat_map(user_events).to("domain-events", key="subject"),
        sales.changes().flat_map(order_events).to("domain-events", key="subject"),
        placed.to("placed-orders"),
    ]


@app.pipeline(outbox_events)
def written_events(events: Stream[str, OutboxEvent[dict[str, Any]]]) -> Sink:
    """Events of the outbox: the connector may repeat them, so each id counts once."""
    return events.process(OncePerId, name="once").to("domain-events", key="subject")
