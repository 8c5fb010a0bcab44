"""A change stream as the source of a pipeline: keys by columns, skipped tombstones, refused records in the dead letters."""

import msgspec
import pytest

from cdc import Change, debezium
from engine.stream import Sink, Stream
from engine.testing import TestDriver
from engine.topology import Topology
from tests.cdc.captures import of_topic


class Order(msgspec.Struct, frozen=True):
    id: int
    user_id: int
    status: str


def topology() -> Topology:
    app = Topology("orders", partitions=1)
    source = app.source("pg.public.orders", codec=debezium(Order), key="id", time="source_ms")

    @app.pipeline(source)
    def statuses(changes: Stream[int, Change[Order]]) -> list[Sink]:
        with_rows = changes.filter(lambda change: change.after is not None)
        by_user = with_rows.key_by("after.user_id").map(lambda change: {"op": change.op, "status": change.after and change.after.status})
        return [changes.map(lambda change: change.op.value).to("operations"), by_user.to("by-user")]

    return app


def test_pipeline_of_changes_has_the_columns_as_keys() -> None:
    records = of_topic("core.jsonschema", ".orders")
    with TestDriver(topology()) as driver:
        for record in records:
            driver.send("pg.public.orders", record["value"], key=record["key"], at=record["timestamp_ms"], partition=0)
        operations = [(record.key, record.value) for record in driver.read("operations")]
        users = driver.read("by-user")
        assert driver.read("orders-dlq") == []
    assert [value for _, value in operations].count("r") == 3
    assert ("", "t") not in operations
    assert [key for key, value in operations if value == "t"] == [None], "a truncate is about no row"
    assert all(isinstance(key, int) for key, value in operations if value != "t")
    assert {record.key for record in users} == {1, 2, 4, 40}


@pytest.mark.parametrize("value", [b"null", b"{}", b"\0\0\0\0\1"])
def test_pipeline_of_changes_puts_what_is_no_change_into_the_dead_letters(value: bytes) -> None:
    with TestDriver(topology()) as driver:
        driver.send("pg.public.orders", value, key=b'{"id":1}', at=0, partition=0)
        driver.send("pg.public.orders", None, key=b'{"id":1}', at=0, partition=0)
        assert driver.read("operations") == []
        assert len(driver.read("orders-dlq")) == 1
