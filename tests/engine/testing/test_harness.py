"""The harness must keep an operator's state over restarts, undo what a roll-back undoes, and refuse blocks that break time."""

from typing import Any

import pytest

from engine.block import MIN_TIME, Block, advance
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext
from engine.testing.harness import OperatorHarness, Out, Side
from state.values import msgpack_codec


class Total(Operator):
    """Adds up values of a key, raises on a negative one, and sends zeros aside."""

    def __init__(self, context: OperatorContext) -> None:
        super().__init__(context)
        self.cells = context.state.keyed(context.state_name("total"), key_codec(str), msgpack_codec(int))

    def process(self, block: Block, port: int = 0) -> None:
        totals: list[Any] = []
        for key, value, timestamp_ms in zip(block.keys, block.values, block.timestamps, strict=True):
            self.context.count("records")
            self.cells.put(key, (self.cells.get(key) or 0) + value)
            totals.append(self.cells.get(key))
            if value == 0:
                self.context.send("zeros", [key], [value], [timestamp_ms])
            if value < 0:
                raise ValueError("negative")
        self.emit(Block(block.keys, totals, block.timestamps, block.start, block.watermark, block.before))


def test_harness_restart_after_commit_keeps_state_and_time() -> None:
    harness = OperatorHarness(Total)
    harness.feed("a", 2, 10, watermark=5)
    assert len(harness.commit()) == 1
    harness.feed("a", 100, 11)
    harness.restart()
    harness.feed("a", 3, 12, watermark=6)
    assert harness.take() == [Out("a", 2, 10, MIN_TIME), Out("a", 102, 11, 5), Out("a", 5, 12, 5)]
    assert harness.watermark == 6


def test_harness_rollback_undoes_state_output_and_counters() -> None:
    harness = OperatorHarness(Total)
    mark = harness.mark()
    with pytest.raises(ValueError):
        harness.feed_block([("a", 0, 1), ("a", -1, 2)])
    assert harness.sides == [Side("zeros", "a", 0, 1, ())]
    harness.rollback(mark)
    assert (harness.out, harness.sides, dict(harness.counters)) == ([], [], {})
    assert harness.commit() == []


def test_harness_firing_that_raises_is_undone_and_noted() -> None:
    harness = OperatorHarness(Total)
    harness.careful = True
    with harness.context.firing("a", 7, "close"):
        harness.feed("a", -1, 1)
    assert [(failed.key, failed.timestamp_ms, failed.name) for failed in harness.failed] == [("a", 7, "close")]
    assert harness.commit() == []


@pytest.mark.parametrize(
    "block",
    [
        Block(("a",), (1,), (1,), 0, 5, (6,)),
        Block((), (), (), 5, 4, ()),
        Block(("a",), (1,), (), 0, 5, (0,)),
        Block(("a", "a"), (1, 1), (1, 1), 0, 5, (4, 3)),
    ],
)
def test_harness_block_that_breaks_time_is_refused(block: Block) -> None:
    harness = OperatorHarness(Total)
    with pytest.raises(AssertionError):
        harness.operator.emit(block)


def test_harness_gap_between_blocks_is_refused() -> None:
    harness = OperatorHarness(Total)
    harness.operator.emit(advance(0, 5))
    with pytest.raises(AssertionError):
        harness.operator.emit(advance(6, 7))
