"""The dead letters of an app on its broker: read them, replay them once, purge them.

A replay is exactly once by one transaction: the records that go back, and a mark for each letter in `<app>-dlq-replays` (compacted).

    open producer `<app>-dlq-replay`     fences a replay that hangs; what it had open is aborted, what it had committed is readable
    read the marks to their end          which letters have gone back
    for each some hundred letters        records + marks, committed together

So a replay that was cut off, or whose commit got no answer, is simply run again. A mark holds a digest of its letter: offsets that
begin anew in a topic made anew are other letters.

Purging deletes from the beginning of each partition (Kafka cannot delete in the middle) up to the first letter that has not been
replayed, or everything.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import msgspec

from engine.errors import ConfigError
from engine.plan import Plan
from engine.records import Headers, OutputColumns, RecordBatch, TopicPartition
from engine.replays import DeadLetter, read_letter, refusal
from engine.runtime.transport.protocol import Transport
from engine.topics import TopicSpec

LETTERS_AT_ONCE = 500
PAYLOAD_AT_ONCE_BYTES = 4 << 20
_WAIT_S = 0.5


class Mark(msgspec.Struct, frozen=True):
    """A letter has been replayed: what it was, how often, and when last."""

    digest: str
    times: int
    replayed_ms: int


@dataclass(slots=True)
class Letter:
    """A dead letter and whether it has been replayed."""

    letter: DeadLetter
    digest: str
    mark: Mark | None = None


@dataclass(slots=True)
class Replayed:
    """What a replay did. `refused`: name of a letter and why it cannot be replayed."""

    sent: int = 0
    done_before: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def marks_topic(plan: Plan) -> str:
    """Return the topic that holds the marks."""
    return f"{plan.dead_letter_topic}-replays"


async def read_letters(transport: Transport, plan: Plan) -> AsyncGenerator[Letter, None]:
    """Yield the dead letters up to the present end, by partition and offset.

    Raises:
        UnavailableError: The broker does not answer.
    """
    topic = plan.dead_letter_topic
    marks = await _read_marks(transport, plan)
    count = (await transport.partition_counts([topic])).get(topic, 0)
    ends = await transport.end_offsets([TopicPartition(topic, number) for number in range(count)])
    for partition, end in sorted(ends.items()):
        async for batch in _read(transport, partition, end):
            columns = zip(batch.offsets, batch.keys, batch.values, batch.timestamps, batch.headers, strict=True)
            for offset, key, value, timestamp_ms, headers in columns:
                if offset >= end:
                    break  # it came after this began, perhaps by it
                letter = read_letter(partition.partition, offset, key, value, timestamp_ms, headers)
                digest = _digest(key, value, timestamp_ms, headers)
                mark = marks.get(letter.name)
                yield Letter(letter, digest, mark if mark is not None and mark.digest == digest else None)


async def replay(transport: Transport, plan: Plan, wanted: Callable[[DeadLetter], bool], *, now_ms: int, again: bool = False) -> Replayed:
    """Send the wanted letters back to where their records were, those that have gone back already only `again`.

    Raises:
        FencedError: Another replay of this app has begun.
        UnavailableError: The broker does not answer; run it again: what has been done is not done twice.
    """
    await _require_letters(transport, plan)
    await transport.ensure_topics([TopicSpec(marks_topic(plan), 1, compacted=True)])
    producer = await transport.open_producer(f"{plan.app_id}-dlq-replay")
    result = Replayed()
    try:
        parcel = _Parcel(plan, now_ms)
        async for found in read_letters(transport, plan):
            if not wanted(found.letter):
                continue
            reason = refusal(found.letter, plan)
            if reason is not None:
                result.refused.append((found.letter.name, reason))
            elif found.mark is not None and not again:
                result.done_before += 1
            else:
                parcel.add(found)
                if parcel.is_full:
                    await producer.commit(parcel.outputs, {})
                    result.sent += parcel.letters
                    parcel = _Parcel(plan, now_ms)
        if parcel.letters:
            await producer.commit(parcel.outputs, {})
            result.sent += parcel.letters
    finally:
        await producer.close()
    return result


async def purge(transport: Transport, plan: Plan, *, everything: bool) -> int:
    """Delete letters from the beginning of each partition: up to the first that has not been replayed, or all of them.

    Returns: The number of letters deleted.
    """
    await _require_letters(transport, plan)
    before: dict[TopicPartition, int] = {}
    gone: list[str] = []
    kept: set[int] = set()
    async for found in read_letters(transport, plan):
        number = found.letter.partition
        if number in kept or not (everything or found.mark is not None):
            kept.add(number)
            continue
        before[TopicPartition(plan.dead_letter_topic, number)] = found.letter.offset + 1
        gone.append(found.letter.name)
    if before:
        await transport.delete_records(before)
        if (await transport.partition_counts([marks_topic(plan)])).get(marks_topic(plan)):
            tombstones = OutputColumns([0] * len(gone), [name.encode() for name in gone], [None] * len(gone))
            await transport.send({TopicPartition(marks_topic(plan), 0): tombstones})
    return len(gone)


class _Parcel:
    """What one transaction takes."""

    def __init__(self, plan: Plan, now_ms: int) -> None:
        self._app_id = plan.app_id
        self._now_ms = now_ms
        self._marks = OutputColumns()
        self._payload_bytes = 0
        self.outputs = {TopicPartition(marks_topic(plan), 0): self._marks}

    @property
    def letters(self) -> int:
        return len(self._marks)

    @property
    def is_full(self) -> bool:
        return self.letters >= LETTERS_AT_ONCE or self._payload_bytes >= PAYLOAD_AT_ONCE_BYTES

    def add(self, found: Letter) -> None:
        letter = found.letter
        place = TopicPartition(letter.topic, letter.source_partition)
        columns = self.outputs.setdefault(place, OutputColumns())
        columns.append(letter.timestamp_ms, letter.key, letter.value, letter.replay_headers(self._app_id))
        times = 1 if found.mark is None else found.mark.times + 1
        mark = msgspec.json.encode(Mark(found.digest, times, self._now_ms))
        self._marks.append(self._now_ms, letter.name.encode(), mark)
        self._payload_bytes += len(letter.value or b"") + len(letter.key or b"")


async def _require_letters(transport: Transport, plan: Plan) -> None:
    if plan.dead_letter_topic not in await transport.partition_counts([plan.dead_letter_topic]):
        raise ConfigError(f"there is no topic {plan.dead_letter_topic!r}: app {plan.app_id!r} has not run on this broker")


async def _read_marks(transport: Transport, plan: Plan) -> dict[str, Mark]:
    topic = marks_topic(plan)
    marks: dict[str, Mark] = {}
    if topic not in await transport.partition_counts([topic]):
        return marks
    place = TopicPartition(topic, 0)
    async for batch in _read(transport, place, (await transport.end_offsets([place]))[place]):
        for key, value in zip(batch.keys, batch.values, strict=True):
            name = (key or b"").decode()
            if value is None:
                marks.pop(name, None)
            else:
                marks[name] = msgspec.json.decode(value, type=Mark)
    return marks


async def _read(transport: Transport, partition: TopicPartition, end: int) -> AsyncGenerator[RecordBatch, None]:
    """Yield what is committed in a partition, from its beginning to an offset at least."""
    position = (await transport.begin_offsets([partition]))[partition]
    if position >= end:
        return
    reader = await transport.open_reader(partition, position)
    try:
        while reader.position < end:
            batch = await reader.read(_WAIT_S)
            if batch is not None:
                yield batch
    finally:
        await reader.close()


def _digest(key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers) -> str:
    content = msgspec.msgpack.encode((key, value, timestamp_ms, list(headers)))
    return hashlib.blake2b(content, digest_size=12).hexdigest()
