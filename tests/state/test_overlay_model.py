"""The overlay against plain dicts: any run of changes, marks, roll-backs, commits and restarts, with a cache that holds almost nothing.

After each commit the store must hold exactly what the model holds: nothing is lost, doubled or left behind, and `changes()` has only
entries that the store lacks (each deletion names an entry that is there), in key order.
"""

import copy
from collections.abc import Callable
from inspect import signature
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from engine.keys import key_codec
from state.memory import MemoryStore
from state.overlay import TaskState
from state.store import Change, Position
from state.values import json_codec
from tests.effort import examples

pytestmark = pytest.mark.thorough

KEYS = st.sampled_from(["a", "b", "c", "€", "user-1"])
SUBS = st.sampled_from([b"", b"x", b"y"])
TIMES = st.integers(-3, 6)
VALUES = st.integers(0, 99)


class Model:
    """What must be there: the oracle, with nothing to it."""

    def __init__(self) -> None:
        self.keyed: dict[str, int] = {}
        self.mapped: dict[tuple[str, int], int] = {}
        self.timed: dict[tuple[int, str, bytes], int] = {}
        self.panes: dict[tuple[int, str], int] = {}

    def entries(self) -> int:
        return len(self.keyed) + len(self.mapped) + len(self.timed) + len(self.panes)


class OverlayMachine(RuleBasedStateMachine):
    """Each rule does the same to the overlay and to the model."""

    @initialize(cache=st.sampled_from([1, 8, 40, 1000]))
    def start(self, cache: int) -> None:
        self.store = MemoryStore()
        self.cache = cache
        self.model = Model()
        self.open()

    def open(self) -> None:
        self.state = TaskState(self.store, cache_entries_max=self.cache)
        self.keyed = self.state.keyed("keyed", key_codec(str), json_codec(int))
        self.mapped = self.state.mapped("mapped", key_codec(str), key_codec(int), json_codec(int))
        self.timed = self.state.timed("timed", key_codec(str), json_codec(int))
        self.panes = self.state.panes("panes", key_codec(str), json_codec(int))
        self.held: dict[int, Any] = {}
        self.marks: list[tuple[int, Model, list[Change]]] = []
        self.committed_model = copy.deepcopy(self.model)

    @rule(key=KEYS, value=VALUES)
    def put_keyed(self, key: str, value: int) -> None:
        self.keyed.put(key, value)
        self.model.keyed[key] = value

    @rule(values=st.dictionaries(KEYS, VALUES))
    def put_many_keyed(self, values: dict[str, int]) -> None:
        self.keyed.put_many(values)
        self.model.keyed.update(values)

    @rule(key=KEYS)
    def delete_keyed(self, key: str) -> None:
        self.keyed.delete(key)
        self.model.keyed.pop(key, None)

    @rule(key=KEYS)
    def get_keyed(self, key: str) -> None:
        assert self.keyed.get(key) == self.model.keyed.get(key)

    @rule(key=KEYS, sub=st.integers(0, 12), value=VALUES)
    def put_mapped(self, key: str, sub: int, value: int) -> None:
        self.mapped.put(key, sub, value)
        self.model.mapped[key, sub] = value

    @rule(key=KEYS, sub=st.integers(0, 12))
    def delete_mapped(self, key: str, sub: int) -> None:
        self.mapped.delete(key, sub)
        self.model.mapped.pop((key, sub), None)

    @rule(key=KEYS, sub=st.integers(0, 12))
    def get_mapped(self, key: str, sub: int) -> None:
        assert self.mapped.get(key, sub) == self.model.mapped.get((key, sub))

    @rule(key=KEYS)
    def list_mapped(self, key: str) -> None:
        expected = sorted(((s, v) for (k, s), v in self.model.mapped.items() if k == key), key=lambda item: str(item[0]))
        assert list(self.mapped.items(key)) == expected

    @rule(key=KEYS)
    def whole_mapped(self, key: str) -> None:
        assert self.mapped.whole(key) == {s: v for (k, s), v in self.model.mapped.items() if k == key}

    @rule(key=KEYS)
    def clear_mapped(self, key: str) -> None:
        self.mapped.clear(key)
        self.model.mapped = {cell: v for cell, v in self.model.mapped.items() if cell[0] != key}

    @rule(time=TIMES, key=KEYS, sub=SUBS, value=VALUES)
    def put_timed(self, time: int, key: str, sub: bytes, value: int) -> None:
        self.timed.put(time, key, value, sub)
        self.model.timed[time, key, sub] = value

    @rule(time=TIMES, key=KEYS, sub=SUBS)
    def delete_timed(self, time: int, key: str, sub: bytes) -> None:
        self.timed.delete(time, key, sub)
        self.model.timed.pop((time, key, sub), None)

    @rule(time=TIMES, key=KEYS, sub=SUBS)
    def get_timed(self, time: int, key: str, sub: bytes) -> None:
        assert self.timed.get(time, key, sub) == self.model.timed.get((time, key, sub))

    @rule(until=TIMES, by_sub=st.booleans())
    def look_at_due_timed(self, until: int, by_sub: bool) -> None:
        """What is due is told in order, at least up to the end of the first time."""
        expected = self.expected_due(until, by_sub)
        due = list(self.timed.due(until, "sub" if by_sub else "key"))
        least = sum(entry[0] == expected[0][0] for entry in expected)
        assert due == expected[: len(due)] and len(due) >= least

    @rule(until=TIMES, by_sub=st.booleans(), most=st.integers(0, 9))
    def take_due_timed(self, until: int, by_sub: bool, most: int) -> None:
        """Who deletes each as it comes gets all of them; who stops gets the rest when asking again."""
        expected = self.expected_due(until, by_sub)
        taken: list[tuple[int, str, bytes, int]] = []
        for time, key, sub, value in self.timed.due(until, "sub" if by_sub else "key"):
            if len(taken) == most < 9:
                break
            self.timed.delete(time, key, sub)
            taken.append((time, key, sub, value))
            del self.model.timed[time, key, sub]
        assert taken == (expected if most == 9 else expected[:most])

    @rule(until=TIMES)
    def take_due_timed_in_any_order(self, until: int) -> None:
        taken: list[tuple[int, str, bytes, int]] = []
        for entry in self.timed.due(until, "any"):
            self.timed.delete(*entry[:3])
            taken.append(entry)
        assert sorted(taken) == sorted(self.expected_due(until)) and [entry[0] for entry in taken] == sorted(entry[0] for entry in taken)
        self.model.timed = {entry: value for entry, value in self.model.timed.items() if entry[0] > until}

    def expected_due(self, until: int, by_sub: bool = False) -> list[tuple[int, str, bytes, int]]:
        expected = [(t, k, s, v) for (t, k, s), v in self.model.timed.items() if t <= until]
        return sorted(expected, key=lambda item: (item[0], item[2], item[1].encode()) if by_sub else (item[0], item[1].encode(), item[2]))

    @rule()
    def next_timed(self) -> None:
        assert self.timed.next_time() == min((time for time, _, _ in self.model.timed), default=None)

    @rule(time=TIMES, key=KEYS, value=VALUES)
    def put_pane(self, time: int, key: str, value: int) -> None:
        self.panes.pane(time).put(key, value)
        self.model.panes[time, key] = value

    @rule(time=TIMES, values=st.dictionaries(KEYS, VALUES))
    def put_many_pane(self, time: int, values: dict[str, int]) -> None:
        self.panes.pane(time).put_many(values)
        self.model.panes.update({(time, key): value for key, value in values.items()})

    @rule(time=TIMES, key=KEYS)
    def delete_pane_key(self, time: int, key: str) -> None:
        self.panes.pane(time).delete(key)
        self.model.panes.pop((time, key), None)

    @rule(time=TIMES, key=KEYS)
    def get_pane_key(self, time: int, key: str) -> None:
        pane = self.panes.pane(time)
        expected = self.model.panes.get((time, key))
        assert pane.get(key) == expected
        if pane.complete:
            assert pane.cells.get(key) == expected

    @rule(time=TIMES)
    def list_pane(self, time: int) -> None:
        expected = sorted(((k, v) for (t, k), v in self.model.panes.items() if t == time), key=lambda item: item[0].encode())
        assert self.panes.pane(time).items() == expected

    @rule(time=TIMES)
    def drop_pane(self, time: int) -> None:
        self.panes.pane(time).drop()
        self.model.panes = {cell: v for cell, v in self.model.panes.items() if cell[0] != time}

    @rule(time=TIMES)
    def hold_pane(self, time: int) -> None:
        self.held[time] = self.panes.pane(time)

    @rule(key=KEYS, value=VALUES)
    def put_held_panes(self, key: str, value: int) -> None:
        for time, pane in self.held.items():
            pane.put(key, value)
            self.model.panes[time, key] = value

    @rule(until=TIMES)
    def list_pane_times(self, until: int) -> None:
        times = sorted({time for time, _ in self.model.panes})
        assert self.panes.times(until) == [time for time in times if time <= until]
        assert self.panes.next_time() == (times[0] if times else None)

    @rule()
    def mark(self) -> None:
        self.marks.append((self.state.mark(), copy.deepcopy(self.model), self.state.changes()))

    @rule(back=st.integers(1, 4))
    def rollback(self, back: int) -> None:
        if not self.marks:
            return
        at = max(len(self.marks) - back, 0)
        mark, model, changes = self.marks[at]
        del self.marks[at + 1 :]
        self.state.rollback(mark)
        self.model = copy.deepcopy(model)
        assert self.state.changes() == changes

    @rule()
    def forget(self) -> None:
        self.state.forget()
        self.marks.clear()

    @rule()
    def commit(self) -> None:
        changes = self.state.changes()
        keys = [key for key, _ in changes]
        assert keys == sorted(set(keys))
        assert all(value is not None or self.store.get(key) is not None for key, value in changes)
        self.store.apply(changes, Position())
        self.state.committed()
        self.marks.clear()
        self.committed_model = copy.deepcopy(self.model)
        assert len(list(self.store.scan(b"", b"\xff" * 20))) == self.model.entries()
        assert self.state.changes() == []

    @rule()
    def crash(self) -> None:
        self.model = self.committed_model
        self.open()


OverlayMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=50, deadline=None)
TestOverlay = OverlayMachine.TestCase

RULES: dict[str, list[Callable[..., None]]] = {
    "keyed": [OverlayMachine.put_keyed, OverlayMachine.delete_keyed, OverlayMachine.get_keyed],
    "mapped": [
        OverlayMachine.put_mapped,
        OverlayMachine.delete_mapped,
        OverlayMachine.get_mapped,
        OverlayMachine.list_mapped,
        OverlayMachine.whole_mapped,
        OverlayMachine.clear_mapped,
    ],
    "timed": [
        OverlayMachine.put_timed,
        OverlayMachine.put_timed,
        OverlayMachine.delete_timed,
        OverlayMachine.get_timed,
        OverlayMachine.look_at_due_timed,
        OverlayMachine.take_due_timed,
        OverlayMachine.take_due_timed_in_any_order,
        OverlayMachine.next_timed,
    ],
    "panes": [
        OverlayMachine.put_pane,
        OverlayMachine.put_many_pane,
        OverlayMachine.delete_pane_key,
        OverlayMachine.get_pane_key,
        OverlayMachine.list_pane,
        OverlayMachine.drop_pane,
        OverlayMachine.hold_pane,
        OverlayMachine.put_held_panes,
        OverlayMachine.list_pane_times,
    ],
}


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("seed", range(40))
def test_overlay_long_walk_over_one_kind_agrees_with_the_model(kind: str, seed: int) -> None:
    """Hypothesis finds small examples and shrinks them; long runs over few entries find what needs many steps to come together."""
    random = Random(f"{kind} {seed}")
    draw: dict[str, Callable[[], Any]] = {
        "key": lambda: random.choice("abc€"),
        "sub": lambda: random.randrange(9, 12) if kind == "mapped" else random.choice((b"", b"x")),
        "time": lambda: random.randrange(-1, 3),
        "until": lambda: random.randrange(-2, 3),
        "value": lambda: random.randrange(100),
        "values": lambda: {key: random.randrange(100) for key in random.sample("abc€", random.randrange(5))},
        "places": lambda: [(random.randrange(-1, 3), random.choice("abc€")) for _ in range(random.randrange(5))],
        "by_sub": lambda: random.random() < 0.5,
        "most": lambda: random.randrange(10),
        "back": lambda: random.randrange(1, 4),
    }
    rules = RULES[kind] * 4 + [OverlayMachine.mark] * 4 + [OverlayMachine.rollback] * 3 + [OverlayMachine.forget]
    rules += [OverlayMachine.commit] * 3 + [OverlayMachine.crash]
    machine = OverlayMachine()
    machine.start(cache=random.choice((1, 4, 8, 1000)))
    for _ in range(250):
        step = random.choice(rules)
        machine_step = step.__get__(machine)
        machine_step(**{name: draw[name]() for name in signature(step).parameters if name != "self"})
