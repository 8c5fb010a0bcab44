"""`streamforge replicate`: a worker that keeps copies of source tables in another database, from the topics that Debezium writes.

    streamforge replicate --broker kafka://host:9092 --to postgresql://host/shop --schema copy shop.public.users shop.public.orders=sales
    streamforge replicate --broker kafka://host:9092 --to duckdb:copy.duckdb --registry http://host:8081 shop.public.users

It stands beside the engine, since a database is no part of a Kafka transaction: it reads the topics itself, read_committed and
outside any group, from the offsets that the database holds, and commits rows and offsets together (`cdc.replicator`, `cdc.replica`).
One worker a database; a second one would wait for the first one's locks and then apply nothing twice.

A database that does not answer any more is opened again after a while; one that does not answer at the start ends the command, as
what its user has written may be wrong.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from cdc.database import open_database
from cdc.debezium_codec import DebeziumCodec, debezium
from cdc.framing import Schemas
from cdc.registry.client import Registry
from cdc.registry.schemas_command import auth_from_environment
from cdc.replica import Replica
from cdc.replicator import Replicator
from engine.errors import ConfigError, UnavailableError
from engine.runtime.cli.connection import Target, find_target, target_options

log = logging.getLogger(__name__)

_RETRY_S = 2.0
Codecs = Mapping[str, DebeziumCodec[dict[str, Any]]]


@click.command()
@click.argument("topics", nargs=-1, required=True, metavar="TOPIC[=TABLE]...")
@target_options
@click.option("--to", "address", required=True, help="postgresql://user@host/database or duckdb:FILE.")
@click.option("--schema", default="public", show_default=True, help="Schema of the copies; it is made if it is not there.")
@click.option("--registry", envvar="STREAMFORGE_REGISTRY", help="Address of the schema registry, for Avro.")
@click.option(
    "--key-column",
    "key_columns",
    multiple=True,
    metavar="[TABLE.]COLUMN",
    help="The column that is the whole key of a record (ExtractField$Key); without TABLE of every topic.",
)
@click.option(
    "--never-set-null",
    multiple=True,
    metavar="[TABLE.]COLUMN",
    help="A column whose null in an update is a long value that Debezium does not have; it is never set to null.",
)
@click.option("--unwrapped", is_flag=True, help="Records are plain rows (ExtractNewRecordState), and a tombstone deletes.")
@click.option("--no-follow", is_flag=True, help="Stop at the present end of the topics.")
def replicate(
    topics: Sequence[str],
    pipelines: str | None,
    broker: str | None,
    address: str,
    schema: str,
    registry: str | None,
    key_columns: Sequence[str],
    never_set_null: Sequence[str],
    unwrapped: bool,
    no_follow: bool,
) -> None:
    """Keep copies of source tables in another database, from Debezium's topics, until Ctrl-C."""
    tables = tables_of(topics)
    schemas = None if registry is None else Registry(registry, auth=auth_from_environment())
    codecs = codecs_of(tables, schemas, key_columns=key_columns, never_set_null=never_set_null, unwrapped=unwrapped)
    target = find_target("replicate", pipelines, broker)
    try:
        asyncio.run(_replicate(target, address, schema, tables, codecs, follow=not no_follow))
    except KeyboardInterrupt:
        click.echo("stopped")


def tables_of(topics: Sequence[str]) -> dict[str, str]:
    """Return topic -> table from "topic" (its last part names the table) or "topic=table".

    Raises:
        ConfigError: Two topics for one table.
    """
    tables: dict[str, str] = {}
    for given in topics:
        topic, _, table = given.partition("=")
        tables[topic] = table or topic.rpartition(".")[2]
    if len(set(tables.values())) < len(tables):
        raise ConfigError(f"two topics for one table: {tables}; name the tables, as in shop.public.orders=sales")
    return tables


def codecs_of(
    tables: Mapping[str, str],
    registry: Schemas | None = None,
    *,
    key_columns: Sequence[str] = (),
    never_set_null: Sequence[str] = (),
    unwrapped: bool = False,
) -> Codecs:
    """Return what decodes each topic, with options as the command line has them.

    Raises:
        ConfigError: An option names no table, or two columns for the key of one.
    """
    keys = columns_of("--key-column", key_columns, tables.values())
    nulls = columns_of("--never-set-null", never_set_null, tables.values())
    for table, columns in keys.items():
        if len(columns) > 1:
            raise ConfigError(f"--key-column: {' and '.join(sorted(columns))} for {table!r}; keys of several columns need no option")
    return {
        topic: debezium(
            dict,
            registry=registry,
            unwrapped=unwrapped or None,
            never_set_null=nulls[table],
            key_column=next(iter(keys[table]), None),
        )
        for topic, table in tables.items()
    }


def columns_of(option: str, given: Sequence[str], tables: Collection[str]) -> dict[str, set[str]]:
    """Return the columns that an option names, by table, from "table.column" and "column" (of every table).

    Raises:
        ConfigError: No table of that name is copied.
    """
    found: dict[str, set[str]] = {table: set() for table in tables}
    for name in given:
        mine = {table: name.removeprefix(f"{table}.") for table in tables if name.startswith(f"{table}.")}
        if not mine and "." in name:
            raise ConfigError(f"{option} {name!r}: there is no copy of that name; the copies are {', '.join(sorted(tables))}")
        for table in mine or tables:
            found[table].add(mine.get(table, name))
    return found


async def _replicate(target: Target, address: str, schema: str, tables: Mapping[str, str], codecs: Codecs, *, follow: bool) -> None:
    async with target.connect() as transport:
        opened = False
        while True:
            try:
                database = await asyncio.to_thread(open_database, address, schema=schema)
                try:
                    replicator = Replicator(transport, Replica(database), tables, codecs)
                    opened = True
                    return await (replicator.run() if follow else replicator.run_to_end())
                finally:
                    database.close()
            except UnavailableError as error:
                if not opened:
                    raise
                log.warning("%s; opened again in %.1f s", error, _RETRY_S)
                await asyncio.sleep(_RETRY_S)


__all__ = ["codecs_of", "replicate", "tables_of"]
