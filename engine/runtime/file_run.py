"""Pipelines over files: the genuine runner and tasks, on a broker in memory, until all input is used and every window is closed.

    orders.jsonl ──► topic orders ──┐                       ┌──► revenue.jsonl
    views.jsonl ───► topic views ───┴──► Runner, 12 tasks ──┴──► sessions.jsonl, shop-dlq.jsonl

Each file is loaded into its topic before the run starts, in the order of its lines. State lives in memory and is gone afterwards.
The wall clock plays no part: records from the future move watermarks like any other (`max_ahead` is off).

Limits: input, output and state are all in memory at once, about 1 kB a record.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ConfigError
from engine.plan import Plan
from engine.records import TopicPartition
from engine.runtime.bounded import run_to_end
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.collector import tune_collector
from engine.runtime.placing import BadLine, Placer, bury, read_lines
from engine.runtime.record_lines import format_batch
from engine.runtime.runner import Runner
from engine.runtime.shell import Limits
from engine.runtime.transport.memory import FETCH_RECORDS_MAX, MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBroker
from engine.topology import Topology
from state.memory import MemoryStore

_WRITE_RECORDS = 10_000


@dataclass(frozen=True, slots=True)
class FileRun:
    """What a run did.

    Attributes:
        records_in: Records of each input topic; lines that are no records are not among them.
        records_out: Records of each output topic.
        late: Records that came too late, for every operator that found them so.
        dead_letters: Records in the dead-letter topic, `bad_lines` among them.
    """

    records_in: dict[str, int]
    records_out: dict[str, int]
    late: int
    dead_letters: int
    bad_lines: list[BadLine]
    seconds: float


def run_files(
    topology: Topology,
    inputs: Sequence[tuple[str, Path]],
    output: Path,
    *,
    limits: Limits | None = None,
    fetch_records_max: int = FETCH_RECORDS_MAX,
) -> FileRun:
    """Run all pipelines over files and write `<topic>.jsonl` for each output topic, and for the dead letters if there are any.

    Args:
        inputs: Source topics and files of record lines; several files of one topic are read one after the other.
        output: Folder for the results; made if it is missing.
    Raises:
        ConfigError: An unknown topic, a missing file, or a file without one record that its source can read.
        Exception: What user code raised under `on_error="fail"`.
    """
    plan = replace(topology.plan(), max_ahead_ms=None)
    _check(plan, inputs)
    clock = SystemClock()
    tune_collector()
    started_s = clock.monotonic_s()
    output.mkdir(parents=True, exist_ok=True)
    broker = MemoryBroker(clock)
    for spec in plan.topic_specs(create_sources=True):
        broker.create_topic(spec)
    records_in: dict[str, int] = {}
    bad_lines: list[BadLine] = []
    for topic, path in inputs:
        loaded, bad = _load(broker, plan, topic, path)
        records_in[topic] = records_in.get(topic, 0) + loaded
        bad_lines += bad
    if bad_lines:
        broker.produce({TopicPartition(plan.dead_letter_topic, 0): bury(bad_lines)})
    runner = _run(plan, broker, clock, limits, fetch_records_max)
    records_out = {topic: _write(broker, topic, count, output) for topic, count in broker.partition_counts(list(plan.outputs)).items()}
    dead_letters = _write(broker, plan.dead_letter_topic, plan.partitions, output)
    if not dead_letters:
        (output / f"{plan.dead_letter_topic}.jsonl").unlink()
    late = sum(count for task in runner.metrics.tasks.values() for name, count in task.counters.items() if name[2] == "late_records")
    return FileRun(records_in, records_out, late, dead_letters, bad_lines, clock.monotonic_s() - started_s)


def _check(plan: Plan, inputs: Iterable[tuple[str, Path]]) -> None:
    for topic, path in inputs:
        if topic not in plan.fed_topics:
            raise ConfigError(f"{topic!r} is no source of app {plan.app_id!r}; its sources are {', '.join(plan.fed_topics)}")
        if not path.is_file():
            raise ConfigError(f"there is no file {str(path)!r} to read {topic} from")


def _load(broker: MemoryBroker, plan: Plan, topic: str, path: Path) -> tuple[int, list[BadLine]]:
    """Fill a topic from a file; return the number of records and the lines that are none."""
    source = plan.fed_topics[topic]
    placer = Placer(topic, source.broadcast_partitions or plan.partitions, source, 0)
    bad_lines: list[BadLine] = []
    for records, bad in read_lines(path):
        broker.produce(placer.place(records))
        bad_lines += bad
    if bad_lines and not placer.records:
        raise ConfigError(f"{path} holds no record lines for {topic}; {bad_lines[0]}")
    if placer.records and placer.undecodable.total() == placer.records:
        reason = placer.undecodable.most_common(1)[0][0]
        raise ConfigError(f"{path}: not one of {placer.records} records can be read by source {topic!r}; most often: {reason}")
    return placer.records, bad_lines


def _run(plan: Plan, broker: MemoryBroker, clock: Clock, limits: Limits | None, fetch_records_max: int) -> Runner:
    async def run() -> Runner:
        transport = MemoryTransport(broker, group_id=plan.app_id, fetch_records_max=fetch_records_max)
        runner = Runner(plan, transport, open_store=lambda _: MemoryStore(), clock=clock, limits=limits, create_sources=True)
        await run_to_end(runner)
        return runner

    return asyncio.run(run())


def _write(broker: MemoryBroker, topic: str, partitions: int, folder: Path) -> int:
    """Write all records of a topic, by partition and offset; return their number."""
    written = 0
    with (folder / f"{topic}.jsonl").open("wb") as file:
        for number in range(partitions):
            partition = TopicPartition(topic, number)
            position, end = 0, broker.log(partition).last_stable_offset
            while position < end:
                batch = broker.read(partition, position, _WRITE_RECORDS)
                file.writelines(line + b"\n" for line in format_batch(batch))
                written += len(batch)
                position = batch.next_offset
    return written


def summary(run: FileRun) -> Mapping[str, object]:
    """Return a run as plain data, for `--json`."""
    return {
        "records_in": run.records_in,
        "records_out": run.records_out,
        "late": run.late,
        "dead_letters": run.dead_letters,
        "bad_lines": [str(bad) for bad in run.bad_lines],
        "seconds": round(run.seconds, 3),
    }
