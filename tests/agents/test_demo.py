"""The demo ends by itself and finds what is in its traffic."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agents.demo import demo, open_demo, run_demo
from agents.payments import with_payments
from agents.traffic import traffic
from engine.records import TopicPartition
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
    assert found["payments_in"] == sum(record.topic == "payments" for record in with_payments(traffic(EVENTS, seed=SEED), seed=SEED)) > 500
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
    assert avro.pop("schemas") == {"orders-value": 1, "page-views-value": 2, "payments-value": 3}
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
    for word in ("revenue", "orders-late", "sessions", "fraud-alerts", "first-orders", "user-history", " records in "):
        assert word in result.stdout
    for word in ("probes", "probe-alerts", "rule probe, version 1", "unpaid", "unpaid-orders", "journeys", "odd-journeys"):
        assert word in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_watch_finds_what_a_look_at_all_the_traffic_finds(tmp_path: Path) -> None:
    """Each result is one that the traffic holds; those that only records in time decide are all there."""
    opened = open_demo(EVENTS, tmp_path)
    asyncio.run(run_demo(opened, SEED))
    found: dict[str, list[dict[str, Any]]] = {}
    for topic in ("unpaid-orders", "probe-alerts", "odd-journeys"):
        batches = [opened.broker.read(TopicPartition(topic, number), 0) for number in range(12)]
        found[topic] = [json.loads(value) for batch in batches for value in batch.values if value is not None]

    orders, payments, delayed = {}, [], set()
    for topic, _, raw, arrival_ms in with_payments(traffic(EVENTS, seed=SEED), seed=SEED):
        try:
            value = json.loads(raw)
        except ValueError:
            continue
        if topic == "orders" and "user_id" in value and isinstance(value["ts"], int):
            orders[value["order_id"]] = value
        if topic == "payments":
            payments.append(value)
        if topic != "page-views" and isinstance(value["ts"], int) and arrival_ms - value["ts"] > 30_000:
            delayed.add(value.get("order_id"))

    paid = {
        p["order_id"]
        for p in payments
        if p["ts"] - (o := orders[p["order_id"]])["ts"] < 1_800_000 and p["amount_cents"] >= o["amount_cents"]
    }
    unpaid, seen = set(orders) - paid, {value["order_id"] for value in found["unpaid-orders"]}
    assert unpaid - delayed <= seen <= unpaid | delayed
    assert len(seen) > 50

    tests = {(p["user_id"], p["ts"]): p["amount_cents"] for p in payments}
    for alert in found["probe-alerts"]:
        fields, order = alert["fields"], orders[alert["fields"]["order_id"]]
        assert (alert["rule"], tests[alert["key"], fields["test_ts"]]) == ("probe", fields["test_cents"])
        assert fields["test_cents"] < 200 and 100 * fields["test_cents"] <= fields["amount_cents"] == order["amount_cents"]
        assert 0 <= order["ts"] - fields["test_ts"] < 600_000
    assert len(found["probe-alerts"]) > 5

    for journey in found["odd-journeys"]:
        here, there = (orders[name] for name in journey["order_ids"])
        assert here["country"] != there["country"] and 0 <= there["ts"] - here["ts"] < 1_800_000 and journey["views"] > 0
    assert len(found["odd-journeys"]) > 5
