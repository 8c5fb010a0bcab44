"""What must hold at the end of a run, and whether the end has come."""

from collections.abc import Mapping
from itertools import pairwise

import msgspec

from engine.operators.repartition import BARRIER_HEADERS, Control
from engine.plan import Plan
from engine.records import RecordBatch, TopicPartition
from engine.runtime.transport.memory_broker import MemoryBroker
from tests.simulation.ledger import Ledger
from tests.simulation.oracle import UNORDERED, Expected, Rows, Sent, expect, read_row, read_sent
from tests.simulation.process import Process


def read_all(broker: MemoryBroker, topic: str) -> list[RecordBatch]:
    """Return what is committed in a topic, a batch a partition."""
    count = broker.partition_counts([topic]).get(topic, 0)
    partitions = [TopicPartition(topic, number) for number in range(count)]
    return [broker.read(partition, broker.log(partition).start) for partition in partitions]


def expected_of(broker: MemoryBroker, plan: Plan, *, is_rescaled: bool = False) -> Expected:
    """Return what must come out of the source topics as they are now; `is_rescaled`: keys have changed their partition on the way."""
    orders, clicks = (_sent(broker, topic) for topic in ("orders", "clicks"))
    if is_rescaled:
        orders, clicks = [_as_sent(orders)], [_as_sent(clicks)]
    return expect(list(plan.graphs), orders, clicks)


def _as_sent(partitions: list[list[Sent]]) -> list[Sent]:
    """Return the records of all partitions in the order in which they were sent, for pipelines in which only a key's order counts."""
    flat = [record for partition in partitions for record in partition]
    return sorted(flat, key=lambda record: -1 if record.value is None else getattr(record.value, "order_id", 0) or record.value.click_id)


def _sent(broker: MemoryBroker, topic: str) -> list[list[Sent]]:
    return [
        [read_sent(topic, batch.partition, offset, value) for offset, value in zip(batch.offsets, batch.values, strict=True)]
        for batch in read_all(broker, topic)
    ]


Spans = Mapping[TopicPartition, tuple[int, int]]
"""Of output partitions: what lies between the first offset and the second does not count. A savepoint was taken at the one, and the
app went on from it at the other, perhaps with more partitions; those that came then have none."""


def read_rows(broker: MemoryBroker, topic: str, spans: Spans | None = None) -> Rows:
    """Return the committed rows of an output topic by key."""
    rows: Rows = {}
    later: Rows = {}
    for batch in read_all(broker, topic):
        cut, again = (spans or {}).get(TopicPartition(topic, batch.partition), (0, 0))
        for offset, key, value, headers in zip(batch.offsets, batch.keys, batch.values, batch.headers, strict=True):
            if cut <= offset < again:
                continue
            name, row = read_row(topic, key, value, {header: text.decode() for header, text in headers})
            (rows if offset < cut else later).setdefault(name, []).append(row)
    for name, more in later.items():
        rows.setdefault(name, []).extend(more)
    return rows


def is_complete(broker: MemoryBroker, expected: Expected, spans: Spans | None = None) -> bool:
    """Return whether as much has come out as must."""
    for topic in expected.rows:
        if sum(map(len, read_rows(broker, topic, spans).values())) < expected.count(topic):
            return False
    return all({key: rows[-1] for key, rows in read_rows(broker, topic, spans).items()} == last for topic, last in expected.last.items())


def check(broker: MemoryBroker, plan: Plan, ledger: Ledger, expected: Expected, spans: Spans | None = None) -> list[str]:
    """Return everything that is wrong with topics, offsets and watermarks."""
    errors = []
    outputs = [topic for topic in (*plan.outputs, plan.dead_letter_topic) if topic != "tally"]
    for topic in outputs:
        rows = read_rows(broker, topic, spans)
        if topic in expected.last:
            errors += _check_running(topic, rows, expected)
        else:
            errors += _check_rows(topic, rows, expected.rows.get(topic, {}))
    ledger.follow()
    errors += ledger.time_errors()
    errors += _check_offsets(broker, plan, ledger)
    for topic in plan.internal_topics:
        errors += _check_controls(broker, topic)
    return errors


def _check_rows(topic: str, found: Rows, expected: Rows) -> list[str]:
    errors = []
    for key in sorted(found.keys() | expected.keys()):
        have, want = found.get(key, []), expected.get(key, [])
        if topic in UNORDERED:
            have, want = sorted(have, key=repr), sorted(want, key=repr)
        if have != want:
            lost, extra = _minus(want, have), _minus(have, want)
            what = f"lost {lost}, extra {extra}" if lost or extra else "out of order"
            errors.append(f"{topic}, key {key}: {what}\n    found    {have}\n    expected {want}")
    return errors


def _minus(one: list[object], other: list[object]) -> list[object]:
    left = list(other)
    return [item for item in one if not (item in left and (left.remove(item) or True))]  # type: ignore[func-returns-value]


def _check_running(topic: str, found: Rows, expected: Expected) -> list[str]:
    errors = []
    for key, rows in sorted(found.items()):
        if any(new[0] <= old[0] for old, new in pairwise(rows)):
            errors.append(f"{topic}, key {key}: a total did not grow: {rows}")
    last = {key: rows[-1] for key, rows in found.items()}
    if last != expected.last[topic]:
        errors.append(f"{topic}: last {last}, expected {expected.last[topic]}")
    return errors


def _check_offsets(broker: MemoryBroker, plan: Plan, ledger: Ledger) -> list[str]:
    errors = []
    group = broker.group(plan.app_id).offsets
    for number in range(plan.partitions):
        known = ledger.offsets(number)
        for topic in plan.input_topics:
            partition = TopicPartition(topic, number)
            end, state, committed = broker.log(partition).last_stable_offset, known.get(topic), group.get(partition)
            is_right = (committed or 0) <= (state or 0) and (topic in plan.internal_topics or state == end)
            if topic in plan.sources:
                is_right = state == committed == end
            if end and not is_right:  # what the group is told of internal topics may come a moment later
                errors.append(f"{topic}-{number}: ends at {end}, the state's offset is {state}, the group's {committed}")
    return errors


def _check_controls(broker: MemoryBroker, topic: str) -> list[str]:
    errors = []
    for batch in read_all(broker, topic):
        reached: dict[int, int] = {}
        for key, value, headers in zip(batch.keys, batch.values, batch.headers, strict=True):
            if key is None and headers != BARRIER_HEADERS:
                control = msgspec.json.decode(value or b"", type=Control)
                if control.watermark < reached.get(control.upstream, control.watermark):
                    errors.append(f"{topic}-{batch.partition}: upstream {control.upstream} went back to {control.watermark}")
                reached[control.upstream] = control.watermark
    return errors


def check_stores(ledger: Ledger, processes: list[Process]) -> list[str]:
    """Return what is wrong with the disks: each store must be what the changelog says up to its position."""
    errors = []
    for disk in {id(process.disk): process.disk for process in processes}.values():
        for number, volume in disk.volumes.items():
            position = volume.content.position
            entries = volume.entries()
            replayed = ledger.replay(number, position.next_offset) if position.identity else {}
            if entries != replayed:
                differing = {key for key in entries.keys() | replayed.keys() if entries.get(key) != replayed.get(key)}
                differing -= ledger.compacted(number, position.next_offset)
                if differing:
                    errors.append(f"the store of task {number} at {position.next_offset} differs from the changelog in {sorted(differing)}")
    return errors


def check_closed(processes: list[Process]) -> list[str]:
    """Return what processes that ended in order have left open."""
    errors = []
    for process in processes:
        left = sum(store.is_open for store in process.stores)
        if process.alive and left:
            errors.append(f"{process.name} ended with {left} stores open")
    return errors
