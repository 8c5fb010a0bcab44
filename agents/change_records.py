"""Rows of the shop's database, and what a change of one means in the shop's own words."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from cdc import OutboxEvent


class User(Struct, frozen=True):
    """A row of `public.users`; a column that came later has a default."""

    id: int
    name: str
    city: str | None
    phone: str | None = None


class Order(Struct, frozen=True):
    """A row of `public.orders`."""

    id: int
    user_id: int
    status: str
    amount_cents: int


class DomainEvent(Struct, frozen=True):
    """What happened in the shop, in its own words. `subject`: the order or user that it is about."""

    type: str
    subject: str
    detail: str | None = None


class PlacedOrder(Struct, frozen=True):
    """An order with what was known of its user when it was placed."""

    order_id: int
    amount_cents: int
    name: str | None
    city: str | None


def user_events(change: tuple[User | None, User | None]) -> Iterator[DomainEvent]:
    """Yield what a changed user row means."""
    old, new = change
    if old is not None and new is not None and old.city != new.city:
        yield DomainEvent("user-moved", f"user {new.id}", f"{old.city or 'unknown'} -> {new.city or 'unknown'}")


def order_events(change: tuple[Order | None, Order | None]) -> Iterator[DomainEvent]:
    """Yield what a changed order row means; an order may be placed and paid in one change."""
    old, new = change
    if new is None:
        return
    if old is None:
        yield DomainEvent("order-placed", f"order {new.id}", f"{new.amount_cents}")
    if new.status == "paid" and (old is None or old.status != "paid"):
        yield DomainEvent("order-paid", f"order {new.id}", f"{new.amount_cents}")


def written_event(event: OutboxEvent[dict[str, Any]]) -> DomainEvent:
    """Return the event that the shop wrote itself; its payload as JSON."""
    detail = None if event.payload is None else msgspec.json.encode(event.payload).decode()
    return DomainEvent(event.type or "unknown", event.aggregate_id or "", detail)


def new_orders(change: tuple[Order | None, Order | None]) -> Iterator[Order]:
    """Yield the order of a row that is new."""
    old, new = change
    if old is None and new is not None:
        yield new


def placed_order(pair: tuple[Order, User | None]) -> PlacedOrder:
    """Return an order with its user."""
    order, user = pair
    return PlacedOrder(order.id, order.amount_cents, user.name if user else None, user.city if user else None)
