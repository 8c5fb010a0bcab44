"""How the states of the fast path are stored: see `engine.cep.layout` for what large ones are."""

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.cep.layout import PARTS_MIN, Parts
from engine.kept import kept_codec, kept_functions
from state.values import PayloadCodec, msgpack_codec

Taken = tuple[int, Any]
"""A record: timestamp in ms, value."""

Numbered = tuple[int, Any, int]
"""A record that a run has taken, with its number among those that runs of the key take."""

Run = tuple[Numbered, ...]
Runs = tuple[int, tuple[Run, ...]]
"""The number of the next record, and the runs sorted by their first record; () where there are none."""

Repeated = tuple[int, tuple[Taken, ...]]
"""The number of the first record, and the records; () where there are none."""


class RunsLayout:
    """Runs as MessagePack.

    In one value: [records (timestamp, value), runs as places among them]; the records are numbered anew when they are read.
    In parts: [next number] · of each record (timestamp, value) · of each first record the numbers of its run.
    """

    parted = True

    def __init__(self, value_type: Any) -> None:
        self._encode, self._decode = kept_functions(tuple[list[tuple[int, value_type]], list[list[int]]])
        self.record_codec: PayloadCodec[Any] = kept_codec(tuple[int, value_type])
        self.run_codec: PayloadCodec[Any] = msgpack_codec(list[int])

    def is_large(self, state: Any) -> bool:
        return len(state) > 0 and len(state[1]) > PARTS_MIN

    def head(self, state: Runs) -> bytes:
        return msgspec.msgpack.encode(state[0])

    def parts(self, state: Runs) -> Parts:
        records = {taken[2]: taken for run in state[1] for taken in run}
        runs = {run[0][2]: (run,) for run in state[1]}
        return Parts(records, runs, lambda number: records[number][:2], lambda first: [taken[2] for taken in runs[first][0]])

    def join(self, head: bytes, records: Mapping[int, Any], runs: Mapping[int, Any]) -> Runs:
        numbered: dict[int, Numbered] = {number: (*taken, number) for number, taken in records.items()}
        found = tuple(tuple(numbered[number] for number in runs[first]) for first in sorted(runs))
        return msgspec.msgpack.decode(head, type=int), found

    def encode(self, state: Any) -> bytes:
        places: dict[int, int] = {}
        records: list[Taken] = []
        runs: list[list[int]] = []
        for run in state[1] if state else ():
            for timestamp_ms, value, number in run:
                if number not in places:
                    places[number] = len(records)
                    records.append((timestamp_ms, value))
            runs.append([places[taken[2]] for taken in run])
        return self._encode((records, runs))

    def decode(self, raw: bytes) -> Any:
        records, runs = self._decode(raw)
        if not runs:
            return ()
        numbered = [(timestamp_ms, value, number) for number, (timestamp_ms, value) in enumerate(records)]
        return len(records), tuple(tuple(numbered[place] for place in run) for run in runs)


class RepeatedLayout:
    """The records of a repeated stage as MessagePack.

    In one value: records (timestamp, value); in parts: [first number, how many] · of each record (timestamp, value) · no runs.

    Args:
        length: How often the stage is repeated; there are fewer records than that.
    """

    def __init__(self, value_type: Any, length: int) -> None:
        self.parted = length - 1 > PARTS_MIN
        self._encode, self._decode = kept_functions(tuple[tuple[int, value_type], ...])
        self.record_codec: PayloadCodec[Any] = kept_codec(tuple[int, value_type])
        self.run_codec: PayloadCodec[Any] = msgpack_codec(list[int])

    def is_large(self, state: Any) -> bool:
        return len(state) > 0 and len(state[1]) > PARTS_MIN

    def head(self, state: Repeated) -> bytes:
        return msgspec.msgpack.encode((state[0], len(state[1])))

    def parts(self, state: Repeated) -> Parts:
        records: dict[int, Taken] = dict(enumerate(state[1], state[0]))
        runs: dict[int, tuple[Any, ...]] = {}
        return Parts(records, runs, records.__getitem__, runs.__getitem__)

    def join(self, head: bytes, records: Mapping[int, Any], runs: Mapping[int, Any]) -> Repeated:
        first, count = msgspec.msgpack.decode(head, type=tuple[int, int])
        return first, tuple(records[number] for number in range(first, first + count))

    def encode(self, state: Any) -> bytes:
        return self._encode(state[1] if state else ())

    def decode(self, raw: bytes) -> Any:
        records = self._decode(raw)
        return (0, records) if records else ()


__all__ = ["Numbered", "Repeated", "RepeatedLayout", "Run", "Runs", "RunsLayout", "Taken"]
