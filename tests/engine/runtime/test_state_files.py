"""Edits of savepoints and of running tasks mean the same: which states a key goes from, and which key a text is."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine import App, Context, Record, Sink, Stream, Struct, ValueState, cep
from engine.control import Delete
from engine.errors import StateError
from engine.runtime.state_files import edited_savepoint, of_savepoint
from engine.task import catalog_of
from engine.testing import TestDriver
from state.catalog import StateSpec, entries_of, parse_key
from state.remote import open_folder
from state.savepoint import FORMAT, EntriesWriter, Manifest, Part, StateNote, write_manifest


class Order(Struct, frozen=True):
    user: str
    site: int
    page: str
    ts: int


class Place(Struct, frozen=True):
    user: str
    site: int


class Count:
    views = ValueState(int, default=0)

    def on_record(self, record: Record[Any, Order], ctx: Context) -> None:
        self.views.set(self.views.get() + 1)


PATTERN = (
    cep.begin("a", lambda order: order.page == "a")
    .followed_by("b", lambda order: order.page == "b")
    .one_or_more()
    .followed_by("c", lambda order: order.page == "c")
    .within("1h")
)


def by_place(order: Order) -> Place:
    return Place(order.user, order.site)


def by_site(order: Order) -> int:
    return order.site


def kinds() -> App:
    app = App("kinds", broker="memory://", partitions=2)
    orders = app.source("orders", Order, key="user", time="ts")

    @app.pipeline(orders)
    def places(orders: Stream[str, Order]) -> Sink:
        return orders.key_by(by_place).process(Count).to("places")

    @app.pipeline(orders)
    def sites(orders: Stream[str, Order]) -> Sink:
        return orders.key_by(by_site).process(Count).to("sites")

    @app.pipeline(orders)
    def anything(orders: Stream[str, Order]) -> Sink:
        return orders.key_by(lambda order: order.user).process(Count).to("anything")

    @app.pipeline(orders)
    def users(orders: Stream[str, Order]) -> Sink:
        return orders.process(Count).to("users")

    @app.pipeline(orders)
    def found(orders: Stream[str, Order]) -> Sink:
        return orders.detect(PATTERN).to("found")

    return app


PLAN = kinds().topology.plan()


def filled(driver: TestDriver) -> TestDriver:
    """Give a driver a few users: `ann`, `am` and `sam` at site 1, 7 and 8, and `7`, a user whose name is a number; ann has many views."""
    for second, (user, site) in enumerate([("ann", 1), ("am", 7), ("sam", 8), ("7", 9)]):
        driver.send("orders", Order(user, site, "a", second))
    for number in range(200):
        driver.send("orders", Order("ann", 1, "b", 10 + number))
    driver.commit()
    return driver


def left(driver: TestDriver) -> Counter[tuple[str, Any]]:
    """Return how many entries each pipeline's states have of each key, in the stores."""
    driver.commit()
    return Counter(
        (entry.spec.parts[0], entry.key)
        for task, store in zip(driver._tasks, driver._stores, strict=True)
        for entry in entries_of(task.catalog(), store.scan(b"\0", b"\xff" * 9))
    )


@pytest.fixture(scope="module")
def savepoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a savepoint of such users."""
    path = tmp_path_factory.mktemp("savepoints") / "one"
    folder, parts = open_folder(path), []
    with TestDriver(kinds()) as driver:
        for number, store in enumerate(filled(driver)._stores):
            with folder.create(f"{number}.entries") as file:
                writer = EntriesWriter(file)
                writer.add(store.scan(b"\0", b"\xff" * 9))
            parts.append(Part(number, f"{number}.entries", writer.entries, writer.file_bytes, writer.digest(), {}))
        states = [StateNote(name, kind) for name, kind in driver._tasks[0].catalog().kinds().items()]
    write_manifest(folder, Manifest(FORMAT, "one", "kinds", 1, len(parts), 0, "", "", {}, {}, states, parts))
    return path


def edit(savepoint: Path, target: Path, key: bytes | str, only: str | None = None) -> tuple[int, Counter[tuple[str, Any]]]:
    """Delete a key; return how many entries that were, and how many each pipeline and key has then."""
    _, changed = edited_savepoint(open_folder(savepoint), open_folder(target), PLAN, delete=[key], only=only)
    entries = of_savepoint(open_folder(target), PLAN).entries()
    return changed, Counter((entry.spec.parts[0], entry.key) for entry in entries)


def all_of(savepoint: Path) -> Counter[tuple[str, Any]]:
    return Counter((entry.spec.parts[0], entry.key) for entry in of_savepoint(open_folder(savepoint), PLAN).entries())


def test_parts_go_with_the_whole_and_never_alone(savepoint: Path, tmp_path: Path) -> None:
    before = all_of(savepoint)
    assert before["found", "ann"] > 200  # its partial matches, and their records
    with pytest.raises(StateError, match="holds parts of 'found/detect/partials': delete the key from that"):
        edit(savepoint, tmp_path / "two", "ann", "found/detect/records")
    assert not (tmp_path / "two").exists()
    names = {entry.spec.name for entry in of_savepoint(open_folder(savepoint), PLAN).entries("ann") if entry.spec.part_of}
    assert names == {"found/detect/records", "found/detect/runs"}
    edit(savepoint, tmp_path / "three", "ann", "found/detect/partials")
    after = {entry.spec.name for entry in of_savepoint(open_folder(tmp_path / "three"), PLAN).entries("ann")}
    assert "users/count/views" in after and not after & {"found/detect/partials", "found/detect/records", "found/detect/runs"}


SPELLINGS = [
    ('{"user":"ann","site":1}', {("places", Place("ann", 1))}),
    ('{"user": "ann", "site": 1}', {("places", Place("ann", 1))}),
    ('{"site":1, "user":"ann"}', {("places", Place("ann", 1))}),
    ("007", {("sites", 7)}),
    ("7", {("sites", 7), ("users", "7"), ("anything", "7"), ("found", "7")}),
    ("sam", {("users", "sam"), ("anything", "sam"), ("found", "sam")}),
]


@pytest.mark.parametrize(("text", "gone"), SPELLINGS)
def test_key_of_a_savepoint_is_deleted_however_it_is_spelt(savepoint: Path, tmp_path: Path, text: str, gone: set[tuple[str, Any]]) -> None:
    before = all_of(savepoint)
    assert gone <= before.keys()
    changed, after = edit(savepoint, tmp_path / "two", text)
    assert changed == sum(before[what] for what in gone)
    assert after == Counter({what: count for what, count in before.items() if what not in gone})
    shown = of_savepoint(open_folder(savepoint), PLAN).entries(text)
    assert {(entry.spec.parts[0], entry.key) for entry in shown} == gone


@pytest.mark.parametrize(("text", "gone"), SPELLINGS)
def test_key_of_a_running_app_is_deleted_however_it_is_spelt(text: str, gone: set[tuple[str, Any]]) -> None:
    with TestDriver(kinds()) as driver:
        before = left(filled(driver))
        reports = driver.command(Delete(id="d1", key=text.encode(), is_text=True))
        assert sum(report.entries for report in reports) == sum(before[what] for what in gone)
        assert left(driver) == Counter({what: count for what, count in before.items() if what not in gone})


def test_bytes_of_a_command_are_those_on_the_wire() -> None:
    with TestDriver(kinds()) as driver:
        before = left(filled(driver))
        assert sum(report.entries for report in driver.command(Delete(id="d1", key=b"007"))) == 0
        assert left(driver) == before


@pytest.mark.parametrize("key", ["eve", b"007", '{"user":"ann"}', "\udcff"])
def test_key_that_nothing_has_is_said_and_no_savepoint_is_made(savepoint: Path, tmp_path: Path, key: bytes | str) -> None:
    with pytest.raises(StateError, match="there is nothing of key"):
        edit(savepoint, tmp_path / "two", key)
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"k": "!!!", "value": 1}, "k of an entry must be base64, not '!!!'"),
        ({"k": 5, "value": 1}, "k of an entry must be base64, not 5"),
        ({"key": "ann", "v": "%%"}, "v of an entry must be base64, not '%%'"),
        ({"key": "ann", "v": ["x"]}, "v of an entry must be base64"),
        ({"operator": "detect", "state": "deadlines", "key": "ann", "time_ms": "x", "value": 1}, "'x' is no time in milliseconds"),
        ({"operator": "detect", "state": "deadlines", "key": "ann", "time_ms": 1 << 63, "value": 1}, f"{1 << 63} is no time"),
    ],
)
def test_line_that_is_no_entry_is_refused_in_a_sentence(savepoint: Path, tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    names = {"pipeline": "found" if row.get("operator") else "users", "operator": "count", "state": "views"}
    with pytest.raises(StateError, match=reason):
        edited_savepoint(open_folder(savepoint), open_folder(tmp_path / "two"), PLAN, put=[names | row])
    assert not (tmp_path / "two").exists()


def state(name: str) -> StateSpec:
    return catalog_of(PLAN).spec(name)


def test_text_is_a_key_of_its_states_type() -> None:
    assert parse_key(state("sites/count/views"), "007") == 7
    assert parse_key(state("users/count/views"), "007") == "007"
    assert parse_key(state("anything/count/views"), "sam") == "sam"  # not "am", though an s stands in front of what is stored
    for name, text in [("sites/count/views", "x"), ("places/count/views", "ann"), ("users/count/views", "\udcff")]:
        with pytest.raises(StateError, match="is no key of its type"):
            parse_key(state(name), text)
