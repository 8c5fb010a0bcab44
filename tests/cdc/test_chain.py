"""The real chain under fire: what is lost or doubled when Connect, a worker and the replicators are killed while writes go on."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import msgspec
import pytest

from engine.records import TopicPartition
from engine.runtime.transports import make_transport
from engine.topics import TopicSpec
from tests.apicurio_server import ApicurioServer
from tests.cdc.chain.connect import Connect
from tests.cdc.chain.postgres import Postgres
from tests.cdc.chain.shop import TABLES, TOPICS, Writer, create_shop, request_incremental_snapshot, start_connector
from tests.cdc.chain.waiting import PATIENCE_S, eventually, until
from tests.chaos.worker import Worker
from tests.conftest import needs_java
from tests.kafka_server import KafkaServer

pytestmark = [pytest.mark.cdc, pytest.mark.kafka]

CHANGES = [f"pg.public.{table}" for table in TABLES]


class Replicators:
    """Two child processes: `streamforge replicate` into a schema of the same PostgreSQL, and into a file of DuckDB."""

    def __init__(self, broker: str, postgres: Postgres, file: Path, registry: str | None) -> None:
        common = [sys.executable, "-m", "engine", "replicate", "--broker", broker, "--schema", "copy", *CHANGES]
        if registry is not None:
            common += ["--registry", registry]
        self._commands = [[*common, "--to", postgres.url()], [*common, "--to", f"duckdb:{file}"]]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = file.with_suffix(".log")

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._processes = [subprocess.Popen(each, stdin=subprocess.DEVNULL, stdout=log, stderr=log) for each in self._commands]

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        for process in self._processes:
            process.send_signal(how)
            process.wait(timeout=30)
        self._processes = []

    def finish(self) -> None:
        """Let the one of DuckDB go on to the end of the topics."""
        done = subprocess.run([*self._commands[1], "--no-follow"], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr

    def said(self) -> str:
        return self._log.read_text()[-3_000:] if self._log.exists() else ""

    def check(self) -> None:
        for process in self._processes:
            assert process.poll() is None, self._log.read_text()[-3_000:]


@contextmanager
def services(registry: bool) -> Iterator[tuple[KafkaServer, Postgres, Connect, str | None, str | None]]:
    """Run the chain; yields the registry's two addresses too (its own API's and the Confluent one)."""
    with needs_java(), KafkaServer() as kafka, Postgres() as postgres:
        apicurio = ApicurioServer().start() if registry else None
        connect = Connect(kafka.bootstrap)
        try:
            connect.start()
            yield kafka, postgres, connect, *((None, None) if apicurio is None else (apicurio.base_url, apicurio.url))
        finally:
            connect.stop()
            if apicurio is not None:
                apicurio.stop()


async def make_topics(broker: str) -> None:
    transport = make_transport(broker, group="")
    await transport.start()
    await transport.ensure_topics([TopicSpec(topic, 3) for topic in TOPICS])
    await transport.stop()


async def read_all(broker: str, topic: str, *, decode: bool = True) -> list[tuple[bytes | None, Any]]:
    """Return the committed (key, JSON value) of a topic, partition by partition."""
    transport = make_transport(broker, group="")
    await transport.start()
    found: list[tuple[bytes | None, Any]] = []
    try:
        count = (await transport.partition_counts([topic])).get(topic, 0)
        partitions = [TopicPartition(topic, number) for number in range(count)]
        begins, ends = await transport.begin_offsets(partitions), await transport.end_offsets(partitions)
        for partition in partitions:
            reader = await transport.open_reader(partition, begins[partition])
            while reader.position < ends[partition]:
                batch = await reader.read(1.0)
                if batch is not None:
                    values = [None if raw is None else json.loads(raw) for raw in batch.values] if decode else batch.values
                    found += zip(batch.keys, values, strict=True)
            await reader.close()
    finally:
        await transport.stop()
    return found


def feed_rows(broker: str, topic: str) -> dict[int, Any]:
    """Return what an upsert feed comes to."""
    rows: dict[int, Any] = {}
    for key, value in asyncio.run(read_all(broker, topic)):
        assert key is not None
        rows.pop(int(key), None)
        if value is not None:
            rows[int(key)] = value
    return rows


def source_rows(postgres: Postgres, table: str, schema: str = "public") -> dict[int, Any]:
    with postgres.connect() as connection:
        if connection.execute("select to_regclass(%s)", (f"{schema}.{table}",)).fetchone() == (None,):
            return {}  # the copy of a table begins with its first row
        cursor = connection.execute(f"select * from {schema}.{table}")
        names = [column.name for column in cursor.description or ()]
        return {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}


def under_fire(tmp_path: Path, *, rounds: int, registry: bool) -> None:
    with services(registry) as (kafka, postgres, connect, registry_url, confluent_url):
        broker = f"kafka://{kafka.bootstrap}"
        asyncio.run(make_topics(broker))
        create_shop(postgres)
        start_connector(connect, postgres, registry_url)
        environ = {"STREAMFORGE_BROKER": broker, **({"CHANGES_REGISTRY": confluent_url} if confluent_url else {})}
        worker = Worker("worker", "agents.changes", tmp_path, environ)
        replicators = Replicators(broker, postgres, tmp_path / "copy.duckdb", confluent_url)
        writer = Writer(postgres, seed=int(os.environ.get("SEED", "1")) % 2**31).start()
        try:
            worker.start()
            replicators.start()
            for number in range(rounds):
                _round(number, postgres, connect, worker, replicators, writer)
            writer.stop()
            _check(broker, postgres, worker, replicators, writer, tmp_path / "copy.duckdb")
        except BaseException:
            print(worker.text()[-3_000:], connect.log_tail()[-2_000:], replicators.said())
            print(_traces(broker, postgres))
            raise
        finally:
            worker.kill()
            replicators.end()


def _traces(broker: str, postgres: Postgres) -> str:
    """Return how far the copy has come in each topic, and the life of the first rows that differ."""
    lines = []
    with postgres.connect() as connection:
        lines.append(f"offsets of the copy: {connection.execute('select * from copy._replica_offsets').fetchall()}")
    for table in TABLES:
        source, copy = source_rows(postgres, table), source_rows(postgres, table, "copy")
        wrong = [key for key in {**source, **copy} if source.get(key) != copy.get(key)]
        lines.append(f"{table}: {len(wrong)} of {len(source)} differ; {sum(key not in source for key in wrong)} should have gone")
        if wrong:
            shown = (wrong[0], wrong[-1])
            for key, raw in asyncio.run(read_all(broker, f"pg.public.{table}", decode=False)):
                lines += [f"{key!r} {raw!r}" for number in shown if key is not None and _names(key, number)]
            with postgres.connect() as connection:
                for key, lsn, commit in connection.execute(
                    "select key, lsn, commit_lsn from copy._replica_guards where source = %s", (table,)
                ):
                    lines += [
                        f"guard {number}: {lsn} {commit}" for number in shown if bytes(key) == msgspec.msgpack.encode(({"id": number},))
                    ]
    return "\n".join(lines)


def _names(key: bytes, number: int) -> bool:
    """Whether a key is that of a row, as JSON or as Avro (an int in zigzag)."""
    return key == b'{"id":%d}' % number or (key[:1] == b"\0" and fastavro.schemaless_reader(io.BytesIO(key[5:]), "int", None) == number)


def _round(number: int, postgres: Postgres, connect: Connect, worker: Worker, replicators: Replicators, writer: Writer) -> None:
    """Each kind of trouble once, with writes going on all the time."""
    _wait_for(writer, 40)
    request_incremental_snapshot(postgres)
    connect.kill()
    _wait_for(writer, 20)
    connect.start()
    if number == 0:
        with postgres.connect() as connection:
            connection.execute("alter table users add column phone text")
            connection.execute("update users set phone = '+39 ' || id where id % 3 = 0")
    worker.kill()
    replicators.end()
    _wait_for(writer, 20)
    worker.start()
    replicators.start()
    connect.wait_streaming("pg", postgres)
    connect.restart("pg")
    _wait_for(writer, 20)
    connect.wait_streaming("pg", postgres)


def _wait_for(writer: Writer, transactions: int) -> None:
    target = writer.transactions + transactions

    def written() -> bool:
        assert writer.error is None, f"the writer has stopped: {writer.error}"
        return writer.transactions >= target

    until("the writer writes", written)


def _check(broker: str, postgres: Postgres, worker: Worker, replicators: Replicators, writer: Writer, file: Path) -> None:
    def alive() -> None:
        assert worker.died is None, worker.text()[-3_000:]
        replicators.check()

    for table in TABLES:
        rows = source_rows(postgres, table)
        assert rows
        eventually(f"replica of {table}", lambda table=table: source_rows(postgres, table, "copy"), rows, alive)  # type: ignore[misc]
        eventually(f"engine's table {table}", lambda table=table: feed_rows(broker, f"{table}-feed"), rows, alive)  # type: ignore[misc]

    def events() -> "Counter[tuple[str, str]]":
        return Counter((value["type"], value["subject"]) for _, value in asyncio.run(read_all(broker, "domain-events")))

    eventually("domain events", events, writer.events, alive)
    placed = Counter({subject: n for (kind, subject), n in writer.events.items() if kind == "order-placed"})

    def enriched() -> "Counter[str]":
        return Counter(f"order {value['order_id']}" for _, value in asyncio.run(read_all(broker, "placed-orders")))

    eventually("placed orders with their users", enriched, placed, alive)

    replicators.end(signal.SIGTERM)  # no other process can look into DuckDB's file
    replicators.finish()
    with duckdb.connect(str(file), read_only=True) as connection:
        for table in TABLES:
            cursor = connection.execute(f"select * from copy.copy.{table}")
            names = [column[0] for column in cursor.description or ()]
            found = {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}
            assert found == source_rows(postgres, table), f"{table} in DuckDB"


def test_replica_duckdb_and_engine_equal_the_source_whatever_is_killed(tmp_path: Path) -> None:
    under_fire(tmp_path, rounds=1, registry=False)


@pytest.mark.slow
def test_replica_duckdb_and_engine_equal_the_source_with_avro_over_three_rounds(tmp_path: Path) -> None:
    under_fire(tmp_path, rounds=3, registry=True)
