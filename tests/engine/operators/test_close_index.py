"""The index of closes gives each key when it is due, whatever was put in, moved, taken out and rolled back before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.keys import key_codec
from engine.operators import close_index
from engine.operators.close_index import CloseIndex, pane_width_ms
from state.memory import MemoryStore
from state.overlay import TaskState
from state.store import Position
from state.values import unit_codec
from tests.effort import examples

STEPS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.integers(1, 30),  # how far ahead of the time a key closes
        st.integers(0, 9),  # how much time passes
        st.sampled_from(["keep", "roll back", "commit"]),
    ),
    max_size=40,
)


@settings(max_examples=examples(200), deadline=None)
@given(STEPS, st.integers(1, 9))
def test_take_gives_each_key_once_when_it_closes(steps: list[tuple[str, int, int, str]], width_ms: int) -> None:
    store = MemoryStore()
    state = TaskState(store)
    index = CloseIndex(state.panes("closes", key_codec(str), unit_codec), width_ms, lambda keys: None)
    closes: dict[str, int] = {}
    places: dict[str, int] = {}
    now = 0

    def step(key: str, ahead: int, passes: int) -> tuple[int, set[str], set[str]]:
        """Let a key close later, or put it in; then let time pass. Returns the time, who came out, and who should be gone."""
        closes[key] = max(closes.get(key, 0), now + ahead)
        if key not in places:
            places[key] = index.pane_of(closes[key])
            index.enter({places[key]: [key]})
        until = now + passes
        taken = set(index.take(until, closes.__getitem__))
        due = {other for other, close_ms in closes.items() if close_ms <= until}
        for other in taken:
            del places[other]
        again: dict[int, list[str]] = {}
        for other in sorted(taken - due):
            places[other] = index.pane_of(closes[other])
            again.setdefault(places[other], []).append(other)
        index.enter(again)
        for other in due:
            del closes[other]
        return until, taken, due

    for key, ahead, passes, end in steps:
        mark, before = state.mark(), (dict(closes), dict(places))
        until, taken, due = step(key, ahead, passes)
        assert due <= taken
        if end == "roll back":
            state.rollback(mark)
            index.forget()
            closes, places = before
            again = step(key, ahead, passes)
            assert (until, taken, due) == again
        now = until
        if end == "commit":
            store.apply(state.changes(), Position(b"i", 1, 0))
            state.committed()
    assert set(index.take(10_000, closes.__getitem__)) == set(places) == set(closes)


LOOKS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 30), st.integers(0, 3), st.integers(1, 5)), max_size=40)


@settings(max_examples=examples(200), deadline=None)
@given(LOOKS, st.integers(1, 20), st.sampled_from([-(10**9), 0, 10**9]))
def test_take_does_not_depend_on_when_the_heap_is_made_anew(looks: list[tuple[str, int, int, int]], width_ms: int, spare: int) -> None:
    """A key closes earlier, mostly at the time that is known, and is looked at again and again; time moves little or not at all."""
    index = CloseIndex(TaskState(MemoryStore()).panes("closes", key_codec(str), unit_codec), width_ms, lambda keys: None)
    closes: dict[str, int] = {}
    places: dict[str, int] = {}
    now = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(close_index, "_HEAP_SPARE", spare)
        for key, ahead, passes, times in looks:
            closes[key] = min(closes.get(key, now + ahead), now + ahead)
            place = index.pane_of(closes[key])
            if key not in places or place < places[key]:
                if key in places:
                    index.delete(places[key], key)
                places[key] = place
                index.enter({place: [key]})
            for _ in range(times):
                index.look_at(places[key], key, closes[key])
            now += passes
            due = {other for other, close_ms in closes.items() if close_ms <= now}
            taken = set(index.take(now, closes.__getitem__))
            assert taken == {other for other, at in places.items() if other in due or index.is_passed(at, now)}
            for other in taken:
                del places[other], closes[other]
    assert set(index.take(10_000, closes.__getitem__)) == set(places)


def test_heap_does_not_grow_while_time_stands_still() -> None:
    index = CloseIndex(TaskState(MemoryStore()).panes("closes", key_codec(str), unit_codec), 100, lambda keys: None)
    closes = {f"k{number}": 150 + number % 50 for number in range(100)}
    index.enter({100: list(closes)})
    largest = 0
    for _ in range(1_000):
        assert not list(index.take(120, closes.__getitem__))
        for key, close_ms in closes.items():
            index.look_at(100, key, close_ms)
        largest = max(largest, len(index._heap))
    assert 1_000 < largest <= 2 * 100 + 1_000 + 100, "at most twice the keys and what is spared, and what one block said"
    assert set(index.take(174, closes.__getitem__)) == {key for key, close_ms in closes.items() if close_ms <= 174}
    assert set(index.take(199, closes.__getitem__)) == {key for key, close_ms in closes.items() if close_ms > 174}


def test_pane_width_is_a_quarter_of_the_gap_within_bounds() -> None:
    assert [pane_width_ms(gap) for gap in (0, 2, 40, 60_000, 3_600_000)] == [1, 1, 10, 15_000, 15_000]
    assert pane_width_ms(lambda value: 7) == 5_000
