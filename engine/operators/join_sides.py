"""What joins of two streams share: the records that each side waits with, and the time that both have reached.

    left   ─┐  merged time = minimum of both       held[LEFT]    key, (event time, arrival) -> (value, what the join notes)
            ├─ arrivals: 0 1 2 …                   held[RIGHT]
    right  ─┘

The number of arrival keeps records of one key and time apart and in order, over restarts too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from engine.block import Block
from engine.errors import ConfigError
from engine.kept import kept_codec, refuse_unstorable
from engine.keys import KeyCodec, key_codec
from engine.operators.base import OperatorContext
from engine.operators.merge import MergedTime
from state.keys import TIME_BYTES, decode_time, encode_time
from state.overlay import MapCells
from state.values import PayloadCodec, msgpack_codec

if TYPE_CHECKING:
    from engine.run import NodeContext

LEFT, RIGHT = 0, 1
How = Literal["inner", "left", "right", "outer"]
Place = tuple[int, int]
"""Event time, number of arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidesSpec:
    """What every join of two streams declares."""

    how: How = "inner"
    late_to: str | None = None
    key_type: Any = str
    left_type: Any = Any
    right_type: Any = Any

    @property
    def outer(self) -> tuple[bool, bool]:
        """Whether a record of the left, of the right comes out without a partner."""
        return self.how in ("left", "outer"), self.how in ("right", "outer")

    def check(self, what: str) -> None:
        """Refuse an unknown `how` with a ConfigError."""
        if self.how not in ("inner", "left", "right", "outer"):
            raise ConfigError(f"{what}: how={self.how!r} is not known; use 'inner', 'left', 'right' or 'outer'")


class Sides:
    """Buffers of a join's two inputs.

    Args:
        noted: Types of what the join notes with each value.

    Attributes:
        held: Of the left and of the right: key and place -> value and notes.
        arrival: Number that the next record gets.
    """

    def __init__(self, context: OperatorContext, spec: SidesSpec, *noted: type[Any]) -> None:
        # A join stands in a graph, whose context also knows which inputs are idle.
        self._time = MergedTime(cast("NodeContext", context), 2)
        types = (spec.left_type, spec.right_type)
        codec: KeyCodec = key_codec(spec.key_type)
        self.held: tuple[MapCells[Any, Place, tuple[Any, ...]], ...] = tuple(
            context.state.mapped(context.state_name(name), codec, PLACES, kept_codec(tuple.__class_getitem__((value_type, *noted))))
            for name, value_type in zip(("left", "right"), types, strict=True)
        )
        self._untyped = tuple(value_type is Any for value_type in types)
        self._arrivals = context.state.keyed(context.state_name("arrivals"), key_codec(str), msgpack_codec(int), merge=max)
        self.arrival = 0
        self._first = 0

    def begin(self, block: Block, port: int) -> Block:
        """Return the block of one input with the time of both; records may be put from here on."""
        if self._untyped[port]:
            refuse_unstorable(block.values, "is kept by a join")
        self.arrival = self._first = self._arrivals.get("") or 0
        return self._time.merge(block, port)

    def put(self, port: int, key: Any, timestamp_ms: int, *kept: Any) -> Place:
        """Keep a record, and return its place."""
        place = (timestamp_ms, self.arrival)
        self.held[port].put(key, place, kept)
        self.arrival += 1
        return place

    def end(self) -> None:
        """All records of the block have been put."""
        if self.arrival > self._first:
            self._arrivals.put("", self.arrival)

    def rolled_back(self) -> None:
        """Take the state as it is now."""
        self._time.rolled_back()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        """Yield what each side holds of a key, as (event time, value)."""
        for name, held in zip(("left", "right"), self.held, strict=True):
            yield name, [(timestamp_ms, kept[0]) for (timestamp_ms, _), kept in held.items(key)]


def _encode_place(place: Place) -> bytes:
    return encode_time(place[0]) + place[1].to_bytes(8, "big")


def _decode_place(raw: bytes) -> Place:
    return decode_time(raw), int.from_bytes(raw[TIME_BYTES:], "big")


PLACES: PayloadCodec[Place] = PayloadCodec(_encode_place, _decode_place)

__all__ = ["LEFT", "PLACES", "RIGHT", "How", "Place", "Sides", "SidesSpec"]
