"""How fast a copy follows Debezium: 100,000 row changes from an idle start, on the real chain.

    python -m tests.cdc.chain.speed --rows 100000

PostgreSQL ─► Debezium in Connect ─► Kafka ─► streamforge replicate ─► schema "copy" of the same PostgreSQL

It says when Debezium has written the last change and when the copy has the last row, both from the commit in the source, for the
snapshot of a table that is there and for rows inserted while everything runs; then the time of DuckDB from the full topic. All of it
shares this machine, so the replicator's own CPU seconds stand beside the times.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.records import TopicPartition
from engine.runtime.transports import make_transport
from engine.topics import TopicSpec
from tests.cdc.chain.connect import Connect, connector
from tests.cdc.chain.postgres import Postgres
from tests.kafka_server import KafkaServer

TOPIC = "speed.public.orders"
_TABLE = "create table orders (id serial primary key, user_id int not null, status text not null, amount_cents bigint not null, note text)"
_INSERT = "insert into orders (user_id, status, amount_cents) select n %% 997, 'new', n * 7 %% 10000 from generate_series(1, %s) n"
_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds from the beginning until Debezium had written everything and the copy had it, and the replicator's CPU seconds."""

    name: str
    emitted_s: float
    copied_s: float
    cpu_s: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.cdc.chain.speed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each run (100000)")
    rows = parser.parse_args().rows
    with ExitStack() as stack:
        for run in _measure(stack, rows):
            lag = run.copied_s - run.emitted_s
            print(
                f"{run.name:10} {rows:,} rows: Debezium has written the last after {run.emitted_s:.1f} s ({rows / run.emitted_s:,.0f}/s), "
                f"the copy has it {lag:.1f} s later; replicator: {run.cpu_s:.1f} CPU s ({rows / run.cpu_s:,.0f} rows a CPU second)",
                flush=True,
            )
    return 0


def _measure(stack: ExitStack, rows: int) -> list[Run]:
    kafka = stack.enter_context(KafkaServer(measured=True))
    broker = f"kafka://{kafka.bootstrap}"
    postgres = stack.enter_context(Postgres())
    connect = Connect(kafka.bootstrap)
    stack.callback(connect.stop)
    connect.start()
    with postgres.connect() as connection:
        connection.execute(_TABLE)
        connection.execute(_INSERT, (rows,))
    asyncio.run(_make_topic(broker))
    replicator = _replicate(broker, postgres.url())
    stack.callback(replicator.wait, 30)
    stack.callback(replicator.kill)
    time.sleep(5)  # it comes up and waits
    begun, cpu = time.monotonic(), _cpu_s(replicator.pid)
    connect.put("speed", connector(postgres, "postgres", "speed", ["public.orders"]))
    found = [_follow("snapshot", broker, postgres, replicator, rows, begun, cpu)]
    connect.wait_streaming("speed", postgres)
    time.sleep(5)  # everything is idle
    begun, cpu = time.monotonic(), _cpu_s(replicator.pid)
    with postgres.connect() as connection:
        connection.execute(_INSERT, (rows,))
    found.append(_follow("streaming", broker, postgres, replicator, 2 * rows, begun, cpu))
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        duckdb = _replicate(broker, f"duckdb:{Path(folder) / 'copy.duckdb'}", "--no-follow")
        _, status, usage = os.wait4(duckdb.pid, 0)
        assert status == 0
        used = (usage.ru_utime + usage.ru_stime) / 2  # two times the rows were in the topic
        print(f"DuckDB     {2 * rows:,} rows from the full topic in {time.monotonic() - begun:.1f} s, {used * 2:.1f} CPU s with the start")
    return found


def _follow(
    name: str, broker: str, postgres: Postgres, replicator: "subprocess.Popen[bytes]", rows: int, begun: float, cpu_s: float
) -> Run:
    """Wait until the topic and the copy have so many rows."""
    emitted = asyncio.run(_wait_for_topic(broker, rows)) - begun
    deadline = time.monotonic() + _LIMIT_S
    with postgres.connect() as connection:
        while True:
            there = connection.execute("select to_regclass('copy.orders')").fetchone() != (None,)
            if there and connection.execute("select count(*) from copy.orders").fetchone() == (rows,):
                return Run(name, emitted, time.monotonic() - begun, _cpu_s(replicator.pid) - cpu_s)
            assert replicator.poll() is None, "the replicator has stopped"
            assert time.monotonic() < deadline, f"{name}: the copy does not get {rows} rows"
            time.sleep(0.1)


async def _wait_for_topic(broker: str, rows: int) -> float:
    """Return when the topic holds so many records."""
    transport = make_transport(broker, group="")
    await transport.start()
    deadline = time.monotonic() + _LIMIT_S
    try:
        while (await transport.end_offsets([TopicPartition(TOPIC, 0)]))[TopicPartition(TOPIC, 0)] < rows:
            assert time.monotonic() < deadline, f"Debezium does not write {rows} records"
            await asyncio.sleep(0.05)
        return time.monotonic()
    finally:
        await transport.stop()


async def _make_topic(broker: str) -> None:
    transport = make_transport(broker, group="")
    await transport.start()
    await transport.ensure_topics([TopicSpec(TOPIC, 1)])
    await transport.stop()


def _replicate(broker: str, target: str, *more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "engine", "replicate", "--broker", broker, "--to", target, "--schema", "copy", TOPIC, *more]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
