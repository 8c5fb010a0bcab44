"""What a worker counts: plain numbers that the runner adds to, made into Prometheus metrics only when somebody asks.

    metrics.task(3).records += len(batch)          # hot path: an attribute, no label lookup, no lock
    metrics.render()                               # text for GET /metrics

Counters restart at 0 with the process, as Prometheus expects. A gauge of a task that this worker does not hold is left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "streamforge_"

_COUNTERS = {
    "records": "Records taken from input topics",
    "batches": "Batches taken from input topics",
    "stale_batches": "Batches dropped because they were fetched for an earlier position",
    "commits": "Transactions committed",
    "commit_failures": "Commits that failed or were left in doubt; each drops the task and opens it again",
    "commit_seconds": "Seconds spent in transactions",
    "output_records": "Records sent to output and repartition topics",
    "changelog_records": "Entries sent to the changelog",
    "opens": "Times that the task was opened",
    "open_failures": "Attempts to open the task that failed",
    "restored_entries": "Changelog entries read by restores",
    "restore_seconds": "Seconds spent in restores",
    "rebuilds": "Restores that could not trust the local store and began at a checkpoint or at the start of the changelog",
    "stalls": "Times that the task stood still although there was something to do, and was opened again",
    "preparation_failures": "Attempts to get what decoding needs (a schema of a registry) that failed; the batch waits meanwhile",
    "checkpoints": "Checkpoints taken and kept wherever they shall be",
    "checkpoint_failures": "Checkpoints that could not be taken or kept",
    "checkpoint_files": "Files that checkpoints added to the places where they are kept; others were there already",
    "checkpoint_bytes": "Bytes of these files",
    "checkpoint_pause_seconds": "Seconds that the task stood still for checkpoints",
}
_GAUGES = {
    "running": "1 while the task takes input, 0 while it opens, waits or has failed",
    "restore_lag": "Changelog offsets that the running restore still has to read",
    "checkpoint_offset": "Changelog offset of the last checkpoint that this worker took",
    "checkpoint_overdue": "1 while the last good checkpoint is older than three intervals although there were changes",
    "checkpoint_pause_longest_s": "Longest time that the task stood still for a checkpoint, seconds",
    "restore_seconds_left": "Seconds that the running restore still takes, as far as its speed so far tells",
    "queued_records": "Records fetched and not yet processed",
    "held_partitions": "Source partitions that wait for slower ones (max_skew)",
}


@dataclass(slots=True)
class TaskMetrics:
    """Numbers of one task. Counters only grow; `lag` and `stable_distance` are by topic, `watermark_ms` by "pipeline/topic"."""

    records: int = 0
    batches: int = 0
    stale_batches: int = 0
    commits: int = 0
    commit_failures: int = 0
    commit_seconds: float = 0.0
    output_records: int = 0
    changelog_records: int = 0
    opens: int = 0
    open_failures: int = 0
    restored_entries: int = 0
    restore_seconds: float = 0.0
    rebuilds: int = 0
    stalls: int = 0
    preparation_failures: int = 0
    checkpoints: int = 0
    checkpoint_failures: int = 0
    checkpoint_files: int = 0
    checkpoint_bytes: int = 0
    checkpoint_pause_seconds: float = 0.0
    checkpoint_offset: int = 0
    checkpoint_overdue: int = 0
    checkpoint_pause_longest_s: float = 0.0
    running: int = 0
    restore_lag: int = 0
    restore_seconds_left: float = 0.0
    queued_records: int = 0
    held_partitions: int = 0
    held: bool = False
    lag: dict[str, int] = field(default_factory=dict)
    stable_distance: dict[str, int] = field(default_factory=dict)
    watermark_ms: dict[str, int] = field(default_factory=dict)
    counters: dict[tuple[str, str, str], int] = field(default_factory=dict)


class Metrics:
    """The numbers of a worker."""

    def __init__(self) -> None:
        self.tasks: dict[int, TaskMetrics] = {}
        self.rebalances = 0
        self.standby_lag: dict[int, int] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def task(self, number: int) -> TaskMetrics:
        """Return the numbers of a task, which outlive its being closed and opened again."""
        return self.tasks.setdefault(number, TaskMetrics())

    def total(self, counter: str) -> float:
        """Return a counter summed over all tasks."""
        return sum(float(getattr(task, counter)) for task in self.tasks.values())

    def held(self) -> int:
        """Return how many tasks this worker holds."""
        return sum(task.held for task in self.tasks.values())

    def render(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families; prometheus_client calls it."""
        tasks = sorted(self.tasks.items())
        held = [(number, task) for number, task in tasks if task.held]
        yield CounterMetricFamily(PREFIX + "rebalances", "Times that partitions were assigned", value=self.rebalances)
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, text, labels=["task"])
            for number, task in tasks:
                counter.add_metric([str(number)], getattr(task, name))
            yield counter
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=["task"])
            for number, task in held:
                gauge.add_metric([str(number)], getattr(task, name))
            yield gauge
        standbys = GaugeMetricFamily(PREFIX + "standby_lag", "Changelog offsets that a copy of a task is behind", labels=["task"])
        for number, lag in sorted(self.standby_lag.items()):
            standbys.add_metric([str(number)], lag)
        yield standbys
        yield _by_label("watermark_ms", "Watermark, UTC milliseconds", "input", {n: t.watermark_ms for n, t in held})
        yield _by_label("lag", "Records between the task's position and the end of the partition", "topic", {n: t.lag for n, t in held})
        yield _by_label(
            "stable_distance",
            "Offsets between the last stable one and the end of the partition: an open transaction holds readers up",
            "topic",
            {n: t.stable_distance for n, t in held},
        )
        operators = CounterMetricFamily(
            PREFIX + "operator", "Counters of operators, such as late_records", labels=["task", "pipeline", "operator", "counter"]
        )
        for number, task in tasks:
            for (pipeline, operator, name), value in sorted(task.counters.items()):
                operators.add_metric([str(number), pipeline, operator, name], value)
        yield operators


def _by_label(name: str, text: str, label: str, values: Mapping[int, Mapping[str, int]]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(PREFIX + name, text, labels=["task", label])
    for number, of_task in values.items():
        for key, value in sorted(of_task.items()):
            gauge.add_metric([str(number), key], value)
    return gauge
