"""Records and a topology that several tests of the core share."""

from msgspec import Struct

from engine.topology import Source, Topology
from engine.watermarks import bounded


class Order(Struct, frozen=True):
    """An order, with the fields that the tests need."""

    order_id: str
    user_id: str
    amount_cents: int
    currency: str
    ts: int


def order(number: int, user: str = "ann", ts: int = 0, amount: int = 100, currency: str = "EUR") -> Order:
    """Return an order with a readable id."""
    return Order(f"o{number}", user, amount, currency, ts)


def shop(**options: object) -> tuple[Topology, Source]:
    """Return a topology with one source of orders, 30 s out of order."""
    topology = Topology("shop", **options)  # type: ignore[arg-type]  # the tests hand in what Topology takes
    return topology, topology.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))
