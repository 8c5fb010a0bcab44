"""What is kept of each key while a deadline does nothing but end it: the fast path of `engine.operators.detect`.

The matchers of plain sequences report no time-outs, so when their state runs out nothing comes out; it only takes up room. Then the
index of deadlines need not follow each change of state:

- a key stands in the index under a time rounded up to a sixteenth of the limit or so, so a whole pane of keys is due at once;
- a key whose state ends before that keeps its place, with an empty state (), and its next state finds it there.

    key "a" limit 5 min     [1 of 3]  [2 of 3]  match: ()  [1 of 3] …        one entry in the index for all of it
    its time has come       looked at: nothing there → gone; still something → entered again

So what is kept of a key goes at most a sixteenth of the limit later than it could. In careful mode `Detect` works with exact
deadlines over the same entries. tests/engine/operators/test_expiring.py compares the two.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.cep.layout import Kept
from engine.cep.matcher import NEVER, Found, Matcher
from engine.operators.shared_buffer import SharedBuffer
from state.overlay import KeyedCells, PaneCells


class ExpiringStates:
    """States of keys and their index of deadlines, both shared with `Detect`.

    Args:
        step_ms: Deadlines are rounded up to multiples of it; itself a multiple of the panes of `deadlines`, so that an entry lies where
            an exact deadline would be looked for.
    """

    def __init__(
        self, matcher: Matcher, partials: KeyedCells[Any, Kept], buffer: SharedBuffer, deadlines: PaneCells[Any, int], step_ms: int
    ) -> None:
        self._matcher, self._partials, self._deadlines, self._step_ms = matcher, partials, deadlines, step_ms
        self._buffer = buffer if buffer.parted else None

    def advance(self, due: Mapping[Any, Sequence[tuple[int, Any]]], watermark: int, found: Found) -> None:
        """Let the matcher take the records that are due, and keep what comes of it; keys whose deadline has come are in `due`."""
        run, get, deadline_of, step_ms = self._matcher.run, self._partials.get, self._matcher.deadline_ms, self._step_ms
        kept: dict[Any, Kept] = {}
        entered: dict[int, dict[Any, int]] = {}
        gone, buffer = self._partials.delete, self._buffer
        for key, records in due.items():
            old = get(key)
            if old is None:
                state = run(None, key, records, watermark, found)
                if state is None:
                    continue
                if buffer is not None:
                    buffer.note(key, None, state)
            else:
                state = run(old[1] if buffer is None else buffer.state_of(key, old), key, records, watermark, found)
                if buffer is not None:
                    buffer.note(key, old, state)
                noted = old[0]
                if watermark < noted and (noted < NEVER or state is not None):
                    kept[key] = (noted, state or ())
                    continue
                if state is None:
                    gone(key)
                    continue
            noted = deadline_of(state)
            if noted < NEVER:
                noted = -(-noted // step_ms) * step_ms
                if noted in entered:
                    entered[noted][key] = noted
                else:
                    entered[noted] = {key: noted}
            kept[key] = (noted, state)
        self._partials.put_many(kept)
        self._drop_due(watermark)
        for time_ms, keys in entered.items():
            self._deadlines.pane(time_ms).put_many(keys)

    def _drop_due(self, watermark: int) -> None:
        for time_ms in self._deadlines.times(watermark):
            pane = self._deadlines.pane(time_ms)
            exact = {key: deadline_ms for key, deadline_ms in pane.items() if deadline_ms > watermark}
            pane.drop()
            if exact:
                pane.put_many(exact)


__all__ = ["ExpiringStates"]
