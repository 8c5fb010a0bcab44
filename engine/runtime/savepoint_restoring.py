"""Restoring a savepoint: the state of a new epoch, written as its changelog, from which workers then restore as ever.

    check everything ─ topics of the epoch ─ fence ─ changelog of each task, in transactions ─ epochs topic ─ fence again

Nothing is touched before all checks are through; every difference is named at once. The epoch begins with its record in the epochs
topic, which comes last: a restore that dies before it leaves topics that nobody reads. The app must not run meanwhile. If a worker of
the old epoch does, it fences the restore, which fails; whoever comes later finds out in the epochs topic that his epoch is over.

What is read of an old changelog: nothing. Old internal topics may be deleted afterwards.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from engine.control import is_edit
from engine.errors import ConfigError, FencedError
from engine.plan import Plan
from engine.records import OutputColumns, TopicPartition
from engine.restoring import Restoring, Words
from engine.runtime.clock import Clock
from engine.runtime.epochs import Epoch, read_epoch
from engine.runtime.threads import in_thread
from engine.runtime.transport.protocol import TransactionalProducer, Transport
from state.changelog import identity_record
from state.hashing import partition_of
from state.remote import Folder
from state.savepoint import Manifest, read_entries, verify_savepoint
from state.store import Change

_CHUNK_ENTRIES, _CHUNK_BYTES = 5_000, 4 << 20
_READ_TIMEOUT_S = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Attributes:
        entries: Number of entries of each task.
        grown: Topics that got more partitions, and how many they have now.
        old_topics: Internal topics of the epoch before, which nobody reads any more.
    """

    epoch: Epoch
    entries: list[int]
    grown: dict[str, int]
    old_topics: list[str]


async def restore_savepoint(
    transport: Transport,
    plan: Plan,
    folder: Folder,
    clock: Clock,
    *,
    words: Words | None = None,
    grow: bool = False,
    who: str = "",
    why: str = "",
    say: Say = lambda _: None,
) -> Restored:
    """Make a savepoint the state of an app's next epoch. The app must be stopped.

    Args:
        plan: The app as it is going to run; its number of partitions may be another one.
        words: What a person has to say where it does not fit by itself.
        grow: Let sources, outputs and the other topics that stay grow to the plan's number of partitions.
    Raises:
        ConfigError, StateError: It does not fit, or is damaged: nothing was changed. The message names all differences.
        FencedError: The app runs: stop it, and try again.
    """
    words = words or Words()
    manifest = await in_thread(verify_savepoint, folder)
    restoring = Restoring(manifest, plan, words)
    differences = restoring.differences()
    if not differences:
        await in_thread(_check_entries, restoring, folder)
        differences = restoring.unplaced()
    growing, more = await _check_topics(transport, restoring, grow)
    if differences or more:
        raise ConfigError(f"savepoint {manifest.name!r} does not fit: " + "; ".join(differences + more))
    before = await _present_epoch(transport, plan)
    existing = set(await transport.topics())
    number = max(before, manifest.epoch) + 1
    while plan.in_epoch(number).changelog_topic in existing:  # what a restore that died has left
        number += 1
    target = plan.in_epoch(number)
    say(f"savepoint {manifest.name!r} fits: {manifest.entries:,} entries of {manifest.partitions} tasks; epoch {number} is written")
    await transport.add_partitions(growing)
    await transport.ensure_topics(target.topic_specs())
    epoch = Epoch(number, plan.partitions, manifest.name, who, why, clock.now_ms())
    entries = await _write(transport, target, restoring, folder, epoch, manifest, clock)
    old = plan.in_epoch(before)
    return Restored(epoch, entries, growing, sorted(set(old.epoch_topics) & existing))


async def _present_epoch(transport: Transport, plan: Plan) -> int:
    if not await transport.partition_counts([plan.epochs_topic]):
        return 0
    epoch = await read_epoch(transport, plan)
    return 1 if epoch is None else epoch.epoch


def _check_entries(restoring: Restoring, folder: Folder) -> None:
    for part in restoring.manifest.parts:
        restoring.check(part, read_entries(folder, part))


async def _check_topics(transport: Transport, restoring: Restoring, grow: bool) -> tuple[dict[str, int], list[str]]:
    """Return which topics have to grow to which number of partitions, and what does not fit."""
    plan, words, manifest = restoring.plan, restoring.words, restoring.manifest
    staying = {spec.name: spec.partitions for spec in plan.topic_specs() if spec.name not in plan.epoch_topics}
    counts = await transport.partition_counts(list({*staying, *manifest.sources}))
    found = [
        f"topic {name} has {counts[name]} partitions, more than {wanted}"
        for name, wanted in sorted(staying.items())
        if counts.get(name, 0) > wanted
    ]
    growing = {name: wanted for name, wanted in staying.items() if 0 < counts.get(name, wanted) < wanted}
    found += [f"source {topic} does not exist" for topic in plan.sources if topic not in counts]
    if growing and not grow:
        found.append(f"topics {', '.join(sorted(growing))} have fewer than {plan.partitions} partitions; say --grow to let them grow")
    for topic in sorted(set(manifest.sources) - words.drop_sources):
        replaced = topic in words.replace
        if (restoring.is_rescaled or replaced) and topic in counts:
            found += await _undrained(transport, restoring, topic, counts[topic], replaced)
    going_on = sorted(set(manifest.sources) - words.drop_sources - set(words.replace))
    found += await _outside_log(transport, restoring, [topic for topic in going_on if topic in counts])
    if not restoring.is_rescaled and plan.control_topic in counts:
        found += await _outside_log(transport, restoring, [plan.control_topic])
    if restoring.is_rescaled and plan.control_topic in counts:
        found += await _edits_behind(transport, restoring, min(counts[plan.control_topic], manifest.partitions))
    return growing, found


async def _outside_log(transport: Transport, restoring: Restoring, topics: Sequence[str]) -> list[str]:
    """Return where the savepoint goes on at an offset that the log does not hold (any more): no task could be opened there."""
    offsets = {
        TopicPartition(topic, part.number): part.offsets[topic]
        for part in restoring.manifest.parts
        for topic in topics
        if topic in part.offsets
    }
    begins, ends = await transport.begin_offsets(list(offsets)), await transport.high_watermarks(list(offsets))
    found = []
    for partition, offset in offsets.items():
        begin, end = begins[partition], ends[partition]
        if offset < begin:
            found.append(
                f"{partition.topic}-{partition.partition} begins at offset {begin} now, the savepoint goes on at {offset}: "
                f"{begin - offset} offsets were deleted unread; restore a newer savepoint"
            )
        elif offset > end:
            found.append(
                f"{partition.topic}-{partition.partition} ends at offset {end}, before {offset}, where the savepoint goes on: "
                "the topic was made anew"
            )
    return found


async def _edits_behind(transport: Transport, restoring: Restoring, count: int) -> list[str]:
    """Return which edits the savepoint has not seen: they stand where the old number of partitions placed them."""
    found = []
    topic = restoring.plan.control_topic
    for part in restoring.manifest.parts[:count]:
        partition = TopicPartition(topic, part.number)
        begin = (await transport.begin_offsets([partition]))[partition]
        records = await _records_from(transport, partition, max(begin, part.offsets.get(topic, begin)))
        edits = sum(1 for _, value in records if is_edit(value))
        if edits:
            found.append(f"{topic}-{part.number} holds {edits} edits that the savepoint has not seen; take one after them")
    return found


async def _undrained(transport: Transport, restoring: Restoring, topic: str, count: int, replaced: bool) -> list[str]:
    """Return which partitions of a source still hold records that would be lost, or be read by a task that has not their keys."""
    partitions, found = restoring.plan.partitions, []
    for part in restoring.manifest.parts:
        if part.number >= count:
            continue
        partition = TopicPartition(topic, part.number)
        begin = (await transport.begin_offsets([partition]))[partition]
        keys = [key for key, _ in await _records_from(transport, partition, max(begin, part.offsets.get(topic, begin)))]
        if replaced and keys:
            found.append(f"{topic}-{part.number} holds {len(keys)} records that the savepoint has not seen, and is not read any more")
        misplaced = sum(1 for key in keys if key is None or partition_of(key, partitions) != part.number)
        if misplaced and not replaced:
            found.append(
                f"{topic}-{part.number} holds {misplaced} records behind the savepoint that were placed by another number of partitions; "
                "stop the producers and let the app read everything before the savepoint"
            )
    return found


async def _records_from(transport: Transport, partition: TopicPartition, offset: int) -> list[tuple[bytes | None, bytes | None]]:
    """Return keys and values of the records from an offset on; markers of transactions are none."""
    end = (await transport.end_offsets([partition]))[partition]
    found: list[tuple[bytes | None, bytes | None]] = []
    if offset >= end:
        return found
    reader = await transport.open_reader(partition, offset)
    try:
        while reader.position < end:
            batch = await reader.read(_READ_TIMEOUT_S)
            if batch is not None:
                found += zip(batch.keys, batch.values, strict=True)
    finally:
        await reader.close()
    return found


async def _write(
    transport: Transport, plan: Plan, restoring: Restoring, folder: Folder, epoch: Epoch, manifest: Manifest, clock: Clock
) -> list[int]:
    """Write the changelogs, then the epoch; return the number of entries of each task."""
    producers: list[TransactionalProducer] = []
    numbers = range(max(plan.partitions, manifest.partitions))
    try:
        for number in numbers:
            producers += [await transport.open_producer(plan.transactional_id(number))]
        written = _Changelogs(plan, producers, clock)
        controls = [TopicPartition(plan.control_topic, number) for number in range(plan.partitions)]
        ends = await transport.end_offsets(controls)
        for number, control in enumerate(controls):
            identity = identity_record(uuid.uuid4(), epoch=epoch.epoch)
            await written.add(number, [identity, *restoring.beginnings(number, ends[control])])
        for part in manifest.parts:
            routed = restoring.route(part, read_entries(folder, part))
            while chunk := await in_thread(lambda rows: list(islice(rows, _CHUNK_ENTRIES)), routed):
                for number, key, value in chunk:
                    await written.add(number, [(key, value)])
        for number in range(plan.partitions):
            await written.flush(number)
        record = OutputColumns([epoch.at_ms], [plan.app_id.encode()], [msgspec.json.encode(epoch)])
        await producers[0].commit({TopicPartition(plan.epochs_topic, 0): record}, {})
    except FencedError as error:
        raise FencedError(f"a worker of app {plan.app_id!r} runs: stop all of them, then restore again ({error})") from error
    finally:
        await _close(producers)
    # A worker of the old epoch that has come up in the meantime is thrown out, and finds that its epoch is over.
    await _close([await transport.open_producer(plan.transactional_id(number)) for number in numbers])
    return written.entries


class _Changelogs:
    """Entries for each task, written when enough have come together."""

    def __init__(self, plan: Plan, producers: Sequence[TransactionalProducer], clock: Clock) -> None:
        self._topic = plan.changelog_topic
        self._producers = producers
        self._clock = clock
        self._waiting: list[list[Change]] = [[] for _ in range(plan.partitions)]
        self._waiting_bytes = [0] * plan.partitions
        self.entries = [0] * plan.partitions

    async def add(self, number: int, changes: Iterable[Change]) -> None:
        waiting = self._waiting[number]
        for key, value in changes:
            waiting.append((key, value))
            self._waiting_bytes[number] += len(key) + len(value or b"")
        if len(waiting) >= _CHUNK_ENTRIES or self._waiting_bytes[number] >= _CHUNK_BYTES:
            await self.flush(number)

    async def flush(self, number: int) -> None:
        changes, self._waiting[number], self._waiting_bytes[number] = self._waiting[number], [], 0
        if not changes:
            return
        keys: list[bytes | None] = [key for key, _ in changes]
        columns = OutputColumns([self._clock.now_ms()] * len(changes), keys, [value for _, value in changes])
        await self._producers[number].commit({TopicPartition(self._topic, number): columns}, {})
        self.entries[number] += len(changes)


async def _close(producers: Iterable[TransactionalProducer]) -> None:
    for producer in producers:
        await producer.close()


__all__ = ["Restored", "restore_savepoint"]
