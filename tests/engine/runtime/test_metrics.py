"""Metrics: plain numbers in, the Prometheus text format out."""

from engine.runtime.metrics import Metrics


def test_metrics_counters_and_gauges_are_shown_by_task() -> None:
    metrics = Metrics()
    task = metrics.task(3)
    task.held = True
    task.records += 42
    task.running = 1
    task.lag["orders"] = 7
    task.stable_distance["orders"] = 2
    task.watermark_ms["revenue/orders"] = 1_000
    task.counters["revenue", "window", "late_records"] = 5
    text = metrics.render().decode()
    for line in (
        'streamforge_records_total{task="3"} 42.0',
        'streamforge_running{task="3"} 1.0',
        'streamforge_lag{task="3",topic="orders"} 7.0',
        'streamforge_stable_distance{task="3",topic="orders"} 2.0',
        'streamforge_watermark_ms{input="revenue/orders",task="3"} 1000.0',
        'streamforge_operator_total{counter="late_records",operator="window",pipeline="revenue",task="3"} 5.0',
    ):
        assert line in text.splitlines()


def test_metrics_task_of_another_worker_keeps_its_counters_and_shows_no_gauges() -> None:
    metrics = Metrics()
    metrics.task(1).records += 1
    text = metrics.render().decode()
    assert 'streamforge_records_total{task="1"} 1.0' in text
    assert 'streamforge_running{task="1"}' not in text


def test_metrics_total_sums_over_tasks() -> None:
    metrics = Metrics()
    metrics.task(0).commits, metrics.task(1).commits = 2, 3
    assert metrics.total("commits") == 5
