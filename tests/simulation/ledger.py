"""Everything that was ever committed to the changelog, kept where compaction cannot reach it, and what must hold of it."""

from dataclasses import dataclass, field
from typing import Any

from engine.keys import key_codec
from engine.plan import Plan
from engine.records import TopicPartition
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.watermarks import SourceTime, ValveState
from state.changelog import is_identity
from state.keys import store_id
from state.store import Position
from state.values import msgpack_codec, stored


@dataclass(slots=True)
class Entry:
    """A changelog record; the identity is none."""

    offset: int
    key: bytes
    value: bytes | None


@dataclass(slots=True)
class Ledger:
    """Reads along with the changelog of an app."""

    broker: MemoryBroker
    plan: Plan
    entries: dict[int, list[Entry]] = field(default_factory=dict)
    read_up_to: dict[int, int] = field(default_factory=dict)
    compactions: int = 0

    def follow(self) -> None:
        """Read what was committed since the last time."""
        for number in range(self.plan.partitions):
            partition = TopicPartition(self.plan.changelog_topic, number)
            batch = self.broker.read(partition, self.read_up_to.get(number, 0))
            self.read_up_to[number] = batch.next_offset
            known = self.entries.setdefault(number, [])
            for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
                if not is_identity(key or b""):
                    known.append(Entry(offset, key or b"", value))

    def replay(self, number: int, next_offset: int | None = None) -> dict[bytes, bytes]:
        """Return the state that the changelog holds up to an offset."""
        state: dict[bytes, bytes] = {}
        for entry in self.entries.get(number, []):
            if next_offset is not None and entry.offset >= next_offset:
                break
            if entry.value is None:
                state.pop(entry.key, None)
            else:
                state[entry.key] = entry.value
        return state

    def compact(self) -> None:
        """Let the broker compact the changelog."""
        self.follow()
        self.broker.compact(self.plan.changelog_topic)
        self.compactions += 1

    def compacted(self, number: int, next_offset: int) -> set[bytes]:
        """Return the keys of which a restore that has come to an offset may have found nothing, since only the newest value is kept."""
        return {entry.key for entry in self.entries.get(number, []) if entry.offset >= next_offset} if self.compactions else set()

    def check_position(self, number: int, position: Position) -> str | None:
        """Return what is wrong with a store that has moved to a position: it must not be ahead of what is committed."""
        end = self.broker.log(TopicPartition(self.plan.changelog_topic, number)).last_stable_offset
        if position.next_offset > end:
            return f"the store of task {number} is ahead: at {position.next_offset}, but only {end} is committed"
        return None

    def offsets(self, number: int) -> dict[str, int]:
        """Return the input offsets in the state."""
        prefix, codec = store_id("_task/offsets"), stored(msgpack_codec(int), "offsets")
        state = self.replay(number)
        found = {}
        for topic in self.plan.input_topics:
            raw = [value for key, value in state.items() if key.startswith(prefix) and key.endswith(key_codec(str).encode(topic))]
            if raw:
                found[topic] = codec.decode(raw[0])
        return found

    def time_errors(self) -> list[str]:
        """Return where a watermark went back from one commit to the next."""
        names: list[tuple[str, Any]] = [(f"_task/source/{topic}", SourceTime) for topic in self.plan.sources]
        names += [
            (f"{pipeline}/{node.name}/upstreams", ValveState)
            for pipeline, graph in self.plan.graphs.items()
            for node in graph.nodes
            if node.kind == "repartition"
        ]
        errors = []
        for name, kind in names:
            for number in self.entries:
                errors += self._time_errors(name, kind, number)
        return errors

    def _time_errors(self, name: str, kind: Any, number: int) -> list[str]:
        prefix, codec = store_id(name), stored(msgpack_codec(kind), name)
        times: list[int] = []
        errors = []
        for entry in self.entries[number]:
            if entry.key.startswith(prefix) and entry.value is not None:
                value = codec.decode(entry.value)
                now = [value.watermark, *getattr(value, "watermarks", ())]
                if any(new < old for old, new in zip(times, now, strict=False)):
                    errors.append(f"{name} of task {number} went back at offset {entry.offset}: {times} -> {now}")
                times = now
        return errors
