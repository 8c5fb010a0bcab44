"""Records as they come from a topic: columns of a partition (`RecordBatch`), and the view of one of them (`Record`).

The engine works on columns from end to end: a fetch answer becomes one `RecordBatch`, and nothing creates an object for each
record. A `Record` is made only where user code asks for one (`process`) or a person reads (`TestDriver.read`, `tail`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")

Headers = Sequence[tuple[str, bytes]]
HeaderColumn = Sequence[Headers]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record(Generic[K, V]):
    """One record, as user code sees it.

    `timestamp_ms` is the event time in UTC milliseconds. A record that an operator made (a window's result) has no place in a
    topic: its `offset` is -1.
    """

    key: K
    value: V
    timestamp_ms: int
    topic: str = ""
    partition: int = -1
    offset: int = -1
    headers: Headers = ()


@dataclass(slots=True)
class RecordBatch:
    """Columns of consecutive records of one topic partition, in offset order; all columns have the same length.

    Attributes:
        timestamps: Kafka timestamps, milliseconds.
        position: Offset from which this fetch went on; it must equal the reader's own position, else the batch is stale.
        next_offset: Where to go on: past control batches and compacted holes. A batch may be empty and still move it.
        high_watermark: End of the partition as the fetch answer gave it (last stable offset under read_committed), or -1.
        read_headers: The headers column is read only when asked for; None where the batch has none.
        attached: Whatever a reader of the batch wants to share with the next one (decoded columns); dropped when all have read it.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    timestamps: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    position: int
    next_offset: int
    high_watermark: int = -1
    read_headers: Callable[[], HeaderColumn] | None = None
    attached: dict[object, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def headers(self) -> HeaderColumn:
        """The headers of each record, `()` for none."""
        if self.read_headers is None:
            return [()] * len(self.offsets)
        column = self.read_headers()
        self.read_headers = lambda: column
        return column


@dataclass(slots=True)
class OutputColumns:
    """Columns to produce to one topic partition, in order; all the same length, `headers` None where no record has any.

    A value of None is a tombstone.
    """

    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] | None = None

    def __len__(self) -> int:
        return len(self.timestamps)

    def append(self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Add one record."""
        if headers and self.headers is None:
            self.headers = [()] * len(self.timestamps)
        if self.headers is not None:
            self.headers.append(headers)
        self.timestamps.append(timestamp_ms)
        self.keys.append(key)
        self.values.append(value)
