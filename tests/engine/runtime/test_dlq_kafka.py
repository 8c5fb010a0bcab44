"""`streamforge dlq` on a real Kafka, against a worker process: what failed, sent back once the code is mended, and cleared up."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.records import OutputColumns, TopicPartition
from engine.topics import TopicSpec
from tests.chaos.worker import Worker
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0
PROGRAM = """
from pathlib import Path
from engine import App, Struct, ValueState, agg

class Order(Struct):
    order_id: str
    user: str
    cents: int

app = App("{name}", broker="kafka://set-by-the-environment", partitions=2, broker_session_timeout=3)
orders = app.source("{name}-orders", Order, key="user")

class Check:
    seen = ValueState(int, default=0)

    def on_record(self, record, ctx):
        self.seen.set(self.seen.get() + 1)
        if record.value.cents < 0 and not Path("{mended}").exists():
            raise ValueError("negative amount")
        yield {{"order_id": record.value.order_id, "seen": self.seen.get(), "trace": dict(record.headers)["trace"].decode()}}

@app.pipeline(orders)
def totals(orders):
    return orders.aggregate(orders=agg.count(), emit="record").to("{name}-totals")

@app.pipeline(orders)
def checks(orders):
    return orders.process(Check, name="check").to("{name}-checked")
"""


def streamforge(server: KafkaServer, *args: str, status: int = 0) -> str:
    env = {**os.environ, "STREAMFORGE_BROKER": f"kafka://{server.bootstrap}"}
    done = subprocess.run([sys.executable, "-m", "engine", *args], env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


async def test_dead_letters_are_replayed_once_after_the_fix(kafka: KafkaServer, tmp_path: Path) -> None:
    name, mended = unique("dlq"), tmp_path / "mended"
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM.format(name=name, mended=mended))
    worker = Worker("worker", str(program), tmp_path, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"})
    async with connected(settings_of(kafka, group=name)) as transport:
        orders, checked = TopicPartition(f"{name}-orders", 0), TopicPartition(f"{name}-checked", 0)
        await transport.ensure_topics([TopicSpec(orders.topic, 2)])
        worker.start()

        async def until(topic: str, count: int) -> list[tuple[bytes | None, int, dict[str, object]]]:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                batches = []
                if topic in await transport.partition_counts([topic]):
                    batches = await read_to_end(transport, TopicPartition(topic, 0))
                found = [(k, ts, json.loads(v or b"")) for b in batches for k, v, ts in zip(b.keys, b.values, b.timestamps, strict=True)]
                if len(found) >= count:
                    return found
                assert time.monotonic() < deadline, worker.text()[-3_000:]

        now_ms = int(time.time() * 1_000)
        try:
            columns = OutputColumns()
            for number, cents in enumerate((5, -1, 7)):
                value = json.dumps({"order_id": f"o{number}", "user": "ann", "cents": cents}).encode()
                columns.append(now_ms + number, b"ann", value, [("trace", b"t%d" % number)])
            await transport.send({orders: columns})
            assert len(await until(f"{name}-totals", 3)) == 3
            assert len(await until(checked.topic, 2)) == 2

            listed = json.loads(streamforge(kafka, "dlq", "list", "-A", str(program), "--json"))
            assert (listed["pipelines"], listed["operator"], listed["error"]) == (["checks"], "check", "ValueError: negative amount")
            assert listed["source"] == {"topic": orders.topic, "partition": 0, "offset": 1}
            page = streamforge(kafka, "dlq", "show", listed["letter"], "-A", str(program))
            assert "header     trace: t1" in page and 'raise ValueError("negative amount")' in page
            assert streamforge(kafka, "dlq", "list", "-A", str(program), "--pipeline", "totals") == "no dead letters\n"
            said = streamforge(kafka, "dlq", "replay", "-A", str(program), status=1)
            assert "name letters (partition/offset), or give --all" in said

            assert streamforge(kafka, "dlq", "replay", listed["letter"], "-A", str(program)) == "1 replayed\n"
            deadline = time.monotonic() + PATIENCE_S
            while len(both := streamforge(kafka, "dlq", "list", "-A", str(program), "--json").splitlines()) < 2:
                assert time.monotonic() < deadline
            assert [json.loads(one)["replayed"] for one in both] == [1, 0]
            second = json.loads(both[1])
            assert (second["attempt"], second["earlier_errors"]) == (2, ["check: ValueError: negative amount"])
            assert second["headers"] == [["trace", "t1"]] and second["origin"] == f"{orders.topic}/0/1"

            mended.touch()
            assert json.loads(streamforge(kafka, "dlq", "replay", "--all", "-A", str(program), "--json")) == {
                "replayed": 1, "replayed_before": 1, "refused": {},
            }  # fmt: skip
            assert "0 replayed; 2 were before" in streamforge(kafka, "dlq", "replay", "--all", "-A", str(program))
            found = await until(checked.topic, 3)
            assert found[2] == (b"ann", now_ms + 1, {"order_id": "o1", "seen": 3, "trace": "t1"})
            value = b'{"order_id": "o9", "user": "ann", "cents": 1}'
            await transport.send({orders: OutputColumns([now_ms], [b"ann"], [value], [[("trace", b"t9")]])})
            assert len(await until(f"{name}-totals", 4)) == 4, "totals took three orders and the new one, and no replay"
            assert streamforge(kafka, "dlq", "purge", "-A", str(program)) == "2 purged\n"
            assert streamforge(kafka, "dlq", "list", "-A", str(program)) == "no dead letters\n"
        finally:
            worker.kill()
