"""Transactions over several tables, from the captures of a real Debezium: two that interleave, one rolled back, one empty."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc import Change, Together, TransactionMark, debezium, transaction_marks, transactions
from engine.errors import ConfigError
from engine.stream import Sink, Stream
from engine.testing import TestDriver
from engine.topology import Topology
from tests.cdc.captures import lines, schemas
from tests.effort import examples

TOPICS = ("accounts", "ledger", "transaction")


def app(kind: str, *, limit: str = "30s") -> Topology:
    topology = Topology("txn", partitions=2)
    registry = schemas("txn.avro") if kind == "avro" else None
    accounts = topology.source("accounts", codec=debezium(dict, registry=registry), key="id", time="source_ms")
    ledger = topology.source("ledger", codec=debezium(dict, registry=registry), key="id", time="source_ms")
    marks = topology.source("transaction", codec=transaction_marks(registry=registry))

    @topology.pipeline(marks, accounts, ledger)
    def grouped(marks: Stream[str, TransactionMark], accounts: Stream[int, Change[Any]], ledger: Stream[int, Change[Any]]) -> Sink:
        return transactions(marks, {"public.accounts": accounts, "public.ledger": ledger}, limit=limit).map(shown).to("out")

    return topology


def shown(together: Together) -> dict[str, Any]:
    changes = [f"{change.table} {change.op.value} {(change.key or {})['id']}" for change in together.changes]
    return {"id": together.id, "changes": changes, "complete": together.is_complete, "missing": together.missing}


def send(driver: TestDriver, record: dict[str, Any]) -> None:
    topic = record["topic"].rpartition(".")[2]
    driver.send(
        topic, record["value"], key=record["key"], at=record["timestamp_ms"], partition=record["partition"], headers=record["headers"]
    )


WHOLE = {
    976: ["accounts u 1", "ledger c 36", "accounts u 2", "ledger c 39"],
    977: ["accounts u 3", "ledger c 37", "accounts u 4", "ledger c 38"],
    980: ["accounts d 2", "accounts c 20", "accounts d 4"],
    981: ["ledger c 45", "ledger c 46", "ledger c 47", "ledger c 48", "ledger c 49", "ledger c 50"],
}


def by_id(driver: TestDriver) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for record in driver.read("out"):
        found.setdefault(record.key, []).append(record.value)
    return found


@pytest.mark.parametrize("kind", ["json", "jsonschema", "avro"])
def test_trap_7_transactions_come_together_complete_and_in_order(kind: str) -> None:
    with TestDriver(app(kind), partitions=2) as driver:
        for record in lines(f"txn.{kind}"):
            send(driver, record)
        found = by_id(driver)
        assert driver.read("txn-dlq") == []
    assert {number: [value["changes"] for value in values] for number, values in found.items()} == {n: [c] for n, c in WHOLE.items()}
    assert all(value["complete"] and not value["missing"] for values in found.values() for value in values)


@settings(max_examples=examples(10))
@given(st.data())
def test_transactions_are_the_same_in_any_order_of_topics_with_replays_and_crashes(data: st.DataObject) -> None:
    queues: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in lines("txn.json"):
        queues.setdefault((record["topic"], record["partition"]), []).append(record)
    with TestDriver(app("json", limit="1d"), partitions=2) as driver:
        while queues:
            place = data.draw(st.sampled_from(sorted(queues)))
            record = queues[place].pop(0)
            for _ in range(data.draw(st.sampled_from([1, 1, 1, 2]))):
                send(driver, record)
            if not queues[place]:
                del queues[place]
            if data.draw(st.integers(0, 9)) == 0:
                driver.crash()
        assert {number: [value["changes"] for value in values] for number, values in by_id(driver).items()} == {
            number: [changes] for number, changes in WHOLE.items()
        }


def test_transaction_that_stays_incomplete_is_given_out_after_the_limit() -> None:
    with TestDriver(app("json"), partitions=2, now=max(record["timestamp_ms"] for record in lines("txn.json"))) as driver:
        late = [record for record in lines("txn.json") if record["key"] == b'{"id":38}' or record["key"] == b'{"id":50}']
        for record in lines("txn.json"):
            if record not in late:
                send(driver, record)
        assert sorted(by_id(driver)) == [976, 980]
        driver.advance("5m")
        given_up = by_id(driver)
        assert given_up == {
            977: [{"id": 977, "changes": WHOLE[977][:3], "complete": False, "missing": {"public.ledger": 1}}],
            981: [{"id": 981, "changes": WHOLE[981][:5], "complete": False, "missing": {"public.ledger": 1}}],
        }
        for record in late:
            send(driver, record)
        assert by_id(driver) == {
            977: [{"id": 977, "changes": WHOLE[977][3:], "complete": False, "missing": {}}],
            981: [{"id": 981, "changes": WHOLE[981][5:], "complete": False, "missing": {}}],
        }


def test_transactions_without_tables_are_refused() -> None:
    topology = Topology("txn")
    marks = topology.source("transaction", codec=transaction_marks())
    with pytest.raises(ConfigError, match="at least one table"):

        @topology.pipeline(marks)
        def grouped(marks: Stream[str, TransactionMark]) -> Sink:
            return transactions(marks, {}).to("out")


def test_change_without_its_place_in_the_transaction_is_a_dead_letter() -> None:
    with TestDriver(app("json"), partitions=2) as driver:
        record = next(
            record for record in lines("core.json") if record["topic"].endswith(".users") and b'"op":"c"' in (record["value"] or b"")
        )
        send(driver, {**record, "topic": "x.accounts"})
        [letter] = driver.read("txn-dlq")
        assert b"provide.transaction.metadata" in dict(letter.headers)["error"]
