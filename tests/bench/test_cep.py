"""The bench of patterns: results are the oracle's, and one user with very many orders stays within bounds."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import cep as bench

MILLION = 1_000_000


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("job", "count"), [("fraud", 10_000), ("rules", 3_000), ("rare", 20_000), ("hot", 10_000), ("capped", 10_000), ("loop", 60_000)]
)
def test_measure_gives_the_results_of_the_oracle(job: str, count: int, tmp_path: Path) -> None:
    measured = bench.measure(job, count, tmp_path)
    assert measured.right
    assert measured.results > 0 or job in ("capped", "loop")


@pytest.mark.slow
@pytest.mark.parametrize("job", ["hot", "capped", "loop"])
def test_measure_a_million_orders_of_one_user_in_the_window_keep_state_small(job: str, tmp_path: Path) -> None:
    """State is what waits for the watermark (the orders of 30 to 50 s of 240), and what partial matches hold."""
    small = bench.measure(job, MILLION // 10, tmp_path / "small")
    measured = bench.measure(job, MILLION, tmp_path / "large")
    assert measured.right
    waiting = MILLION * 50_000 // 240_000
    held = bench.LOOP_RECORDS * 9 // 8 if job == "loop" else 0
    assert measured.state_bytes < 60 * (waiting + held) + 10_000
    if job == "loop":
        assert measured.dropped_partials > 0
    else:
        assert measured.dropped_partials == (MILLION - bench.CAPPED_PARTIALS if job == "capped" else 0)
    orders_mib = MILLION * 400 // 2**20  # the orders themselves, which the test holds
    assert measured.peak_mib - small.peak_mib < orders_mib + 150


@pytest.mark.thorough
def test_main_json_says_what_the_exit_status_says(capsys: Any) -> None:
    assert bench.main(["--n", "2000", "--jobs", "hot", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["good"], document["cep"][0]["job"], document["cep"][0]["results"]) == (True, "hot", 666)


def test_options_unknown_job_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        bench.options(["--jobs", "fraud,cuckoo"])
    assert "cuckoo" in capsys.readouterr().err
