"""Headers that belong to a trace, and go along with a record: W3C's `traceparent`, `tracestate` and `baggage`.

    orders o-7 traceparent 00-4bf9…-01  ──► filter ──► map ──► key_by ──► to("shipments")   s-7 traceparent 00-4bf9…-01

They follow where one record becomes one, or several: stateless operators, `branch`, `merge` and repartitions. What comes of many
records (windows, joins, matches) goes on with the trace of one of them, see `engine.operators.traced`.

Sources: W3C Trace Context; W3C Baggage.
"""

from engine.block import Block
from engine.records import Headers, RecordBatch

NAMES = frozenset({"traceparent", "tracestate", "baggage"})


def trace_headers(block: Block) -> list[Headers] | None:
    """Return the trace headers of each record, None where none has any; a batch without headers costs nothing."""
    batch = block.batch
    if batch is None or batch.read_headers is None:
        return None
    column = batch.headers
    rows = range(len(block)) if block.rows is None else block.rows
    found: list[Headers] = [own and tuple(header for header in own if header[0] in NAMES) for own in map(column.__getitem__, rows)]
    return found if any(found) else None


def with_headers(block: Block, column: list[Headers]) -> Block:
    """Return a block of records that an operator made, with headers; like all of these they have no place in a topic."""
    nowhere = [-1] * len(block)
    batch = RecordBatch("", -1, nowhere, block.timestamps, (), (), -1, -1, read_headers=lambda: column)
    return Block(block.keys, block.values, block.timestamps, block.start, block.watermark, block.read_before, batch)
