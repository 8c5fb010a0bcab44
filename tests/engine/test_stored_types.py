"""Rows and records that wait in state while the code changes: what no longer fits stops the app by name, and nothing is lost by it.

Every operator that keeps values of the user's is fed with one version of a Struct and goes on with another one.
"""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from engine import agg, windows
from engine.errors import ConfigError, StoredTypeError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from engine.watermarks import bounded


class Old(Struct, frozen=True):
    """What was stored."""

    key: str
    other: str
    age: str
    ts: int


class Added(Struct, frozen=True):
    """The same with a field that has a default, and without another."""

    key: str
    other: str
    ts: int
    city: str = "?"


class New(Struct, frozen=True):
    """The same with a field of another type."""

    key: str
    other: str
    age: int
    ts: int


def grown(old: dict[str, Any]) -> New:
    return New(old["key"], old["other"], int(old["age"]), old["ts"])


Declare = Callable[[Any, Any, Any], Any]


def world(declare: Declare, kept: Any, upgrade: Any = None) -> Topology:
    """Return an app of two streams and a broadcast table of a type; its pipeline writes what `declare` makes of them to "out"."""
    topology = Topology("app")
    sources = [topology.source(name, kept, key="key", time="ts", watermark=bounded("1h")) for name in ("left", "right")]
    rows = topology.broadcast("rows", kept, key="key", upgrade=upgrade)
    topology.pipeline(*sources, rows, name="work")(lambda left, right, rows: declare(left, right, rows).to("out"))
    return topology


def foreign(left: Any, right: Any, upgrade: Any = None) -> Any:
    return left.table("lefts", upgrade=upgrade).join(right.table("rights", upgrade=upgrade), on="other", name="join")


def by_key(left: Any, right: Any, upgrade: Any = None) -> Any:
    return left.table("lefts", upgrade=upgrade).join(right.table("rights", upgrade=upgrade), how="outer")


HOLDERS: dict[str, tuple[str, Declare]] = {
    "interval join": ("work/join/right", lambda left, right, _: left.join(right, within=("-1m", "1m"))),
    "outer interval join": ("work/join/right", lambda left, right, _: left.join(right, within=("-1m", "1m"), how="outer")),
    "windows join": ("work/join/left", lambda left, right, _: left.join(right, within=windows.tumbling("1m"))),
    "order": ("work/in_event_time_order/held", lambda left, right, _: left.merge(right).in_event_time_order()),
    "table": ("work/users/rows", lambda left, right, _: left.merge(right).table("users").changes()),
    "versions": ("work/users/rows", lambda left, right, _: left.merge(right).table("users", versions="1d").changes()),
    "table behind a lookup": ("work/users/rows", lambda left, right, _: right.lookup(left.table("users"))),
    "as_of, its records": (
        "work/as_of/held",
        lambda left, right, _: left.as_of(right.map(lambda r: 1).table("t", versions="1d"), how="left"),
    ),
    "as_of, its rows": ("work/as_of/held", lambda left, right, _: right.as_of(left.table("users", versions="1d"))),
    "tables by key": ("work/join/sides", lambda left, right, _: by_key(left, right).changes()),
    "tables by foreign key": ("work/join/rows", lambda left, right, _: foreign(left, right).changes()),
    "broadcast": ("work/rows/rows", lambda left, right, rows: right.lookup(rows, on="other")),
    "session that ends": (
        "work/window/held",
        lambda left, right, _: (
            left.merge(right).window(windows.session("1m", ends_with=lambda value: value.ts > 10**9)).aggregate(n=agg.count())
        ),
    ),
    "collect of age": (
        "work/window/panes",
        lambda left, right, _: left.merge(right).window(windows.tumbling("1m")).aggregate(all=agg.collect("age", 9)),
    ),
    "running total of age": ("work/aggregate/totals", lambda left, right, _: left.merge(right).aggregate(all=agg.last("age"))),
    "largest age of a table": (
        "work/aggregate/groups",
        lambda left, right, _: right.merge(left).table("users").group_by("other").aggregate(most=agg.max("age")).changes(),
    ),
}


def feed(driver: TestDriver, make: Callable[..., Any], ts: int, *, right: bool = True) -> None:
    """Send a row to the broadcast table, and a record to one stream or both."""
    driver.send("rows", make("b", "x", ts), key="b")
    driver.send("left", make("a", "b", ts))
    if right:
        driver.send("right", make("b", "b", ts))


def old(key: str, other: str, ts: int) -> Old:
    return Old(key, other, "41", ts)


def new(key: str, other: str, ts: int) -> New:
    return New(key, other, 42, ts)


def read_all(driver: TestDriver, ts: int, make: Any) -> None:
    """Make every operator read what it holds: records of both keys on both sides, and the end of time."""
    for topic in ("left", "right"):
        for key in "ab":
            driver.send(topic, make(key, "b", ts))
    driver.finish()


def deploy(driver: TestDriver, app: Topology, act: Callable[[], None]) -> None:
    """Go on with another version, and do something with it; which of both meets the old state differs from operator to operator."""
    driver.restart(app)
    act()


@pytest.mark.parametrize("name", HOLDERS)
def test_values_of_another_type_stop_the_app_by_name_and_make_no_record_a_dead_letter(name: str) -> None:
    where, declare = HOLDERS[name]
    with TestDriver(world(declare, Old)) as driver:
        feed(driver, old, 1_000)
        words = rf"state '{where}.* does not fit the type that is declared now: .*[gG]ive .* default"
        with pytest.raises(StoredTypeError, match=words):
            deploy(driver, world(declare, New), lambda: read_all(driver, 2_000, new))
        assert driver.dead_letters() == []


@pytest.mark.parametrize("name", [name for name in HOLDERS if "age" not in name])
def test_values_whose_type_gains_and_loses_fields_are_read_as_they_are(name: str) -> None:
    _, declare = HOLDERS[name]
    with TestDriver(world(declare, Old)) as driver:
        feed(driver, old, 1_000)
        driver.restart(world(declare, Added))
        read_all(driver, 2_000, lambda key, other, ts: Added(key, other, ts))
        assert driver.dead_letters() == []


# -- upgrade=

UPGRADED: dict[str, Callable[[Any], Declare]] = {
    "table": lambda up: lambda left, right, _: left.merge(right).table("users", upgrade=up).changes(),
    "versions": lambda up: lambda left, right, _: left.merge(right).table("users", "1d", up).changes(),
    "behind a filter and as_of": lambda up: (
        lambda left, right, _: right.as_of(left.table("users", "1d", up).filter(lambda row: row.age), how="left").map(lambda pair: pair[1])
    ),
    "lookup": lambda up: lambda left, right, _: right.lookup(left.table("users", upgrade=up), how="left").map(lambda pair: pair[1]),
    "broadcast": lambda up: lambda left, right, rows: right.lookup(rows, on="other", how="left").map(lambda pair: pair[1]),
    "by key": lambda up: lambda left, right, _: by_key(left, right, up).filter(lambda pair: True).changes(),
    "by foreign key": lambda up: lambda left, right, _: foreign(left, right, up).changes(),
    "of a join of tables": lambda up: (
        lambda left, right, _: foreign(left, right, up).join(right.table("more", upgrade=up), how="outer", name="outer").changes()
    ),
}


def plain(value: Any) -> Any:
    """Return a result with the ages as texts, so that results of before and after the change can be compared."""
    if isinstance(value, dict):
        return {name: str(part) if name == "age" else part for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", UPGRADED)
@pytest.mark.parametrize("store", ["memory", "rocks"])
def test_rows_of_another_type_are_upgraded_wherever_a_table_keeps_them(name: str, store: Any) -> None:
    results = []
    for after, make, upgrade in ((Old, lambda key, other, ts: Old(key, other, "42", ts), None), (New, new, grown)):
        with TestDriver(world(UPGRADED[name](None), Old), store=store) as driver:
            feed(driver, old, 1_000, right="as_of" not in name)
            driver.read("out")
            driver.restart(world(UPGRADED[name](upgrade), after, upgrade))
            for ts in (2_000, 3_000):
                for topic, key in (("right", "a"), ("left", "a"), ("right", "b"), ("left", "b")):
                    driver.send(topic, make(key, "b", ts if topic == "left" else ts - 500))
            driver.send("right", None, key="b", at=4_000) if "lookup" not in name else None
            driver.finish()
            assert [letter.error for letter in driver.dead_letters() if letter.value is not None] == []
            results.append([(record.key, plain(record.value)) for record in driver.read("out")])
    kept_on, upgraded = results
    assert upgraded == kept_on
    assert any("41" in str(value) for _, value in upgraded), "what was stored before takes part"


def test_row_is_upgraded_each_time_it_is_read_until_it_is_written_again_and_only_if_it_does_not_fit() -> None:
    seen: list[Any] = []

    def upgrade(stored: Any) -> New:
        seen.append(stored)
        return grown(stored)

    def declare(up: Any) -> Declare:
        return lambda left, right, _: right.lookup(left.table("users", upgrade=up), how="left").map(lambda pair: pair[1].age)

    with TestDriver(world(declare(None), Old)) as driver:
        driver.send("left", old("b", "b", 1_000))
        for round_ in (1, 2):
            driver.restart(world(declare(upgrade), New, upgrade))
            driver.send("right", new("b", "b", 2_000 + round_))
        driver.send("left", new("b", "b", 3_000))
        driver.restart(world(declare(None), New))
        driver.send("right", new("b", "b", 4_000))
        assert [record.value for record in driver.read("out")] == [41, 41, 42]
    assert seen
    assert all(stored == {"key": "b", "other": "b", "age": "41", "ts": 1_000} for stored in seen)


@pytest.mark.parametrize(
    ("upgrade", "words"),
    [
        (lambda stored: stored["nothing"], r"state 'work/users/rows': upgrade= made no New of the stored \{.*'age': '41'.*\}: 'nothing'"),
        (lambda stored: {"age": "old"}, r"state 'work/users/rows': upgrade= made no New of the stored"),
    ],
)
def test_upgrade_that_gives_no_row_stops_the_app_with_the_state_and_what_was_stored(upgrade: Any, words: str) -> None:
    declare: Declare = lambda left, right, _: left.table("users", upgrade=upgrade).changes()  # noqa: E731
    with TestDriver(world(declare, Old)) as driver:
        feed(driver, old, 1_000)
        driver.restart(world(declare, New))
        with pytest.raises(StoredTypeError, match=words):
            driver.send("left", new("a", "b", 2_000))


def test_upgrade_that_is_no_function_is_refused_by_the_table_that_has_it() -> None:
    with pytest.raises(
        ConfigError, match=r"upgrade of pipeline 'work', table\('users'\): 'v2' is not callable; give a function that makes a row"
    ):
        world(lambda left, right, _: left.table("users", upgrade="v2").changes(), Old)
    with pytest.raises(ConfigError, match="upgrade of pipeline 'work', rows: 7 is not callable"):
        world(lambda left, right, rows: left.lookup(rows), Old, upgrade=7)


# -- keys


class Keyed(Struct, frozen=True):
    """A record that asks for a window of its own."""

    key: str
    ts: int


def counting(key_type: type[Any]) -> Topology:
    topology = Topology("app")
    source = topology.source("left", Keyed, key_type=key_type, time="ts")
    topology.pipeline(source, name="work")(lambda s: s.window(windows.tumbling("1m")).aggregate(n=agg.count()).to("out"))
    return topology


class Site(Struct, frozen=True):
    """A key of two parts."""

    user: str
    site: int


class SameSite(Struct, frozen=True):
    """The same under another name."""

    user: str
    site: int


class WiderSite(Struct, frozen=True):
    """The same with a part more."""

    user: str
    site: int
    shop: str = ""


@pytest.mark.parametrize(
    ("before", "key", "after", "words"),
    [
        (str, "7", int, "was str, and is int now"),  # the same bytes: nothing but the type tells
        (int, 7, str, "was int, and is str now"),
        (Site, Site("ann", 1), WiderSite, r"was \{user: str, site: int\}, and is \{user: str, site: int, shop: str\} now"),
    ],
)
def test_keys_of_another_type_are_refused_at_the_start_with_the_states(before: Any, key: Any, after: Any, words: str) -> None:
    with TestDriver(counting(before)) as driver:
        driver.send("left", Keyed("ann", 1_000), key=key)
        with pytest.raises(ConfigError, match=f"state 'work/window/panes': the type of keys {words}.*Bring the old type of the key back"):
            driver.restart(counting(after))


def test_keys_of_a_struct_with_another_name_go_on() -> None:
    with TestDriver(counting(Site)) as driver:
        driver.send("left", Keyed("ann", 1_000), key=Site("ann", 1))
        driver.restart(counting(SameSite))
        driver.send("left", Keyed("ann", 2_000), key=SameSite("ann", 1))
        driver.finish()
        assert [record.value["n"] for record in driver.read("out")] == [2]


def test_keys_of_the_old_type_find_their_state() -> None:
    with TestDriver(counting(str)) as driver:
        driver.send("left", Keyed("ann", 1_000), key="ann")
        driver.restart(counting(str))
        driver.finish()
        assert [record.value["n"] for record in driver.read("out")] == [1]
