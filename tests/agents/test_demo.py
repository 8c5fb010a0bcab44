"""The demo ends by itself and finds what is in its traffic."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agents.demo import demo
from agents.traffic import traffic
from tests.oracle.shop import Shop, compute

EVENTS, SEED = 5_000, 3


def run(*args: str) -> Result:
    return CliRunner().invoke(demo, ["--events", str(EVENTS), "--seed", str(SEED), *args])


@pytest.fixture(scope="module")
def expected() -> Shop:
    records = list(traffic(EVENTS, seed=SEED))
    return compute(
        [record.value for record in records if record.topic == "orders"],
        [record.value for record in records if record.topic == "page-views"],
    )


def test_demo_with_json_prints_one_object_with_the_oracles_counts(expected: Shop) -> None:
    result = run("--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert (found["events"], found["seed"], sum(found["records_in"].values())) == (EVENTS, SEED, EVENTS)
    assert found["dead_letters"] == expected.bad_orders + expected.bad_page_views
    counts = {topic: output["records"] for pipeline in found["pipelines"].values() for topic, output in pipeline["outputs"].items()}
    assert counts["sessions"] == sum(map(len, expected.sessions.values()))
    assert counts["fraud-alerts"] == sum(map(len, expected.alerts.values())) > 0
    assert counts["first-orders"] == len(expected.first_orders)
    assert counts["user-history"] == len(expected.orders)
    assert counts["orders-late"] <= len(expected.may_be_late())
    assert found["pipelines"]["sessions"]["late"] == expected.late_page_views
    assert set(found["pipelines"]["revenue"]["outputs"]["revenue"]["newest"][0]) == {
        "currency", "window_start", "window_end", "orders", "revenue_cents"
    }  # fmt: skip


def test_demo_with_a_registry_finds_the_same_in_avro() -> None:
    plain, avro = json.loads(run("--json").stdout), json.loads(run("--json", "--registry").stdout)
    assert avro.pop("schemas") == {"orders-value": 1, "page-views-value": 2}
    for volatile in ("seconds", "records_per_second"):
        del plain[volatile], avro[volatile]
    for result in (plain, avro):  # how far another partition's time has come decides which orders are late
        del result["pipelines"]["revenue"]
    assert avro == plain


def test_demo_for_people_shows_every_pipeline_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = run()
    assert result.exit_code == 0, result.output
    for word in ("revenue", "orders-late", "sessions", "fraud-alerts", "first-orders", "user-history", f"{EVENTS:,} records in"):
        assert word in result.stdout
    assert list(tmp_path.iterdir()) == []
