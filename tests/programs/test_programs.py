"""The small programs do what their first lines say."""

import asyncio
import json
from pathlib import Path

from cdc.avro_values import Resolver, Writer
from engine.runtime.file_run import run_files
from engine.testing import TestDriver
from tests.programs import (
    ads_that_sold,
    checked_parcels,
    late_readings,
    minute_revenue,
    patient_sessions,
    price_drop,
    quiet_sensors,
    refund_letters,
    shipping_labels,
    welcome,
)

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def test_minute_revenue_of_orders_out_of_order_sums_by_event_time() -> None:
    with TestDriver(minute_revenue.app, partitions=4) as driver:
        for user, amount_cents, currency, ts in [
            ("ann", 500, "EUR", 61_000),
            ("bob", 300, "EUR", 59_000),
            ("ann", 7, "USD", 62_000),
            ("cid", 100, "EUR", 0),
        ]:
            driver.send("orders", minute_revenue.Order(user, amount_cents, currency, ts))
        driver.finish()
        results = [record.value for record in driver.read("revenue")]
    assert sorted(results, key=lambda result: (result["key"], result["window_start"])) == [
        {"key": "EUR", "window_start": 0, "window_end": 60_000, "orders": 2, "revenue_cents": 400},
        {"key": "EUR", "window_start": 60_000, "window_end": 120_000, "orders": 1, "revenue_cents": 500},
        {"key": "USD", "window_start": 60_000, "window_end": 120_000, "orders": 1, "revenue_cents": 7},
    ]


def test_minute_revenue_over_a_file_is_what_the_driver_gives(tmp_path: Path) -> None:
    orders = [{"user_id": f"user-{n % 5}", "amount_cents": n, "currency": "EUR" if n % 3 else "USD", "ts": 997 * n} for n in range(500)]
    (tmp_path / "orders.jsonl").write_text("".join(json.dumps({"value": order}) + "\n" for order in orders))
    result = run_files(minute_revenue.app.topology, [("orders", tmp_path / "orders.jsonl")], tmp_path / "out")
    with TestDriver(minute_revenue.app, partitions=4) as driver:
        for order in orders:
            driver.send("orders", order)
        driver.finish()
        expected = [record.value for record in driver.read("revenue")]
    lines = [json.loads(line)["value"] for line in (tmp_path / "out" / "revenue.jsonl").read_text().splitlines()]
    assert sorted(lines, key=str) == sorted(expected, key=str)
    assert result.records_out == {"revenue": len(lines)} and len(lines) > 10


def test_patient_sessions_of_a_checkout_wait_longer() -> None:
    with TestDriver(patient_sessions.app) as driver:
        for page, minute in [("home", 0), ("checkout", 5), ("thanks", 60), ("home", 71)]:
            driver.send("views", patient_sessions.View("ann", page, minute * MINUTE_MS))
        driver.finish()
        visits = [record.value for record in driver.read("visits")]
    assert [(visit["pages"], visit["window_end"]) for visit in visits] == [
        (["home", "checkout", "thanks"], 70 * MINUTE_MS),
        (["home"], 81 * MINUTE_MS),
    ]


def test_welcome_of_a_user_comes_once_and_a_second_order_stops_the_reminder() -> None:
    with TestDriver(welcome.app) as driver:
        driver.send("orders", welcome.Order("o1", "ann", 0))
        driver.send("orders", welcome.Order("o2", "bob", 0))
        driver.restart()
        driver.send("orders", welcome.Order("o3", "ann", HOUR_MS))
        driver.finish()
        mails = [(record.key, record.value["text"]) for record in driver.read("mails")]
    assert mails == [("ann", "welcome, thank you for o1"), ("bob", "welcome, thank you for o2"), ("bob", "come back soon")]


def test_price_drop_compares_with_where_the_match_began() -> None:
    with TestDriver(price_drop.app) as driver:
        for cents, minute in [(1_000, 0), (950, 10), (900, 20), (890, 130), (801, 140)]:
            driver.send("quotes", price_drop.Quote("ACME", cents, minute * MINUTE_MS))
        driver.finish()
        drops = [record.value for record in driver.read("drops")]
    assert drops == [
        {"symbol": "ACME", "from_cents": 1_000, "to_cents": 900, "took_ms": 20 * MINUTE_MS},
        {"symbol": "ACME", "from_cents": 890, "to_cents": 801, "took_ms": 10 * MINUTE_MS},
    ]


def test_late_readings_within_five_minutes_count_and_later_ones_are_kept_aside() -> None:
    with TestDriver(late_readings.app) as driver:
        for celsius, ts in [(20.0, 0), (10.0, HOUR_MS + 4 * MINUTE_MS), (30.0, 1), (10.0, HOUR_MS + 5 * MINUTE_MS), (99.0, 2)]:
            driver.send("readings", late_readings.Reading("roof", celsius, ts))
        driver.finish()
        hours = [(record.value["window_start"], record.value["mean"], record.value["highest"]) for record in driver.read("climate")]
        late = [record.value["celsius"] for record in driver.read("readings-late")]
    assert hours == [(0, 25.0, 30.0), (HOUR_MS, 10.0, 10.0)]
    assert late == [99.0]


def test_shipping_labels_have_the_address_of_the_time_of_packing() -> None:
    with TestDriver(shipping_labels.app, partitions=3) as driver:
        for number, (customer, city, minute) in enumerate([("ann", "Oslo", 0), ("bob", "Bonn", 1), ("ann", "Rome", 30)]):
            driver.send("parcels", shipping_labels.Parcel(f"p{number}", customer, (minute + 1) * MINUTE_MS))
            driver.send("customers", shipping_labels.Customer(customer, city, minute * MINUTE_MS))
        driver.send("parcels", shipping_labels.Parcel("p3", "ann", 29 * MINUTE_MS))
        driver.send("parcels", shipping_labels.Parcel("p4", "cid", 29 * MINUTE_MS))
        driver.send("customers", None, key="bob", at=40 * MINUTE_MS)
        driver.finish()
        labels = {record.key: record.value["city"] for record in driver.read("labels")}
        cities = {record.key: record.value and record.value["customers"] for record in driver.read("customers-by-city")}
    assert labels == {"p0": "Oslo", "p1": "Bonn", "p2": "Rome", "p3": "Oslo", "p4": None}
    assert cities == {"Oslo": None, "Bonn": None, "Rome": 1}


def test_ads_that_sold_count_purchases_within_half_an_hour_of_a_click() -> None:
    with TestDriver(ads_that_sold.app, partitions=3) as driver:
        driver.send("purchases", ads_that_sold.Purchase("ann", 500, 31 * MINUTE_MS))
        driver.send("purchases", ads_that_sold.Purchase("bob", 700, 31 * MINUTE_MS))
        for visitor, ad, minute in [("ann", "shoes", 1), ("ann", "hats", 30), ("bob", "shoes", 0)]:
            driver.send("clicks", ads_that_sold.Click(visitor, ad, minute * MINUTE_MS))
        driver.finish()
        sales = {record.key: (record.value["purchases"], record.value["cents"]) for record in driver.read("ad-sales")}
    assert sales == {"shoes": (1, 500), "hats": (1, 500)}


def test_checked_parcels_that_wait_for_a_price_go_on_once_it_is_there() -> None:
    with TestDriver(checked_parcels.app, partitions=2) as driver:
        for number, country in enumerate(["DE", "NO", "FR"]):
            driver.send("parcels", checked_parcels.Parcel(f"p{number}", country, 2_000))
        weights = [record.value["grams"] for record in driver.read("weights")]
        assert sorted(record.value["cents"] for record in driver.read("priced-parcels")) == [800, 1_000]
        (waiting,) = driver.dead_letters()
        assert (waiting.value, waiting.pipelines, waiting.error) == (
            b'{"parcel_id":"p1","country":"NO","grams":2000}',
            ("price",),
            "KeyError: 'NO'",
        )
        checked_parcels.prices["NO"] = 700
        try:
            assert driver.replay(waiting) == 1
        finally:
            del checked_parcels.prices["NO"]
        assert [record.value for record in driver.read("priced-parcels")] == [{"parcel_id": "p1", "cents": 1_400}]
        assert weights == [2_000] * 3 and driver.read("weights") == [], "they were weighed before"


def test_quiet_sensors_are_told_from_those_that_report_when_the_minute_is_over() -> None:
    with TestDriver(quiet_sensors.app, partitions=2) as driver:
        for sensor in ("attic", "cellar"):
            driver.send("schedule", quiet_sensors.Expected(sensor, MINUTE_MS))
        for sensor, celsius, ts in (("attic", 31.5, MINUTE_MS + 59_999), ("cellar", 12.0, 2 * MINUTE_MS), ("attic", 30.0, MINUTE_MS)):
            driver.send("readings", quiet_sensors.Reading(sensor, celsius, ts))
        assert driver.read("verdicts") == []
        driver.finish()
        found = [(record.timestamp_ms, record.key, record.value) for record in driver.read("verdicts")]
    assert sorted(found, key=str) == [
        (119_999, "attic", {"verdict": "fine", "celsius": 30.0}),
        (119_999, "attic", {"verdict": "fine", "celsius": 31.5}),
        (119_999, "cellar", {"verdict": "silent"}),
        (179_999, "cellar", {"verdict": "unexpected", "celsius": 12.0}),
    ]


def test_refund_letters_are_written_for_old_and_new_payments() -> None:
    fields = [{"name": "payment_id", "type": "string"}, {"name": "client", "type": "string"}, {"name": "cents", "type": "int"}]
    old = {"type": "record", "name": "Payment", "fields": fields}
    old_id = asyncio.run(refund_letters.registry.register("payments-value", json.dumps(old)))
    with TestDriver(refund_letters.app, partitions=2) as driver:
        raw = Writer(old).encode({"payment_id": "p1", "client": "ann", "cents": -500}, b"\0" + old_id.to_bytes(4, "big"))
        driver.send("payments", raw)
        driver.send("payments", refund_letters.Payment("p2", "bob", -70, "it broke"))
        driver.send("payments", refund_letters.Payment("p3", "bob", 10))
        driver.send("payments", b"{}")
        letters = driver.read("refunds")
        (bad,) = driver.dead_letters()
    schema_id = int.from_bytes(letters[0].value[1:5], "big")
    schema = asyncio.run(refund_letters.registry.get(schema_id))
    read = [Resolver(schema.text, None).decode(letter.value, 5) for letter in letters]
    assert sorted((row["payment_id"], row["cents"], row["letter"]) for row in read) == [
        ("p1", 500, "Dear ann, your money is on its way: unknown."),
        ("p2", 70, "Dear bob, your money is on its way: it broke."),
    ]
    assert "does not begin with a zero byte" in bad.error
