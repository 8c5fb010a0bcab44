"""What every store must do: the same tests on both."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.errors import StateError
from state.memory import MemoryStore
from state.rocks import RocksStore
from state.store import Change, Position, Store
from tests.effort import examples

TOP = b"\xff" * 16
KEYS = st.binary(min_size=1, max_size=3).map(lambda key: b"k" + key)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=8)), max_size=20)


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")
    yield made
    made.close()


def entries(store: Store) -> list[tuple[bytes, bytes]]:
    return list(store.scan(b"", TOP))


def test_position_of_a_new_store_is_the_empty_one(store: Store) -> None:
    assert store.position == Position()
    assert entries(store) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(40), deadline=None)
@given(batches=st.lists(CHANGES, max_size=5), low=KEYS, high=KEYS)
def test_apply_any_batches_leaves_what_a_dict_holds(store: Store, batches: list[list[Change]], low: bytes, high: bytes) -> None:
    store.apply([(key, None) for key, _ in entries(store)], Position())
    model: dict[bytes, bytes] = {}
    for number, changes in enumerate(batches):
        store.apply(iter(changes), Position(b"id", number, -number))
        for key, value in changes:
            model.pop(key, None)
            if value is not None:
                model[key] = value
        assert store.position == Position(b"id", number, -number)
    assert entries(store) == sorted(model.items())
    assert list(store.scan(low, high)) == sorted(item for item in model.items() if low <= item[0] < high)
    asked = [*model, low, high, b""]
    assert [store.get(key) for key in asked] == [model.get(key) for key in asked]
    several = [key for key in [*asked, low] if key]
    assert store.get_many(several) == [model.get(key) for key in several]
    assert store.get_many([]) == []


def test_scan_while_the_store_is_written_shows_what_was_there_at_the_call(store: Store) -> None:
    store.apply([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")], Position())
    scan = store.scan(b"", TOP)
    assert next(scan) == (b"a", b"1")
    store.apply([(b"b", None), (b"bb", b"4"), (b"c", b"5")], Position())
    assert list(scan) == [(b"b", b"2"), (b"c", b"3")]
    assert entries(store) == [(b"a", b"1"), (b"bb", b"4"), (b"c", b"5")]


def test_apply_of_changes_that_fail_halfway_writes_nothing(store: Store) -> None:
    def broken() -> Iterator[Change]:
        yield b"a", b"1"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        store.apply(broken(), Position(b"id", 5))
    assert entries(store) == []
    assert store.position == Position()


def test_clear_deletes_entries_and_position_and_the_store_goes_on(store: Store) -> None:
    store.apply([(b"a", b"1")], Position(b"id", 5, 6))
    store.clear()
    assert (entries(store), store.position) == ([], Position())
    store.apply([(b"b", b"2")], Position(b"id", 1, 1))
    assert entries(store) == [(b"b", b"2")]


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get(b"a"),
        lambda store: store.get_many([b"a"]),
        lambda store: store.scan(b"a", b"b"),
        lambda store: store.apply([], Position()),
        lambda store: store.flush(),
    ],
)
def test_use_after_close_raises_state_error(store: Store, use: Callable[[Store], object]) -> None:
    store.flush()
    store.close()
    store.close()
    with pytest.raises(StateError, match="closed"):
        use(store)
