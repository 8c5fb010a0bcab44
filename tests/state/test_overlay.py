"""The overlay case by case: what a commit writes, what stays in memory, and how mistakes are told."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.keys import key_codec
from state.errors import StateError, StoredTypeError
from state.keys import KeyCodec, encode_key, encode_time, store_id
from state.memory import MemoryStore
from state.overlay import TaskState
from state.store import Position
from state.timed import Order
from state.values import json_codec, unit_codec

TEXT: KeyCodec[str] = key_codec(str)
NUMBER = json_codec(int)


def commit(store: MemoryStore, state: TaskState) -> list[tuple[bytes, bytes | None]]:
    changes = state.changes()
    store.apply(changes, Position())
    state.committed()
    return changes


def fill(state: TaskState) -> None:
    state.keyed("keyed", TEXT, NUMBER).put("k", 1)
    state.mapped("mapped", TEXT, TEXT, NUMBER).put("k", "s", 2)
    state.timed("timed", TEXT, NUMBER).put(7, "k", 3, b"s")
    state.panes("panes", TEXT, NUMBER).pane(60_000).put("k", 4)


def test_changes_of_each_kind_have_the_documented_bytes() -> None:
    state = TaskState(MemoryStore())
    fill(state)
    key = encode_key(b"k", b"k")
    assert state.changes() == sorted(
        [
            (store_id("keyed") + key, b"\x01\x001"),
            (store_id("mapped") + key + b"s", b"\x01\x002"),
            (store_id("timed") + encode_time(7) + key + b"s", b"\x01\x003"),
            (store_id("panes") + encode_time(60_000) + key, b"\x01\x004"),
        ]
    )


def test_changes_of_entries_created_and_deleted_between_commits_are_none() -> None:
    store = MemoryStore()
    state = TaskState(store)
    keyed, mapped = state.keyed("keyed", TEXT, NUMBER), state.mapped("mapped", TEXT, TEXT, NUMBER)
    timed, panes = state.timed("timed", TEXT, NUMBER), state.panes("panes", TEXT, NUMBER)
    mapped.put("k", "other", 1)
    panes.pane(5).put("other", 1)
    commit(store, state)
    for _ in range(2):
        keyed.put("k", 1)
        keyed.delete("k")
        mapped.put("k", "s", 1)
        mapped.delete("k", "s")
        timed.put(1, "k", 1)
        timed.delete(1, "k")
        panes.pane(5).put("k", 1)
        panes.pane(5).delete("k")
        panes.pane(9).put_many({"a": 1, "b": 2})
        panes.pane(9).drop()
    assert state.changes() == []


def test_changes_of_a_dropped_pane_delete_what_the_store_has_and_no_more() -> None:
    store = MemoryStore()
    state = TaskState(store)
    panes = state.panes("panes", TEXT, NUMBER)
    panes.pane(5).put_many({"a": 1, "b": 2})
    stored = commit(store, state)
    panes.pane(5).put("c", 3)
    panes.pane(5).drop()
    panes.pane(5).put("b", 9)
    prefix = store_id("panes") + encode_time(5)
    expected = {prefix + encode_key(b"a", b"a"): None, prefix + encode_key(b"b", b"b"): b"\x01\x009"}
    assert dict(state.changes()) == expected
    assert len(state.changes()) == len(stored) == 2


@pytest.mark.parametrize("before", [0, 3, 50])
def test_put_many_rolled_back_leaves_cells_and_changes_as_they_were(before: int) -> None:
    store = MemoryStore()
    state = TaskState(store)
    pane = state.panes("panes", TEXT, NUMBER).pane(0)
    pane.put_many({str(n): n for n in range(before)})
    commit(store, state)
    pane.put("0", -1)
    cells, changes = dict(pane.cells), state.changes()
    mark = state.mark()
    pane.put_many({str(n): -n for n in range(1, 5)})
    pane.put_many({"x": 1})
    assert pane.cells == cells | {"1": -1, "2": -2, "3": -3, "4": -4, "x": 1}
    state.rollback(mark)
    assert pane.cells == cells
    assert state.changes() == changes


def test_timed_put_over_an_unread_entry_rolled_back_after_a_read_shows_the_stored_one() -> None:
    store = MemoryStore()
    state = TaskState(store)
    state.timed("timed", TEXT, NUMBER).put(5, "k", 1)
    commit(store, state)
    state = TaskState(store)
    timed = state.timed("timed", TEXT, NUMBER)
    mark = state.mark()
    timed.put(5, "k", 2)
    assert list(timed.due(9)) == [(5, "k", b"", 2)]
    state.rollback(mark)
    assert timed.get(5, "k") == 1
    assert list(timed.due(9)) == [(5, "k", b"", 1)]


def test_committed_more_than_the_cache_holds_trims_memory_and_loses_nothing() -> None:
    store = MemoryStore()
    state = TaskState(store, cache_entries_max=400)
    keyed, mapped = state.keyed("keyed", TEXT, NUMBER), state.mapped("mapped", TEXT, key_codec(int), NUMBER)
    timed, panes = state.timed("timed", TEXT, unit_codec), state.panes("panes", TEXT, NUMBER)
    first = panes.pane(0)
    assert timed.next_time() is None
    for n in range(1_000):
        keyed.put(str(n), n)
        mapped.put(str(n % 10), n, n)
        timed.put(n, str(n), True)
        panes.pane(n // 100).put(str(n), n)
    assert first.complete
    commit(store, state)
    assert state.cached() <= 400
    assert not first.complete
    assert timed.next_time() == 0
    assert [keyed.get(str(n)) for n in range(1_000)] == list(range(1_000))
    assert [len(list(mapped.items(str(n)))) for n in range(10)] == [100] * 10
    assert [len(panes.pane(n).items()) for n in range(10)] == [100] * 10
    assert panes.times(999) == list(range(10))
    commit(store, state)
    assert state.cached() <= 400


def test_timed_far_more_than_the_cache_holds_come_due_in_order_with_little_in_memory() -> None:
    store = MemoryStore()
    state = TaskState(store, cache_entries_max=200)
    timed = state.timed("timed", TEXT, unit_codec)
    assert timed.next_time() is None
    for start in range(0, 5_000, 500):
        for n in range(start, start + 500):
            timed.put(n * 7919 % 5_000, str(n), True)
        commit(store, state)
        assert state.cached() <= 200
    state = TaskState(store, cache_entries_max=200)
    timed = state.timed("timed", TEXT, unit_codec)
    times = []
    while (time := timed.next_time()) is not None:
        times += [timer[0] for timer in timed.due(time)]
        for at, key, sub, _ in timed.due(time):
            timed.delete(at, key, sub)
        if len(times) % 100 == 0:
            commit(store, state)
            assert state.cached() <= 200
    assert times == list(range(5_000))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["key", "sub", "any"])
def test_timed_200_000_entries_of_one_time_come_due_in_order_with_a_part_of_them_in_memory(order: Order) -> None:
    numbers, most = 200_000, 80_000
    store = MemoryStore()
    for start in range(0, numbers, 40_000):  # each by a task of its own, so that nothing is in memory
        state = TaskState(store, cache_entries_max=most)
        timed = state.timed("timed", TEXT, NUMBER)
        for n in range(start, start + 40_000):
            timed.put(60_000, f"k{n * 7919 % numbers}", n, n.to_bytes(8, "big"))
        commit(store, state)
        assert state.cached() <= most
    state = TaskState(store, cache_entries_max=most)
    timed = state.timed("timed", TEXT, NUMBER)
    assert timed.next_time() == 60_000
    came: list[int] = []
    memory = 0
    for time, key, sub, n in timed.due(60_000, order):
        timed.delete(time, key, sub)
        came.append(n)
        if n % 97 == 0:
            memory = max(memory, timed.size())
            assert timed.next_time() == 60_000 or len(came) == numbers
    assert memory <= most // 2
    by_key = sorted(range(numbers), key=lambda n: f"k{n * 7919 % numbers}")
    assert (sorted(came) if order == "any" else came) == (by_key if order == "key" else list(range(numbers)))
    assert timed.next_time() is None and timed.size() == 0
    assert len(state.changes()) == numbers
    commit(store, state)
    assert not list(store.scan(b"", b"\xff" * 20))


def test_timed_entries_of_one_time_that_stay_come_again_and_those_that_are_put_meanwhile_next_time() -> None:
    store = MemoryStore()
    state = TaskState(store, cache_entries_max=8)
    timed = state.timed("timed", TEXT, NUMBER)
    for n in range(10):
        timed.put(5, f"k{n}", n)
    commit(store, state)
    assert state.cached() == 0
    due = timed.due(9)
    first, second = next(due), next(due)
    assert (first, second) == ((5, "k0", b"", 0), (5, "k1", b"", 1))
    timed.delete(5, "k0")
    timed.put(5, "k2a", 20)
    timed.delete(5, "k3")
    assert [key for _, key, _, _ in due] == [f"k{n}" for n in range(2, 10)], "as it was when they became due"
    mark = state.mark()
    assert [key for _, key, _, _ in timed.due(9)] == ["k1", "k2", "k2a", *(f"k{n}" for n in range(4, 10))]
    for time, key, sub, _ in timed.due(9):
        timed.delete(time, key, sub)
    assert timed.next_time() is None
    state.rollback(mark)
    assert timed.next_time() == 5
    assert len(list(timed.due(9))) == 9


def test_timed_moved_again_and_again_keeps_no_trace_of_the_old_times() -> None:
    state = TaskState(MemoryStore())
    timed = state.timed("timed", TEXT, unit_codec)
    assert timed.next_time() is None
    for n in range(20_000):
        timed.put(n, "k", True)
        timed.delete(n - 1, "k")
        state.forget()
    assert len(timed._by_time) < 3_000
    assert list(timed.due(10**6)) == [(19_999, "k", b"", True)]


def test_items_of_keys_of_any_type_are_in_the_order_of_their_bytes_on_the_wire() -> None:
    pane = TaskState(MemoryStore()).panes("panes", key_codec(Any), NUMBER).pane(0)
    pane.put_many({"b": 1, b"a": 2, 10: 3, "10": 4})
    assert [key for key, _ in pane.items()] == [10, "10", b"a", "b"]


def test_open_twice_or_with_a_taken_id_raises_state_error() -> None:
    state = TaskState(MemoryStore())
    state.keyed("plumless", TEXT, NUMBER)
    with pytest.raises(StateError, match="is open already"):
        state.panes("plumless", TEXT, NUMBER)
    with pytest.raises(StateError, match="'buckeroo' has the same store id as 'plumless'"):
        state.keyed("buckeroo", TEXT, NUMBER)


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("keyed", lambda state: state.keyed("keyed", TEXT, json_codec(str)).get("k")),
        ("mapped", lambda state: state.mapped("mapped", TEXT, TEXT, json_codec(str)).items("k")),
        ("timed", lambda state: list(state.timed("timed", TEXT, json_codec(str)).due(10))),
        ("panes", lambda state: state.panes("panes", TEXT, json_codec(str)).pane(60_000)),
        ("timed", lambda state: list(state.timed("timed", key_codec(int), NUMBER).due(10))),
        ("panes", lambda state: state.panes("panes", key_codec(int), NUMBER).pane(60_000)),
    ],
)
def test_read_of_another_type_raises_an_error_that_names_the_state(kind: str, read: Callable[[TaskState], object]) -> None:
    store = MemoryStore()
    state = TaskState(store)
    fill(state)
    commit(store, state)
    with pytest.raises(StoredTypeError, match=f"'{kind}'"):
        read(TaskState(store))


def test_time_beyond_64_bits_raises_overflow_error_and_changes_nothing() -> None:
    state = TaskState(MemoryStore())
    timed, panes = state.timed("timed", TEXT, NUMBER), state.panes("panes", TEXT, NUMBER)
    with pytest.raises(OverflowError):
        timed.put(2**63, "k", 1)
    with pytest.raises(OverflowError):
        panes.pane(2**63)
    assert state.changes() == []


def test_group_committed_entries_are_those_of_the_store_whatever_has_changed_since() -> None:
    store = MemoryStore()
    state = TaskState(store)
    pane = state.panes("p/o/rows", TEXT, NUMBER).pane(0)
    pane.put_many({f"k{number}": number for number in range(5)})
    assert pane.committed_value("k1") is None
    assert pane.committed_items(b"", 10) == ([], None)
    store.apply(state.changes(), Position())
    state.committed()
    pane.put("k1", 100)
    pane.delete("k2")
    pane.put("k9", 9)
    assert [pane.committed_value(key) for key in ("k1", "k2", "k9")] == [1, 2, None]
    found, after = [], b""
    while True:
        items, following = pane.committed_items(after, 2)
        found += items
        if following is None:
            break
        after = following
    assert sorted(found) == [(f"k{number}", number) for number in range(5)]


@pytest.mark.parametrize("entries_max", [1, 100])
def test_keyed_items_are_those_of_the_store_and_what_has_changed_and_read_brings_them_into_memory(entries_max: int) -> None:
    store = MemoryStore()
    state = TaskState(store, cache_entries_max=entries_max)
    cells = state.keyed("keyed", TEXT, NUMBER)
    for number, key in enumerate("cab"):
        cells.put(key, number)
    commit(store, state)
    cells.put("a", 10)
    cells.put("d", 11)
    cells.delete("b")
    assert sorted(cells.items(TEXT.decode)) == [("a", 10), ("c", 0), ("d", 11)]
    cells.read(["a", "b", "c", "d", "e"])
    store.close()  # what has been read is known without the store
    assert [cells.get(key) for key in "abcde"] == [10, None, 0, 11, None]


def test_pane_read_brings_in_what_the_store_has_and_leaves_what_has_changed() -> None:
    store = MemoryStore()
    first = TaskState(store, cache_entries_max=8)
    first.panes("p", key_codec(str), json_codec(int)).pane(0).put_many({f"k{n}": n for n in range(20)})
    commit(store, first)

    panes = TaskState(store, cache_entries_max=8).panes("p", key_codec(str), json_codec(int))
    pane = panes.pane(0)
    assert not pane.complete, "a pane of 20 entries is more than this cache reads at once"
    pane.delete("k17")
    pane.put("k18", 180)
    pane.read(["k17", "k18", "k19", "k19", "absent"])
    assert {key: pane.cells.get(key) for key in ("k17", "k18", "k19", "absent")} == {"k17": None, "k18": 180, "k19": 19, "absent": None}
    assert dict(pane.items()) == {f"k{n}": n for n in range(17)} | {"k18": 180, "k19": 19}
