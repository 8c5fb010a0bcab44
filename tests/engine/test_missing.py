"""Mistakes of somebody who is new: each is a ConfigError that names the pipeline and says what to write."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from engine import agg, windows
from engine.errors import ConfigError
from engine.topology import Topology


class Order(Struct, frozen=True):
    """A record."""

    user: str
    cents: int
    ts: int


Declare = Callable[[Any, Any, Any], Any]


def make_five() -> int:
    return 5


def same(total: int) -> int:
    return total


five: Any = make_five
only_total: Any = same
MINUTES = windows.tumbling("1m")


def declare(function: Declare) -> None:
    topology = Topology("shop")
    orders = topology.source("orders", Order, key="user", time="ts")
    users = topology.table("users", Order, key="user", time="ts")
    everywhere = topology.broadcast("rates", Order, key="user")
    topology.pipeline(orders, users, everywhere, name="work")(function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda o, u, b: o.join(u, within=("0s", "1s")), r"work', join: that is a table, .*lookup\(table\) for the row of now, or as_of"),
        (lambda o, u, b: o.join(u), r"work', join: that is a table"),
        (lambda o, u, b: o.join(b, within=("0s", "1s"), name="pair"), r"work', pair: that is a table"),
        (lambda o, u, b: o.join(o), r"work', join: within= is missing; .*within=\('-1m', '5m'\)"),
        (lambda o, u, b: o.merge(u), r"work', merge: that is a table, not a stream; write table.changes\(\)"),
        (lambda o, u, b: o.lookup(o), r"work', lookup: a stream is not a table; .*stream.table\('name'\)"),
        (lambda o, u, b: o.as_of(o), r"work', as_of: a stream is not a table"),
        (lambda o, u, b: o.lookup("users"), r"work', lookup: 'users' is not a table"),
        (lambda o, u, b: u.join(o), r"work', join: a stream is not a table; make one of it, .*stream.lookup\(table\)"),
        (lambda o, u, b: u.join("users"), r"work', join: 'users' is not a table"),
        (lambda o, u, b: u.window(MINUTES), r"work': a table has no window\(\); .*changes\(\).window"),
        (lambda o, u, b: u.aggregate(n=agg.count()), r"work': a table has no aggregate\(\); .*group_by\('field'\).aggregate"),
        (lambda o, u, b: u.lookup(o), r"work': a table has no lookup\(\); a stream looks into a table: stream.lookup\(table\)"),
        (lambda o, u, b: u.group_by("user").to("out"), r"work': a table by groups has no to\(\); .*aggregate\(rows=agg.count\(\)\)"),
        (lambda o, u, b: o.window(MINUTES).to("out"), r"work': a stream in windows has no to\(\); .*aggregate\(n=agg.count\(\)\)"),
        (lambda o, u, b: o.group_by("user"), r"work': a stream has no group_by\(\); a stream is keyed by key_by\('field'\)"),
        (lambda o, u, b: o.count(), r"work': a stream has no count\(\); write aggregate\(n=agg.count\(\)\)"),
        (lambda o, u, b: o.frobnicate(), r"work': a stream has no frobnicate\(\); it has aggregate, as_of, branch, .*window"),
        (lambda o, u, b: o.filter(lambda: True), r"work', filter: '<lambda>' must be a function of the value, and takes \(\)"),
        (
            lambda o, u, b: o.map(lambda value, more: value),
            r"work', map: '<lambda>' must be a function of the value, and takes \(value, more\)",
        ),
        (
            lambda o, u, b: o.window(windows.session(five)),
            r"work': gap of windows.session: 'make_five' must be a duration, or a function",
        ),
        (lambda o, u, b: o.aggregate(n=agg.reduce(only_total, 0)), r"work': agg.reduce: .*a function of the total and a value"),
    ],
)
def test_mistake_is_told_with_what_to_write_instead(function: Declare, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"pipeline '{words}"):
        declare(lambda o, u, b: function(o, u, b).to("out"))


def test_method_that_a_source_does_not_have_names_the_source() -> None:
    orders: Any = Topology("shop").source("orders", Order)
    with pytest.raises(ConfigError, match=r"source 'orders': a stream has no group_by\(\)"):
        orders.group_by("user")


def test_what_is_not_there_is_an_attribute_error_too() -> None:
    orders: Any = Topology("shop").source("orders", Order)
    assert not hasattr(orders, "group_by")
    assert getattr(orders, "_private", 5) == 5
