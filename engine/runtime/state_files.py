"""State that does not run: the stores of a stopped worker, and savepoints, entry by entry.

    place = StatePlace.of_savepoint(open_folder("savepoints/before-upgrade"), plan)
    for entry in place.entries(): print(entry.line())

A stopped store is only looked at. To change it would be to change a copy: its changelog stays as it is, and the next restore would
bring back what was there, on one worker now and on another one later. A savepoint is the truth of the epoch that is restored from it,
so there entries may be put, deleted and imported: that writes a new savepoint, and leaves the old one as it is.

Limit: an edit holds the entries of one task in memory at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.edits import check_editable
from engine.errors import ConfigError, StateError
from engine.plan import Plan
from engine.task import catalog_of
from state.catalog import Catalog, Entry, entries_of
from state.hashing import partition_of
from state.keys import hash_of
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

    def entries(self, wire: bytes | None = None, state: str | None = None) -> Iterator[Entry]:
        """Yield what keys have, task by task, in key order; of one key (by its bytes on the wire), or of one state.

        Raises:
            StateError: There is no such state, or an entry does not fit its type.
        """
        if state is not None:
            self.catalog.spec(state)
        home = None if wire is None else partition_of(wire, self.partitions)
        for number, entries in sorted(self.tasks.items()):
            if home is None or number == home or self.catalog.whole:
                yield from (entry for entry in entries_of(self.catalog, entries(), wire) if state in (None, entry.spec.name))


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
    delete: Iterable[bytes] = (),
    only: str | None = None,
    who: str = "",
    why: str = "",
    now_ms: int = 0,
) -> tuple[Manifest, int]:
    """Write a savepoint with some entries changed; return it, and how many entries were put or deleted.

    Args:
        put: Lines as `Entry.line` makes them; for an entry by name of a state that may be put by hand (see `engine.edits`).
        delete: Keys, by their bytes on the wire, to be taken out of all states, or out of `only`.
    Raises:
        ConfigError: The target exists.
        StateError: An entry does not fit, or the savepoint is damaged: no savepoint was written.
    """
    if target.names():
        raise ConfigError(f"{target.url} exists already: give the savepoint another name")
    manifest = verify_savepoint(folder)
    place = of_savepoint(folder, plan)
    deleted = frozenset(delete)
    if only is not None:
        check_editable(place.catalog, place.catalog.spec(only))
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in put:
        rows.setdefault(_home(place, row), []).append(row)
    parts, changed = [], 0
    try:
        for part in manifest.parts:
            entries = dict(read_entries(folder, part))
            before = dict(entries)
            for raw_key in [key for key in entries if _is_deleted(place.catalog, key, entries[key], deleted, only)]:
                del entries[raw_key]
            for row in rows.get(part.number, ()):
                raw_key, _ = place.catalog.raw_entry({**row, "v": ""} if "v" not in row else row)
                entries.update([place.catalog.raw_entry(row, entries.get(raw_key))])
            changed += sum(1 for key in before.keys() | entries.keys() if before.get(key) != entries.get(key))
            with target.create(part.file) as file:
                writer = EntriesWriter(file)
                writer.add(sorted(entries.items()))
            parts.append(msgspec.structs.replace(part, entries=writer.entries, file_bytes=writer.file_bytes, sha256=writer.digest()))
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


def _is_deleted(catalog: Catalog, raw_key: bytes, raw_value: bytes, keys: frozenset[bytes], only: str | None) -> bool:
    if not keys:
        return False
    entry = catalog.entry(raw_key, raw_value)
    if entry is None or entry.spec.is_of_task or catalog.is_whole(entry.spec):
        return False
    return entry.wire in keys and only in (None, entry.spec.name)
