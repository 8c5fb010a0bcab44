"""A pipeline whose schemas evolve, on a real Kafka: old and new records mixed, its worker killed and started again with the new Structs.

Producers and the reader of the results are Confluent's own client. The registry is the embedded one, or Apicurio.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdc.registry.server import RegistryServer
from engine.topics import TopicSpec
from tests.chaos.worker import Worker
from tests.conftest import needs_java
from tests.engine.runtime.kafka_harness import connected, settings_of, unique
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENCE_S = 90.0
PROGRAM = """
from typing import Annotated
from engine import App, Struct, ValueState
from cdc import Registry, avro
from cdc.avro_types import Aliases

registry = Registry("{url}")

class Payment(Struct, frozen=True):
    user: str
    {payment}

class Total(Struct, frozen=True):
    user: str
    payments: int
    {total}

app = App("{name}", broker="kafka://set-by-the-environment", partitions=2, broker_session_timeout=3)
payments = app.source("{name}-payments", codec=avro(registry, Payment), key="user")

class Sum:
    total = ValueState(Total, default=None)

    def on_record(self, record, ctx):
        payment, total = record.value, self.total.get() or Total(record.value.user, 0, cents=0)
        total = Total(total.user, total.payments + 1, {sum})
        self.total.set(total)
        yield total

@app.pipeline(payments)
def totals(payments):
    return payments.process(Sum, name="sum").to("{name}-totals", codec=avro(registry, Total))
"""
FIRST = {"payment": 'cents: int\n    note: str = ""', "total": "cents: int", "sum": "cents=total.cents + payment.cents"}
SECOND = {  # cents widened, note removed, client (once buyer) added; and the results and the state likewise
    "payment": 'cents: float\n    client: Annotated[str, Aliases("buyer")] = "?"',
    "total": 'cents: float\n    client: str = "?"',
    "sum": "cents=total.cents + payment.cents, client=payment.client",
}
BROKEN = {"payment": "cents: float\n    iban: str", "total": "cents: float\n    iban: str", "sum": "cents=0, iban=payment.iban"}


def written(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": "Payment", "fields": [{"name": "user", "type": "string"}, *fields]})


NOTE, CENTS = {"name": "note", "type": "string", "default": ""}, {"name": "cents", "type": "long"}
OLD = written(CENTS, NOTE)
INT = written({"name": "cents", "type": "int"}, NOTE)
ADDED = written(CENTS, NOTE, {"name": "buyer", "type": "string", "default": "nobody"})
REMOVED = written(CENTS)
WIDENED = written({"name": "cents", "type": "double"}, {"name": "client", "type": "string", "default": "nobody"})


@pytest.fixture(params=["embedded", pytest.param("apicurio", marks=pytest.mark.cdc)])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a registry."""
    if request.param == "embedded":
        server = RegistryServer().start()
        yield server.url
        server.close()
    else:
        with needs_java():
            yield request.getfixturevalue("apicurio").url


class World:
    """The topics of one run, its producers, and what came out."""

    def __init__(self, kafka: KafkaServer, url: str, folder: Path) -> None:
        self.name, self.url, self.bootstrap = unique("evolve"), url, kafka.bootstrap
        self.program = folder / "shop.py"
        self.client = SchemaRegistryClient({"url": url})
        self.sent: list[tuple[str, float, str]] = []
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap})
        self._random = random.Random(5)

    def deploy(self, version: dict[str, str]) -> None:
        self.program.write_text(PROGRAM.format(name=self.name, url=self.url, **version))

    def send(self, count: int, *schemas: str) -> None:
        """Write records by each of the schemas in turn, as producers of several versions do at the same time."""
        topic = f"{self.name}-payments"
        context = SerializationContext(topic, MessageField.VALUE)
        writers = [(AvroSerializer(self.client, schema), {f["name"] for f in json.loads(schema)["fields"]}, schema) for schema in schemas]
        for number in range(count):
            write, names, schema = writers[number % len(writers)]
            user, cents = self._random.choice(["ann", "bob", "eve"]), float(self._random.randint(1, 999))
            cents += 0.5 * ("double" in schema)
            whole: dict[str, Any] = {"user": user, "cents": cents if "double" in schema else int(cents), "note": "n"}
            whole |= {"buyer": f"{user} A", "client": f"{user} A"}
            value = write({name: whole[name] for name in names}, context)
            self._producer.produce(topic, value, key=user)
            self.sent.append((user, cents, f"{user} A" if names & {"buyer", "client"} else "?"))
        assert self._producer.flush(30) == 0

    def results(self) -> list[dict[str, Any]]:
        """Return the committed results, read by Confluent's client, each user's in order."""
        topic = f"{self.name}-totals"
        read, context = AvroDeserializer(self.client), SerializationContext(topic, MessageField.VALUE)
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": unique("look"),
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        found: list[dict[str, Any]] = []
        ended = 0
        try:
            if topic not in consumer.list_topics(timeout=10).topics:
                return found  # the worker makes it
            consumer.assign([TopicPartition(topic, number, 0) for number in range(2)])
            while ended < 2:
                message = consumer.poll(10)
                assert message is not None
                if message.error():
                    ended += 1
                else:
                    found.append(read(message.value(), context))
        finally:
            consumer.close()
        return found

    def expected(self) -> list[tuple[str, int, float]]:
        totals: dict[str, tuple[int, float]] = {}
        expected = []
        for user, cents, _ in self.sent:
            number, total = totals.get(user, (0, 0.0))
            totals[user] = number + 1, total + cents
            expected.append((user, *totals[user]))
        return sorted(expected)

    async def until_done(self, worker: Worker) -> list[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE_S
        while len(found := await asyncio.to_thread(self.results)) != len(self.sent):
            assert time.monotonic() < deadline and worker.died is None, f"{len(found)} of {len(self.sent)}: {worker.text()[-3_000:]}"
            await asyncio.sleep(0.2)
        return found

    def schemas(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "STREAMFORGE_BROKER": f"kafka://{self.bootstrap}"}
        command = [sys.executable, "-m", "engine", "schemas", *arguments, str(self.program)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


async def test_pipeline_evolves_with_old_and_new_records_mixed(kafka: KafkaServer, url: str, tmp_path: Path) -> None:
    world = World(kafka, url, tmp_path)
    for subject in ("payments", "totals"):  # Apicurio's default is NONE
        world.client.set_compatibility(f"{world.name}-{subject}-value", "BACKWARD")
    worker = Worker("worker", str(world.program), tmp_path, {"STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}"})
    async with connected(settings_of(kafka, group=world.name)) as transport:
        await transport.ensure_topics([TopicSpec(f"{world.name}-payments", 2)])
    try:
        world.deploy(FIRST)
        worker.start()
        world.send(20, INT)
        await world.until_done(worker)
        world.send(60, OLD, ADDED, REMOVED, INT)
        worker.kill()  # with records that nobody has read yet

        world.deploy(SECOND)
        checked = world.schemas("check")
        assert checked.returncode == 0 and f"{world.name}-totals-value (sink" in checked.stdout, checked.stdout + checked.stderr
        worker.start()
        world.send(80, WIDENED, OLD, REMOVED, ADDED)
        found = await world.until_done(worker)
        assert sorted((one["user"], one["payments"], float(one["cents"])) for one in found) == world.expected()
        assert {one["client"] for one in found if "client" in one} == {"?", "ann A", "bob A", "eve A"}
        assert world.client.get_versions(f"{world.name}-totals-value") == [1, 2]

        worker.kill()
        world.deploy(BROKEN)
        await refused(world, worker)
        world.deploy(SECOND)
        worker.start()
        world.send(10, WIDENED, OLD)
        found = await world.until_done(worker)
        assert sorted((one["user"], one["payments"], float(one["cents"])) for one in found) == world.expected()
    finally:
        worker.kill()


async def refused(world: World, worker: Worker) -> None:
    """An incompatible version is refused by the check, by the registry, and by the worker, which ends with the reason."""
    checked = world.schemas("check")
    assert checked.returncode == 1 and "BREAKS" in checked.stdout
    assert "iban is not in the written data and has no default" in checked.stdout
    registered = world.schemas("register")
    assert registered.returncode == 1 and "Traceback" not in registered.stderr
    assert "incompatible" in registered.stderr + registered.stdout
    assert world.client.get_versions(f"{world.name}-totals-value") == [1, 2]
    since = worker.said()
    worker.start()
    deadline = time.monotonic() + PATIENCE_S
    while worker.running:
        assert time.monotonic() < deadline, worker.text(since)[-3_000:]
        await asyncio.sleep(0.1)
    assert worker.died not in (None, 0)
    assert f"source '{world.name}-payments': records of version" in worker.text(since), worker.text(since)[-3_000:]
    assert "iban is not in the written data and has no default" in worker.text(since)
    worker.kill()


def test_confluent_client_finds_the_incompatible_version_too(url: str) -> None:
    with SchemaRegistryClient({"url": url}) as client:
        subject = f"{unique('evolve')}-value"
        client.set_compatibility(subject, "BACKWARD")
        client.register_schema(subject, Schema(OLD, "AVRO"))
        assert client.test_compatibility(subject, Schema(WIDENED, "AVRO"))
        assert not client.test_compatibility(subject, Schema(written(CENTS, {"name": "iban", "type": "string"}), "AVRO"))
