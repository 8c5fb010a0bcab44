"""A takeover on a real Kafka: a worker is killed, another one that keeps copies goes on; how long it takes is printed."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from tests.chaos.worker import Worker
from tests.engine.runtime.test_worker_kafka import Shop, shop_on
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SESSION_S = 3.0
ORDERS = 20_000


def second_worker(shop: Shop, folder: Path, environ: dict[str, str]) -> Worker:
    """Return another worker of the same app, with a disk of its own; it does not run yet."""
    disk = folder / "second"
    disk.mkdir()
    return Worker("second", str(folder / "totals.py"), disk, environ)


async def killed_to_first_result(shop: Shop) -> float:
    """Kill the worker that has task 0, send one order, and return the seconds until its result is committed."""
    killed_s = time.monotonic()
    shop.worker.kill()
    await shop.send(1)
    await shop.until_all()
    return time.monotonic() - killed_s


@pytest.mark.parametrize("standbys", [0, 1])
async def test_worker_killed_its_task_goes_on_elsewhere(kafka: KafkaServer, tmp_path: Path, standbys: int) -> None:
    environ = {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}", "STREAMFORGE_STANDBYS": str(standbys)}
    async with shop_on(kafka, tmp_path) as shop:
        shop.worker = Worker("worker", str(tmp_path / "totals.py"), tmp_path, environ)
        other = second_worker(shop, tmp_path, environ)
        shop.worker.start()
        try:
            await shop.send(ORDERS)
            await shop.until_all()
            other.start()
            await _both_share(shop.worker, other)
            if 0 not in shop.worker.numbers():
                shop.worker, other = other, shop.worker
            if standbys:
                assert await other.until_said("standby of task 0: the state", 0, 30.0) is not None, other.text()[-3_000:]
                await asyncio.sleep(3.0)  # it follows; nothing comes in
            since = other.said()
            seconds = await killed_to_first_result(shop)
            line = await other.until_said("task 0: open after", since, 30.0)
            assert line is not None
            print(f"\nstandbys={standbys}: {seconds:.1f} s from kill -9 to the first committed result (session {SESSION_S} s)\n{line}")
            found = re.search(r"(\d+) changelog entries", line)
            assert found is not None
            if standbys:
                assert int(found[1]) <= 10, line
        finally:
            other.kill()


async def _both_share(*workers: Worker) -> None:
    deadline = time.monotonic() + 40.0
    while not (all(worker.numbers() for worker in workers) and sum(len(worker.numbers()) for worker in workers) == 2):
        assert time.monotonic() < deadline, [worker.text()[-1_500:] for worker in workers]
        await asyncio.sleep(0.1)


async def test_worker_with_an_instance_id_restarted_moves_nothing(kafka: KafkaServer, tmp_path: Path) -> None:
    environ = {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}", "STREAMFORGE_BROKER_SESSION_TIMEOUT": "20"}
    async with shop_on(kafka, tmp_path) as shop:
        program = tmp_path / "totals.py"
        program.write_text(program.read_text().replace("broker_session_timeout=3", "broker_session_timeout=20"))
        shop.worker = Worker("worker", str(program), tmp_path, {**environ, "STREAMFORGE_INSTANCE_ID": "pod-0"})
        other = second_worker(shop, tmp_path, {**environ, "STREAMFORGE_INSTANCE_ID": "pod-1"})
        shop.worker.start()
        other.start()
        try:
            await _both_share(shop.worker, other)
            await shop.send(100)
            await shop.until_all()
            restarted = other if 0 not in other.numbers() else shop.worker
            stayed = shop.worker if restarted is other else other
            mine, since = restarted.numbers(), stayed.said()
            begun_s = time.monotonic()
            await restarted.end()
            again = restarted.said()
            restarted.start()
            number = next(iter(mine))
            assert await restarted.until_said(f"task {number}: open after", again, 40.0) is not None, restarted.text(again)[-3_000:]
            print(f"\nstopped and open again after {time.monotonic() - begun_s:.1f} s, the other one undisturbed")
            assert "revoked" not in stayed.text(since), stayed.text(since)[-3_000:]
            await shop.send(100)
            await shop.until_all()
        finally:
            other.kill()
