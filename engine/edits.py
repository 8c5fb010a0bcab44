"""Edits of a task's state by hand: one entry put, or everything of a key deleted. They go through the overlay, like any change.

An edit changes what is stored and nothing else: no result is sent for it, and nothing flows on to other operators. What may be put are
entries that say all by themselves: the states of a `process` handler, running totals, panes of windows. What an operator keeps in two
places (timers, sessions, rows with their index) is refused. A deletion takes a key out of every state in which it is the key, timers
included, so that the operators have never heard of it. What the state of *other* keys holds of it (a value in a list, a count) is not
found.
"""

from typing import TYPE_CHECKING, Any

from engine.errors import StateError
from state.catalog import Catalog, Entry, StateSpec, entries_of, read_value, wire_of
from state.hashing import key_hash
from state.keys import hash_of, prefix_end, store_id

if TYPE_CHECKING:
    from engine.task import Task


def put_entry(task: "Task", state: str, key: Any, value: Any, time_ms: int | None, sub: Any) -> int:
    """Set one entry; return 1.

    Raises:
        StateError: There is no such state, it cannot be edited, the entry does not fit it, or the key belongs to another task.
    """
    catalog = task.catalog()
    spec = catalog.spec(state)
    check_editable(catalog, spec)
    if not spec.by_hand:
        raise StateError(f"state {state!r} is kept in step with others by its operator: it cannot be put by hand, only deleted")
    raw_key = spec.store_key(key, time_ms=time_ms, sub=sub)
    entry = catalog.entry(raw_key, b"")
    assert entry is not None, "the state is in the catalog"
    place = entry.hash % task.plan.partitions
    if place != task.number:
        raise StateError(f"key {key!r} belongs to task {place}, not to {task.number}")
    cells = task.state.cells(store_id(state))
    if spec.kind == "keyed":
        cells.put(entry.key, read_value(spec, value, cells.get(entry.key)))
    elif spec.kind == "mapped":
        cells.put(entry.key, entry.sub, read_value(spec, value, cells.get(entry.key, entry.sub)))
    else:
        pane = cells.pane(entry.time_ms)
        pane.put(entry.key, read_value(spec, value, pane.get(entry.key)))
    return 1


def delete_key(task: "Task", key: bytes | str, state: str | None) -> int:
    """Delete everything of a key, in one state or in all; return how many entries that were.

    Args:
        key: Its bytes on the wire, or a text, which in each state is the key that it means there.
    Raises:
        StateError: There is no such state, or it cannot be edited.
    """
    catalog = task.catalog()
    found = [entry for spec in states_to_delete_from(catalog, state) for entry in _find(task, catalog, spec, wire_of(spec, key))]
    for entry in found:
        cells = task.state.cells(store_id(entry.spec.name))
        if entry.spec.kind == "keyed":
            cells.delete(entry.key)
        elif entry.spec.kind == "mapped":
            cells.delete(entry.key, entry.sub)
        elif entry.spec.kind == "timed":
            cells.delete(entry.time_ms, entry.key, entry.sub or b"")
        else:
            cells.pane(entry.time_ms).delete(entry.key)
    return len(found)


def _find(task: "Task", catalog: Catalog, spec: StateSpec, wire: bytes) -> list[Entry]:
    """Return the entries of a key in a state, as they are with what is not committed yet."""
    low, wanted, at = store_id(spec.name), key_hash(wire), spec.hash_at()
    start = low if spec.is_timed else low + wanted.to_bytes(4, "big")
    changed = dict(task.state.cells(low).changes())
    stored = {key: value for key, value in task.store.scan(start, prefix_end(start)) if hash_of(key, at) == wanted}
    present = {**stored, **changed}
    entries = iter(sorted((key, value) for key, value in present.items() if value is not None))
    return list(entries_of(catalog, entries, wire))


def states_to_delete_from(catalog: Catalog, state: str | None) -> list[StateSpec]:
    """Return the states that a key is deleted from: all of keys, or one with those that hold parts of its values.

    Raises:
        StateError: There is no such state, it cannot be edited, or it holds parts of another, which would be incomplete without them.
    """
    specs = [spec for spec in catalog.specs.values() if not spec.is_of_task and not catalog.is_whole(spec)]
    if state is None:
        return specs
    check_editable(catalog, catalog.spec(state))
    if whole := catalog.spec(state).part_of:
        raise StateError(f"state {state!r} holds parts of {whole!r}: delete the key from that, and they go with it")
    return [spec for spec in specs if state in (spec.name, spec.part_of)]


def check_editable(catalog: Catalog, spec: StateSpec) -> None:
    """Raise a StateError for a state that nobody edits: the task's own, and tables that every task holds whole."""
    if spec.is_of_task:
        raise StateError(f"state {spec.name!r} is the task's own: there are {', '.join(catalog.names()) or 'none'}")
    if catalog.is_whole(spec):
        raise StateError(f"state {spec.name!r} is a table that every task holds whole: change it by a record of its topic")
