"""Databases for copies: DuckDB in this process, and a PostgreSQL that the session shares (`-m cdc`)."""

import os
from collections.abc import Iterator
from itertools import count

import pytest

from cdc.database import Database, open_database
from tests.cdc.chain.postgres import Postgres
from tests.maven import JavaMissing

_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server; tests keep to schemas of their own."""
    try:
        server = Postgres().start()
    except JavaMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=pytest.mark.cdc)])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty schema of either database."""
    address = "duckdb::memory:" if request.param == "duckdb" else request.getfixturevalue("postgres").url()
    opened = open_database(address, schema=f"copy {next(_numbers)}")
    yield opened
    opened.close()
