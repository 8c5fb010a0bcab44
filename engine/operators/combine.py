"""Pre-aggregation: what `key_by(...).window(...).aggregate(...)` does with records before they are moved to the partition of their key.

Records of one block that belong to the same key and pane become one row: their number and the accumulators of the aggregates. Only
rows cross the repartition topic, and the window on the other side merges them instead of adding records.

    block    EUR 10:00:07 5 ct    USD 10:00:09 2 ct    EUR 10:00:31 1 ct    EUR 10:01:02 4 ct      tumbling("1m"), sum and count
    rows     EUR 10:00 (2, 6 ct)  USD 10:00 (1, 2 ct)  EUR 10:01 (1, 4 ct)

**Why no result changes.** (1) A row's records have the same windows: they lie in one pane, and fixed windows consist of whole panes.
(2) The aggregates merge exactly and in any order, so what a window holds in the end does not depend on the grouping; where that is not
so (first, collect, quantile, a float's minimum because of NaN, …) nothing is combined. (3) Nothing looks at single records: no
trigger, no `late_to`, no one else who reads the moved stream. (4) Lateness is decided by the watermark in force where a row is read.
That one moves only with control records, and this upstream's stand behind all the data of a commit. So as far as this task goes, a
row's records would all have met the same watermark, those of one commit as little apart as those of one row. A control record of
another upstream may come to stand anywhere between two data records of a commit, as the broker happens to append them; the row meets
it before or after, which is one of the orders in which its records could have met it. A late row counts as many late records as it has.

There is no state: a row never holds records of two blocks, so no commit and no restart can fall into it, and blocks of one record
(after an error) give rows of one record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd
from operator import itemgetter
from typing import Any

from engine.agg import Aggregate, Fold, count
from engine.agg.folding import Accumulators, Folding
from engine.block import Block
from engine.graph import Combining, Node, PipelineGraph
from engine.operators.base import Operator, OperatorContext
from engine.operators.window import window_operator
from engine.operators.window_plan import WindowSpec
from engine.records import Headers
from engine.tracing import trace_headers, with_headers
from engine.windows import FixedWindow

_RECORDS = ""  # the name of the first accumulator, the number of records; no aggregate can be called so


class Combine(Operator):
    """The first half: records to rows."""

    def __init__(self, context: OperatorContext, window: FixedWindow, folding: Folding) -> None:
        super().__init__(context)
        self._folding = folding
        self._pane_ms = gcd(window.size_ms, window.every_ms)
        self._offset_ms = window.offset_ms

    def process(self, block: Block, port: int = 0) -> None:
        if not len(block):
            self.emit(block)
            return
        pane_ms, offset_ms, timestamps = self._pane_ms, self._offset_ms, block.timestamps
        panes = [(timestamp_ms - offset_ms) // pane_ms for timestamp_ms in timestamps]
        cells = list(zip(panes, block.keys, strict=True))
        rows: dict[Any, Accumulators] = {}
        self._folding.fold(_nothing, rows, cells, timestamps, self._folding.columns(block.values))
        times = dict(zip(cells, timestamps, strict=True))  # any time within the pane will do
        headers = trace_headers(block)
        traced = {} if headers is None else _latest_traced(cells, timestamps, headers)
        times |= {cell: timestamp_ms for cell, (timestamp_ms, _) in traced.items()}
        before = [block.start] * len(rows)
        keys, row_times = [key for _, key in rows], [times[cell] for cell in rows]
        made = Block(keys, list(rows.values()), row_times, block.start, block.watermark, before)
        self.emit(with_headers(made, [traced[cell][1] if cell in traced else () for cell in rows]) if traced else made)


def _latest_traced(cells: Sequence[Any], timestamps: Sequence[int], headers: Sequence[Headers]) -> dict[Any, tuple[int, Headers]]:
    """Return the latest record with trace headers of each cell: its time, and these."""
    found: dict[Any, tuple[int, Headers]] = {}
    for cell, timestamp_ms, own in zip(cells, timestamps, headers, strict=True):
        if own and (cell not in found or found[cell][0] <= timestamp_ms):
            found[cell] = (timestamp_ms, own)
    return found


def combining(spec: WindowSpec, what: str) -> Combining | None:
    """Return how a window can be split in two halves, None if that would not be exact."""
    if not isinstance(spec.window, FixedWindow) or spec.trigger is not None or spec.late_to is not None:
        return None
    window = spec.window
    folding = Folding({_RECORDS: count(), **spec.aggregates}, spec.value_type, what)
    if not all(fold.is_commutative for fold in folding.folds):
        return None
    partial = {name: _Merging.of(fold, place) for place, (name, fold) in enumerate(zip(folding.names, folding.folds, strict=True))}
    del partial[_RECORDS]
    merging = replace(spec, aggregates=partial, value_type=folding.stored, records_in=itemgetter(0))
    return Combining(lambda context: Combine(context, window, folding), folding.stored, window_operator(merging, what))


def combine_before_moving(graph: PipelineGraph) -> None:
    """Put the first half of a window in front of each repartition topic that only this window reads, where that is exact."""
    for node in [node for node in graph.nodes if node.kind == "repartition"]:
        readers = graph.readers(node)
        offered = readers[0][0].combining if len(readers) == 1 else None
        found = None if offered is None else offered()
        if found is not None:
            _split(graph, node, readers[0][0], found)


def _split(graph: PipelineGraph, node: Node, reader: Node, found: Combining) -> None:
    moved = graph.nodes.index(node)
    first = graph.add(Node("combine", "combine", node.inputs, found.first, key_type=node.key_type, value_type=found.value_type))
    graph.nodes.insert(moved, graph.nodes.pop())
    node.inputs, node.value_type, node.signature = ((first, 0),), found.value_type, "repartition of partial results"
    reader.make = found.second


@dataclass(frozen=True, slots=True)
class _Merging(Aggregate):
    """An aggregate over accumulators that were made elsewhere."""

    fold: Fold

    @classmethod
    def of(cls, fold: Fold, place: int) -> "_Merging":
        """Return what merges the accumulators at a place of the rows."""
        merge: Callable[[Any, Any], Any] | None = fold.merge
        assert merge is not None
        return cls(
            "partial",
            None,
            lambda value_type: fold,
            replace(
                fold,
                create=lambda x, t: x,
                add=lambda a, x, t: merge(a, x),
                create_code="{x}",
                add_code=fold.merge_code.replace("{b}", "{x}"),
                read=itemgetter(place),
                read_name=f"place {place}",
                declared=Any,
                column=None,
                keeps_values=False,
            ),
        )

    def bind(self, value_type: Any, what: str) -> Fold:
        """Return the fold; its type is known."""
        return self.fold


def _nothing(cell: Any) -> None:
    """No cell has anything yet."""


__all__ = ["Combine", "combine_before_moving", "combining"]
