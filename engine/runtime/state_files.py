"""State that does not run: the stores of a stopped worker, and savepoints, entry by entry.

    place = StatePlace.of_savepoint(open_folder("savepoints/before-upgrade"), plan)
    for entry in place.entries(): print(entry.line())

A stopped store is only looked at. To change it would be to change a copy: its changelog stays as it is, and the next restore would
bring back what was there, on one worker now and on another one later. A savepoint is the truth of the epoch that is restored from it,
so there entries may be put, deleted and imported: that writes a new savepoint, and leaves the old one as it is.

Limit: an edit holds the entries of one task in memory at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.edits import check_editable, states_to_delete_from
from engine.errors import ConfigError, StateError
from engine.plan import Plan
from engine.task import catalog_of
from state.catalog import Catalog, Entry, entries_of, wire_of
from state.hashing import partition_of
from state.keys import ID_BYTES, hash_of
from state.remote import Folder
from state.rocks import RocksStore
from state.savepoint import EntriesWriter, Manifest, Part, read_entries, read_manifest, verify_savepoint, write_manifest

_END = b"\xff" * 16
Entries = Callable[[], Iterator[tuple[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class StatePlace:
    """Entries of an app's tasks, with what they mean."""

    catalog: Catalog
    partitions: int
    tasks: Mapping[int, Entries]

    def entries(self, key: bytes | str | None = None, state: str | None = None) -> Iterator[Entry]:
        """Yield what keys have, task by task, in key order; of one key (by its bytes on the wire, or as text), or of one state.

        Raises:
            StateError: There is no such state, or an entry does not fit its type.
        """
        if state is not None:
            self.catalog.spec(state)
        homes = set(self.tasks)
        if key is not None and not self.catalog.whole:
            homes = {partition_of(wire_of(spec, key), self.partitions) for spec in self.catalog.specs.values() if not spec.is_of_task}
        for number, entries in sorted(self.tasks.items()):
            if number in homes:
                yield from (entry for entry in entries_of(self.catalog, entries(), key) if state in (None, entry.spec.name))


def of_savepoint(folder: Folder, plan: Plan) -> StatePlace:
    """Return the state in a savepoint."""
    manifest = read_manifest(folder)
    if manifest.app != plan.app_id:
        raise ConfigError(f"{folder.url} is a savepoint of app {manifest.app!r}, not of {plan.app_id!r}")

    def reader(part: Part) -> Entries:
        return lambda: read_entries(folder, part)

    return StatePlace(catalog_of(plan), manifest.partitions, {part.number: reader(part) for part in manifest.parts})


def of_stores(path: Path, plan: Plan) -> StatePlace:
    """Return the state in the stores of a stopped worker, `<state_dir>/<app id>`.

    Raises:
        ConfigError: There are no stores, or the path is not the app's.
    """
    numbers = sorted(int(entry.name) for entry in path.iterdir() if entry.name.isdigit()) if path.is_dir() else []
    if not numbers:
        raise ConfigError(f"{path} holds no stores; it must be <state_dir>/{plan.app_id}, with a folder for each task")

    def reader(number: int) -> Entries:
        def read() -> Iterator[tuple[bytes, bytes]]:
            store = RocksStore(path / str(number), lock_wait_s=0.0)
            try:
                yield from store.scan(b"\0", _END)
            finally:
                store.close()

        return read

    return StatePlace(catalog_of(plan), plan.partitions, {number: reader(number) for number in numbers})


def edited_savepoint(
    folder: Folder,
    target: Folder,
    plan: Plan,
    *,
    put: Iterable[Mapping[str, Any]] = (),
    delete: Iterable[bytes | str] = (),
    only: str | None = None,
    who: str = "",
    why: str = "",
    now_ms: int = 0,
) -> tuple[Manifest, int]:
    """Write a savepoint with some entries changed; return it, and how many entries were put or deleted.

    Args:
        put: Lines as `Entry.line` makes them; for an entry by name of a state that may be put by hand (see `engine.edits`).
        delete: Keys to be taken out of all states, or out of `only` with what holds parts of it: by their bytes on the wire, or as
            texts, which in each state are the keys that they mean there.
    Raises:
        ConfigError: The target exists.
        StateError: An entry does not fit, nothing is there of a key to be deleted, or the savepoint is damaged: no savepoint was
            written.
    """
    if target.names():
        raise ConfigError(f"{target.url} exists already: give the savepoint another name")
    manifest = verify_savepoint(folder)
    place = of_savepoint(folder, plan)
    deletion = _Deletion(place.catalog, tuple(delete), only)
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in put:
        rows.setdefault(_home(place, row), []).append(row)
    parts, changed = [], 0
    try:
        for part in manifest.parts:
            entries = dict(read_entries(folder, part))
            before = dict(entries)
            for raw_key in [key for key, value in entries.items() if deletion.takes(key, value)]:
                del entries[raw_key]
            for row in rows.get(part.number, ()):
                raw_key, _ = place.catalog.raw_entry({**row, "v": ""} if "v" not in row else row)
                entries.update([place.catalog.raw_entry(row, entries.get(raw_key))])
            changed += sum(1 for key in before.keys() | entries.keys() if before.get(key) != entries.get(key))
            with target.create(part.file) as file:
                writer = EntriesWriter(file)
                writer.add(sorted(entries.items()))
            parts.append(msgspec.structs.replace(part, entries=writer.entries, file_bytes=writer.file_bytes, sha256=writer.digest()))
        deletion.check_found()
        by = who or manifest.who
        again = msgspec.structs.replace(
            manifest, name=target.url.rstrip("/").rpartition("/")[2], who=by, why=why, created_ms=now_ms, parts=parts
        )
        write_manifest(target, again)
    except BaseException:
        target.remove()
        raise
    return again, changed


def _home(place: StatePlace, row: Mapping[str, Any]) -> int:
    """Return the task that an entry belongs to; refuse what a person may not put."""
    raw_key, _ = place.catalog.raw_entry({**row, "v": ""} if "v" not in row else row)
    entry = place.catalog.entry(raw_key, b"")
    assert entry is not None, "a line names a state that there is"
    check_editable(place.catalog, entry.spec)
    if "k" not in row and not entry.spec.by_hand:
        raise StateError(
            f"state {entry.spec.name!r} is kept in step with others by its operator: it cannot be put by hand, only imported whole"
        )
    return hash_of(raw_key, entry.spec.hash_at()) % place.partitions


class _Deletion:
    """Keys that are taken out of states, and which of them there were."""

    def __init__(self, catalog: Catalog, keys: Sequence[bytes | str], state: str | None) -> None:
        self._catalog = catalog
        self._left = set(keys)
        self._keys: dict[str, dict[bytes, set[bytes | str]]] = {}
        for spec in states_to_delete_from(catalog, state):
            mine: dict[bytes, set[bytes | str]] = {}
            for key in keys:
                mine.setdefault(wire_of(spec, key), set()).add(key)
            self._keys[spec.name] = mine

    def takes(self, raw_key: bytes, raw_value: bytes) -> bool:
        """Return whether an entry goes."""
        spec = self._catalog.specs.get(raw_key[:ID_BYTES])
        keys = None if spec is None else self._keys.get(spec.name)
        entry = self._catalog.entry(raw_key, raw_value) if keys else None
        if not keys or entry is None or entry.wire not in keys:
            return False
        self._left -= keys[entry.wire]
        return True

    def check_found(self) -> None:
        """Raise a StateError for a key of which nothing was there: it would look deleted, and might be spelt in another way."""
        if self._left:
            raise nothing_of(*sorted(self._left, key=repr))


def nothing_of(*keys: bytes | str) -> StateError:
    """Return the error that says that there is nothing of keys."""
    return StateError(f"there is nothing of key {', '.join(map(repr, keys))}")
