"""The simulator: 200 fixed seeds hold, a seed gives the same run in any process, and what it is to notice it does notice."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.app import Order
from tests.simulation.commands import explains
from tests.simulation.oracle import Expected, Sent, expect
from tests.simulation.run import run_seed

ROOT = Path(__file__).parents[2]
SEEDS, CHUNK = 200, 20


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_simulation_of_fixed_seeds_finds_nothing_wrong(first: int) -> None:
    outcomes = [run_seed(seed) for seed in range(first, first + CHUNK)]
    assert not [outcome for outcome in outcomes if outcome.errors], "\n".join(o.report() for o in outcomes if o.errors)


def test_simulation_of_a_seed_is_the_same_in_every_process() -> None:
    """Nothing may depend on hashes of strings, on addresses or on the machine's clock, or a seed would replay nothing."""
    runs = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", "2", "--first", "7", "--trace"],
            cwd=ROOT, env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1]
    assert "dies" in runs[0] and runs[0].endswith("2 passed, 0 failed\n")


def test_oracle_sums_windows_and_finds_what_is_late() -> None:
    orders = [
        [_sent(0, 10, 500, "sale", 1_000), _sent(1, 11, 70, "sale", 9_999), _sent(2, 12, 5, "late", 0), _sent(3, 13, 7, "sale", 10_000)]
    ]
    expected = expect(["revenue", "even"], orders, [[]])
    assert expected.rows["revenue"] == {"EUR": [[0, 10_000, 2, 570], [10_000, 20_000, 1, 7]]}
    assert expected.rows["revenue-late"] == {"EUR": [12]}
    assert expected.rows["even"] == {"ann": [10, 12]}


def test_oracle_parts_sessions_and_pairs_what_is_next_to_each_other() -> None:
    sales = [(1, 100, 5_000), (2, 900, 9_000), (3, 200, 1_000), (4, 800, 13_001)]
    orders = [[_sent(offset, order_id, amount, "sale", ts) for offset, (order_id, amount, ts) in enumerate(sales)]]
    expected: Expected = expect(["sessions", "alerts"], orders, [[]])
    assert expected.rows["sessions"] == {"ann": [[1_000, 13_000, 3, 3, 2], [13_001, 17_001, 1, 4, 4]]}
    assert expected.rows["alerts"] == {"ann": [[1, 2]]}


def _sent(offset: int, order_id: int, amount: int, kind: str, ts: int) -> Sent:
    return Sent("orders", 0, offset, Order(order_id, "ann", "EUR", amount, kind, ts))


def test_commands_that_were_lost_or_obeyed_twice_explain_no_results() -> None:
    assert explains([1_000], [(1, 1), (1_001, 2)], (1_001, 2)), "between the two"
    assert explains([1_000], [(1, 1), (2, 2)], (1_000, 2)), "after both"
    assert explains([1_000, None], [(1, 1), (1, 1)], (1, 1)), "both between the two"
    assert not explains([1_000], [(1, 1), (2, 2)], (2, 2)), "lost"
    assert not explains([1_000], [(1_001, 1), (1_001, 2)], (1_001, 2)), "twice"
    assert not explains([1_000, None], [(1, 1), (1_001, 2)], (1_001, 2)), "in another order"
    assert not explains([None], [(1, 1), (1, 2)], (1, 2)), "erased by half"
    assert not explains([1_000], [(1, 1), (1_001, 2)], (1_002, 2)), "the state is another"
