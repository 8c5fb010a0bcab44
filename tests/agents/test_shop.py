"""The acceptance test: `streamforge run agents` over sample traffic gives what the oracle gives, whatever the batches."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents import app
from agents.traffic import traffic
from engine.runtime.file_run import run_files
from engine.runtime.record_lines import format_line
from engine.runtime.shell import Limits
from tests.oracle.shop import Shop, compute

Value = dict[str, Any]


def write_traffic(folder: Path, events: int, seed: int) -> Shop:
    """Write the traffic as record lines, one file a topic, and return what must come of it."""
    values: dict[str, list[bytes]] = {"orders": [], "page-views": []}
    files = {topic: (folder / f"{topic}.jsonl").open("wb") for topic in values}
    for topic, key, value, timestamp_ms in traffic(events, seed=seed):
        values[topic].append(value)
        files[topic].write(format_line(topic, 0, 0, timestamp_ms, key, value) + b"\n")
    for file in files.values():
        file.close()
    return compute(values["orders"], values["page-views"])


def read(folder: Path, topic: str) -> list[Value]:
    """Return the record lines of a result, in order."""
    with (folder / f"{topic}.jsonl").open("rb") as file:
        return [json.loads(line) for line in file]


def by_key(records: list[Value]) -> dict[str, list[Value]]:
    """Return the values of each key, in order."""
    found: dict[str, list[Value]] = {}
    for record in records:
        found.setdefault(record["key"], []).append(record["value"])
    return found


def check_results(expected: Shop, folder: Path) -> None:
    """Compare everything that came out with the oracle."""
    assert by_key(read(folder, "sessions")) == expected.sessions
    assert by_key(read(folder, "fraud-alerts")) == expected.alerts
    assert by_key(read(folder, "first-orders")) == {user: [first] for user, first in expected.first_orders.items()}
    histories = by_key(read(folder, "user-history"))
    assert {user: updates[-1] for user, updates in histories.items()} == expected.histories
    assert sum(map(len, histories.values())) == len(expected.orders)
    check_revenue(expected, folder)
    assert len(read(folder, "shop-dlq")) == expected.bad_orders + expected.bad_page_views


def check_revenue(expected: Shop, folder: Path) -> None:
    """Each order is in its window's sum or in orders-late, and only those that may be late are late (see the oracle)."""
    late = [record["value"] for record in read(folder, "orders-late")]
    ids = Counter(order["order_id"] for order in late)
    assert ids <= Counter(order["order_id"] for order in expected.may_be_late())
    revenue = {
        (record["key"], record["value"]["window_start"]): (record["value"]["orders"], record["value"]["revenue_cents"])
        for record in read(folder, "revenue")
    }
    assert revenue == expected.revenue_given_late(late)
    assert len(revenue) == len(read(folder, "revenue"))
    for record in read(folder, "revenue"):
        assert record["value"]["window_end"] == record["value"]["window_start"] + 60_000 == record["timestamp_ms"] + 1
        assert record["value"]["currency"] == record["key"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shop]:
    """Traffic that takes a moment, and what must come of it."""
    folder = tmp_path_factory.mktemp("traffic")
    return folder, write_traffic(folder, 20_000, seed=7)


@pytest.mark.parametrize(
    ("fetch_records", "piece_records", "commit_records"), [(37, 11, 500), (500, 4_096, 3_000), (100_000, 100_000, 100_000)]
)
def test_shop_over_files_gives_the_oracles_results_whatever_the_batches(
    small: tuple[Path, Shop], tmp_path: Path, fetch_records: int, piece_records: int, commit_records: int
) -> None:
    source, expected = small
    inputs = [(topic, source / f"{topic}.jsonl") for topic in ("orders", "page-views")]
    limits = Limits(piece_records_max=piece_records, commit_records_max=commit_records, commit_interval_ms=50)
    result = run_files(app.topology, inputs, tmp_path, limits=limits, fetch_records_max=fetch_records)
    check_results(expected, tmp_path)
    assert sum(result.records_in.values()) == 20_000
    late_orders = len(read(tmp_path, "orders-late"))
    assert result.late == late_orders + expected.late_page_views + expected.late_fraud_orders


@pytest.mark.parametrize("events", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_shop_by_the_command_line_gives_the_oracles_results(tmp_path: Path, events: int) -> None:
    expected = write_traffic(tmp_path, events, seed=events)
    inputs = [f"--input={topic}={tmp_path / topic}.jsonl" for topic in ("orders", "page-views")]
    command = [sys.executable, "-m", "engine", "run", "agents", *inputs, "--output", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, timeout=events / 1_000, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    summary = json.loads(done.stdout)
    assert sum(summary["records_in"].values()) == events
    assert summary["dead_letters"] == expected.bad_orders + expected.bad_page_views
    check_results(expected, tmp_path / "out")
