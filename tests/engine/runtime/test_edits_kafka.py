"""Edits and an erasure of a running app on a real Kafka, with the worker killed while they are on their way: each is obeyed once."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from engine.control import Report
from engine.records import TopicPartition
from tests.engine.runtime.kafka_harness import read_to_end
from tests.engine.runtime.test_worker_kafka import Shop, shop_on
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENCE_S = 120.0
STATE = "totals/numbering"


async def edit(kafka: KafkaServer, folder: Path, shop: Shop, *command: str, kill_after_s: float) -> None:
    """Give a command, kill the worker while it is on its way, start it again, and wait for the command's answer."""
    environ = {**os.environ, "STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"}
    call = [sys.executable, "-m", "engine", "state", *command, "-A", str(folder / "totals.py"), "--who", "eve", "--why", "a test"]
    since = shop.worker.said()
    process = await asyncio.create_subprocess_exec(*call, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        await asyncio.sleep(kill_after_s)
        shop.worker.kill()
        shop.worker.start()
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()
    await shop.opened(since)


async def next_total(shop: Shop) -> tuple[int, int]:
    """Send an order of one cent more than the last, and return its running totals."""
    before = len(await shop.totals())
    await shop.send(1)
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await shop.totals()) <= before:  # noqa: ASYNC110  # a topic tells nobody
            await asyncio.sleep(0.1)
    assert len(found) == before + 1
    return found[-1]


async def test_edits_and_an_erasure_are_obeyed_once_although_the_worker_is_killed(kafka: KafkaServer, tmp_path: Path) -> None:
    async with shop_on(kafka, tmp_path) as shop:
        shop.worker.start()
        await shop.send(100)
        await shop.until_all()
        for turn, kill_after_s in enumerate((0.0, 1.5, 3.0)):
            number = 1_000 * (turn + 1)
            await edit(kafka, tmp_path, shop, "put", str(number), "--state", f"{STATE}/orders", "--key", "ann", kill_after_s=kill_after_s)
            assert (await next_total(shop))[0] == number + 1
        assert (await next_total(shop)) == (3_002, sum(range(1, 105)))
        await edit(kafka, tmp_path, shop, "delete", "--key", "ann", "--everywhere", kill_after_s=2.0)
        assert await next_total(shop) == (1, 105)
        shop.worker.kill()
        shop.worker.lose_disk()  # what is restored from the changelog has no trace of what was erased
        shop.worker.start()
        assert await next_total(shop) == (2, 105 + 106)
        batches = await read_to_end(shop.transport, TopicPartition(f"{shop.name}-audit", 0))
        reports = [msgspec.json.decode(value or b"", type=Report) for batch in batches for value in batch.values]
        done = [(report.kind, report.who, report.why) for report in reports if report.entries]
        assert done == [*[("put", "eve", "a test")] * 3, ("delete", "eve", "a test")]
