"""`streamforge replicate` into a PostgreSQL that breaks the connection, and into columns whose names SQL does not like."""

import asyncio
import contextlib
import json
from itertools import count
from typing import Any

import pytest

from cdc.database import Database, open_database
from cdc.replica import Batch, Replica
from cdc.replicate import _replicate, codecs_of
from engine.errors import ConfigError, UnavailableError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.cli.connection import Target
from engine.runtime.transport.memory_broker import MemoryBrokers
from engine.topics import TopicSpec
from tests.cdc.chain.postgres import Postgres
from tests.cdc.test_replica import change, rows

PATIENCE_S = 30.0
TABLES = {"pg.public.users": "users"}
_numbers = count()


def write(address: str, lsn: int, key: int, name: str) -> None:
    source = {"lsn": lsn, "sequence": f'["{lsn - 1}","{lsn}"]', "ts_ms": 1, "snapshot": "false"}
    value = {"op": "c", "before": None, "after": {"id": key, "name": name}, "source": source, "ts_ms": 2}
    columns = OutputColumns([1], [b'{"id":%d}' % key], [json.dumps(value).encode()])
    MemoryBrokers.open(address).produce({TopicPartition("pg.public.users", 0): columns})


@pytest.mark.cdc
async def test_connection_that_breaks_is_opened_again_and_nothing_is_lost_or_doubled(postgres: Postgres) -> None:
    address, schema = f"memory://breaks-{next(_numbers)}", f"breaks {next(_numbers)}"
    MemoryBrokers.open(address).create_topic(TopicSpec("pg.public.users", 1))

    def copied() -> list[Any]:
        with postgres.connect() as connection:
            if connection.execute("select to_regclass(%s)", (f'"{schema}".users',)).fetchone() == (None,):
                return []
            return connection.execute(f'select id, name from "{schema}".users order by id'.encode()).fetchall()

    async def until(wanted: list[Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await asyncio.to_thread(copied) != wanted:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.1)

    running = asyncio.create_task(_replicate(Target(address, None), postgres.url(), schema, TABLES, codecs_of(TABLES), follow=True))
    try:
        write(address, 10, 1, "Ada")
        await until([(1, "Ada")])
        with postgres.connect() as connection:
            ended = connection.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where pid <> pg_backend_pid() and backend_type = 'client backend'"
            ).fetchone()
        assert ended is not None and ended[0] >= 1
        write(address, 20, 2, "Bob")
        await until([(1, "Ada"), (2, "Bob")])
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_database_that_does_not_answer_at_the_start_ends_the_command_without_the_password() -> None:
    address = f"memory://none-{next(_numbers)}"
    MemoryBrokers.open(address)
    with pytest.raises(UnavailableError) as caught:
        await _replicate(Target(address, None), "postgresql://u:secret@127.0.0.1:1/x", "public", TABLES, codecs_of(TABLES), follow=True)
    assert "postgresql://u:***@127.0.0.1:1/x" in str(caught.value) and "secret" not in str(caught.value)


def test_names_of_columns_and_tables_may_be_anything(database: Database) -> None:
    table, row = 'Tab "le" 100%?', {"id": 1, "is it?": True, "100% %s": 5, 'qu"ote': "?", "größe": None, "select": "%s"}
    replica = Replica(database)
    for lsn in (1, 2):
        replica.apply([Batch(table, [change("u", 1, lsn, {**row, "100% %s": lsn})], TopicPartition("t", 0), lsn)])
    assert rows(database, table) == [{**row, "100% %s": 2}]
    replica.apply([Batch(table, [change("d", 1, 3)], TopicPartition("t", 0), 3)])
    assert rows(database, table) == []


@pytest.mark.cdc
def test_what_postgresql_refuses_is_said_in_a_sentence(postgres: Postgres) -> None:
    database = open_database(postgres.url(), schema=f"refuses {next(_numbers)}")
    replica, place = Replica(database), TopicPartition("t", 0)
    replica.apply([Batch("t", [change("c", 1, 1, {"id": 1, "v": 1})], place, 1)])
    database.execute(f"alter table {database.name('t')} add constraint small check (v < 5)")
    with pytest.raises(ConfigError, match=r"PostgreSQL refuses what belongs into the copy: .*small"):
        replica.apply([Batch("t", [change("c", 2, 2, {"id": 2, "v": 7})], place, 2)])
    assert replica.positions() == {place: 1}
    database.close()
