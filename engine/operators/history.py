"""The history of a key: what became of its last partial matches, for people who ask why there was an alert, or none."""

from collections.abc import Iterable
from typing import Any

import msgspec

from engine.cep.story import Told
from engine.keys import KeyCodec
from engine.operators.base import OperatorContext
from state.values import json_codec

HISTORY_MAX = 100


class History:
    """What is kept of each key: the last matches and the last near misses, `length` of each."""

    def __init__(self, context: OperatorContext, key: KeyCodec, length: int) -> None:
        self._length = length
        self._cells = context.state.keyed(context.state_name("history"), key, json_codec(list[Told])) if length else None

    def begin(self) -> list[tuple[Any, Told]] | None:
        """Return where a matcher writes what it has to tell; None for nowhere."""
        return None if self._cells is None else []

    def remember(self, story: Iterable[tuple[Any, Told]] | None, rule: str | None = None, version: int | None = None) -> None:
        """Keep what matchers told, key by key."""
        if not story or self._cells is None:
            return
        fresh: dict[Any, list[Told]] = {}
        for key, told in story:
            fresh.setdefault(key, []).append(told if rule is None else msgspec.structs.replace(told, rule=rule, version=version))
        for key, new in fresh.items():
            everything = [*(self._cells.get(key) or ()), *new]
            good, bad = ([told for told in everything if (told.what == "matched") is kind][-self._length :] for kind in (True, False))
            kept = {id(told) for told in (*good, *bad)}
            self._cells.put(key, [told for told in everything if id(told) in kept])

    def of(self, key: Any) -> list[Told]:
        """Return what is kept of a key, oldest first."""
        return [] if self._cells is None else list(self._cells.get(key) or ())
