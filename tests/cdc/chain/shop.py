"""The shop's database: its tables, a writer that never stops, and a ledger of what its events must be."""

import json
import random
import threading
import uuid
from collections import Counter
from typing import Any

import psycopg

from tests.cdc.chain.connect import Connect, connector
from tests.cdc.chain.postgres import Postgres

TABLES = ["users", "orders"]
TOPICS = ["pg.public.users", "pg.public.orders", "outbox.event.shop"]
_SCHEMA = """
create table users (id serial primary key, name text not null, city text);
create table orders (id serial primary key, user_id int not null, status text not null, amount_cents bigint not null);
create table outbox (id uuid primary key, aggregatetype text not null, aggregateid text not null, type text not null, payload jsonb);
create table signals (id text primary key, type text not null, data text);
alter table users replica identity full;
alter table orders replica identity full;
"""
_OUTBOX = {
    "transforms": "outbox",
    "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
    "transforms.outbox.table.fields.additional.placement": "type:header:eventType",
    "transforms.outbox.table.expand.json.payload": "true",
    "transforms.outbox.predicate": "isOutbox",
    "predicates": "isOutbox",
    "predicates.isOutbox.type": "org.apache.kafka.connect.transforms.predicates.TopicNameMatches",
    "predicates.isOutbox.pattern": "pg\\.public\\.outbox",
}
_CITIES = ["Rome", "Oslo", "Lima", "Bern", None]


def create_shop(postgres: Postgres, users: int = 40) -> None:
    """Make the tables, with rows that the snapshot reads."""
    with postgres.connect() as connection:
        connection.execute(_SCHEMA)
        connection.execute(
            "insert into users (name, city) select 'user ' || n, case when n %% 2 = 0 then 'Rome' end from generate_series(1, %s) n",
            (users,),
        )


def start_connector(connect: Connect, postgres: Postgres, registry: str | None = None) -> None:
    """Make the shop's connector and wait until it streams, and may be killed without taking its snapshot anew."""
    tables = [f"public.{table}" for table in (*TABLES, "outbox", "signals")]
    config = connector(postgres, "postgres", "pg", tables, registry=registry)
    config |= {"signal.data.collection": "public.signals", "incremental.snapshot.chunk.size": "16", **_OUTBOX}
    connect.put("pg", config)
    connect.wait_streaming("pg", postgres)
    connect.wait_stored("pg")


def request_incremental_snapshot(postgres: Postgres) -> None:
    """Ask the connector to read all rows again while writes go on."""
    data = json.dumps({"data-collections": [f"public.{table}" for table in TABLES], "type": "incremental"})
    with postgres.connect() as connection:
        connection.execute("insert into signals values (%s, 'execute-snapshot', %s)", (str(uuid.uuid4()), data))


class Writer:
    """Changes the shop until it is stopped, a few rows in each transaction; some transactions are rolled back.

    Attributes:
        events: What must have happened, (type, subject) -> number.
        transactions: Committed so far.
    """

    def __init__(self, postgres: Postgres, seed: int, pause_s: float = 0.02) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        self.transactions = 0
        self._postgres, self._random, self._pause_s = postgres, random.Random(seed), pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.error: Exception | None = None

    def start(self) -> "Writer":
        """Begin to write."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End, and raise what went wrong."""
        self._stop.set()
        self._thread.join(timeout=30)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with psycopg.connect(self._postgres.url()) as connection:
                while not self._stop.is_set():
                    self._transaction(connection)
                    self._stop.wait(self._pause_s)
        except Exception as error:  # noqa: BLE001  # `stop` raises it
            self.error = error

    def _transaction(self, connection: "psycopg.Connection[Any]") -> None:
        events: Counter[tuple[str, str]] = Counter()
        for _ in range(self._random.randint(1, 4)):
            self._step(connection, events)
        if self._random.random() < 0.1:
            connection.rollback()
            return
        connection.commit()
        self.transactions += 1
        self.events += events

    def _step(self, connection: "psycopg.Connection[Any]", events: "Counter[tuple[str, str]]") -> None:
        choice = self._random.random()
        if choice < 0.15:
            connection.execute(
                "insert into users (name, city) values (%s, %s)", (f"new {self._random.random()}", self._random.choice(_CITIES))
            )
        elif choice < 0.5:
            amount = self._random.randint(1, 10_000)
            row = connection.execute(
                "insert into orders (user_id, status, amount_cents) "
                "values ((select id from users order by random() limit 1), 'new', %s) returning id",
                (amount,),
            ).fetchone()
            assert row is not None
            events["order-placed", f"order {row[0]}"] += 1
            connection.execute(
                "insert into outbox values (%s, 'shop', %s, 'order-noted', %s)",
                (uuid.UUID(int=self._random.getrandbits(128)), str(row[0]), json.dumps({"amount": amount})),
            )
            events["order-noted", str(row[0])] += 1
        elif choice < 0.7:
            row = connection.execute(
                "update orders set status = 'paid' "
                "where id = (select id from orders where status = 'new' order by random() limit 1) returning id"
            ).fetchone()
            if row is not None:
                events["order-paid", f"order {row[0]}"] += 1
        elif choice < 0.9:
            city = self._random.choice(_CITIES)
            row = connection.execute(
                "update users u set city = %s from (select id, city from users order by random() limit 1) o where u.id = o.id "
                "returning u.id, o.city",
                (city,),
            ).fetchone()
            if row is not None and row[1] != city:
                events["user-moved", f"user {row[0]}"] += 1
        else:
            connection.execute("delete from orders where id = (select id from orders where status = 'paid' order by random() limit 1)")
