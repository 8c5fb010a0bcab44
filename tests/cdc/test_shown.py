"""What `make cdc` prints of a record, and that a flood of records does not become a flood of lines."""

import msgspec

from agents.change_records import User, user_events, written_event
from cdc import OutboxEvent
from tests.cdc.chain.shown import LINES_MAX, Lines, line_of


def test_lines_say_what_happened() -> None:
    (moved,) = user_events((User(7, "Ada", None), User(7, "Ada", "Oslo")))
    assert line_of("domain-events", msgspec.to_builtins(moved)) == "user-moved     user 7: unknown -> Oslo"
    noted = written_event(OutboxEvent("1", "14", "order-noted", {"amount": 459, "at": "Rome"}))
    assert line_of("domain-events", msgspec.to_builtins(noted)) == 'order-noted    14: {"amount":459,"at":"Rome"}'
    assert written_event(OutboxEvent("1", "14", "order-gone", None)).detail is None
    order = {"order_id": 3, "amount_cents": 1_205, "name": "Ada", "city": "Rome"}
    assert line_of("placed-orders", order) == "placed-orders  order 3: 12.05 for Ada in Rome"
    assert line_of("placed-orders", {**order, "name": None, "city": None}) == "placed-orders  order 3: 12.05 for nobody known"


def test_a_flood_is_counted_not_printed() -> None:
    said: list[str] = []
    clock = [10.0]
    lines = Lines(said.append, lambda: clock[0])
    for number in range(LINES_MAX + 5):
        lines.show("domain-events", b'{"type":"order-paid","subject":"order %d","detail":null}' % number)
    assert said == [f"order-paid     order {number}" for number in range(LINES_MAX)]
    clock[0] = 11.5
    lines.show("domain-events", b'{"type":"order-paid","subject":"order 99","detail":null}')
    assert said[LINES_MAX:] == ["    ... and 5 more", "order-paid     order 99"]
    assert lines.seen["domain-events"] == LINES_MAX + 6
