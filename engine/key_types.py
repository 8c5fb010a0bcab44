"""Key types are part of a state: stored keys cannot change theirs, so another type over existing state is refused at the start.

Bytes alone do not tell. "7" is the text of a str and of an int, so a state of str keys would go on with int keys for a while, and stop,
or find nothing, at the first key that is no number. Each task therefore keeps what type the keys of each of its states have:

    _task/keys    {"revenue/window/panes": "str", "visits/process/seen": "{user: str, site: int}"}

A Struct counts by the names and types of its fields, in their order, for that is what stands in its bytes; its own name may change.
One whose equal values had several JSONs (`engine.key_structs`) counts as another since they have one: what was stored before could hold
two rows for one key.
A state from before this was kept takes the types of the first start that does.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.key_structs import has_one_json
from engine.keys import key_codec
from state.catalog import Catalog
from state.overlay import TaskState
from state.values import msgpack_codec

KEY_TYPES = "_task/keys"
"""Name of the state."""

KEY_TYPES_CODEC = msgpack_codec(dict[str, str])


def key_types(catalog: Catalog) -> dict[str, str]:
    """Return for each state of keys what type its keys have."""
    return {name: key_shape(getattr(catalog.spec(name).key, "type", Any)) for name in catalog.names()}


def check_key_types(app_id: str, number: int, state: TaskState) -> None:
    """Compare the states that a task has opened with what is stored, and keep what is new.

    Raises:
        ConfigError: A state has keys of another type.
    """
    cells = state.keyed(KEY_TYPES, key_codec(str), KEY_TYPES_CODEC, merge=merge_key_types)
    stored: dict[str, str] = cells.get("") or {}
    wanted = key_types(state.catalog())
    changes = changed_key_types(stored, wanted)
    if changes:
        raise ConfigError(
            f"app {app_id!r}: the state of partition {number} has keys of another type: {'; '.join(changes)}. "
            "Bring the old type of the key back, or give the operator another name= and start it anew."
        )
    if not wanted.items() <= stored.items():
        cells.put("", {**stored, **wanted})


def changed_key_types(stored: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return what says, for each state whose keys had another type, which."""
    return [
        f"state {name!r}: the type of keys was {shape}, and is {wanted[name]} now"
        for name, shape in sorted(stored.items())
        if wanted.get(name, shape) != shape
    ]


def merge_key_types(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what the tasks of an app have together: they are of one declaration."""
    return {name: shape for types in found for name, shape in types.items()}


def key_shape(key_type: Any) -> str:
    """Return what decides about the bytes of a key of a type."""
    if isinstance(key_type, type) and issubclass(key_type, msgspec.Struct):
        fields = (f"{field.encode_name}: {key_shape(field.type)}" for field in msgspec.structs.fields(key_type))
        return f"{{{', '.join(fields)}}}{'' if has_one_json(key_type) else ' in one way'}"
    return key_type.__name__ if isinstance(key_type, type) else "undeclared" if key_type is Any else str(key_type)
