"""How the state of a key is stored: as one value while it is small, else as parts, of which a commit writes those that are new.

    small     one entry       deadline | 2 | everything
    large     head            deadline | 3 | what is neither record nor run
              records         number of the record -> time, value, steps that took it     written once, deleted when no step needs it
              runs            number of a first record -> where the matches stand that began with it     written when they move

That is the versioned buffer of SASE (Agrawal et al., SIGMOD 2008) in a store: a step names the step before it by the number of its
record and its own number there, so ways that begin alike share their beginning, and each record lies there once however many partial
matches took it. A matcher says by its `Layout` what the parts of a state are; `engine.operators.shared_buffer` keeps them.

Format 1 had no number: it was everything in one value, whatever its size. It is read, and written as one of the others.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from state.errors import StateError
from state.values import PayloadCodec

PARTS_MIN = 64
"""A state that has more than so many records or runs is stored in parts."""

WHOLE, IN_PARTS = 2, 3
_OLD_MIN = 0x80
"""Format 1 begins with a MessagePack array, a byte of 0x90 or more."""


class Parts(NamedTuple):
    """The parts of a state.

    Attributes:
        records, runs: By number what tells one part from another: the same object (each of a tuple, for runs) means the same part.
        record_of, run_of: Give what is stored of a number.
    """

    records: Mapping[int, Any]
    runs: Mapping[int, tuple[Any, ...]]
    record_of: Callable[[int], Any]
    run_of: Callable[[int], Any]


class Layout(Protocol):
    """What a matcher's states are made of.

    Attributes:
        record_codec, run_codec: Of what `Parts` gives to be stored.
        parted: False if no state of the matcher is ever large.
    """

    @property
    def record_codec(self) -> PayloadCodec[Any]: ...

    @property
    def run_codec(self) -> PayloadCodec[Any]: ...

    @property
    def parted(self) -> bool: ...

    def is_large(self, state: Any) -> bool:
        """Return whether a state is stored in parts; called at each change, so it must be fast."""
        ...

    def parts(self, state: Any) -> Parts:
        """Take a large state apart."""
        ...

    def head(self, state: Any) -> bytes:
        """Return what else there is of a large state."""
        ...

    def join(self, head: bytes, records: Mapping[int, Any], runs: Mapping[int, Any]) -> Any:
        """Return a state of its parts. Raises LookupError where one is missing."""
        ...

    def encode(self, state: Any) -> bytes:
        """Return a state as one value."""
        ...

    def decode(self, raw: bytes) -> Any:
        """Return a state of one value."""
        ...


class Folded:
    """A large state as its entry has it, until somebody asks for it.

    Attributes:
        head: Of a state in parts; None where all of it stood in one value.
        state: Of one value, or once it has been put together.
    """

    __slots__ = ("head", "state")

    def __init__(self, head: bytes | None, state: Any = None) -> None:
        self.head, self.state = head, state


Kept = tuple[int, Any]
"""What an entry says of a key: the time under which the index of deadlines has it (NEVER if it has not), and its state or a `Folded`."""


def encode_kept(kept: Kept, layout: Layout | None) -> bytes:
    """Return an entry as it is stored; the parts of a large state are stored elsewhere."""
    time, state = kept[0].to_bytes(8, "big", signed=True), kept[1]
    if isinstance(state, bytes):
        return time + b"\x02" + state
    if isinstance(state, Folded) and state.head is not None:
        return time + b"\x03" + state.head
    assert layout is not None, "a state that has been read has a matcher"
    if isinstance(state, Folded):
        return time + b"\x02" + layout.encode(state.state)
    if layout.parted and layout.is_large(state):
        return time + b"\x03" + layout.head(state)
    return time + b"\x02" + layout.encode(state)


def decode_kept(raw: bytes, layout: Layout | None) -> Kept:
    """Return what an entry says; without a layout the state stays bytes.

    Raises:
        StateError: It is cut off, or of a format that is not known.
    """
    if len(raw) < 9:
        raise StateError("the state of a pattern is cut off")
    noted = int.from_bytes(raw[:8], "big", signed=True)
    form = raw[8]
    if form == IN_PARTS:
        return noted, Folded(raw[9:])
    if form != WHOLE and form < _OLD_MIN:
        raise StateError(f"the state of a pattern has format {form}; this version reads formats 1 to {IN_PARTS}")
    whole = raw[9:] if form == WHOLE else raw[8:]
    if layout is None:
        return noted, whole
    state = layout.decode(whole)
    return noted, Folded(None, state) if layout.is_large(state) else state


__all__ = ["PARTS_MIN", "Folded", "Kept", "Layout", "Parts", "decode_kept", "encode_kept"]
