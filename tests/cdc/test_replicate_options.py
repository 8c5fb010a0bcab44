"""`streamforge replicate`: what its options make of records, and what it says to those that cannot be."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cdc import debezium
from cdc.database import open_database
from cdc.database_duckdb import DuckDatabase
from cdc.replica import Replica
from cdc.replicate import codecs_of, tables_of
from cdc.replicator import Replicator
from engine.errors import ConfigError, RecordError
from engine.records import OutputColumns, TopicPartition
from engine.runtime.cli import main
from engine.runtime.transport.memory_broker import MemoryBrokers
from engine.runtime.transports import make_transport
from engine.topics import TopicSpec

_numbers = count()
TABLES = tables_of(["pg.public.docs", "pg.public.users"])


def envelope(op: str, lsn: int, after: Any, before: Any = None) -> bytes:
    source = {"lsn": lsn, "sequence": f'["{lsn - 1}","{lsn}"]', "ts_ms": 1, "snapshot": "false"}
    return json.dumps({"op": op, "before": before, "after": after, "source": source, "ts_ms": 2}).encode()


async def copied(records: dict[str, list[tuple[bytes, bytes | None]]], **options: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each copy after records have been replicated on a broker of their own."""
    address = f"memory://options-{next(_numbers)}"
    broker = MemoryBrokers.open(address)
    for topic in TABLES:
        broker.create_topic(TopicSpec(topic, 1))
        columns = OutputColumns()
        for key, value in records.get(topic, ()):
            columns.append(1, key, value)
        broker.produce({TopicPartition(topic, 0): columns})
    database, transport = open_database("duckdb::memory:"), make_transport(address, group="")
    await transport.start()
    try:
        await Replicator(transport, Replica(database), TABLES, codecs_of(TABLES, **options)).run_to_end()
        there = [table for table in TABLES.values() if database.columns(table)]
        return {table: database.execute(f"select * from {database.name(table)} order by 1") for table in there}
    finally:
        await transport.stop()
        database.close()


async def test_null_of_a_column_that_is_never_null_leaves_the_stored_value_in_the_table_that_is_named() -> None:
    life = [(b'{"id":1}', envelope("c", 10, {"id": 1, "rates": "1.5"})), (b'{"id":1}', envelope("u", 20, {"id": 1, "rates": None}))]
    records: Any = dict.fromkeys(TABLES, life)
    assert await copied(records) == {"docs": [(1, None)], "users": [(1, None)]}
    assert await copied(records, never_set_null=["docs.rates"]) == {"docs": [(1, "1.5")], "users": [(1, None)]}
    assert await copied(records, never_set_null=["rates"]) == {"docs": [(1, "1.5")], "users": [(1, "1.5")]}


async def test_key_that_is_one_columns_value_is_read_as_that_column() -> None:
    life: Any = [(b"1", envelope("c", 10, {"id": 1})), (b"2", envelope("c", 20, {"id": 2})), (b"1", envelope("d", 30, None, {"id": 1}))]
    columns = [(b'{"id":1}', envelope("c", 10, {"id": 1}))]
    records: Any = {"pg.public.docs": life, "pg.public.users": columns}
    with pytest.raises(RecordError, match=r"pg.public.docs-0 offset 0: the key 1 does not hold columns"):
        await copied(records)
    assert await copied(records, key_columns=["docs.id"]) == {"docs": [(2,)], "users": [(1,)]}
    assert await copied(records, key_columns=["id"]) == {"docs": [(2,)], "users": [(1,)]}


async def test_unwrapped_rows_are_deleted_by_tombstones() -> None:
    records: Any = {"pg.public.docs": [(b'{"id":1}', b'{"id":1}'), (b'{"id":2}', b'{"id":2}'), (b'{"id":1}', None)]}
    assert await copied(records, unwrapped=True) == {"docs": [(2,)]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key_columns": ["user.id"]}, "--key-column 'user.id': there is no copy of that name; the copies are docs, users"),
        ({"never_set_null": ["user.id"]}, "--never-set-null 'user.id': there is no copy of that name"),
        ({"key_columns": ["docs.id", "other"]}, "--key-column: id and other for 'docs'; keys of several columns need no option"),
    ],
)
def test_options_that_cannot_be_are_config_errors(options: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        codecs_of(TABLES, **options)
    assert words in str(caught.value)


async def test_topic_that_does_not_exist_is_no_empty_table() -> None:
    MemoryBrokers.open("memory://no-topics")
    transport, database = make_transport("memory://no-topics", group=""), open_database("duckdb::memory:")
    await transport.start()
    replicator = Replicator(transport, Replica(database), {"pg.docs": "docs"}, {"pg.docs": debezium(dict)})
    with pytest.raises(ConfigError, match=r"topic 'pg.docs' does not exist"):
        await replicator.run_to_end()
    await transport.stop()
    database.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pg.docs"], "which broker?"),
        (["pg.docs", "--broker", "memory://"], "memory:// lives inside one process"),
        (["pg.docs", "--broker", "kafka://127.0.0.1:1", "--key-column", "a", "--key-column", "b"], "a and b for 'docs'"),
        (["pg.docs", "a.docs", "--broker", "kafka://127.0.0.1:1"], "two topics for one table"),
    ],
)
def test_command_says_in_a_sentence_what_is_wrong(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["replicate", "--to", f"duckdb:{tmp_path / 'copy'}", *arguments])
    assert done.exit_code == 1
    assert words in done.output
    assert "Traceback" not in done.output


def test_database_that_refuses_says_so_without_its_own_exception(tmp_path: Path) -> None:
    database = open_database(f"duckdb:{tmp_path / 'copy'}")
    assert isinstance(database, DuckDatabase)
    with pytest.raises(ConfigError, match="DuckDB refuses what belongs into the copy"), database.transaction():
        database.execute("select * from nowhere")
    database.close()
