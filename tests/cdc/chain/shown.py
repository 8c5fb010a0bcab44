"""What `make cdc` shows: a line for each thing that happened in the shop, and how the copies compare with the source."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import duckdb

from engine.errors import UnavailableError
from engine.records import TopicPartition
from engine.runtime.transport.protocol import Transport
from engine.runtime.transports import make_transport
from tests.cdc.chain.postgres import Postgres
from tests.cdc.chain.shop import TABLES

TOPICS = ("domain-events", "placed-orders")
LINES_MAX = 10
"""Lines a second; what comes beyond is counted."""
_SETTLED_S = 60.0
_FIRST_S = 120.0

Say = Callable[[str], None]


class Lines:
    """Prints what comes, some lines a second.

    Args:
        say: Prints a line.
        now: Seconds of any clock.
    """

    def __init__(self, say: Say, now: Callable[[], float] = time.monotonic) -> None:
        self.seen: Counter[str] = Counter()
        self._say, self._now = say, now
        self._second, self._printed, self._hidden = 0, 0, 0

    def show(self, topic: str, raw: bytes | None) -> None:
        """Take one record."""
        self.seen[topic] += 1
        second = int(self._now())
        if second != self._second:
            self.end_second()
            self._second = second
        if self._printed < LINES_MAX:
            self._printed += 1
            self._say(line_of(topic, json.loads(raw or b"null")))
        else:
            self._hidden += 1

    def end_second(self) -> None:
        """Say how many lines were left out, if any were."""
        if self._hidden:
            self._say(f"    ... and {self._hidden} more")
        self._printed = self._hidden = 0


def line_of(topic: str, value: Any) -> str:
    """Return what a record says, as people read it."""
    if not isinstance(value, dict):
        return f"{topic:14} {json.dumps(value)}"
    if topic == "placed-orders":
        city = f" in {value['city']}" if value["city"] else ""
        return (
            f"{'placed-orders':14} order {value['order_id']}: {value['amount_cents'] / 100:.2f} for {value['name'] or 'nobody known'}{city}"
        )
    return f"{value['type']:14} {value['subject']}{': ' + value['detail'] if value['detail'] else ''}"


async def follow(broker: str, postgres: Postgres, seconds: float | None, say: Say) -> None:
    """Print what the pipelines write, and now and then how the copy compares with the source; without seconds for ever.

    The seconds begin with the first record that a pipeline writes, so that a slow machine shows something too.
    """
    transport = make_transport(broker, group="")
    await transport.start()
    lines = Lines(say)
    readers = [asyncio.create_task(_follow_topic(transport, topic, lines)) for topic in TOPICS]
    deadline = None if seconds is None else time.monotonic() + _FIRST_S
    begun = False
    try:
        while deadline is None or time.monotonic() < deadline:
            if seconds is not None and lines.seen and not begun:
                begun, deadline = True, time.monotonic() + seconds
            await asyncio.sleep(5 if deadline is None else max(0.1, min(5.0, deadline - time.monotonic())))
            lines.end_second()
            counts = await asyncio.to_thread(_counts, postgres)
            say(f"-- rows, and in the copy: {counts}; records: {', '.join(f'{topic} {lines.seen[topic]}' for topic in TOPICS)}")
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await transport.stop()


async def _follow_topic(transport: Transport, topic: str, lines: Lines) -> None:
    while topic not in (counts := await transport.partition_counts([topic])):  # noqa: ASYNC110  # the broker tells nobody
        await asyncio.sleep(0.5)

    async def read(number: int) -> None:
        reader = await transport.open_reader(TopicPartition(topic, number), 0)
        try:
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
                    lines.show(topic, value)
        finally:
            await reader.close()

    async with asyncio.TaskGroup() as group:
        for number in range(counts[topic]):
            group.create_task(read(number))


def _counts(postgres: Postgres) -> str:
    """Return the number of rows of the source and of its copy, by table."""
    with postgres.connect() as connection:
        found = []
        for table in TABLES:
            numbers = []
            for schema in ("public", "copy"):
                there = connection.execute("select to_regclass(%s)", (f"{schema}.{table}",)).fetchone() != (None,)
                row = connection.execute(f"select count(*) from {schema}.{table}").fetchone() if there else None
                numbers.append(row[0] if row else 0)
            found.append(f"{table} {numbers[0]}, {numbers[1]}")
    return "; ".join(found)


def rows_of(postgres: Postgres, table: str, schema: str = "public") -> list[dict[str, Any]]:
    """Return the rows of a table by their id; [] where there is no such table."""
    with postgres.connect() as connection:
        if connection.execute("select to_regclass(%s)", (f"{schema}.{table}",)).fetchone() == (None,):
            return []
        cursor = connection.execute(f"select * from {schema}.{table} order by id")
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def rows_of_duckdb(file: str, table: str) -> list[dict[str, Any]]:
    """Return the rows of a copied table by their id; nobody else may have the file open."""
    with duckdb.connect(file, read_only=True) as connection:
        cursor = connection.execute(f"select * from copy.copy.{table} order by id")
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def wait_for_copy(postgres: Postgres) -> None:
    """Return when the copy in PostgreSQL equals the source, or after a while."""
    deadline = time.monotonic() + _SETTLED_S
    while time.monotonic() < deadline:
        if all(rows_of(postgres, table, "copy") == rows_of(postgres, table) for table in TABLES):
            return
        time.sleep(1.0)


def compare(postgres: Postgres, file: str, say: Say) -> bool:
    """Say how both copies compare with the source row for row; return whether they are equal to it."""
    equal = True
    for table in TABLES:
        rows = rows_of(postgres, table)
        copies = {"PostgreSQL": rows_of(postgres, table, "copy"), "DuckDB": rows_of_duckdb(file, table)}
        outcome = ", ".join(f"{name} {'equal' if found == rows else 'DIFFERS'}" for name, found in copies.items())
        equal = equal and all(found == rows for found in copies.values())
        say(f"{table}: {len(rows)} rows in the source; its copies row for row: {outcome}")
    return equal
