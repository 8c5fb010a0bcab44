"""Headers that belong to a trace, and go along with a record: W3C's `traceparent`, `tracestate` and `baggage`.

    orders o-7 traceparent 00-4bf9…-01  ──► filter ──► map ──► key_by ──► to("shipments")   s-7 traceparent 00-4bf9…-01

They follow where one record becomes one, or several: stateless operators, `branch`, `merge` and repartitions. What comes of many
records (windows, joins, matches) or of state continues no single trace, and has none.

Sources: W3C Trace Context; W3C Baggage.
"""

from engine.block import Block
from engine.records import Headers

NAMES = frozenset({"traceparent", "tracestate", "baggage"})


def trace_headers(block: Block) -> list[Headers] | None:
    """Return the trace headers of each record, None where none has any; a batch without headers costs nothing."""
    batch = block.batch
    if batch is None or batch.read_headers is None:
        return None
    column = batch.headers
    rows = range(len(block)) if block.rows is None else block.rows
    found: list[Headers] = [tuple(header for header in column[row] if header[0] in NAMES) for row in rows]
    return found if any(found) else None
