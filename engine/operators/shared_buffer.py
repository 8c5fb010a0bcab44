"""The large states of a pattern in parts, and what a commit writes of them: see `engine.cep.layout`.

    records    key, number of the record -> as the matcher's layout has it
    runs       key, number of a first record -> likewise

The state itself stands in memory as a whole, immutable. At a commit the state of a key as it was at the last one is held against what it
is now, part by part: new ones are written, gone ones deleted. So between commits nothing here follows each record, undo is no concern,
and what came and went in between was never written.

    note(key, old, new)     before the entry of a key changes
    state_of(key, kept)     whenever the state of an entry is wanted: after a restart it is put together again

Small states (all of them, for nearly all keys) never come here. tests/engine/operators/test_shared_buffer.py counts the bytes.
"""

from collections.abc import Callable, Iterable
from operator import is_not
from typing import Any

from engine.cep.layout import Folded, Kept, Layout, Parts, decode_kept, encode_kept
from engine.keys import KeyCodec
from engine.state_cells import INDEX_CODEC
from state.errors import StateError
from state.overlay import TaskState
from state.values import PayloadCodec


class SharedBuffer:
    """The parts of the large states of an operator, or of a version of a rule.

    Args:
        name: What its states are called, up to "partials" (the entries), "records" and "runs".
        layout: Of the matcher; None for one that no longer fits the program, whose states stay as they are (see `hold`).

    Attributes:
        codec: For the entries of keys.
        parted: Whether there are large states at all.
    """

    def __init__(self, state: TaskState, name: str, key: KeyCodec, layout: Layout | None) -> None:
        self.hold(layout)
        record, run = PayloadCodec(self._encode_record, self._decode_record), PayloadCodec(self._encode_run, self._decode_run)
        self._records = state.mapped(f"{name}records", key, INDEX_CODEC, record, part_of=f"{name}partials")
        self._runs = state.mapped(f"{name}runs", key, INDEX_CODEC, run, part_of=f"{name}partials")
        # What keys had at the last flush, with the layout that it had: none for what had no parts.
        self._before: dict[Any, tuple[Layout | None, Any]] = {}
        # Of the keys of the last flush, what was written; None for a key whose parts are in memory for nothing.
        self._written: dict[Any, tuple[Any, Parts] | None] = {}
        self.codec: PayloadCodec[Kept] = PayloadCodec(self._encode, self._decode)

    def serve(self, state: TaskState, get: Callable[[Any], Kept | None]) -> None:
        """Write parts with each commit; `get` gives the entry of a key."""
        state.before_changes(lambda: self._flush(get))

    def hold(self, layout: Layout | None) -> None:
        """Go on with the states of another matcher; None leaves them as they are stored."""
        self._layout = layout
        self.parted = layout is None or layout.parted

    def state_of(self, key: Any, kept: Kept) -> Any:
        """Return the state of an entry.

        Raises:
            StateError: A part of it is missing.
        """
        state = kept[1]
        if type(state) is not Folded:
            return state
        if state.state is None and self._layout is not None:
            assert state.head is not None
            try:
                state.state = self._layout.join(state.head, self._records.whole(key), self._runs.whole(key))
            except LookupError as error:
                raise StateError(f"the state of a pattern for key {key!r} lacks a part: {error}") from error
            self._written.setdefault(key, None)
        return state.state

    def is_parted(self, kept: Kept) -> bool:
        """Return whether parts of an entry's state may be stored."""
        state = kept[1]
        if type(state) is Folded:
            return state.head is not None
        return self._layout is not None and not isinstance(state, bytes) and self._layout.is_large(state)

    def note(self, key: Any, old: Kept | None, new: Any) -> None:
        """Take note that the entry of a key is about to change."""
        if key in self._before or not self.parted:
            return
        layout = self._layout
        assert layout is not None
        before = None if old is None else old[1]
        if type(before) is Folded:
            self._before[key] = (None, None) if before.head is None else (layout, self.state_of(key, (0, before)))
        elif before and layout.is_large(before):
            self._before[key] = layout, before
        elif new and layout.is_large(new):
            self._before[key] = None, None

    def _flush(self, get: Callable[[Any], Kept | None]) -> None:
        """Bring the parts up to date."""
        for key in self._written:
            self._records.forget(key)
            self._runs.forget(key)
        last, self._written = self._written, dict.fromkeys(self._before)
        for key, (layout, before) in self._before.items():
            kept = get(key)
            state = None if kept is None else kept[1]
            if type(state) is Folded or (state is before and before is not None):
                continue  # what changed it has been undone
            now = _NO_PARTS if not state or self._layout is None or not self._layout.is_large(state) else self._layout.parts(state)
            known = last.get(key)
            old = _NO_PARTS if layout is None else known[1] if known is not None and known[0] is before else layout.parts(before)
            self._written[key] = state, now
            if old is _NO_PARTS:
                self._records.clear(key)
                self._runs.clear(key)
            for number in old.records.keys() - now.records.keys():
                self._records.delete(key, number)
            for number, record in now.records.items():
                if old.records.get(number) is not record:
                    self._records.put(key, number, now.record_of(number))
            for first in old.runs.keys() - now.runs.keys():
                self._runs.delete(key, first)
            for first, run in now.runs.items():
                was = old.runs.get(first)
                if was is None or len(was) != len(run) or any(map(is_not, was, run)):
                    self._runs.put(key, first, now.run_of(first))
        self._before.clear()

    def drop(self, keys: Iterable[Any]) -> None:
        """Delete the parts of some keys, and of those noted since the last flush; their entries go too."""
        for key in {**dict.fromkeys(keys), **self._before}:
            self._records.clear(key)
            self._runs.clear(key)

    # -- codecs

    def _encode(self, kept: Kept) -> bytes:
        return encode_kept(kept, self._layout)

    def _decode(self, raw: bytes) -> Kept:
        return decode_kept(raw, self._layout)

    def _encode_record(self, record: Any) -> bytes:
        return record if self._layout is None or isinstance(record, bytes) else self._layout.record_codec.encode(record)

    def _decode_record(self, raw: bytes) -> Any:
        return raw if self._layout is None else self._layout.record_codec.decode(raw)

    def _encode_run(self, run: Any) -> bytes:
        return run if self._layout is None or isinstance(run, bytes) else self._layout.run_codec.encode(run)

    def _decode_run(self, raw: bytes) -> Any:
        return raw if self._layout is None else self._layout.run_codec.decode(raw)


def _nothing(number: int) -> Any:
    raise AssertionError(f"there is no part {number}")


_NO_PARTS = Parts({}, {}, _nothing, _nothing)
