"""`make cdc`: the whole chain on loopback, with a writer, the pipelines of `agents.changes` and a replica, until Ctrl-C.

PostgreSQL ─► Debezium in Connect ─► Kafka ─► agents.changes ─► domain-events, feeds, placed-orders
                    └─ schemas ─► Apicurio      └► streamforge replicate ─► schema "copy", duckdb file
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from engine.errors import UnavailableError
from engine.records import TopicPartition
from engine.runtime.transport.protocol import Transport
from engine.runtime.transports import make_transport
from engine.topics import TopicSpec
from tests.apicurio_server import ApicurioServer
from tests.cdc.chain.connect import Connect
from tests.cdc.chain.postgres import Postgres
from tests.cdc.chain.shop import TABLES, TOPICS, Writer, create_shop, start_connector
from tests.chaos.worker import Worker
from tests.kafka_server import KafkaMissing, KafkaServer
from tests.maven import JavaMissing

SHOWN = ("domain-events", "placed-orders")


def main() -> int:
    """Run the chain and show what flows."""
    parser = argparse.ArgumentParser(prog="python -m tests.cdc.chain", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, help="stop after so many seconds of changes (at Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="let Debezium write JSON: without Avro and the registry")
    parser.add_argument("--seed", type=int, default=1, help="of the writer (1)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    try:
        with ExitStack() as stack:
            _run(stack, options, say)
    except KeyboardInterrupt:
        say("stopped")
    except (KafkaMissing, JavaMissing) as error:
        print(f"the chain cannot be run here: {error}", file=sys.stderr)
        return 1
    return 0


def _run(stack: ExitStack, options: argparse.Namespace, say: Callable[[str], None]) -> None:
    kafka = stack.enter_context(KafkaServer())
    broker = f"kafka://{kafka.bootstrap}"
    say(f"Kafka at {broker}")
    postgres = stack.enter_context(Postgres())
    say(f"PostgreSQL at {postgres.url()}")
    apicurio = None if options.json else stack.enter_context(ApicurioServer())
    if apicurio is not None:
        say(f"Apicurio at {apicurio.url}")
    connect = Connect(kafka.bootstrap)
    stack.callback(connect.stop)
    connect.start()
    say("Kafka Connect with Debezium is up")
    asyncio.run(_make_topics(broker))
    create_shop(postgres)
    start_connector(connect, postgres, None if apicurio is None else apicurio.base_url)
    say("the shop's database is there, and its connector streams")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cdc-shop-")))
    environ = {"STREAMFORGE_BROKER": broker, **({} if apicurio is None else {"CHANGES_REGISTRY": apicurio.url})}
    worker = Worker("worker", "agents.changes", folder, environ)
    stack.callback(worker.kill)
    worker.start()
    registry = [] if apicurio is None else ["--registry", apicurio.url]
    for target in (postgres.url(), f"duckdb:{folder / 'copy.duckdb'}"):
        _replicate(stack, broker, target, registry, folder / "replicate.log")
    writer = Writer(postgres, seed=options.seed, pause_s=0.2).start()
    stack.callback(writer.stop)
    say("a writer changes the shop; what comes of it:")
    asyncio.run(_show(broker, postgres, options.seconds, say))
    say("stopping")


def _replicate(stack: ExitStack, broker: str, target: str, registry: list[str], log: Path) -> None:
    command = [sys.executable, "-m", "engine", "replicate", "--broker", broker, "--to", target, "--schema", "copy", *registry]
    with log.open("ab") as output:
        process = subprocess.Popen([*command, *(f"pg.public.{table}" for table in TABLES)], stdout=output, stderr=output)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


async def _make_topics(broker: str) -> None:
    transport = make_transport(broker, group="")
    await transport.start()
    await transport.ensure_topics([TopicSpec(topic, 3) for topic in TOPICS])
    await transport.stop()


async def _show(broker: str, postgres: Postgres, seconds: float | None, say: Callable[[str], None]) -> None:
    """Print what the pipelines write, and now and then how the copy compares with the source."""
    transport = make_transport(broker, group="")
    await transport.start()
    seen: Counter[str] = Counter()
    readers = [asyncio.create_task(_print(transport, topic, seen, say)) for topic in SHOWN]
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        while deadline is None or time.monotonic() < deadline:
            await asyncio.sleep(5 if deadline is None else max(0.1, min(5.0, deadline - time.monotonic())))
            counts = await asyncio.to_thread(_counts, postgres)
            say(f"-- {counts}; records so far: {', '.join(f'{topic} {seen[topic]}' for topic in SHOWN)}")
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await transport.stop()


async def _print(transport: Transport, topic: str, seen: "Counter[str]", say: Callable[[str], None]) -> None:
    while topic not in (counts := await transport.partition_counts([topic])):  # noqa: ASYNC110  # the broker tells nobody
        await asyncio.sleep(0.5)

    async def follow(number: int) -> None:
        reader = await transport.open_reader(TopicPartition(topic, number), 0)
        while True:
            try:
                batch = await reader.read(1.0)
            except UnavailableError:  # a topic that was just made has no leader yet
                position = reader.position
                await reader.close()
                await asyncio.sleep(1.0)
                reader = await transport.open_reader(TopicPartition(topic, number), position)
                continue
            for value in () if batch is None else batch.values:
                seen[topic] += 1
                say(f"{topic}  {json.dumps(json.loads(value or b'null'), ensure_ascii=False)}")

    async with asyncio.TaskGroup() as group:
        for number in range(counts[topic]):
            group.create_task(follow(number))


def _counts(postgres: Postgres) -> str:
    """Return the number of rows of the source and of its copy, by table."""
    with postgres.connect() as connection:
        found = []
        for table in TABLES:
            numbers = []
            for schema in ("public", "copy"):
                if connection.execute("select to_regclass(%s)", (f"{schema}.{table}",)).fetchone() == (None,):
                    numbers.append(0)
                    continue
                row = connection.execute(f"select count(*) from {schema}.{table}").fetchone()
                numbers.append(row[0] if row else 0)
            found.append(f"{table}: {numbers[0]} rows, {numbers[1]} in the copy")
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
