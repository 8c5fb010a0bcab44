"""Edits of state through the control topic: once, in the task that owns the key, and the audit says what became of them."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from engine import App, Context, ListState, MapState, Record, Sink, Stream, Struct, Timer, ValueState, agg, bounded, windows
from engine.control import Delete, Put, TakeSavepoint, encode_command
from engine.records import TopicPartition
from engine.testing import TestDriver
from state.catalog import entries_of
from state.hashing import partition_of


class View(Struct, frozen=True):
    user: str
    page: str
    ts: int


class Visit:
    views = ValueState(int, default=0)
    trail = ListState(str)
    pages = MapState(str, int)
    seen = MapState(str, int, ttl="1h")

    def on_record(self, record: Record[str, View], ctx: Context) -> Iterator[dict[str, Any]]:
        self.views.set(self.views.get() + 1)
        self.trail.append(record.value.page)
        self.pages[record.value.page] = self.pages.get(record.value.page, 0) + 1
        self.seen[record.value.page] = 1
        ctx.timers.event_time(ctx.timestamp_ms + 60_000, name="over")
        yield {"views": self.views.get()}

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[dict[str, Any]]:
        yield {"over": ctx.key}


def shop() -> App:
    app = App("shop", broker="memory://", partitions=3)
    views = app.source("views", View, key="user", time="ts", watermark=bounded("10s"))

    @app.pipeline(views)
    def visits(views: Stream[str, View]) -> Sink:
        return views.process(Visit).to("visits")

    @app.pipeline(views)
    def minutes(views: Stream[str, View]) -> Sink:
        return views.window(windows.tumbling("1m")).aggregate(views=agg.count()).to("minutes")

    @app.pipeline(views)
    def sessions(views: Stream[str, View]) -> Sink:
        return views.window(windows.session("30s")).aggregate(views=agg.count()).to("sessions")

    @app.pipeline(views)
    def totals(views: Stream[str, View]) -> Sink:
        return views.aggregate(views=agg.count(), emit="record").to("totals")

    return app


@pytest.fixture(params=["memory", "rocks"])
def driver(request: pytest.FixtureRequest) -> Iterator[TestDriver]:
    with TestDriver(shop(), partitions=3, store=request.param) as driver:
        yield driver


def given(driver: TestDriver, command: bytes, partition: int) -> Any:
    """Put raw bytes into a partition of the control topic; return the report."""
    driver._log(TopicPartition("shop-control", partition)).append((0, None, command, ()))
    driver._deliver(TopicPartition("shop-control", partition))
    (report,) = [record.value for record in driver.read("shop-audit")]
    return report


def keys_of(driver: TestDriver) -> Counter[Any]:
    """Return how many entries each key has in the stores."""
    return Counter(
        entry.key
        for task, store in zip(driver._tasks, driver._stores, strict=True)
        for entry in entries_of(task.catalog(), store.scan(b"\0", b"\xff" * 9))
    )


def view(driver: TestDriver, user: str, page: str, second: int) -> None:
    driver.send("views", View(user, page, second * 1_000))


def test_put_sets_a_value_that_the_next_record_finds(driver: TestDriver) -> None:
    view(driver, "ann", "home", 1)
    (report,) = driver.command(Put(id="e1", state="visits/visit/views", key="ann", value=41, who="eve", why="a bug counted twice", at_ms=7))
    assert (report.kind, report.entries, report.who, report.why, report.at_ms) == ("put", 1, "eve", "a bug counted twice", 7)
    view(driver, "ann", "help", 2)
    assert [record.value["views"] for record in driver.read("visits")] == [1, 42]


def test_put_reaches_entries_of_maps_lists_and_running_totals(driver: TestDriver) -> None:
    view(driver, "ann", "home", 1)
    driver.command(Put(id="e1", state="visits/visit/pages", key="ann", sub="home", value=7))
    driver.command(Put(id="e2", state="visits/visit/pages", key="ann", sub="new", value=1))
    driver.command(Put(id="e3", state="visits/visit/trail", key="ann", sub=0, value="start"))
    driver.command(Put(id="e4", state="totals/aggregate/totals", key="ann", value=[1_000, [9]]))
    view(driver, "ann", "home", 2)
    state = driver.state("visits", "ann")
    assert (state["pages"], state["trail"]) == ({"home": 8, "new": 1}, ["start", "home"])
    assert driver.state("totals", "ann")["total"]["views"] == 10


@pytest.mark.parametrize(
    ("state", "key", "sub", "value", "reason"),
    [
        ("visits/visit/view", "ann", None, 1, "no state 'visits/visit/view'; there are .*visits/visit/views"),
        ("visits/visit/views", "ann", None, "many", "Expected `int`"),
        ("visits/visit/views", 5, None, 1, "key does not fit"),
        ("visits/visit/pages", "ann", None, 1, "needs sub key"),
        ("visits/visit/seen", "ann", "new", 1, "no time to end at"),
        ("visits/visit/trail", "ann", 7, "x", "grows only by"),
        ("sessions/window/sessions", "ann", None, [], "kept in step with others"),
        ("_task/offsets", "views", None, 0, "the task's own"),
    ],
)
def test_put_that_does_not_fit_is_refused_with_the_reason(
    driver: TestDriver, state: str, key: Any, sub: Any, value: Any, reason: str
) -> None:
    view(driver, "ann", "home", 1)
    before = driver.state("visits", "ann")
    put = Put(id="e1", state=state, key=key, sub=sub, value=value)
    report = given(driver, encode_command(put), partition_of(b"ann", 3))
    assert report["kind"] == "refused"
    assert re.search(reason, report["error"]), report["error"]
    assert driver.state("visits", "ann") == before


def test_put_of_a_key_of_another_task_is_refused(driver: TestDriver) -> None:
    put = Put(id="e1", state="visits/visit/views", key="ann", value=1)
    report = given(driver, encode_command(put), (partition_of(b"ann", 3) + 1) % 3)
    assert "belongs to task" in report["error"]
    assert driver.state("visits", "ann")["views"] == 0


def test_delete_everywhere_leaves_nothing_of_the_key_and_all_of_the_others(driver: TestDriver) -> None:
    for user in ("ann", "bob"):
        for second in (1, 5):
            view(driver, user, "home", second)
    before = driver.state("visits", "bob")
    driver.commit()
    others, committed = keys_of(driver)["bob"], keys_of(driver)["ann"]
    assert others == committed > 10
    view(driver, "ann", "help", 6)  # not committed yet: what is in the overlay goes too
    reports = driver.command(Delete(id="d1", key=b"ann", who="eve", why="request 17"))
    assert {report.kind for report in reports} == {"delete"} and len(reports) == 3  # every task is asked
    assert sum(report.entries for report in reports) == committed + 4  # one more of trail, pages, seen and its expiry
    assert keys_of(driver) == {"bob": others}
    assert driver.state("visits", "bob") == before
    driver.read("visits"), driver.read("minutes"), driver.read("sessions")
    driver.finish()
    assert [record.value for record in driver.read("visits")] == [{"over": "bob"}]
    assert [record.key for record in driver.read("sessions")] == ["bob"]
    assert [record.key for record in driver.read("minutes")] == ["bob"]


def test_delete_of_one_state_leaves_the_others(driver: TestDriver) -> None:
    view(driver, "ann", "home", 1)
    driver.command(Delete(id="d1", key=b"ann", state="visits/visit/pages"))
    state = driver.state("visits", "ann")
    assert (state["pages"], state["views"]) == ({}, 1)


def test_edit_takes_effect_once_over_crashes_and_restarts(driver: TestDriver) -> None:
    view(driver, "ann", "home", 1)
    driver.command(Put(id="e1", state="visits/visit/views", key="ann", value=10))
    view(driver, "ann", "home", 2)
    driver.commit()
    driver.crash()
    driver.restart()
    view(driver, "ann", "home", 3)
    assert [record.value["views"] for record in driver.read("visits")] == [1, 11, 12]


def test_control_refuses_what_is_no_command_and_what_needs_a_worker(driver: TestDriver) -> None:
    report = given(driver, b'{"kind":"explode","id":"x"}', 1)
    assert report["kind"] == "refused" and "not a command" in report["error"]
    reports = driver.command(TakeSavepoint(id="s1", folder="there", epoch=1))
    assert [(report.kind, report.error) for report in reports] == [("refused", "a savepoint needs a worker")] * 3
