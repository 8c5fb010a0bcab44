"""Running totals of a key, without a window: one result a record, or the latest once a commit.

A total never ends and is never dropped; a record that comes out of order counts like any other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.agg import Aggregate
from engine.agg.folding import Accumulators, Folding, ResultRows, payload_codec
from engine.block import MIN_TIME, Block
from engine.keys import KeyCodec, key_codec
from engine.operators.base import Operator, OperatorContext, own_time
from state.overlay import KeyedCells
from state.values import unit_codec

_Total = tuple[int, Accumulators]


@dataclass(frozen=True, slots=True)
class AggregateSpec:
    """A declared running total; see `engine.stream.Stream.aggregate` for the meaning."""

    aggregates: Mapping[str, Aggregate]
    emit: Literal["update", "record"] = "update"
    into: type[Any] | None = None
    key_as: str = "key"
    key_type: Any = str
    value_type: Any = Any


class RunningTotals(Operator):
    """Totals by key: (highest event time, accumulators)."""

    def __init__(self, context: OperatorContext, spec: AggregateSpec, folding: Folding, rows: ResultRows, key: KeyCodec) -> None:
        super().__init__(context)
        self._folding, self._rows, self._key = folding, rows, key
        updates = spec.emit == "update"
        self.reach = replace(own_time(by_time=updates), at_commits=updates)
        stored = payload_codec(tuple.__class_getitem__((int, folding.stored)))
        self._totals: KeyedCells[Any, _Total] = context.state.keyed(context.state_name("totals"), key, stored, by_hand=True)
        # Emptied with each commit, so it never reaches the store.
        self._changed = context.state.panes(context.state_name("changed"), key, unit_codec) if spec.emit == "update" else None
        self._watermark: int | None = None

    def process(self, block: Block, port: int = 0) -> None:
        self._watermark = block.watermark
        if self._changed is None:
            self._process_each(block)
            return
        if len(block):
            totals = self._totals
            totals.read(dict.fromkeys(block.keys))
            new: dict[Any, Accumulators] = {}
            latest: dict[Any, int] = {}

            def get(key: Any) -> Accumulators | None:
                total = totals.get(key)
                if total is None:
                    return None
                latest[key] = total[0]
                return total[1]

            self._folding.fold(get, new, block.keys, block.timestamps, self._folding.columns(block.values))
            known = latest.get
            for key, timestamp_ms in zip(block.keys, block.timestamps, strict=True):
                if timestamp_ms > known(key, MIN_TIME):
                    latest[key] = timestamp_ms  # noqa: PERF403  # a loop with memory
            totals.put_many({key: (latest[key], accumulators) for key, accumulators in new.items()})
            self._changed.pane(0).put_many(dict.fromkeys(new, True))
        self.emit(Block((), (), (), block.start, block.watermark, ()))

    def _process_each(self, block: Block) -> None:
        folding, totals = self._folding, self._totals
        totals.read(dict.fromkeys(block.keys))
        inputs = folding.records(block.values)
        new: dict[Any, _Total] = {}
        results: list[tuple[Any, Accumulators]] = []
        for key, timestamp_ms, record in zip(block.keys, block.timestamps, inputs, strict=True):
            total = new.get(key) or totals.get(key)
            if total is None:
                total = (timestamp_ms, folding.create(timestamp_ms, record))
            else:
                total = (max(total[0], timestamp_ms), folding.add(total[1], timestamp_ms, record))
            new[key] = total
            results.append((key, total[1]))
        totals.put_many(new)
        self.emit(block.replace(values=self._rows.rows(results)))

    def before_commit(self) -> None:
        if self._changed is None or self._watermark is None:
            return
        pane = self._changed.pane(0)
        keys = [key for key, _ in pane.items()]
        if not keys:
            return
        pane.drop()
        watermark = self._watermark
        totals = [total for key in keys if (total := self._totals.get(key)) is not None]
        timestamps = [timestamp_ms for timestamp_ms, _ in totals]
        results = [(key, accumulators) for key, (_, accumulators) in zip(keys, totals, strict=True)]
        if self.context.careful:
            for result, timestamp_ms in zip(results, timestamps, strict=True):
                with self.context.firing(result[0], timestamp_ms, "aggregate"):
                    row = self._rows.rows((result,))
                    self.emit(Block((result[0],), row, (timestamp_ms,), watermark, watermark, (watermark,)))
            return
        self.emit(Block(keys, self._rows.rows(results), timestamps, watermark, watermark, [watermark] * len(keys)))

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        total = self._totals.get(key)
        if total is not None:
            yield "total", self._rows.row(key, total[1])


def aggregate_operator(spec: AggregateSpec, what: str = "aggregate") -> Callable[[OperatorContext], Operator]:
    """Return what makes the operator for a task.

    Raises:
        ConfigError: An aggregate does not fit the values, or the names of the result collide.
    """
    folding = Folding(spec.aggregates, spec.value_type, what)
    rows = ResultRows(folding, key_as=spec.key_as, into=spec.into, windowed=False, what=what)
    key = key_codec(spec.key_type, what)
    return lambda context: RunningTotals(context, spec, folding, rows, key)


__all__ = ["AggregateSpec", "RunningTotals", "aggregate_operator"]
