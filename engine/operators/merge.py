"""`merge`: several streams as one, in the order of arrival, with the minimum of their watermarks as its time.

An input that is idle is left out of the minimum, and one that comes back is left out until it has caught up with the time that
has already been given out; if all are idle, the highest counts (`engine.watermarks.Valve`).
"""

from typing import TYPE_CHECKING, cast

from engine.block import Block
from engine.keys import key_codec
from engine.operators.base import Operator, OperatorContext
from engine.watermarks import Valve, ValveState, merge_valves
from state.values import msgpack_codec

if TYPE_CHECKING:
    from engine.run import NodeContext


class MergedTime:
    """The watermark of an operator with several inputs, kept in state."""

    def __init__(self, context: "NodeContext", ports: int) -> None:
        self._context = context
        self._ports = ports
        self._cells = context.state.keyed(context.state_name("time"), key_codec(str), msgpack_codec(ValveState), merge=merge_valves)
        self._valve = Valve(ports, self._cells.get(""))

    @property
    def watermark(self) -> int:
        """Watermark in force."""
        return self._valve.watermark

    def merge(self, block: Block, port: int) -> Block:
        """Return the block of one input with the time of all inputs."""
        valve, context = self._valve, self._context
        start = valve.watermark
        for other in range(self._ports):
            valve.status(other, idle=context.inputs_idle(other))
        limit, reached = valve.limit(port), valve.watermark
        before: list[int] = []
        if limit is not None:
            before = [max(reached, min(watermark, limit)) for watermark in block.before]
        else:
            for watermark in block.before:
                valve.input(port, watermark, idle=context.inputs_idle(port))
                before.append(valve.watermark)
        valve.input(port, block.watermark, idle=context.inputs_idle(port))
        self._cells.put("", valve.state())
        return Block(block.keys, block.values, block.timestamps, start, valve.watermark, before, block.batch, block.rows)

    def rolled_back(self) -> None:
        """Take the state as it is now."""
        self._valve = Valve(self._ports, self._cells.get(""))


class Merge(Operator):
    """Union of inputs with equal keys."""

    def __init__(self, context: OperatorContext, ports: int) -> None:
        super().__init__(context)
        self._time = MergedTime(cast("NodeContext", context), ports)

    def process(self, block: Block, port: int = 0) -> None:
        self.emit(self._time.merge(block, port))

    def rolled_back(self) -> None:
        self._time.rolled_back()
