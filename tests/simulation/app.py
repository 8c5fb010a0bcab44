"""The app that is simulated: pipelines whose results do not depend on when and where they run.

That is what makes them comparable: orders are in time in their partition, or hopelessly late (sent when every window is closed); clicks
may be late by a little, but their pipeline does not repartition, so the order in the partition alone decides. Where orders meet clicks,
only clicks that are in time in their partition count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from engine import Context, MapState, Record, Sink, Stream, Timer, ValueState, agg, bounded, cep, windows
from engine.plan import Plan
from engine.topology import Topology

APP = "sim"
ORDERS_DELAY_MS = 5_000
CLICKS_DELAY_MS = 2_000
REVENUE_MS = 10_000
PAIR_MS = 2_000
VISIT_MS = 3_000
SESSION_GAP_MS = 4_000
CLICK_WINDOW_MS, CLICK_LATENESS_MS = 3_000, 1_000
FAREWELL_MS = 6_000
IDLE_S = 10
SMALL, BIG, POISON = 300, 700, 13
TIMER_RAISES_FOR = "u3"
PIPELINES = ("revenue", "totals", "numbers", "waits", "sessions", "alerts", "even", "pages", "pairs", "visits")


class Order(msgspec.Struct, frozen=True):
    """A record of the first source; `kind` is sale, late (after every window), or end (moves time, means nothing)."""

    order_id: int
    user: str
    currency: str
    amount: int
    kind: str
    ts: int


class Click(msgspec.Struct, frozen=True):
    """A record of the second source; page "end" moves time, and means nothing; page "slow" may be late."""

    click_id: int
    user: str
    page: str
    ts: int


class Note(msgspec.Struct, frozen=True):
    """A record of the third source, of users that no other pipeline has heard of: their state is edited and erased."""

    note_id: int
    user: str
    ts: int


class Tally:
    """Counts the notes of a user, from what an edit has put on, and those since the user was erased."""

    count = ValueState(int, default=0)
    notes = MapState(int, int)

    def on_record(self, record: Record[str, Note], ctx: Context) -> list[dict[str, Any]]:
        self.count.set(self.count.get() + 1)
        self.notes[record.value.note_id] = record.timestamp_ms
        return [{"note_id": record.value.note_id, "count": self.count.get(), "notes": len(self.notes)}]


class Numbers:
    """Numbers the orders of a user; refuses some."""

    count = ValueState(int, default=0)

    def on_record(self, record: Record[str, Order], ctx: Context) -> list[dict[str, Any]]:
        number = self.count.get() + 1
        self.count.set(number)
        if record.value.amount % 100 == POISON:
            raise ValueError("an amount that nobody likes")
        return [{"user": ctx.key, "number": number, "order_id": record.value.order_id}]


class Waits:
    """Says how many orders a user had some time after the first, and that the wall clock went on; each once a user."""

    count = ValueState(int, default=0)

    def on_record(self, record: Record[str, Order], ctx: Context) -> None:
        count = self.count.get() + 1
        self.count.set(count)
        if count == 1:
            ctx.timers.event_time(record.timestamp_ms + FAREWELL_MS, "farewell")
            ctx.timers.wall_clock(ctx.now_ms + 700, "moment")

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[dict[str, Any]]:
        if timer.clock == "wall_clock":
            yield {"user": ctx.key, "kind": "moment"}
            return
        if ctx.key == TIMER_RAISES_FOR:
            raise ValueError("a timer that nobody likes")
        yield {"user": ctx.key, "kind": "farewell", "count": self.count.get()}


@dataclass(frozen=True, slots=True)
class AppChoice:
    """What of the app a run has.

    Attributes:
        idle: The input ends in silence, and idleness closes the windows; otherwise a last record does in each partition.
        tally: There is a pipeline beside the others whose state is edited and erased (`tests.simulation.commands`).
    """

    partitions: int
    pipelines: tuple[str, ...]
    idle: bool
    tally: bool = False


def make_plan(choice: AppChoice) -> Plan:
    """Return the plan of the chosen pipelines."""
    topology = Topology(APP, partitions=choice.partitions, max_ahead_ms=None)
    idle = f"{IDLE_S}s" if choice.idle else None
    orders = topology.source("orders", Order, key="user", time="ts", watermark=bounded("5s", idle=idle))
    clicks = topology.source("clicks", Click, key="user", time="ts", watermark=bounded("2s", idle=idle))
    pipeline = topology.pipeline

    @pipeline(orders)
    def revenue(orders: Stream[str, Order]) -> Sink:
        keyed = orders.filter(is_real).key_by("currency")
        return keyed.window(windows.tumbling("10s"), late_to="revenue-late").aggregate(n=agg.count(), sum=agg.sum("amount")).to("revenue")

    @pipeline(orders)
    def totals(orders: Stream[str, Order]) -> Sink:
        return orders.filter(is_real).key_by("currency").aggregate(n=agg.count(), sum=agg.sum("amount")).to("totals")

    @pipeline(orders)
    def numbers(orders: Stream[str, Order]) -> Sink:
        return orders.filter(is_sale).process(Numbers).to("numbers")

    @pipeline(orders)
    def waits(orders: Stream[str, Order]) -> Sink:
        return orders.filter(is_sale).process(Waits).to("waits")

    @pipeline(orders)
    def sessions(orders: Stream[str, Order]) -> Sink:
        windowed = orders.filter(is_real).window(windows.session("4s"), late_to="sessions-late")
        return windowed.aggregate(n=agg.count(), first=agg.first("order_id"), last=agg.last("order_id")).to("sessions")

    @pipeline(orders)
    def alerts(orders: Stream[str, Order]) -> Sink:
        small_then_big = cep.begin("small", where=is_small).next("big", where=is_big).within("1h")
        matches = orders.filter(is_real).detect(small_then_big, late_to="alerts-late")
        return matches.select(lambda match: {"small": match["small"][0].order_id, "big": match["big"][0].order_id}).to("alerts")

    @pipeline(orders)
    def even(orders: Stream[str, Order]) -> Sink:
        return orders.filter(lambda order: order.order_id % 2 == 0).map(lambda order: {"order_id": order.order_id}).to("even")

    @pipeline(orders)
    def pairs(orders: Stream[str, Order]) -> Sink:
        sales = orders.filter(is_sale).key_by("currency")
        return sales.join(sales, within=("1ms", "2s"), how="left").map(pair_of).to("pairs")

    @pipeline(orders, clicks)
    def visits(orders: Stream[str, Order], clicks: Stream[str, Click]) -> Sink:
        seen = clicks.filter(lambda click: click.page == "home")
        joined = orders.filter(is_sale).join(seen, within=("-3s", "0s"), how="outer")
        return joined.map(visit_of).to("visits")

    @pipeline(clicks)
    def pages(clicks: Stream[str, Click]) -> Sink:
        real = clicks.filter(lambda click: click.page != "end")
        windowed = real.window(windows.tumbling("3s"), lateness="1s", late_to="pages-late")
        return windowed.aggregate(n=agg.count(), ids=agg.sum("click_id")).to("pages")

    if choice.tally:
        # No last record moves their time, and with max_skew a partition that is never idle would hold the others for ever.
        notes = topology.source("notes", Note, key="user", time="ts", watermark=bounded("5s", idle=f"{IDLE_S}s"))

        @pipeline(notes)
        def tally(notes: Stream[str, Note]) -> Sink:
            return notes.process(Tally, name="tally").to("tally")

    return topology.plan(only=[*choice.pipelines, *(["tally"] if choice.tally else [])])


def is_real(order: Order) -> bool:
    """Return whether an order counts, in time or late."""
    return order.kind != "end"


def is_sale(order: Order) -> bool:
    """Return whether an order is in time."""
    return order.kind == "sale"


def pair_of(pair: tuple[Order | None, Order | None]) -> list[int | None]:
    """Return the ids of two orders that follow each other within two seconds; None for none."""
    return [None if order is None else order.order_id for order in pair]


def visit_of(visit: tuple[Order | None, Click | None]) -> list[int | None]:
    """Return the ids of an order and of a click of the same user shortly before it; None for none."""
    order, click = visit
    return [None if order is None else order.order_id, None if click is None else click.click_id]


def is_small(order: Order) -> bool:
    """Return whether an order may begin the pattern."""
    return order.amount < SMALL


def is_big(order: Order) -> bool:
    """Return whether an order may end the pattern."""
    return order.amount >= BIG
