"""State of user code over deployments: a ttl that comes, changes and goes, and types that change; timers that outlive restarts."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import Context, ListState, MapState, Record, Sink, Stream, Timer, ValueState, bounded
from engine.errors import ConfigError, StoredTypeError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from state.keys import store_id
from tests.effort import examples


class Visit(Struct, frozen=True):
    """A record: what to do with the state, and when."""

    user: str
    do: str
    ts: int


class Old(Struct, frozen=True):
    """What was kept at first."""

    name: str
    age: str


class Added(Struct, frozen=True):
    """The same with a field more, one less."""

    name: str
    city: str = "?"


class New(Struct, frozen=True):
    """What is kept now: the age is a number, and the name has two parts."""

    first: str
    last: str
    age: int


def app(handler: Any, app_id: str = "shop") -> Topology:
    topology = Topology(app_id, partitions=1)
    visits = topology.source("visits", Visit, key="user", time="ts", watermark=bounded("0s", idle=None))

    @topology.pipeline(visits)
    def work(visits: Stream[str, Visit]) -> Sink:
        return visits.process(handler, name="keep").to("out")

    return topology


def keeping(ttl: str | None) -> type[Any]:
    """Return a handler with a value and a map of this ttl: "set:x" writes x into both, "get" yields what is there."""

    class Keep:
        value = ValueState(str, ttl=ttl)
        entries = MapState(str, int, ttl=ttl)

        def on_record(self, record: Record[str, Visit], ctx: Context) -> Iterator[list[Any]]:
            word, _, text = record.value.do.partition(":")
            if word == "set":
                self.value.set(text)
                self.entries[text] = record.timestamp_ms
            else:
                yield [self.value.get(), sorted(self.entries)]

    return Keep


def out(driver: TestDriver) -> list[Any]:
    return [record.value for record in driver.read("out")]


def stored_entries(driver: TestDriver) -> dict[str, int]:
    """Return how many entries of each state are in the store."""
    names = ("value", "entries", "value-expiry", "entries-expiry")
    ids = {store_id(f"work/keep/{name}"): name for name in names}
    found = dict.fromkeys(names, 0)
    for raw, _ in driver._stores[0].scan(b"", b"\xff" * 8):
        if raw[:4] in ids:
            found[ids[raw[:4]]] += 1
    return found


# -- ttl


@pytest.mark.parametrize("store", ["memory", "rocks"])
def test_ttl_switched_on_over_existing_state_ends_it_by_the_time_of_its_last_write(store: Any) -> None:
    with TestDriver(app(keeping(None)), store=store) as driver:
        for number in range(1_200):  # more than one page of the index
            driver.send("visits", Visit(f"u{number}", "set:a", 1_000))
        driver.send("visits", Visit("ann", "set:a", 1_000))
        driver.send("visits", Visit("ann", "set:b", 6_000))
        driver.restart(app(keeping("10s")))
        driver.send("visits", Visit("ann", "get", 10_999))
        driver.send("visits", Visit("bob", "get", 11_002))
        driver.send("visits", Visit("ann", "get", 11_002))
        assert out(driver) == [["b", ["a", "b"]], [None, []], ["b", ["b"]]]
        for ts in (11_003, 11_004, 11_005, 11_006, 16_002):
            driver.send("visits", Visit("bob", "get", ts))
            driver.commit()
        driver.send("visits", Visit("ann", "get", 16_003))
        assert out(driver)[-1] == [None, []]
        assert stored_entries(driver) == {"value": 0, "entries": 0, "value-expiry": 0, "entries-expiry": 0}, "nothing is left behind"


def test_ttl_switched_off_and_on_again_finds_what_was_written_in_between() -> None:
    with TestDriver(app(keeping("10s"))) as driver:
        driver.send("visits", Visit("ann", "set:a", 1_000))
        driver.restart(app(keeping(None)))
        driver.send("visits", Visit("bob", "set:b", 2_000))
        driver.send("visits", Visit("ann", "get", 50_000))
        assert out(driver) == [["a", ["a"]]]
        driver.restart(app(keeping("60s")))
        driver.send("visits", Visit("ann", "get", 60_999))
        driver.send("visits", Visit("cid", "get", 61_001))
        driver.send("visits", Visit("ann", "get", 61_001))
        assert out(driver) == [["a", ["a"]], [None, []], [None, []]]
        driver.send("visits", Visit("cid", "get", 62_000))
        driver.commit()
        driver.send("visits", Visit("cid", "get", 62_001))
        driver.commit()
        assert stored_entries(driver) == {"value": 0, "entries": 0, "value-expiry": 0, "entries-expiry": 0}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from("ab"), st.sampled_from(["set:x", "set:y", "get"]), st.integers(0, 9)),
        st.tuples(st.just("deploy"), st.sampled_from([5, 12])),
        st.tuples(st.sampled_from(["commit", "crash", "restart"])),
    ),
    max_size=40,
)


@settings(max_examples=examples(80), deadline=None)
@given(STEPS)
def test_ttl_that_comes_and_gets_shorter_hides_what_was_written_so_long_before_the_watermark(steps: list[Any]) -> None:
    apps = {ttl: app(keeping(None if ttl is None else f"{ttl}ms")) for ttl in (None, 5, 12)}
    ttl, now, watermark = 10**9, 1_000, -(2**62)
    written: dict[tuple[str, str], int] = {}
    last: dict[str, str] = {}
    found: list[Any] = []
    expected: list[Any] = []
    with TestDriver(apps[None]) as driver:
        for kind, *rest in steps:
            if kind == "send":
                key, do, step = rest
                now += step
                driver.send("visits", Visit(key, do, now))
                if do == "get":
                    texts = [text for text in "xy" if (key, text) in written and written[key, text] + ttl > watermark]
                    expected.append([last[key] if last.get(key) in texts else None, texts])
                else:
                    written[key, do[4:]], last[key] = now, do[4:]
                watermark = now - 1
            elif kind == "deploy":
                found += out(driver)
                ttl = min(ttl, rest[0])
                driver.restart(apps[ttl])
            else:
                getattr(driver, kind)()
        found += out(driver)
    assert found == expected


# -- types


def typed(kept: Any, upgrade: Any = None) -> type[Any]:
    """Return a handler with all three states of a type: "put" writes one, "get" yields what is there."""

    class Typed:
        value = ValueState(kept, upgrade=upgrade)
        listed = ListState(kept, upgrade=upgrade)
        mapped = MapState(str, kept, upgrade=upgrade)

        def on_record(self, record: Record[str, Visit], ctx: Context) -> Iterator[list[Any]]:
            if record.value.do == "put":
                one = Old("Ann Lee", "41")
                self.value.set(one)
                self.listed.append(one)
                self.mapped["k"] = one
            else:
                yield [self.value.get(), *self.listed, self.mapped["k"]]

    return Typed


def upgraded(old: dict[str, Any]) -> New:
    first, last = old["name"].split()
    return New(first, last, int(old["age"]))


def test_type_that_gains_a_field_with_a_default_and_loses_one_reads_what_was_stored() -> None:
    with TestDriver(app(typed(Old))) as driver:
        driver.send("visits", Visit("ann", "put", 1))
        driver.restart(app(typed(Added)))
        driver.send("visits", Visit("ann", "get", 2))
        assert out(driver) == [[{"name": "Ann Lee", "city": "?"}] * 3]


def test_type_that_changes_is_upgraded_from_what_was_stored_each_time_until_it_is_written_again() -> None:
    seen: list[dict[str, Any]] = []

    def upgrade(old: dict[str, Any]) -> New:
        seen.append(old)
        return upgraded(old)

    with TestDriver(app(typed(Old))) as driver:
        driver.send("visits", Visit("ann", "put", 1))
        driver.restart(app(typed(New, upgrade)))
        for ts in (2, 3):
            driver.send("visits", Visit("ann", "get", ts))
        assert out(driver) == [[{"first": "Ann", "last": "Lee", "age": 41}] * 3] * 2
        assert seen == [{"name": "Ann Lee", "age": "41"}] * 6
        assert driver.state("work", "ann")["value"] == New("Ann", "Lee", 41)


@pytest.mark.parametrize(
    ("upgrade", "words"),
    [
        (None, r"state 'work/keep/value': a stored value does not fit New: .*age.* Give what .* pass upgrade="),
        (lambda old: {"first": old["name"]}, r"upgrade= made no New of the stored \{'name': 'Ann Lee', 'age': '41'\}"),
        (lambda old: old["nothing"], r"upgrade= made no New of the stored"),
    ],
)
def test_type_that_does_not_fit_stops_the_app_and_makes_no_record_a_dead_letter(upgrade: Any, words: str) -> None:
    with TestDriver(app(typed(Old))) as driver:
        driver.send("visits", Visit("ann", "put", 1))
        driver.restart(app(typed(New, upgrade)))
        with pytest.raises(StoredTypeError, match=words):
            driver.send("visits", Visit("ann", "get", 2))
    with TestDriver(app(typed(Old))) as driver:
        driver.send("visits", Visit("ann", "get", 1))  # no entry: the handler's own KeyError is the record's
        assert len(driver.dead_letters()) == 1


def test_upgrade_that_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigError, match="upgrade of ValueState: 'v2' is not callable"):
        ValueState(int, upgrade="v2")  # type: ignore[arg-type]


def test_restart_with_another_app_has_no_state_to_go_on_with() -> None:
    with TestDriver(app(typed(Old))) as driver, pytest.raises(ConfigError, match="app 'other' has no state here"):
        driver.restart(app(typed(Old), "other"))


# -- timers


class Timed:
    """Sets both timers of a key with the first record; says when they fire."""

    fired = ListState(str)

    def on_record(self, record: Record[str, Visit], ctx: Context) -> None:
        if record.value.do == "set":
            ctx.timers.event_time(record.timestamp_ms + 10_000)
            ctx.timers.wall_clock(ctx.now_ms + 10_000)
        elif record.value.do == "cancel":
            ctx.timers.cancel()

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[list[Any]]:
        self.fired.append(timer.clock)
        yield [timer.clock, timer.timestamp_ms]


@pytest.mark.parametrize("end", ["restart", "crash"])
@pytest.mark.parametrize("store", ["memory", "rocks"])
def test_timers_of_both_clocks_fire_once_over_restarts_before_and_after(end: str, store: Any) -> None:
    with TestDriver(app(Timed), store=store) as driver:
        begun_ms = driver.now_ms
        driver.send("visits", Visit("ann", "set", 1_000))
        driver.send("visits", Visit("bob", "set", 1_000))
        driver.send("visits", Visit("bob", "cancel", 1_001))
        driver.commit()
        getattr(driver, end)()
        driver.advance("9s")
        driver.send("visits", Visit("cid", "", 11_000))  # the watermark is 10,999
        assert out(driver) == []
        getattr(driver, end)()
        driver.advance("1s")
        driver.send("visits", Visit("cid", "", 11_001))
        driver.commit()
        getattr(driver, end)()
        driver.advance("1h")
        driver.send("visits", Visit("cid", "", 900_000))
        assert sorted(out(driver)) == [["event_time", 11_000], ["wall_clock", begun_ms + 10_000]]
        assert sorted(driver.state("work", "ann")["fired"]) == ["event_time", "wall_clock"]


def test_wall_clock_timer_that_came_due_while_nothing_ran_fires_at_the_start() -> None:
    with TestDriver(app(Timed)) as driver:
        driver.send("visits", Visit("ann", "set", 1_000))
        driver.commit()
        driver.now_ms += 60_000  # nobody ran
        driver.restart()
        driver.advance("1ms")
        assert [row[0] for row in out(driver)] == ["wall_clock"]


# -- what user code can do wrong


class Shared:
    """Changes a default in place."""

    seen = ValueState(dict[str, int], default={})

    def on_record(self, record: Record[str, Visit], ctx: Context) -> Iterator[dict[str, int]]:
        seen = self.seen.get()
        seen[ctx.key] = seen.get(ctx.key, 0) + 1
        if record.value.do == "set":
            self.seen.set(seen)
        yield seen


def test_default_that_is_changed_in_place_is_that_of_one_key_and_only_when_it_is_set() -> None:
    with TestDriver(app(Shared)) as driver:
        for user, do in [("ann", "look"), ("ann", "set"), ("bob", "set"), ("ann", "set")]:
            driver.send("visits", Visit(user, do, 1))
        assert [record.value for record in driver.read("out")] == [{"ann": 1}, {"ann": 1}, {"bob": 1}, {"ann": 2}]
    assert Shared.seen.__dict__["_default"] == {}


@pytest.mark.parametrize(("value_type", "default"), [(int, "x"), (list[int], ["x"]), (Old, {"name": "ann"})])
def test_default_of_another_type_is_refused(value_type: Any, default: Any) -> None:
    with pytest.raises(ConfigError, match=r"default=.* of ValueState is not of the type"):
        ValueState(value_type, default=default)


class Careless:
    """Puts what it is told into state of whole numbers."""

    value = ValueState(int, default=0)
    each = ListState(int)
    by = MapState(str, int)

    def on_record(self, record: Record[str, Visit], ctx: Context) -> Iterator[tuple[int, list[int], dict[str, int]]]:
        wrong: Any = {"none": None, "text": "x"}.get(record.value.do, 1)
        if record.value.do == "none":
            self.value.set(wrong)
        self.each.append(wrong)
        self.by["k"] = wrong
        self.value.set(wrong)
        yield self.value.get(), list(self.each), dict(self.by)


def test_value_of_another_type_is_a_bad_record_and_leaves_no_state_that_cannot_be_read() -> None:
    with TestDriver(app(Careless)) as driver:
        for do in ("good", "text", "none", "good"):
            driver.send("visits", Visit("ann", do, 1))
            driver.commit()
        driver.restart()
        assert [record.value for record in driver.read("out")] == [[1, [1], {"k": 1}], [1, [1, 1], {"k": 1}]]
        text, none = (str(dict(letter.headers)["error"]) for letter in driver.read("shop-dlq"))
    assert "state 'work/keep/each' takes int, not 'x'" in text
    assert "state 'work/keep/value' takes int, not None" in none and "clear() deletes a value" in none


class Overdue:
    """Sets a timer for long ago, beside a value that has ended."""

    value = ValueState(int, default=0, ttl="10ms")

    def on_record(self, record: Record[str, Visit], ctx: Context) -> None:
        if record.value.do == "set":
            self.value.set(1)
        else:
            ctx.timers.event_time(5)

    def on_timer(self, timer: Timer, ctx: Context) -> Iterator[tuple[int, int, int]]:
        yield timer.timestamp_ms, ctx.watermark_ms, self.value.get()


def test_timer_for_the_past_does_not_turn_time_back() -> None:
    with TestDriver(app(Overdue)) as driver:
        for do, ts in [("set", 1), ("look", 100), ("look", 200)]:
            driver.send("visits", Visit("ann", do, ts))
        # The first is set as the watermark is 0 (it had passed no more), and fires on its way to 99; the second one when it is 99.
        assert [record.value for record in driver.read("out")] == [[5, 5, 1], [5, 99, 0]]
