"""Turns: half of the tasks at a time, in the order in which they asked, and nobody waits for one that does not answer."""

import random

import pytest

from engine.runtime.turns import TURN_S, Turns, Wake


class Tasks:
    """Tasks that share turns, and who of them was woken."""

    def __init__(self, count: int) -> None:
        self.turns = Turns()
        self.woken: list[int] = []
        self.all: list[Wake] = [self._waker(number) for number in range(count)]
        for task in self.all:
            self.turns.join(task)

    def _waker(self, number: int) -> Wake:
        return lambda: self.woken.append(number)

    def take(self, now_s: float, *numbers: int) -> list[int]:
        """Let tasks ask in this order, and return those who got a turn."""
        return [number for number in numbers if self.turns.take(self.all[number], now_s)]

    def end(self, number: int, now_s: float) -> list[int]:
        """End a task's turn, and return who is woken."""
        self.woken.clear()
        self.turns.end(self.all[number], now_s)
        return self.woken


@pytest.mark.parametrize(("count", "places"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (12, 6)])
def test_half_of_the_tasks_have_a_turn_at_a_time(count: int, places: int) -> None:
    tasks = Tasks(count)
    assert tasks.take(1.0, *range(count)) == list(range(places))
    assert [tasks.turns.is_waiting(task) for task in tasks.all] == [number >= places for number in range(count)]


def test_turns_go_round_in_the_order_of_asking() -> None:
    tasks = Tasks(4)
    assert tasks.take(1.0, 3, 1, 0, 2) == [3, 1]
    assert tasks.end(1, 1.01) == [0]
    assert tasks.take(1.01, 1, 2, 0) == [0], "1 had its turn and 2 has asked after 0"
    assert tasks.end(3, 1.02) == [2]
    assert tasks.take(1.02, 3, 1, 2) == [2]
    assert tasks.end(0, 1.03) == [1]


def test_turn_that_lasts_too_long_does_not_count() -> None:
    tasks = Tasks(2)
    assert tasks.take(1.0, 0, 1) == [0]
    assert tasks.take(1.0 + TURN_S * 0.9, 1) == []
    assert tasks.take(1.01 + TURN_S, 1) == [1]
    assert tasks.end(0, 2.0) == []


def test_who_does_not_ask_again_is_passed_over_and_keeps_its_place_until_then() -> None:
    tasks = Tasks(3)
    assert tasks.take(1.0, 0, 1, 2) == [0, 1]
    assert tasks.end(0, 1.1) == [2]
    assert tasks.take(1.1, 0) == [], "2 is before it, and has asked a short while ago"
    assert tasks.take(1.11 + TURN_S, 0) == [0]


def test_task_that_is_closed_gives_its_turn_back_and_takes_its_wish_along() -> None:
    tasks = Tasks(4)
    assert tasks.take(1.0, 0, 1, 2, 3) == [0, 1]
    tasks.turns.leave(tasks.all[2], 1.0)
    tasks.turns.leave(tasks.all[0], 1.0)
    assert tasks.take(1.0, 3) == [], "half of two is one, and 1 has it"
    assert tasks.end(1, 1.1) == [3]
    assert tasks.take(1.1, 3) == [3]


@pytest.mark.parametrize("seed", range(20))
def test_nobody_waits_for_ever(seed: int) -> None:
    """Tasks that always want to commit, take 10 to 30 ms for it and at times hang: all get about as many turns."""
    rng = random.Random(seed)
    tasks = Tasks(rng.choice([1, 2, 3, 5, 8]))
    busy_until: dict[int, float] = {}
    begun_s: dict[int, float] = {}
    turns = [0] * len(tasks.all)
    for step in range(10_000):
        now_s = step / 1_000
        for number, until_s in list(busy_until.items()):
            if until_s <= now_s:
                del busy_until[number]
                tasks.turns.end(tasks.all[number], now_s)
        free = [number for number in range(len(turns)) if number not in busy_until]
        rng.shuffle(free)
        for number in free:
            if tasks.turns.take(tasks.all[number], now_s):
                turns[number] += 1
                begun_s[number] = now_s
                busy_until[number] = now_s + (1.0 if rng.random() < 0.01 else rng.uniform(0.01, 0.03))
        assert sum(now_s - begun_s[number] < TURN_S for number in busy_until) <= (len(turns) + 1) // 2
    assert min(turns) > 0.5 * max(turns)
