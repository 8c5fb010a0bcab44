"""From a savepoint to the state of the tasks of a plan: what fits, what is refused, and where each entry goes.

                       same number of partitions        another number
    state of keys      the task with the same number    hash % N
    counters, time     as they are                      one value out of all of them, for every task (`merge`)
    broadcast tables   as they are                      those of task 0, for every task
    source offsets     as they are                      as they are, in a topic that has grown; a new topic is read from its start
    edits since then   are made again                   refused: take the savepoint after them
    repartition        none: the topics of the new epoch are empty, and nothing is in flight in a savepoint

Another number of partitions needs sources that are drained: what an old partition still holds was placed by the old number. Time does
not go back for any key: a new task begins at the highest watermark of the old ones, and windows that it has passed close at once.

An operator may be new; one that is gone, or keeps something else, is refused unless its state is given up (`drop`). Every entry must be
readable by the types of today: a Struct may have gained fields with defaults.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from engine.errors import StateError, StoredTypeError
from engine.key_types import KEY_TYPES, changed_key_types, key_types
from engine.keys import key_codec
from engine.plan import Plan
from engine.task import catalog_of
from state.catalog import Catalog, Entry, Kind, StateSpec
from state.keys import ID_BYTES, encode_key, store_id
from state.savepoint import Manifest, Part
from state.store import Change
from state.values import msgpack_codec, raw_codec, stored

_OFFSETS, _SIGNATURES, _SAVEPOINT, _BROADCASTS = "_task/offsets", "_task/signatures", "_task/savepoint", "_task/broadcasts"
_SOURCE = "_task/source/"
_REPARTITION = "repartition"
"""The signature of a repartition: it has no state but time, and may go with what it leads to."""
_DONOR = 0
_EXAMPLES_MAX = 3


@dataclass(frozen=True, slots=True)
class Words:
    """What a person says has to change, since it would not fit by itself.

    Attributes:
        drop: Operators ("pipeline/operator") whose state is given up.
        replace: Source topics and those that take their place; their time goes on, their records begin anew.
        drop_sources: Source topics that are no longer read.
    """

    drop: frozenset[str] = frozenset()
    replace: Mapping[str, str] = field(default_factory=dict)
    drop_sources: frozenset[str] = frozenset()


class Restoring:
    """Takes the entries of a savepoint to the tasks of a plan. Ask `differences` first, then `check` every part, then `route` them."""

    def __init__(self, manifest: Manifest, plan: Plan, words: Words) -> None:
        self.manifest, self.plan, self.words = manifest, plan, words
        self.is_rescaled = manifest.partitions != plan.partitions
        self._catalog = self._with_unopened(catalog_of(plan))
        self._key_types = key_types(catalog_of(plan))
        self._names = {store_id(note.name): note.name for note in manifest.states}
        self._merged: dict[str, list[Entry]] = {}
        self._bad: dict[str, list[str]] = {}
        self._bad_counts: Counter[str] = Counter()

    def _with_unopened(self, catalog: Catalog) -> Catalog:
        """Return the catalog with the states that operators of today will open when they need them: placed, but not looked into."""
        specs = dict(catalog.specs)
        for note in self.manifest.states:
            operator = "/".join(note.name.split("/", 2)[:2])
            signature = self.plan.signatures.get(operator)
            if store_id(note.name) not in specs and signature is not None and signature == self.manifest.signatures.get(operator):
                sub = raw_codec if note.kind == "mapped" else None
                specs[store_id(note.name)] = StateSpec(note.name, cast(Kind, note.kind), key_codec(bytes), raw_codec, sub)
        return Catalog(specs, catalog.whole)

    def differences(self) -> list[str]:
        """Return why the graph does not fit; [] if it does."""
        manifest, plan, words = self.manifest, self.plan, self.words
        found = []
        if manifest.app != plan.app_id:
            found.append(f"it is of app {manifest.app!r}, not of {plan.app_id!r}")
        for name, signature in sorted(manifest.signatures.items()):
            if signature == _REPARTITION and name not in plan.signatures:
                continue
            if name not in words.drop and plan.signatures.get(name) != signature:
                now = f"is {plan.signatures[name]!r} now" if name in plan.signatures else "is gone"
                found.append(f"operator {name} was {signature!r} and {now}; give up its state with --drop {name}, or bring it back")
        found += [f"--drop {name}: it had no state in the savepoint" for name in sorted(words.drop - set(manifest.signatures))]
        for topic in sorted(manifest.sources):
            target = words.replace.get(topic, topic)
            if target not in plan.sources and topic not in words.drop_sources:
                found.append(f"source {topic} is not read any more; say --drop-source {topic}, or --replace {topic}=TOPIC")
            elif topic not in words.replace and topic not in words.drop_sources and plan.partitions < manifest.partitions:
                found.append(f"source {topic} cannot have fewer partitions than before; say --replace {topic}=TOPIC with a new topic")
        found += [f"--replace {topic}: it is no source of the savepoint" for topic in sorted(set(words.replace) - set(manifest.sources))]
        found += [
            f"--drop-source {topic}: it is no source of the savepoint" for topic in sorted(words.drop_sources - set(manifest.sources))
        ]
        return found

    def check(self, part: Part, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Look at every entry of a part: can it be read, and has it a place?"""
        for raw_key, raw_value in entries:
            try:
                entry = self._entry(raw_key, raw_value)
                if entry is None:
                    continue
                value = entry.value()
                if entry.spec.view is not None:
                    entry.spec.view.show(value)  # what users declare lies in there, with a type of its own
                if self.is_rescaled:
                    self._check_place(part, entry)
            except (StateError, StoredTypeError) as error:
                name = self._names.get(raw_key[:ID_BYTES], "?")
                self._bad_counts[name] += 1
                examples = self._bad.setdefault(name, [])
                if len(examples) < _EXAMPLES_MAX and str(error) not in examples:
                    examples.append(str(error))

    def unplaced(self) -> list[str]:
        """Return what `check` found that cannot be taken over; [] if all can. Merging what belongs to tasks is tried here too."""
        found = [f"{self._bad_counts[name]} entries: {'; '.join(examples)}" for name, examples in sorted(self._bad.items())]
        for name, entries in sorted(self._merged.items()):
            try:
                self._merge(entries)
            except (StateError, StoredTypeError) as error:
                found.append(f"{name}: {error}")
        return found

    def route(self, part: Part, entries: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (task, store key, stored value) of a checked part; not what `beginnings` gives."""
        for raw_key, raw_value in entries:
            entry = self._entry(raw_key, raw_value)
            if entry is None or self._is_merged(entry.spec):
                continue
            if self.is_rescaled and self._catalog.is_whole(entry.spec):
                if part.number == _DONOR:
                    yield from ((number, entry.raw_key, raw_value) for number in range(self.plan.partitions))
            elif self.is_rescaled:
                yield entry.hash % self.plan.partitions, entry.raw_key, raw_value
            else:
                yield part.number, entry.raw_key, raw_value

    def beginnings(self, number: int, control_end: int) -> list[Change]:
        """Return the entries that are made for a task: where it goes on in its inputs, what fits its graph, and what was merged.

        Args:
            control_end: Where the control topic ends now, in the task's partition; among other partitions it goes on there.
        """
        topics = {self.words.replace.get(topic, topic): topic for topic in self.manifest.sources if topic not in self.words.drop_sources}
        parts = {part.number: part for part in self.manifest.parts}
        encode = stored(msgpack_codec(int), _OFFSETS).encode
        changes: list[Change] = []
        for topic, before in topics.items():
            offset = parts[number].offsets.get(before) if number in parts and before == topic else None
            if offset is not None:
                changes.append((_key(_OFFSETS, topic), encode(offset)))
        control = self.plan.control_topic
        offset = control_end if self.is_rescaled else parts[number].offsets.get(control)
        if offset is not None:
            changes.append((_key(_OFFSETS, control), encode(offset)))
        signatures = dict(self.plan.signatures)
        changes.append((_key(_SIGNATURES, ""), stored(msgpack_codec(dict[str, str]), _SIGNATURES).encode(signatures)))
        changes += [self._merge(entries) for entries in self._merged.values()]
        return sorted(changes)

    def _entry(self, raw_key: bytes, raw_value: bytes) -> Entry | None:
        """Return an entry of the new graph; None for what is given up or made anew."""
        name = self._names.get(raw_key[:ID_BYTES])
        if name is None:
            raise StateError(f"store id {raw_key[:ID_BYTES].hex()} belongs to no state that the savepoint lists")
        if name == KEY_TYPES:
            self._check_key_types(raw_key, raw_value)
            return None
        if name in (_OFFSETS, _SIGNATURES, _SAVEPOINT) or "/".join(name.split("/", 2)[:2]) in self.words.drop:
            return None
        if name.startswith(_SOURCE):
            topic = name.removeprefix(_SOURCE)
            if topic in self.words.drop_sources:
                return None
            raw_key = store_id(_SOURCE + self.words.replace.get(topic, topic)) + raw_key[ID_BYTES:]
        entry = self._catalog.entry(raw_key, raw_value)
        if entry is None:
            if self.manifest.signatures.get("/".join(name.split("/", 2)[:2]), _REPARTITION) == _REPARTITION:
                return None  # the time of a merge, or of a repartition, that is not there any more
            raise StateError(f"state {name!r} has entries, and no operator holds it any more")
        if name == _BROADCASTS and entry.key.partition("/")[2] not in self.plan.broadcasts:
            return None
        return entry

    def _check_key_types(self, raw_key: bytes, raw_value: bytes) -> None:
        """Refuse keys of another type; the tasks note today's anew when they start."""
        entry = self._catalog.entry(raw_key, raw_value)
        assert entry is not None, "every task keeps the types of its keys"
        kept = {name: shape for name, shape in entry.value().items() if "/".join(name.split("/", 2)[:2]) not in self.words.drop}
        changes = changed_key_types(kept, self._key_types)
        if changes:
            raise StateError("; ".join(changes))

    def _is_merged(self, spec: StateSpec) -> bool:
        return self.is_rescaled and spec.is_of_task

    def _check_place(self, part: Part, entry: Entry) -> None:
        spec = entry.spec
        if spec.name == _BROADCASTS:
            if part.number == _DONOR:
                self._merged.setdefault(f"{spec.name} {entry.key}", []).append(entry)
        elif self._is_merged(spec):
            self._merged.setdefault(spec.name, []).append(entry)
        elif not self._catalog.is_whole(spec) and entry.hash % self.manifest.partitions != part.number:
            raise StateError(
                f"state {spec.name!r}: key {entry.key!r} lies in task {part.number}, and its hash belongs to task "
                f"{entry.hash % self.manifest.partitions}: its source places keys in another way, so it has no place among other partitions"
            )

    def _merge(self, entries: list[Entry]) -> Change:
        first = entries[0]
        if len(entries) == 1 and first.spec.merge is None:
            return first.raw_key, first.raw_value
        assert first.spec.merge is not None, f"{first.spec.name} says how to merge"
        value = first.spec.merge([entry.value() for entry in entries])
        return first.raw_key, stored(first.spec.value, first.spec.name).encode(value)


def _key(name: str, key: str) -> bytes:
    return store_id(name) + encode_key(key.encode(), key.encode())
