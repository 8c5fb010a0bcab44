"""A second worker joins, at whatever moment: everything that holds progress back at that moment must be let go by the new owners.

    orders ─ by currency ─ windows ─► revenue         what is held back            let go by
    clicks ─┐                                         a watermark told to some     the restored upstream tells all
    orders ─┴─ join ─► seen                           a merge that waits           the bound of the wait
                                                      an idle partition            idle time, counted anew
                                                      a partition too far ahead    the slowest, wherever it is read now

Each test sweeps the moment of the join over the whole time in which such a state can be, in virtual time.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from engine import Sink, Stream, agg, bounded, windows
from engine.records import OutputColumns, TopicPartition
from engine.runtime.shell import Limits
from engine.testing.clock import virtual_time
from engine.topology import Topology
from state.hashing import partition_of
from tests.engine.runtime.worker_world import FAST, World, eventually

pytestmark = pytest.mark.thorough

PARTITIONS = 4
USERS = [next(f"u{n}-{number}" for n in range(100) if partition_of(f"u{n}-{number}".encode(), PARTITIONS) == number) for number in range(4)]
MINUTE_MS = 60_000
SLOW = replace(FAST, commit_interval_ms=200, tick_ms=100, purge_interval_s=0.7)


moments = pytest.mark.parametrize(
    ("first_ms", "step_ms"), [(30, 450), *(pytest.param(first_ms, 170, marks=pytest.mark.slow) for first_ms in (0, 53, 79, 120))]
)


class Order(msgspec.Struct, frozen=True):
    """A record of the first source."""

    user: str
    currency: str
    cents: int
    ts: int


class Click(msgspec.Struct, frozen=True):
    """A record of the second source."""

    user: str
    number: int
    ts: int


def shop(idle: str | None = None, skew_ms: int | None = None) -> Topology:
    """Return an app with windows behind a repartition, and a join of two sources."""
    app = Topology("app", partitions=PARTITIONS, max_skew_ms=skew_ms)
    orders = app.source("orders", Order, key="user", time="ts", watermark=bounded("1s", idle=idle))
    clicks = app.source("clicks", Click, key="user", time="ts", watermark=bounded("1s", idle=idle))

    @app.pipeline(orders)
    def revenue(orders: Stream[str, Order]) -> Sink:
        keyed = orders.filter(lambda order: order.cents > 0).key_by("currency").window(windows.tumbling("1m"))
        return keyed.aggregate(orders=agg.count(), cents=agg.sum("cents")).to("revenue")

    @app.pipeline(orders, clicks)
    def seen(orders: Stream[str, Order], clicks: Stream[str, Click]) -> Sink:
        joined = orders.filter(lambda order: order.cents > 0).join(clicks, within=("0s", "5s"), how="left")
        return joined.map(lambda pair: [pair[0].ts if pair[0] else None, pair[1].number if pair[1] else None]).to("seen")

    return app


def send(world: World, topic: str, partition: int, **fields: Any) -> None:
    value = json.dumps({"user": USERS[partition], **fields}).encode()
    world.broker.produce({TopicPartition(topic, partition): OutputColumns([world.clock.now_ms()], [USERS[partition].encode()], [value])})


def send_minutes(world: World, partitions: range | tuple[int, ...] = range(PARTITIONS)) -> None:
    """Send, in each of the partitions, three minutes of orders, clicks of every other one, and what closes them."""
    for partition in partitions:
        for minute in range(3):
            for second in range(0, 60, 20):
                ts = minute * MINUTE_MS + second * 1_000
                send(world, "orders", partition, currency=f"C{second // 20}", cents=partition + 1, ts=ts)
                if second != 20:
                    send(world, "clicks", partition, number=second, ts=ts + 2_000)


def send_ends(world: World, partitions: range | tuple[int, ...] = range(PARTITIONS)) -> None:
    for partition in partitions:
        send(world, "orders", partition, currency="C0", cents=0, ts=10 * MINUTE_MS)
        send(world, "clicks", partition, number=-1, ts=10 * MINUTE_MS)


def rows(world: World, topic: str) -> list[Any]:
    return [json.loads(value or b"") for batch in world.read(topic) for value in batch.values]


async def until_rows(world: World, topic: str, count: int) -> None:
    await eventually(lambda: len(rows(world, topic)) >= count, timeout_s=30)


def revenue_of(partitions: range | tuple[int, ...]) -> list[tuple[str, int, int, int]]:
    cents = sum(partition + 1 for partition in partitions)
    return [(f"C{part}", minute * MINUTE_MS, len(partitions), cents) for part in range(3) for minute in range(3)]


def found_revenue(world: World) -> list[tuple[str, int, int, int]]:
    return sorted((row["key"], row["window_start"], row["orders"], row["cents"]) for row in rows(world, "revenue"))


def seen_of(partitions: range | tuple[int, ...]) -> list[list[int | None]]:
    pairs: list[list[int | None]] = [
        [minute * MINUTE_MS + second * 1_000, None if second == 20 else second] for minute in range(3) for second in range(0, 60, 20)
    ]
    return sorted(pairs * len(partitions), key=repr)


async def run(
    limits: Limits, join_ms: int, *, idle: str | None, partitions: range | tuple[int, ...], steps: bool, skew_ms: int | None = None
) -> None:
    """Let a second worker join so long after the input begins to come; all results must be there in bounded time, each once."""
    world = World(shop(idle, skew_ms))
    first = world.worker("w1", limits=limits)
    await first.until_running(*range(PARTITIONS))
    begun_s, second = world.clock.monotonic_s(), None

    async def until(ms: int) -> None:
        nonlocal second
        if second is None and join_ms <= ms:
            await eventually(lambda: world.clock.monotonic_s() - begun_s >= join_ms / 1_000, step_s=0.005)
            second = world.worker("w2", limits=limits)
        await eventually(lambda: world.clock.monotonic_s() - begun_s >= ms / 1_000, step_s=0.005)

    if steps:  # one partition after the other: the others wait for what they have not been told, or are ahead
        for number, partition in enumerate(partitions):
            send_minutes(world, (partition,))
            await until(300 * (number + 1))
            send_ends(world, (partition,))
    else:
        send_minutes(world, partitions)
        await until(300)
        send_ends(world, partitions)
    await until(2_000)
    assert second is not None
    await eventually(lambda: len(rows(world, "revenue")) >= 9 and len(rows(world, "seen")) >= 9 * len(partitions), timeout_s=60)
    await second.until_running(*second.running_numbers())
    assert found_revenue(world) == sorted(revenue_of(partitions))
    assert sorted(rows(world, "seen"), key=repr) == seen_of(partitions)
    assert len(first.running_numbers()) == len(second.running_numbers()) == 2
    await first.stop()
    await second.stop()


@moments
@virtual_time
async def test_rebalance_while_watermarks_are_told_lets_every_window_close(first_ms: int, step_ms: int) -> None:
    for join_ms in range(first_ms, 1_700, step_ms):
        await run(SLOW, join_ms, idle=None, partitions=range(PARTITIONS), steps=False)


@moments
@virtual_time
async def test_rebalance_while_partitions_come_one_after_another_lets_every_window_close(first_ms: int, step_ms: int) -> None:
    for join_ms in range(first_ms, 1_900, step_ms):
        await run(SLOW, join_ms, idle=None, partitions=range(PARTITIONS), steps=True)


@moments
@virtual_time
async def test_rebalance_while_partitions_are_held_back_lets_them_go(first_ms: int, step_ms: int) -> None:
    for join_ms in range(first_ms, 1_900, step_ms):
        await run(SLOW, join_ms, idle=None, partitions=range(PARTITIONS), steps=True, skew_ms=30_000)


@moments
@virtual_time
async def test_rebalance_while_partitions_are_about_to_be_idle_counts_them_out(first_ms: int, step_ms: int) -> None:
    """Two partitions never bring anything; 1 s of silence makes them idle, wherever they are read then."""
    for join_ms in range(first_ms, 1_900, step_ms):
        await run(SLOW, join_ms, idle="1s", partitions=(0, 3), steps=False)


@pytest.mark.parametrize("end", ["stop", "kill"])
@virtual_time
async def test_join_goes_on_after_a_restart_when_one_side_was_read_to_its_end(end: str) -> None:
    """Clicks have ended for good, before or after they were idle; orders go on, and those without a click must come out too."""
    for restart_ms in (100, 900, 1_500, 4_000):
        world = World(shop("1s"))
        disk: dict[int, Any] = {}
        first = world.worker("w1", disk=disk, limits=SLOW)
        await first.until_running(*range(PARTITIONS))
        send_minutes(world, (1,))
        await asyncio.sleep(restart_ms / 1_000)
        await getattr(first, end)()
        for minute in range(3, 6):
            send(world, "orders", 1, currency="C0", cents=1, ts=minute * MINUTE_MS)
        second = world.worker("w2", disk=disk, limits=SLOW)
        expected = sorted([*seen_of((1,)), *([minute * MINUTE_MS, None] for minute in range(3, 6))], key=repr)
        await until_rows(world, "seen", len(expected))
        assert sorted(rows(world, "seen"), key=repr) == expected
        await second.stop()
