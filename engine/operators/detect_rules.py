"""`detect(rules=…)`: many patterns over one stream, put, changed and removed while it runs.

    port 0    records by arrival ──► in event-time order ──► each version of each rule that stands
    port 1    the rules topic, which every task reads as a whole

A rule changes between two records of a task, and what the change means is said in event time: the watermark W that the task has then is
the point. A new version counts from max(W + 1, `from_ms`), the version before it ends there. So with a `from_ms` that no watermark has
reached, every partition changes at the same moment of event time, and a replay does too; without it each partition changes where it
stands. All of it is state: after a restart the same versions stand, and their partial matches.

A rule that cannot run goes to the dead letters once, from the task with its partition's number, and what stood before stays. One that
raises for a record spoils that firing alone, which is a dead letter; one that does so 1,000 times in an hour of event time is stopped in
that task, with its partial matches, until a new version takes its place: it could flood the dead letters and make every batch fail.
"""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Any, cast

import msgspec

from engine.block import MIN_TIME, Block, advance
from engine.cep.matcher import NEVER, Found
from engine.cep.rules.compiled import CompiledRule, Frame, compile_rule
from engine.cep.rules.rule import Rule, RuleMatch, RuleTimedOut
from engine.cep.rules.screen import Due
from engine.cep.rules.sharing import Sharing
from engine.errors import RecordError
from engine.keys import key_codec
from engine.operators.arrivals import Arrivals
from engine.operators.base import Operator, OperatorContext, own_time
from engine.operators.history import History
from engine.operators.pending import Pair
from engine.operators.rule_states import FAILURES_MAX, Installed, Slot
from state.values import json_codec

if TYPE_CHECKING:
    from engine.run import NodeContext

RULES_MAX = 1_000
"""Versions that may stand in a task, those that drain included."""


def detect_rules_operator(
    frame: Frame, *, key_type: Any, late_to: str | None, timeouts_to: str | None, history: int
) -> Callable[[OperatorContext], "DetectRules"]:
    """Return what makes the operator for a task; `history`: how many matches and near misses of each key are kept."""
    return lambda context: DetectRules(context, frame, key_type=key_type, late_to=late_to, timeouts_to=timeouts_to, history=history)


class DetectRules(Operator):
    """Runs the rules that stand over the records of a task; make one with `detect_rules_operator`."""

    def __init__(
        self, context: OperatorContext, frame: Frame, *, key_type: Any, late_to: str | None, timeouts_to: str | None, history: int
    ) -> None:
        super().__init__(context)
        self._frame = frame
        self._timeouts_to = timeouts_to
        self.reach = own_time(by_time=True)
        self._key = key_codec(key_type)
        self.reach = own_time(by_time=True)
        self._arrivals = Arrivals(context, self._key, frame.value_type, late_to=late_to, ties=None)
        self._installed = context.state.panes(context.state_name("rules"), key_codec(int), json_codec(Installed))
        self._history = History(context, self._key, history)
        self._slots: dict[int, Slot] = {}
        self._standing: list[tuple[int, Slot]] = []
        self._compiled: dict[tuple[bytes, frozenset[str]], CompiledRule | None] = {}
        self._sharing = Sharing()
        self._watermark = MIN_TIME
        self._load()

    def process(self, block: Block, port: int = 0) -> None:
        """Take records in, or rules."""
        if port == 1:
            self._take_rules(block)
            self.emit(advance(self._watermark, self._watermark))
            return
        self._sharing.forget()
        if self.context.careful:
            self._process_singly(block)
        else:
            self._process_whole(block)
        self._watermark = block.watermark

    def rolled_back(self) -> None:
        for slot in self._slots.values():
            slot.rolled_back()
        self._load()

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        alive = []
        for _, slot in self._standing:
            state = slot.state_of(key)
            if state is not None and slot.compiled is not None:
                rule = slot.compiled.rule
                alive += [msgspec.structs.replace(one, rule=rule.id, version=rule.version) for one in slot.compiled.matcher.explain(state)]
        if alive:
            yield "partial_matches", alive
        waiting = self._arrivals.of(key)
        if waiting:
            yield "pending", waiting
        told = self._history.of(key)
        if told:
            yield "history", told

    def standing(self) -> list[Installed]:
        """Return the versions that stand, by rule and version."""
        return [slot.installed for _, slot in self._standing if slot.installed is not None]

    # -- records

    def _process_whole(self, block: Block) -> None:
        due, watermark = Due(self._arrivals.due(block)), block.watermark
        times: list[int] = []
        matches: list[RuleMatch] = []
        ran_out: list[RuleTimedOut] = []
        for number, slot in list(self._standing):
            found = Found(story=self._history.begin())
            goes_on = slot.take(due, watermark, found)
            times += found.times
            matches += self._made(slot, found, ran_out)
            if not goes_on:
                self._remove(number)
        self._send_timeouts(ran_out)
        # Of the same time: by key bytes; of one key: by rule, which is how they stand already.
        names = map(self.context.key_bytes, [match.key for match in matches])
        order = [place for _, _, place in sorted(zip(times, names, range(len(times)), strict=True))]
        times, matches = [times[place] for place in order], [matches[place] for place in order]
        start = block.start
        before = [time - 1 if time > start else start for time in times]
        self.emit(Block([match.key for match in matches], matches, times, start, watermark, before))

    def _made(self, slot: Slot, found: Found, ran_out: list[RuleTimedOut]) -> list[RuleMatch]:
        if found.dropped_partials:
            self.context.count("dropped_partials", found.dropped_partials)
        assert slot.installed is not None
        rule = slot.installed.rule
        self._history.remember(found.story, rule.id, rule.version)
        if found.timeouts:
            self.context.count(f"timeouts of {rule.id} v{rule.version}", len(found.timeouts))
            ran_out += [RuleTimedOut(rule.id, rule.version, *msgspec.structs.astuple(one)) for one in found.timeouts]
        if not found.matches:
            return []
        self.context.count(f"matches of {rule.id} v{rule.version}", len(found.matches))
        return [RuleMatch(rule.id, rule.version, key, row) for key, row in cast("list[tuple[Any, dict[str, Any]]]", found.matches)]

    def _send_timeouts(self, ran_out: list[RuleTimedOut]) -> None:
        """Send partial matches that ran out of time, by time, then key bytes, then rule."""
        if ran_out:
            key_bytes = self.context.key_bytes
            ran_out.sort(key=lambda one: (one.end_ms, key_bytes(one.key)))
            self.context.send(cast(str, self._timeouts_to), [one.key for one in ran_out], ran_out, [one.end_ms for one in ran_out])

    def _process_singly(self, block: Block) -> None:
        """Do the same one firing at a time: a firing is one record of a key for one rule, or a time at which something ends."""
        due, watermark, key_bytes = self._arrivals.due(block), block.watermark, self.context.key_bytes
        heap: list[tuple[int, bytes, int, int, Any, Slot, list[Pair]]] = []
        for place, (_, slot) in enumerate(self._standing):
            if slot.compiled is None:
                continue
            for key in dict.fromkeys([*due, *slot.due_keys(watermark)]):
                records = list(slot.fitting(due.get(key, [])))
                heap.append((_next_ms(slot, key, records), key_bytes(key), place, len(heap), key, slot, records))
        heapify(heap)
        reached = block.start
        while heap:
            at_ms, wire, place, number, key, slot, records = heap[0]
            if slot.compiled is None:  # it has been stopped
                heappop(heap)
                continue
            assert slot.installed is not None
            if at_ms > watermark or at_ms == NEVER or (not slot.installed.drains and at_ms >= slot.installed.end_ms):
                slot.keep(key, slot.state_of(key), watermark)
                heappop(heap)
                continue
            reached = self._fire(slot, key, records, at_ms, reached)
            heapreplace(heap, (_next_ms(slot, key, records), wire, place, number, key, slot, records))
        for number, slot in list(self._standing):
            if not slot.goes_on(watermark):
                self._remove(number)
        self.emit(advance(reached, watermark))

    def _fire(self, slot: Slot, key: Any, records: list[Pair], at_ms: int, reached: int) -> int:
        """Fire what a key has at a time for a rule, its deadline before its first record; return the time that went downstream."""
        assert slot.installed is not None
        rule, state = slot.installed.rule, slot.state_of(key)
        by_time = slot.deadline_of(key) <= at_ms
        taken = [] if by_time else [records.pop(0)]
        kept, went, raised = (None if by_time else state), reached, True
        with self.context.firing(key, at_ms, f"rule {rule.id} version {rule.version}"):
            found = Found(story=self._history.begin())
            after = slot.run(state, key, taken, at_ms, found)
            if by_time:
                kept = after
            slot.keep(key, after, at_ms)
            ran_out: list[RuleTimedOut] = []
            made = self._made(slot, found, ran_out)
            self._send_timeouts(ran_out)
            before = max(reached, at_ms - 1)
            self.emit(Block([match.key for match in made], made, found.times, reached, before, [before] * len(made)))
            kept, went, raised = after, before, False
        slot.keep(key, kept, at_ms)
        if raised:
            self._note_failure(slot, key, at_ms)
        return went

    def _note_failure(self, slot: Slot, key: Any, at_ms: int) -> None:
        """Count a firing that raised, and stop the version when there have been too many."""
        assert slot.installed is not None
        failed, rule = slot.installed.failed(at_ms), slot.installed.rule
        self._installed.pane(0).put(slot.number, failed)
        slot.installed = failed
        if not failed.stopped:
            return
        slot.clear()
        slot.hold(failed, None)
        self.context.count("rules_stopped")
        with self.context.firing(key, at_ms, f"rule {rule.id} version {rule.version}"):
            raise RecordError(
                f"rule {rule.id!r} version {rule.version} has raised {FAILURES_MAX:,} times in an hour of event time and is stopped in "
                "this task; put a version that is right"
            )

    # -- rules

    def _take_rules(self, block: Block) -> None:
        for index, rule in enumerate(block.values):
            try:
                self._take_rule(block.keys[index], rule)
            except RecordError as error:
                assert block.batch is not None
                cast("NodeContext", self.context).refuse(block.batch, block.row(index), error)

    def _take_rule(self, name: str, rule: Rule | None) -> None:
        """Put a version of a rule in force, or remove the rule.

        Raises:
            RecordError: It cannot run, or is no change of what stands.
        """
        point_ms = min(self._watermark + 1, NEVER)
        versions = [(number, slot.installed) for number, slot in self._standing if slot.installed and slot.installed.rule.id == name]
        if rule is None:
            for number, _ in versions:
                self._remove(number)
            return
        if rule.id != name:
            raise RecordError(f"the record's key is {name!r} and its rule's id {rule.id!r}: they must be the same")
        newest = max((installed.rule for _, installed in versions), key=lambda other: other.version, default=None)
        if newest == rule:
            return
        if newest is not None and rule.version <= newest.version:
            raise RecordError(f"rule {name!r} stands with version {newest.version}: a change of it needs a higher one than {rule.version}")
        if len(self._standing) >= RULES_MAX:
            raise RecordError(f"rule {name!r}: there are {RULES_MAX} versions of rules already")
        self._compile(rule)
        begin_ms = point_ms if rule.from_ms is None else max(rule.from_ms, point_ms)
        for number, installed in versions:
            if installed.begin_ms >= begin_ms:
                self._remove(number)
            elif installed.end_ms > begin_ms:
                ended = msgspec.structs.replace(installed, end_ms=begin_ms, drains=rule.old == "drain")
                self._installed.pane(0).put(number, ended)
        number = next(number for number in range(RULES_MAX + 1) if self._installed.pane(0).get(number) is None)
        self._installed.pane(0).put(number, Installed(rule, begin_ms))
        self._load()
        self.context.count("rules_taken")

    def _remove(self, number: int) -> None:
        """Take a version away, with its partial matches."""
        self._slots[number].clear()
        self._installed.pane(0).delete(number)
        self._load()

    def _load(self) -> None:
        """Let the slots serve what the state says."""
        standing: list[tuple[str, int, int]] = []
        for number, installed in self._installed.pane(0).items():
            slot = self._slots.get(number)
            if slot is None:
                slot = self._slots[number] = Slot(self.context, number, self._key)
            if slot.installed != installed:
                slot.hold(installed, None if installed.stopped else self._compile_again(installed.rule))
            standing.append((installed.rule.id, installed.rule.version, number))
        self._standing = [(number, self._slots[number]) for _, _, number in sorted(standing)]
        self._share()

    def _share(self) -> None:
        """Let the rules that stand share the conditions that more than one of them, or of their stages, asks for."""
        if len(self._compiled) > 4 * RULES_MAX:
            self._compiled.clear()
            self._sharing = Sharing()
        running = [(slot, slot.compiled) for _, slot in self._standing if slot.compiled is not None]
        self._sharing.serve(compiled.asked for _, compiled in running)
        for slot, compiled in running:
            slot.go_on_with(self._compile(compiled.rule, self._sharing.often.intersection(compiled.asked)))

    def _compile(self, rule: Rule, shared: frozenset[str] = frozenset()) -> CompiledRule | None:
        place = (msgspec.json.encode(rule), shared)
        if place not in self._compiled:
            self._compiled[place] = compile_rule(rule, self._frame, self._sharing if shared else None)
        return self._compiled[place]

    def _compile_again(self, rule: Rule) -> CompiledRule | None:
        """Compile a rule that stands; one that no longer fits the program finds nothing until a new version takes its place."""
        try:
            return self._compile(rule)
        except RecordError:
            self.context.count("rules_that_do_not_fit")
            return None


def _next_ms(slot: Slot, key: Any, records: list[Pair]) -> int:
    deadline_ms = slot.deadline_of(key)
    return min(records[0][0], deadline_ms) if records else deadline_ms
