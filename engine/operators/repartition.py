"""Repartition topics: records move to the partition of their new key, and watermarks travel with them.

Every upstream task writes control records behind its data, in the same transaction: its number, how many upstreams there are,
its watermark, whether it is idle. They go to each partition that gets data in that commit, and to the others at most once a
second and only when something changed; the end of time, after which nothing more is to come, goes to all at once. The reader
(`engine.inputs.RepartitionInput`) keeps the last word of each upstream.

A control record has no key (a data record always has one) and the header `streamforge: watermark`; a barrier of a savepoint
(`engine.cut`) has the header `streamforge: barrier`. A record with the key
`EVERYWHERE` (the truncate of a source table) goes to every partition, without a key and with the header `streamforge: everywhere`;
against the records of other partitions it has no order. Kafka has no timestamps below 0: an event time before 1970 travels in a
header.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from engine import untyped
from engine.block import MAX_TIME, MIN_TIME, Block, one_by_one
from engine.errors import RecordError
from engine.keys import key_codec
from engine.operators.base import Operator
from engine.operators.undeclared import refuse_structs
from engine.outputs import Outputs
from engine.records import Headers
from engine.tracing import trace_headers

if TYPE_CHECKING:
    from engine.graph import Node
    from engine.run import NodeContext

CONTROL_HEADERS = (("streamforge", b"watermark"),)
BARRIER_HEADERS = (("streamforge", b"barrier"),)
EVERYWHERE_HEADER = ("streamforge", b"everywhere")
CLAMPED_HEADER = "event-time"
_QUIET_MS = 1_000


class Everywhere(Enum):
    """Type of `EVERYWHERE`, the key of a record that every partition gets. Operators hand it on as far as the next repartition."""

    KEY = "everywhere"


EVERYWHERE: Final = Everywhere.KEY


class Control(msgspec.Struct, frozen=True, array_like=True):
    """What an upstream task says about its time."""

    version: int
    epoch: int
    upstream: int
    upstreams: int
    watermark: int
    idle: bool


class Barrier(msgspec.Struct, frozen=True, array_like=True):
    """Before this everything of an upstream task belongs to a savepoint, see `engine.cut`."""

    version: int
    epoch: int
    upstream: int
    savepoint: str


class Untold(NamedTuple):
    """A partition that knows only of a watermark that lies behind the one reached."""

    partition: int
    known: int
    reached: int


_NOTHING = (MIN_TIME, False)


class RepartitionSink(Operator):
    """The writing half."""

    context: "NodeContext"

    def __init__(self, context: "NodeContext", node: "Node", topic: str, outputs: Outputs, epoch: int) -> None:
        super().__init__(context)
        self._codec = key_codec(node.key_type)
        self._typed = node.value_type is not Any
        self._encode = untyped.encoder(node.value_type)
        self.topic = topic
        self._outputs = outputs
        self._epoch = epoch
        self._upstreams = context.run.task.plan.partitions
        self._watermark = MIN_TIME
        self._said: dict[int, tuple[int, bool]] = {}
        self._last_round_ms: int | None = None
        self._untold = True  # what the restored watermark is may have been told to nobody

    def process(self, block: Block, port: int = 0) -> None:
        self._watermark = block.watermark
        if not len(block):
            return
        if None in block.keys:
            raise RecordError("key_by gave no key (None) for the record")
        if not self._typed:
            refuse_structs(block.values, "crosses a key_by")
        try:
            self._send(block)
        except (RecordError, TypeError):  # as every key codec says for this key; asking each key for it beforehand would cost more
            if EVERYWHERE not in block.keys:
                raise
            for piece in one_by_one(block):
                self._send_everywhere(piece) if EVERYWHERE in piece.keys else self._send(piece)

    def _send_everywhere(self, block: Block) -> None:
        timestamp_ms, value = block.timestamps[0], self._encode(block.values[0])
        headers = [EVERYWHERE_HEADER] if timestamp_ms >= 0 else [EVERYWHERE_HEADER, (CLAMPED_HEADER, b"%d" % timestamp_ms)]
        for traced in trace_headers(block) or ():
            headers += traced
        for partition in range(self._outputs.partition_count(self.topic)):
            self._outputs.add_to(self.topic, partition, max(0, timestamp_ms), None, value, tuple(headers))

    def _send(self, block: Block) -> None:
        if not len(block):
            return
        placed_by = list(map(self._codec.wire, block.keys))
        keys = placed_by if self._codec.encode is self._codec.wire else list(map(self._codec.encode, block.keys))
        headers = trace_headers(block)
        timestamps = block.timestamps
        if min(timestamps) <= 0:
            clamped: list[Headers] = [((CLAMPED_HEADER, b"%d" % timestamp_ms),) if timestamp_ms < 0 else () for timestamp_ms in timestamps]
            headers = clamped if headers is None else [(*ours, *theirs) for ours, theirs in zip(clamped, headers, strict=True)]
            timestamps = [max(0, timestamp_ms) for timestamp_ms in timestamps]
        self._outputs.add(self.topic, keys, list(map(self._encode, block.values)), timestamps, headers, placed_by)

    def before_commit(self) -> None:
        now_ms = self.context.now_ms
        said = (self._watermark, self.context.inputs_idle(0))
        if self._watermark == MIN_TIME and not said[1]:
            return
        targets = self._outputs.partitions_with_records(self.topic)
        prompt = self.context.run.task.prompt_watermarks or said[1] or self._watermark == MAX_TIME
        if prompt or self._last_round_ms is None or not 0 <= now_ms - self._last_round_ms < _QUIET_MS:
            self._last_round_ms = now_ms
            targets = list(range(self._outputs.partition_count(self.topic)))
        control = msgspec.json.encode(Control(1, self._epoch, self.context.partition, self._upstreams, *said))
        for partition in targets:
            if self._said.get(partition) != said:
                self._said[partition] = said
                self._outputs.add_to(self.topic, partition, max(0, self._watermark), None, control, CONTROL_HEADERS)

        self._untold = any(self._said.get(partition) != said for partition in range(self._outputs.partition_count(self.topic)))

    def tell_all(self) -> None:
        """Tell every partition the watermark now, so that it stands before what is written next, such as a barrier."""
        self._last_round_ms = None
        self.before_commit()

    def untold(self) -> Untold | None:
        """Return which partition knows least of the time that this task has reached, None if all know it."""
        known, partition = min((self._said.get(other, _NOTHING)[0], other) for other in range(self._outputs.partition_count(self.topic)))
        return None if known >= self._watermark else Untold(partition, known, self._watermark)

    def next_wall_clock_ms(self) -> int | None:
        """A partition that was not told yet is told in a second, also if nothing else happens until then; after a restart at once."""
        if not self._untold or self._watermark == MIN_TIME:
            return None
        now_ms, last_ms = self.context.now_ms, self._last_round_ms
        return now_ms if last_ms is None or now_ms < last_ms else last_ms + _QUIET_MS

    def on_wall_clock(self, now_ms: int) -> None:
        """Nothing to emit: the commit that this leads to tells the watermark."""

    def rolled_back(self) -> None:
        self._said.clear()
