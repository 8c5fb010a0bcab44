"""Stateless operators: filter, map, flat_map, key_by, branch. They work column by column and keep time as it is."""

from collections.abc import Callable, Mapping
from itertools import compress
from typing import Any

from engine.block import Block
from engine.errors import RecordError
from engine.operators.base import Emit, Operator, OperatorContext

Function = Callable[[Any], Any]


class Filter(Operator):
    """Keep the records whose value satisfies a predicate."""

    def __init__(self, context: OperatorContext, predicate: Function) -> None:
        super().__init__(context)
        self._predicate = predicate

    def process(self, block: Block, port: int = 0) -> None:
        keeps = list(map(self._predicate, block.values))
        self.emit(block if all(keeps) else block.take(list(compress(range(len(keeps)), keeps))))


class Map(Operator):
    """Replace each value."""

    def __init__(self, context: OperatorContext, function: Function) -> None:
        super().__init__(context)
        self._function = function

    def process(self, block: Block, port: int = 0) -> None:
        self.emit(block.replace(values=list(map(self._function, block.values))))


class FlatMap(Operator):
    """Replace each value by any number of values, which keep its key and time."""

    def __init__(self, context: OperatorContext, function: Function) -> None:
        super().__init__(context)
        self._function = function

    def process(self, block: Block, port: int = 0) -> None:
        indexes: list[int] = []
        values: list[Any] = []
        for index, results in enumerate(map(self._function, block.values)):
            if results is None or isinstance(results, (str, bytes, Mapping)):
                raise RecordError(f"flat_map must give a list or generator of values, not {type(results).__name__}")
            before = len(values)
            values.extend(results)
            indexes.extend([index] * (len(values) - before))
        self.emit(block.take(indexes).replace(values=values))


class KeyBy(Operator):
    """Replace the key by something read from the value."""

    def __init__(self, context: OperatorContext, selector: Function) -> None:
        super().__init__(context)
        self._selector = selector

    def process(self, block: Block, port: int = 0) -> None:
        self.emit(block.replace(keys=list(map(self._selector, block.values))))


class Branch(Operator):
    """Send each record to the first output whose predicate it satisfies; output `len(predicates)` takes the rest, if wanted.

    `outputs` holds one emit function a predicate, and one more for the rest (None: the rest is counted and dropped).
    """

    def __init__(self, context: OperatorContext, predicates: tuple[Function, ...], *, rest: bool) -> None:
        super().__init__(context)
        self._predicates = predicates
        self._rest = rest
        self.outputs: list[Emit] = []

    @property
    def output_count(self) -> int:
        """Number of outputs that can have readers."""
        return len(self._predicates) + self._rest

    def process(self, block: Block, port: int = 0) -> None:
        taken: list[list[int]] = [[] for _ in range(len(self._predicates) + 1)]
        for index, value in enumerate(block.values):
            for number, predicate in enumerate(self._predicates):
                if predicate(value):
                    taken[number].append(index)
                    break
            else:
                taken[-1].append(index)
        if not self._rest and taken[-1]:
            self.context.count("unmatched_records", len(taken[-1]))
        for emit, indexes in zip(self.outputs, taken, strict=False):
            emit(block.take(indexes))
