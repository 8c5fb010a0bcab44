"""The rows of a table in one task: the present value of each key, and, if asked for, the values that it had before.

    put("ann", Paris, 10)   put("ann", Rome, 50)   put("ann", None, 90)          None: the row is deleted

    get("ann")              None                   the present value
    at("ann", 49)           Paris                  the value as of a time: the newest version at or before it
    at("ann", 50)           Rome

Without versions the last to arrive wins. With versions the highest event time wins, and of two with the same one the last to
arrive: a change that comes out of order takes its place in the history and leaves the present value alone. A version is kept until
every reader's time has passed the start of its successor by the retention.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.block import MIN_TIME
from engine.keys import key_codec
from engine.operators.base import OperatorContext
from engine.operators.upgrading import MakeCodec, upgrading_last
from state.groups import Group
from state.keys import decode_time, encode_time
from state.values import PayloadCodec, unit_codec

Change = tuple[Any, Any]
"""Old and new value of a row, None where there is none."""

ROW_CODEC = upgrading_last(None)

_TIMES: PayloadCodec[int] = PayloadCodec(encode_time, decode_time)


@dataclass(frozen=True, slots=True)
class HeldRows:
    """The rows of a table as they are stored.

    Attributes:
        group: An entry for each key.
        show: Makes the value of a row out of (key, entry); None if there is no row.
    """

    group: Group[Any, Any]
    show: Callable[[Any, Any], Any]

    def committed_row(self, key: Any) -> Any:
        """Return the committed value of a key, None if there is no row."""
        entry = self.group.committed_value(key)
        return None if entry is None else self.show(key, entry)

    def committed_rows(self, after: bytes, limit: int) -> tuple[list[tuple[Any, Any]], bytes | None]:
        """Return committed rows (key, value), and where to go on: see `Group.committed_items`; fewer than `limit` are not the end."""
        items, next_after = self.group.committed_items(after, limit)
        shown = [(key, self.show(key, entry)) for key, entry in items]
        return [(key, value) for key, value in shown if value is not None], next_after


class Rows:
    """Present values only.

    Args:
        codec: Gives the codec of a tuple type that holds values.
    """

    def __init__(self, context: OperatorContext, key_type: Any, value_type: Any, codec: MakeCodec = ROW_CODEC) -> None:
        stored = codec(tuple.__class_getitem__((value_type,)))
        self._rows = context.state.panes(context.state_name("rows"), key_codec(key_type), stored)

    def get(self, key: Any) -> Any:
        """Return the present value of a key, None if there is no row."""
        row = self._rows.pane(0).get(key)
        return None if row is None else row[0]

    def put(self, key: Any, value: Any, timestamp_ms: int) -> Change | None:
        """Set the value of a key, None to delete the row; return the change, None if there is none."""
        pane = self._rows.pane(0)
        row = pane.get(key)
        if value is not None:
            pane.put(key, (value,))
        elif row is not None:
            pane.delete(key)
        else:
            return None
        return (None if row is None else row[0], value)

    def supersede(self, key: Any, value: Any, timestamp_ms: int) -> Change | None:
        """Do the same for a value that is the newest whatever its time says: with versions, its time is at least that of the last."""
        return self.put(key, value, timestamp_ms)

    def items(self) -> list[tuple[Any, Any]]:
        """Return all rows (key, value), by key bytes."""
        return [(key, value) for key, (value,) in self._rows.pane(0).items()]

    def held(self) -> HeldRows:
        """Return where the present values lie."""
        return HeldRows(self._rows.pane(0), lambda _, row: row[0])

    def expire(self, watermark: int) -> None:
        """Drop what no reader can ask for any more; nothing here."""

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        """Yield what there is to see of a key."""
        yield "value", self.get(key)


class VersionedRows(Rows):
    """Present values, and earlier ones as long as they can be asked for.

    Args:
        retention_ms: How far behind the time of the readers values can be asked for, in event time.
    """

    def __init__(self, context: OperatorContext, key_type: Any, value_type: Any, retention_ms: int, codec: MakeCodec = ROW_CODEC) -> None:
        keys, optional = key_codec(key_type), value_type if value_type is Any else value_type | None
        self.retention_ms = retention_ms
        self._latest = context.state.panes(context.state_name("rows"), keys, codec(tuple.__class_getitem__((int, optional))))
        self._earlier = context.state.mapped(context.state_name("versions"), keys, _TIMES, codec(tuple.__class_getitem__((optional,))))
        self._expiries = context.state.timed(context.state_name("expiries"), keys, unit_codec)

    def get(self, key: Any) -> Any:
        latest = self._latest.pane(0).get(key)
        return None if latest is None else latest[1]

    def put(self, key: Any, value: Any, timestamp_ms: int) -> Change | None:
        pane = self._latest.pane(0)
        latest = pane.get(key)
        self._expiries.put(timestamp_ms + self.retention_ms, key, True)
        if latest is not None and timestamp_ms < latest[0]:
            self._earlier.put(key, timestamp_ms, (value,))
            return None
        if latest is not None and timestamp_ms > latest[0]:
            self._earlier.put(key, latest[0], (latest[1],))
        pane.put(key, (timestamp_ms, value))
        old = None if latest is None else latest[1]
        return None if old is None and value is None else (old, value)

    def supersede(self, key: Any, value: Any, timestamp_ms: int) -> Change | None:
        latest = self._latest.pane(0).get(key)
        return self.put(key, value, timestamp_ms if latest is None else max(timestamp_ms, latest[0]))

    def at(self, key: Any, timestamp_ms: int) -> Any:
        """Return the value of a key as of a time, None if there was no row."""
        latest = self._latest.pane(0).get(key)
        if latest is None or timestamp_ms >= latest[0]:
            return None if latest is None else latest[1]
        found = None
        for start_ms, (value,) in self._earlier.items(key):
            if start_ms > timestamp_ms:
                break
            found = value
        return found

    def items(self) -> list[tuple[Any, Any]]:
        return [(key, value) for key, (_, value) in self._latest.pane(0).items() if value is not None]

    def held(self) -> HeldRows:
        return HeldRows(self._latest.pane(0), lambda _, latest: latest[1])

    def expire(self, watermark: int) -> None:
        first = self._expiries.next_time()
        if first is None or first > watermark:
            return
        for due_ms, key, sub, _ in self._expiries.due(watermark, "any"):
            self._expiries.delete(due_ms, key, sub)
            self._forget_before(key, due_ms - self.retention_ms)

    def _forget_before(self, key: Any, start_ms: int) -> None:
        """Drop the versions that end at or before the version of a start; that one too if it only says that there is no row."""
        for other_ms, (value,) in list(self._earlier.items(key)):
            if other_ms < start_ms or (other_ms == start_ms and value is None):
                self._earlier.delete(key, other_ms)
        if self._latest.pane(0).get(key) == (start_ms, None):
            self._latest.pane(0).delete(key)

    def inspect(self, key: Any) -> Iterator[tuple[str, Any]]:
        yield "value", self.get(key)
        latest = self._latest.pane(0).get(key)
        if latest is not None:
            yield "versions", [(start_ms, value) for start_ms, (value,) in self._earlier.items(key)] + [latest]


def oldest_reader(own: int, readers: list[Callable[[], int]]) -> int:
    """Return the time of the slowest reader of a history, the table itself included."""
    return min([own, *(reader() for reader in readers)], default=MIN_TIME)
