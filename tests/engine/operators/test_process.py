"""User code on the records of a key: state, timers, results, errors."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine import agg, windows
from engine.errors import ConfigError
from engine.operators.process import Context, Timer
from engine.records import Record
from engine.state_handles import ListState, MapState, ValueState
from engine.testing.driver import START_MS, TestDriver
from tests.engine.shop_records import Order, order, shop


class Counter:
    """Counts the orders of a user and keeps what it saw."""

    seen = ValueState(int, default=0)
    amounts = ListState(int)
    currencies = MapState(str, int)

    def on_record(self, record: Record[str, Order], ctx: Context) -> Iterator[dict[str, Any]]:
        self.seen.set(self.seen.get() + 1)
        self.amounts.append(record.value.amount_cents)
        self.currencies[record.value.currency] = self.currencies.get(record.value.currency, 0) + 1
        if record.value.amount_cents < 0:
            raise ValueError("an amount below zero")
        yield {"id": record.value.order_id, "seen": self.seen.get()}


class Reminder:
    """Sets timers as the order's id says: "event:NAME:TIME", "wall:NAME:AFTER" or "cancel:NAME"."""

    fired = ValueState(int, default=0)

    def on_record(self, record: Record[str, Order], ctx: Context) -> None:
        word, name, *time = record.value.order_id.split(":")
        if word == "event":
            ctx.timers.event_time(int(time[0]), name)
        elif word == "wall":
            ctx.timers.wall_clock(ctx.now_ms + int(time[0]), name)
        else:
            ctx.timers.cancel(name)

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[dict[str, Any]]:
        self.fired.set(self.fired.get() + 1)
        if timer.name == "boom":
            raise RuntimeError("the timer's fault")
        if timer.name == "again" and self.fired.get() < 3:
            ctx.timers.event_time(timer.timestamp_ms + 10, "again")
        yield {"name": timer.name, "at": timer.timestamp_ms, "clock": timer.clock, "watermark": ctx.watermark_ms}


def driver_of(handler: Any, **options: Any) -> TestDriver:
    """Return a driver of one pipeline that runs the handler."""
    topology, orders = shop()

    @topology.pipeline(orders)
    def work(orders: Any) -> Any:
        return orders.process(handler).to("out")

    return TestDriver(topology, **options)


def reminder(text: str, ts: int, user: str = "ann") -> Order:
    return Order(text, user, 1, "EUR", ts)


def names(driver: TestDriver) -> list[tuple[str, str, int]]:
    return [(record.key, record.value["name"], record.value["at"]) for record in driver.read("out")]


def test_process_state_belongs_to_the_key() -> None:
    with driver_of(Counter) as driver:
        for number, user in enumerate(["ann", "bob", "ann"]):
            driver.send("orders", order(number, user))
        assert [(r.key, r.value["seen"]) for r in driver.read("out")] == [("ann", 1), ("bob", 1), ("ann", 2)]
        assert driver.state("work", "ann") == {"seen": 2, "amounts": [100, 100], "currencies": {"EUR": 2}}


@pytest.mark.parametrize("store", ["memory", "rocks"])
def test_process_state_survives_a_restart(store: Any) -> None:
    with driver_of(Counter, store=store) as driver:
        driver.send("orders", order(1))
        driver.restart()
        driver.send("orders", order(2))
        assert [r.value["seen"] for r in driver.read("out")] == [1, 2]


def test_process_after_a_crash_sees_the_uncommitted_records_once_more() -> None:
    with driver_of(Counter) as driver:
        driver.send("orders", order(1))
        driver.commit()
        driver.send("orders", order(2))
        driver.crash()
        driver.send("orders", order(3))
        assert [(r.value["id"], r.value["seen"]) for r in driver.read("out")] == [("o1", 1), ("o2", 2), ("o3", 3)]


def test_process_error_undoes_the_record_and_goes_on() -> None:
    with driver_of(Counter) as driver:
        driver.send("orders", order(1))
        driver.send("orders", order(2, amount=-1))
        driver.send("orders", order(3))
        assert [(r.value["id"], r.value["seen"]) for r in driver.read("out")] == [("o1", 1), ("o3", 2)]
        (letter,) = driver.read("shop-dlq")
        headers = dict(letter.headers)
        assert letter.value["order_id"] == "o2"
        assert headers["error"] == b"ValueError: an amount below zero"
        assert (headers["topic"], headers["offset"], headers["pipeline"], headers["operator"]) == (b"orders", b"1", b"work", b"counter")
        assert b"test_process.py" in headers["traceback"]


def test_process_state_changed_in_place_is_not_saved_until_set() -> None:
    class Appends:
        items = ValueState(list[int], default=None)

        def on_record(self, record: Any, ctx: Context) -> Iterator[int]:
            items = self.items.get() or []
            items.append(1)
            if len(items) == 1 and record.value.order_id == "o1":
                self.items.set(items)
            items.append(2)
            yield len(self.items.get() or [])

    with driver_of(Appends) as driver:
        driver.send("orders", order(1))
        driver.send("orders", order(2))
        assert [r.value for r in driver.read("out")] == [1, 1]


def test_context_lag_counts_what_was_left_in_the_partition_behind_the_record() -> None:
    class Lags:
        def on_record(self, record: Record[str, Order], ctx: Context) -> Iterator[Any]:
            if record.value.order_id == "o3":
                ctx.timers.wall_clock(ctx.now_ms)
            yield [record.value.order_id, ctx.lag]

        def on_timer(self, timer: Timer, ctx: Context) -> Iterator[Any]:
            yield ["timer", ctx.lag]

    with driver_of(Lags) as driver:
        for number in (1, 2):
            driver.send("orders", order(number))
        driver.crash()  # what was not committed comes again, as one fetch answer with the next record
        driver.send("orders", order(3))
        driver.advance("1s")
        assert [r.value for r in driver.read("out")] == [["o1", 1], ["o2", 0], ["o3", 0], ["timer", None]]


def test_context_lag_of_a_record_that_an_operator_made_is_unknown() -> None:
    def lag(record: Record[str, Any], ctx: Context) -> Iterator[Any]:
        yield ctx.lag

    topology, orders = shop()
    minutes = windows.tumbling("1m")
    topology.pipeline(orders, name="work")(lambda stream: stream.window(minutes).aggregate(n=agg.count()).process(lag).to("out"))
    with TestDriver(topology) as driver:
        driver.send("orders", order(1))
        driver.finish()
        assert [r.value for r in driver.read("out")] == [None]


def test_timer_event_time_fires_when_the_watermark_passes_before_the_next_record() -> None:
    with driver_of(Reminder) as driver:
        driver.send("orders", reminder("event:a:5000", ts=1_000))
        driver.send("orders", reminder("event:b:4000", ts=34_000))  # watermark 3,999 afterwards
        assert names(driver) == []
        driver.send("orders", reminder("event:c:90000", ts=36_000))  # watermark 5,999 afterwards
        assert names(driver) == [("ann", "b", 4_000), ("ann", "a", 5_000)]


def test_timer_fires_once_over_a_restart() -> None:
    with driver_of(Reminder) as driver:
        driver.send("orders", reminder("event:a:5000", ts=1_000))
        driver.restart()
        driver.send("orders", reminder("event:z:900000", ts=40_000))
        driver.restart()
        driver.send("orders", reminder("event:z:900000", ts=41_000))
        assert names(driver) == [("ann", "a", 5_000)]


def test_timer_set_again_is_replaced_and_cancelled_is_gone() -> None:
    with driver_of(Reminder) as driver:
        for text in ("event:a:5000", "event:a:7000", "event:b:6000", "cancel:b"):
            driver.send("orders", reminder(text, ts=0))
        driver.finish()
        assert names(driver) == [("ann", "a", 7_000)]


def test_timer_that_sets_itself_again_fires_in_the_order_of_time() -> None:
    with driver_of(Reminder) as driver:
        driver.send("orders", reminder("event:again:100", ts=0))
        driver.send("orders", reminder("event:x:115", ts=0))
        driver.finish()
        assert [(name, at) for _, name, at in names(driver)] == [
            ("again", 100),
            ("again", 110),
            ("x", 115),
            ("again", 120),
        ]


def test_timer_wall_clock_fires_by_the_wall_clock_only() -> None:
    with driver_of(Reminder) as driver:
        driver.send("orders", reminder("wall:w:5000", ts=0))
        driver.send("orders", reminder("event:z:9000000000000", ts=10**12))
        driver.advance("4s")
        assert names(driver) == []
        driver.advance("1s")
        (record,) = driver.read("out")
        assert (record.value["name"], record.value["clock"], record.value["at"]) == ("w", "wall_clock", START_MS + 5_000)


def test_timer_that_raises_is_used_up_and_goes_to_the_dead_letters() -> None:
    with driver_of(Reminder) as driver:
        driver.send("orders", reminder("event:boom:10", ts=0))
        driver.send("orders", reminder("event:a:20", ts=0, user="bob"))
        driver.finish()
        assert names(driver) == [("bob", "a", 20)]
        (letter,) = driver.read("shop-dlq")
        headers = dict(letter.headers)
        assert (letter.key, headers["timer"], headers["timer_ms"], headers["operator"]) == ("ann", b"boom", b"10", b"reminder")
        assert driver.state("work", "ann") == {"fired": 0}


def test_ttl_hides_a_value_at_its_time_and_deletes_it() -> None:
    class Remembers:
        last = ValueState(str, default="nobody", ttl="10s")

        def on_record(self, record: Any, ctx: Context) -> Iterator[str]:
            yield self.last.get()
            if record.value.amount_cents:
                self.last.set(record.value.order_id)

    with driver_of(Remembers) as driver:
        driver.send("orders", order(1, ts=0))
        driver.send("orders", order(2, ts=39_999, amount=0))  # watermark 9,998 afterwards
        driver.send("orders", order(3, ts=40_001, amount=0))  # still sees it; watermark 10,000 afterwards
        driver.send("orders", order(4, ts=40_001, amount=0))
        assert [r.value for r in driver.read("out")] == ["nobody", "o1", "o1", "nobody"]
        driver.restart()
        assert driver.state("work", "ann") == {"last": "nobody"}


def test_ttl_runs_from_the_last_write() -> None:
    class Keeps:
        entries = MapState(str, int, ttl="10s")

        def on_record(self, record: Any, ctx: Context) -> Iterator[list[str]]:
            self.entries[record.value.order_id] = record.value.ts
            yield sorted(self.entries)

    with driver_of(Keeps) as driver:
        for number, ts in ((1, 0), (2, 5_000), (1, 30_000), (3, 46_000), (4, 60_000)):
            driver.send("orders", order(number, ts=ts))
        assert [r.value for r in driver.read("out")] == [["o1"], ["o1", "o2"], ["o1", "o2"], ["o1", "o2", "o3"], ["o1", "o3", "o4"]]


def test_process_function_may_yield_and_send_aside() -> None:
    def double(record: Record[str, Order], ctx: Context) -> Iterator[int]:
        ctx.side("aside", record.value.amount_cents, key="other")
        yield record.value.amount_cents * 2

    with driver_of(double) as driver:
        driver.send("orders", order(1, ts=7))
        assert [(r.key, r.value, r.timestamp_ms) for r in driver.read("out")] == [("ann", 200, 7)]
        assert [(r.key, r.value, r.timestamp_ms) for r in driver.read("aside")] == [("other", 100, 7)]


def test_process_that_returns_a_value_is_told_to_yield() -> None:
    with driver_of(lambda record, ctx: "text") as driver:
        driver.send("orders", order(1))
        assert b"must yield" in dict(driver.read("shop-dlq")[0].headers)["error"]


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (7, "neither a function"),
        (type("Empty", (), {}), "no method on_record"),
        (lambda record: None, "must take"),
        (type("Needs", (), {"__init__": lambda self, x: None, "on_record": lambda self, r, c: None}), "without arguments"),
    ],
)
def test_process_bad_handler_is_refused_at_declaration(handler: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        driver_of(handler)
    assert "work" in str(error.value)


def test_process_sending_aside_to_no_possible_topic_is_a_dead_letter() -> None:
    def aside(record: Record[str, Order], ctx: Context) -> None:
        ctx.side("fine" if record.value.amount_cents == 100 else "not fine", "value")

    with driver_of(aside) as driver:
        for amount in (100, 200, 100):
            driver.send("orders", order(amount, amount=amount))
        assert [record.value for record in driver.read("fine")] == ["value", "value"]
        (letter,) = driver.read("shop-dlq")
    assert b"'not fine' cannot be the name of a topic" in dict(letter.headers)["error"]


def test_state_outside_process_says_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match="class attribute"):
        ValueState(int, default=0).get()
