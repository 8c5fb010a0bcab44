"""The index of closes gives each key when it is due, whatever was put in, moved, taken out and rolled back before."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.keys import key_codec
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


def test_pane_width_is_a_quarter_of_the_gap_within_bounds() -> None:
    assert [pane_width_ms(gap) for gap in (0, 2, 40, 60_000, 3_600_000)] == [1, 1, 10, 15_000, 15_000]
    assert pane_width_ms(lambda value: 7) == 5_000
