"""Restore: entries of a changelog into RocksDB, beside the speed at which the same topic can be read at all.

Three runs over one topic, in one process after another: plain aiokafka `getmany`, this engine's reader without a store, and the genuine
restore of a worker without its disk. `python -m tests.bench.restore` is the child process that does one of them.
"""

import asyncio
import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as DriverPartition

from engine.records import OutputColumns, TopicPartition
from engine.runtime.clock import SystemClock
from engine.runtime.collector import tune_collector
from engine.runtime.metrics import TaskMetrics
from engine.runtime.restore import restore
from engine.runtime.stores import StateFolder
from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport
from engine.topics import TopicSpec
from state.changelog import identity_record
from state.store import Position
from tests.bench.measured import Measured, note

KEY_BYTES, VALUE_BYTES = 16, 84
WAYS = ("getmany", "reader", "restore")
_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Restores:
    """What the three runs have shown, entries a second by the wall clock and by the CPU time of the process; 0 for one that failed.

    Attributes:
        right: The store that was restored has each entry, with its value.
    """

    entries: int
    per_second: dict[str, int]
    per_cpu_second: dict[str, int]
    right: bool
    trouble: str = ""

    def ratio(self, to: str) -> float:
        """Return the speed of the restore to that of a way of reading, by CPU time: other processes do not count."""
        return self.per_cpu_second["restore"] / self.per_cpu_second[to] if self.per_cpu_second[to] else 0.0


def key_of(number: int) -> bytes:
    """Return the key of an entry: 16 bytes, in no order."""
    return b"\0\0\0\7" + (number * 0x9E3779B1 & 0xFFFFFFFF).to_bytes(4, "big") + b"%08d" % number


def value_of(number: int) -> bytes:
    """Return the value of an entry: 84 bytes that compress about as badly as those of an application."""
    return random.Random(number).randbytes(VALUE_BYTES // 2).hex().encode()


async def run_restores(bootstrap: str, entries: int, core: int | None, timeout_s: float) -> Restores:
    """Write a changelog partition and measure."""
    topic = f"bench-restore-{entries}-changelog-1"
    transport = KafkaTransport(KafkaSettings.of(f"kafka://{bootstrap}"))
    await transport.start()
    try:
        await transport.ensure_topics([TopicSpec(topic, 1, compacted=True)])
        await _write(transport, TopicPartition(topic, 0), entries)
    finally:
        await transport.stop()
    per_second, per_cpu_second, right, trouble = dict.fromkeys(WAYS, 0), dict.fromkeys(WAYS, 0), False, ""
    for way in WAYS:
        settings = {"BENCH_BROKER": bootstrap, "BENCH_TOPIC": topic, "BENCH_RECORDS": str(entries), "BENCH_WAY": way}
        with Measured("tests.bench.restore", settings, core) as child:
            deadline = time.monotonic() + timeout_s
            while child.running and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            found = child.notes()
            if "seconds" in found:
                per_second[way] = round(entries / found["seconds"])
                per_cpu_second[way] = round(entries / found["cpu_s"])
                right = right or bool(found.get("right"))
            else:
                trouble = child.tail()
    return Restores(entries, per_second, per_cpu_second, right, trouble)


async def _write(transport: KafkaTransport, changelog: TopicPartition, entries: int) -> None:
    now_ms = time.time_ns() // 1_000_000
    key, value = identity_record(UUID(int=1))
    await transport.send({changelog: OutputColumns([now_ms], [key], [value])})
    for begin in range(0, entries, _AT_ONCE):
        numbers = range(begin, min(begin + _AT_ONCE, entries))
        columns = OutputColumns([now_ms] * len(numbers), [key_of(n) for n in numbers], [value_of(n) for n in numbers])
        await transport.send({changelog: columns})


async def main() -> None:
    """Do one of the three, with the garbage collector as a worker has it (all three: it costs plain reading as much)."""
    tune_collector()
    topic, entries = os.environ["BENCH_TOPIC"], int(os.environ["BENCH_RECORDS"])
    ways = {"getmany": _getmany, "reader": _read, "restore": _restore}
    await ways[os.environ["BENCH_WAY"]](os.environ["BENCH_BROKER"], TopicPartition(topic, 0), entries)


async def _getmany(bootstrap: str, changelog: TopicPartition, entries: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([DriverPartition(*changelog)])
    begun_s, cpu_s, got = time.monotonic(), time.process_time(), 0
    while got < entries + 1:
        for records in (await consumer.getmany(timeout_ms=1_000, max_records=10_000)).values():
            got += len(records)
    note(seconds=time.monotonic() - begun_s, cpu_s=time.process_time() - cpu_s)
    await consumer.stop()


async def _read(bootstrap: str, changelog: TopicPartition, entries: int) -> None:
    transport = KafkaTransport(KafkaSettings.of(f"kafka://{bootstrap}"))
    await transport.start()
    begun_s, cpu_s = time.monotonic(), time.process_time()
    end = (await transport.end_offsets([changelog]))[changelog]
    reader = await transport.open_reader(changelog, 0)
    while reader.position < end:
        await reader.read(1.0)
    note(seconds=time.monotonic() - begun_s, cpu_s=time.process_time() - cpu_s)
    await reader.close()
    await transport.stop()


async def _restore(bootstrap: str, changelog: TopicPartition, entries: int) -> None:
    transport = KafkaTransport(KafkaSettings.of(f"kafka://{bootstrap}"))
    await transport.start()
    producer = await transport.open_producer(changelog.topic)
    with tempfile.TemporaryDirectory(prefix="bench-restore-") as folder:
        store = StateFolder(Path(folder)).open(0)
        assert store.position == Position()
        begun_s, cpu_s = time.monotonic(), time.process_time()
        restored = await restore(transport, producer, store, changelog, clock=SystemClock(), metrics=TaskMetrics())
        seconds, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_s
        right = restored.entries == entries == sum(1 for _ in store.scan(b"", b"\xff"))
        right = right and all(store.get(key_of(n)) == value_of(n) for n in range(0, entries, 997))
        note(seconds=seconds, cpu_s=cpu_s, right=right)
        store.close()
    await producer.close()
    await transport.stop()


if __name__ == "__main__":
    asyncio.run(main())
