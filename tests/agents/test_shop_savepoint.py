"""The shop on 4 partitions, its savepoint, and the same shop on 12: together they give what the oracle gives for all of the traffic."""

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import agents
from agents.traffic import TrafficRecord, traffic
from engine.records import OutputColumns, TopicPartition
from engine.restoring import Words
from engine.runtime.savepoint_restoring import restore_savepoint
from engine.runtime.savepoint_taking import Wish, take_savepoint
from engine.runtime.transport.memory import MemoryTransport
from engine.testing.clock import virtual_time
from engine.topology import Topology
from state.hashing import partition_of
from state.remote import open_folder
from tests.engine.runtime.worker_world import Worker, World, eventually
from tests.oracle.shop import Shop, compute

EVENTS = 6_000
OUT_OF_ORDER_MS = 30_000


def shop(partitions: int) -> Topology:
    """Return the shop on so many partitions."""
    topology = Topology(agents.app.topology.app_id, partitions=partitions, max_ahead_ms=None)
    topology.sources, topology.pipelines = agents.app.topology.sources, agents.app.topology.pipelines
    return topology


def in_time(events: int, seed: int) -> list[TrafficRecord]:
    """Return traffic without what is late by the time of its topic: then nothing is late however many partitions there are.

    Which of several slow records is late depends on what else lies in its partition, and that is what changes here.
    """
    highest: dict[str, int] = defaultdict(lambda: -(2**63))
    kept = []
    for record in traffic(events, seed=seed):
        try:
            ts = json.loads(record.value)["ts"]
        except (ValueError, KeyError, TypeError):
            ts = None
        if isinstance(ts, int):
            if ts < highest[record.topic] - OUT_OF_ORDER_MS:
                continue
            highest[record.topic] = max(highest[record.topic], ts)
        kept.append(record)
    return kept


def produce(world: World, records: list[TrafficRecord], partitions: int) -> None:
    """Append records where a producer puts them that knows of so many partitions."""
    columns: dict[TopicPartition, OutputColumns] = defaultdict(OutputColumns)
    for topic, key, value, timestamp_ms in records:
        columns[TopicPartition(topic, partition_of(key, partitions))].append(timestamp_ms, key, value)
    world.broker.produce(columns)


def results(world: World, topic: str) -> dict[str, list[Any]]:
    """Return the values of each key, in the order of their times: a topic that has grown has a key in two partitions."""
    found: dict[str, list[tuple[int, int, Any]]] = defaultdict(list)
    for batch in world.read(topic):
        for key, value, timestamp_ms, offset in zip(batch.keys, batch.values, batch.timestamps, batch.offsets, strict=True):
            found[(key or b"").decode()].append((timestamp_ms, offset, json.loads(value or b"null")))
    return {key: [value for *_, value in sorted(rows, key=lambda row: row[:2])] for key, rows in found.items()}


def is_drained(worker: Worker, world: World) -> bool:
    return all(
        task.is_drained()
        and all(position >= world.broker.log(partition).last_stable_offset for partition, position in task.positions.items())
        for task in worker.runner.tasks.values()
    )


def check(world: World, expected: Shop) -> None:
    """Compare everything that came out, over both lives, with the oracle."""
    assert results(world, "sessions") == expected.sessions
    assert results(world, "fraud-alerts") == expected.alerts
    assert results(world, "first-orders") == {user: [first] for user, first in expected.first_orders.items()}
    histories = results(world, "user-history")
    newest = {user: max(rows, key=lambda row: row["orders"]) for user, rows in histories.items()}
    assert newest == expected.histories
    assert sorted(row["orders"] for rows in histories.values() for row in rows) == sorted(
        number for history in expected.histories.values() for number in range(1, history["orders"] + 1)
    )
    revenue = results(world, "revenue")
    windows = {(row["currency"], row["window_start"]): (row["orders"], row["revenue_cents"]) for rows in revenue.values() for row in rows}
    assert windows == expected.revenue_given_late([])
    assert sum(map(len, revenue.values())) == len(windows)
    assert results(world, "orders-late") == {}
    assert sum(map(len, results(world, "shop-dlq").values())) == expected.bad_orders + expected.bad_page_views


@virtual_time
async def test_shop_on_4_partitions_restored_on_12_goes_on_with_exact_results(tmp_path: Path) -> None:
    records = in_time(EVENTS, seed=11)
    middle = len(records) * 2 // 3
    expected = compute(
        [value for topic, _, value, _ in records if topic == "orders"],
        [value for topic, _, value, _ in records if topic == "page-views"],
    )
    assert not expected.may_be_late() and not expected.late_page_views and not expected.late_fraud_orders
    world = World(shop(4))
    workers = [world.worker("w1"), world.worker("w2")]
    produce(world, records[: middle // 2], 4)
    await eventually(lambda: sum(len(worker.runner.tasks) for worker in workers) == 4)
    await asyncio.sleep(0.5)
    produce(world, records[middle // 2 : middle], 4)
    await eventually(lambda: all(is_drained(worker, world) for worker in workers))
    client = MemoryTransport(world.broker, group_id="", client_id="cli", clock=world.clock)
    await client.start()
    manifest = await take_savepoint(client, world.plan, Wish("four", str(tmp_path), stop=True), world.clock)
    assert manifest.partitions == 4 and manifest.entries > 300
    for worker in workers:
        await worker.stop()
    restored = await restore_savepoint(
        client, shop(12).plan(), open_folder(tmp_path / "four"), world.clock, words=Words(), grow=True, who="eve", why="more traffic"
    )
    await client.stop()
    assert (restored.epoch.epoch, len(restored.entries)) == (2, 12)
    assert min(restored.entries) > 0
    world.plan = shop(12).plan()
    again = [world.worker("w3"), world.worker("w4"), world.worker("w5")]
    produce(world, records[middle:], 12)
    await eventually(lambda: sum(len(worker.runner.tasks) for worker in again) == 12)
    await eventually(lambda: all(is_drained(worker, world) for worker in again))
    for worker in again:
        for task in worker.runner.tasks.values():
            task.end_input(tuple(world.plan.sources))  # the last sessions and minutes close
    await asyncio.sleep(2)
    await eventually(lambda: all(is_drained(worker, world) for worker in again))
    check(world, expected)
    for worker in again:
        await worker.stop()
