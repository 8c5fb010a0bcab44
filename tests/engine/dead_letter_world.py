"""An app with a fault that can be mended while it runs, for the tests of dead letters: orders, read by two pipelines."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine import App, Context, Record, Sink, Stream, Struct, ValueState, agg


class Order(Struct, frozen=True):
    order_id: str
    user: str
    cents: int


@dataclass
class Refusals:
    """What `checks` refuses, with the reason."""

    refused: dict[str, str] = field(default_factory=dict)


def broken_app(fault: Refusals, broker: str = "memory://", *, name: str = "shop", topic: str = "orders") -> App:
    """Return an app: `totals` takes every order, `checks` raises for the refused ones, `regions` fails behind a repartition."""
    app = App(name, broker=broker, partitions=2)
    orders = app.source(topic, Order, key="user")

    class Check:
        seen = ValueState(int, default=0)

        def on_record(self, record: Record[str, Order], ctx: Context) -> Iterator[object]:
            self.seen.set(self.seen.get() + 1)
            if record.value.order_id in fault.refused:
                raise ValueError(fault.refused[record.value.order_id])
            yield {"order_id": record.value.order_id, "seen": self.seen.get()}

    @app.pipeline(orders)
    def totals(orders: Stream[str, Order]) -> Sink:
        return orders.aggregate(orders=agg.count(), cents=agg.sum("cents"), emit="record").to(f"{name}-totals")

    @app.pipeline(orders)
    def checks(orders: Stream[str, Order]) -> Sink:
        return orders.process(Check, name="check").to(f"{name}-checked")

    return app
