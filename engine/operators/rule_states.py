"""The partial matches of one version of a rule in one task, and when to look at them although no record came.

A version counts from `begin_ms` to `end_ms`, in event time: a match of it begins with a record of [begin_ms, end_ms). A version that is
over lets its partial matches end by themselves (`drains`), or has none any more.

State, in a slot of its own, so that a version can go as a whole:

    partials    one pane: key -> (the time under which `deadlines` has the key, what the matcher keeps)
    records, runs    what is large of it (`engine.operators.shared_buffer`)
    deadlines   panes: key -> when to look at the key again. Never later than something happens there; it may be earlier
"""

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.cep.layout import Kept
from engine.cep.matcher import NEVER, Found, Matcher
from engine.cep.rules.compiled import CompiledRule
from engine.cep.rules.rule import Rule
from engine.cep.rules.screen import Due
from engine.keys import KeyCodec
from engine.operators.base import OperatorContext
from engine.operators.pending import PENDING_MS, Pair
from engine.operators.shared_buffer import SharedBuffer
from state.values import msgpack_codec

_PANE_MAX_MS = 3_600_000
FAILURES_MAX = 1_000
FAILURES_WITHIN_MS = 3_600_000
"""So often in an hour of event time a version may raise in a task; then it is stopped, before it floods the dead letters."""


class Installed(Struct, frozen=True):
    """A version of a rule that stands in a task.

    Attributes:
        begin_ms, end_ms: Its matches begin in [begin_ms, end_ms), in event time; NEVER for no end.
        drains: After the end partial matches go on; otherwise they are forgotten then.
        failures, failing_since_ms: How often it has raised in this hour of event time, and when the hour began.
        stopped: It has raised too often, and finds nothing any more.
    """

    rule: Rule
    begin_ms: int
    end_ms: int = NEVER
    drains: bool = True
    failures: int = 0
    failing_since_ms: int = 0
    stopped: bool = False

    def failed(self, at_ms: int) -> "Installed":
        """Return it with one more failure."""
        if not self.failures or not 0 <= at_ms - self.failing_since_ms < FAILURES_WITHIN_MS:
            return replace(self, failures=1, failing_since_ms=at_ms)
        return replace(self, failures=self.failures + 1, stopped=self.failures + 1 >= FAILURES_MAX)


class Slot:
    """State for one version of a rule at a time; cells once opened stay open, so slots are used again."""

    def __init__(self, context: OperatorContext, number: int, key: KeyCodec) -> None:
        self.number = number
        self.installed: Installed | None = None
        self.compiled: CompiledRule | None = None
        self._matcher: Matcher | None = None
        self._pane_ms = PENDING_MS
        self._swept = False
        state = context.state
        self._buffer = SharedBuffer(state, context.state_name(f"rule-{number}/"), key, None)
        self._partials = state.panes(context.state_name(f"rule-{number}/partials"), key, self._buffer.codec)
        self._buffer.serve(state, lambda key: self._partials.pane(0).get(key))
        self._deadlines = state.panes(context.state_name(f"rule-{number}/deadlines"), key, msgpack_codec(int))

    def hold(self, installed: Installed, compiled: CompiledRule | None) -> None:
        """Serve a version; None for one that finds nothing."""
        self.installed, self.compiled = installed, compiled
        self._matcher = None if compiled is None else compiled.matcher
        self._buffer.hold(None if self._matcher is None else self._matcher.layout)
        within_ms = (compiled.within_ms if compiled is not None else None) or PENDING_MS
        self._pane_ms = min(max(within_ms // 256, PENDING_MS), _PANE_MAX_MS)
        self._swept = False

    def go_on_with(self, compiled: CompiledRule | None) -> None:
        """Serve the same version by another matcher, which only evaluates conditions in another way."""
        if compiled is not self.compiled and compiled is not None:
            self.compiled, self._matcher = compiled, compiled.matcher

    def rolled_back(self) -> None:
        """What was done may have been undone."""
        self._swept = False

    def clear(self) -> None:
        """Forget all partial matches."""
        pane = self._partials.pane(0)
        self._buffer.drop([key for key, kept in pane.items() if self._buffer.is_parted(kept)])
        pane.drop()
        for time in self._deadlines.times(NEVER):
            self._deadlines.pane(time).drop()

    # -- blocks

    def take(self, due: Due, watermark: int, found: Found) -> bool:
        """Match what is due, then let time go on; return False when the version has nothing to do any more."""
        installed, matcher = self.installed, self._matcher
        assert installed is not None
        if matcher is None:
            return self.goes_on(watermark)
        until_ms = watermark if installed.drains else min(watermark, installed.end_ms - 1)
        run, end_ms, get, state_of = matcher.run, installed.end_ms, self._partials.pane(0).get, self._buffer.state_of
        fitting = self._fitting(due, found) if watermark >= installed.begin_ms else None
        assert self.compiled is not None
        take = run if fitting is None else (self.compiled.screened or matcher).run
        looked_at: set[Any] = set()
        states: dict[Any, Kept] = {}
        deadlines: dict[int, dict[Any, int]] = {}
        if watermark >= installed.begin_ms:
            for key, all_records in (due.by_key if fitting is None else fitting).items():
                records = self.fitting(all_records)
                old = get(key)
                if old is None and (not records or records[0][0] >= end_ms):
                    continue
                looked_at.add(key)
                state = take(None if old is None else state_of(key, old), key, records, until_ms, found, end_ms)
                self._keep(key, old, state, watermark, states, deadlines)
        for key in self._due_keys(until_ms):
            if key not in looked_at:
                looked_at.add(key)
                old = get(key)
                if old is not None:
                    state = run(state_of(key, old), key, (), until_ms, found, end_ms)
                    self._keep(key, old, state, watermark, states, deadlines)
        self._write(states, deadlines)
        return self.goes_on(watermark)

    def _fitting(self, due: Due, found: Found) -> dict[Any, list[Pair]] | None:
        """Return the keys that have to be looked at, with their records: not those whose records cannot matter. None for all."""
        assert self.installed is not None and self.compiled is not None
        screen = self.compiled.screen
        if screen is None or found.story is not None or self.installed.end_ms != NEVER:
            return None
        pane = self._partials.pane(0)
        pane.read(due.by_key)
        cells, by_key = pane.cells, due.by_key
        standing = (key for key in by_key if key in cells) if len(by_key) < len(cells) else (key for key in cells if key in by_key)
        return due.fitting(screen, standing)

    def goes_on(self, watermark: int) -> bool:
        """Say whether there is still something to do; at the end of a version its idle states go."""
        installed, matcher = self.installed, self._matcher
        assert installed is not None
        if watermark < installed.end_ms - 1 or installed.end_ms == NEVER:
            return True
        if matcher is None or not installed.drains:
            self.clear()
            return False
        if not self._swept:
            self._swept = True
            states: dict[Any, Kept] = {}
            deadlines: dict[int, dict[Any, int]] = {}
            for key, old in self._partials.pane(0).items():
                state = matcher.run(self._buffer.state_of(key, old), key, (), watermark, Found(), installed.end_ms)
                self._keep(key, old, state, watermark, states, deadlines)
            self._write(states, deadlines)
        return bool(self._partials.times(0))

    def fitting(self, records: list[Pair]) -> list[Pair]:
        """Return the records that concern this version, in its order."""
        installed, compiled = self.installed, self.compiled
        assert installed is not None and compiled is not None
        begin_ms, end_ms = installed.begin_ms, NEVER if installed.drains else installed.end_ms
        if records and (records[0][0] < begin_ms or records[-1][0] >= end_ms):
            records = [record for record in records if begin_ms <= record[0] < end_ms]
        if compiled.ties is not None and len(records) > 1:
            ties = compiled.ties
            records = sorted(records, key=lambda record: (record[0], ties(record[1])))
        return records

    # -- one key at a time (careful mode)

    def state_of(self, key: Any) -> Any:
        """Return what is kept of a key, None for nothing."""
        kept = self._partials.pane(0).get(key)
        return None if kept is None else self._buffer.state_of(key, kept)

    def deadline_of(self, key: Any) -> int:
        """Return when something happens to a key without a record, NEVER for no time."""
        state = self.state_of(key)
        return NEVER if state is None or self._matcher is None else self._matcher.deadline_ms(state)

    def run(self, state: Any, key: Any, records: list[Pair], until_ms: int, found: Found) -> Any:
        """Let the matcher go on with a key; its new state is not kept yet."""
        assert self._matcher is not None and self.installed is not None
        return self._matcher.run(state, key, records, until_ms, found, self.installed.end_ms)

    def keep(self, key: Any, state: Any, watermark: int) -> None:
        """Keep the state of a key."""
        states: dict[Any, Kept] = {}
        deadlines: dict[int, dict[Any, int]] = {}
        self._keep(key, self._partials.pane(0).get(key), state, watermark, states, deadlines)
        self._write(states, deadlines)

    def due_keys(self, watermark: int) -> list[Any]:
        """Return the keys that have to be looked at although no record came."""
        assert self.installed is not None
        until_ms = watermark if self.installed.drains else min(watermark, self.installed.end_ms - 1)
        return [] if self._matcher is None else self._due_keys(until_ms)

    # -- inside

    def _due_keys(self, watermark: int) -> list[Any]:
        found: dict[Any, None] = {}
        for time in self._deadlines.times(watermark):
            pane = self._deadlines.pane(time)
            for key, deadline_ms in pane.cells.items() if pane.complete else pane.items():
                if deadline_ms <= watermark:
                    found[key] = None
        return list(found)

    def _keep(
        self, key: Any, old: Kept | None, state: Any, watermark: int, states: dict[Any, Kept], deadlines: dict[int, dict[Any, int]]
    ) -> None:
        if state is None:
            if old is not None:
                self._buffer.note(key, old, None)
                self._partials.pane(0).delete(key)
                self._forget_deadline(key, old[0])
            return
        assert self._matcher is not None
        deadline_ms = self._matcher.deadline_ms(state)
        if old is not None:
            if watermark < old[0] <= deadline_ms:
                if state is not self._buffer.state_of(key, old):
                    self._buffer.note(key, old, state)
                    states[key] = (old[0], state)
                return
            self._forget_deadline(key, old[0])
        self._buffer.note(key, old, state)
        states[key] = (deadline_ms, state)
        if deadline_ms < NEVER:
            deadlines.setdefault(deadline_ms // self._pane_ms, {})[key] = deadline_ms

    def _forget_deadline(self, key: Any, deadline_ms: int) -> None:
        if deadline_ms < NEVER:
            self._deadlines.pane(deadline_ms // self._pane_ms * self._pane_ms).delete(key)

    def _write(self, states: dict[Any, Kept], deadlines: dict[int, dict[Any, int]]) -> None:
        self._partials.pane(0).put_many(states)
        for pane_time, gathered in deadlines.items():
            self._deadlines.pane(pane_time * self._pane_ms).put_many(gathered)
