"""Programs on a real Kafka by the command line alone: make the topics, start workers, send, look at what comes out."""

import json
import os
import pstats
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.kafka_server import PASSWORD, USER, KafkaServer
from tests.ports import free_port, free_ports

pytestmark = pytest.mark.kafka

PATIENCE_S = 90.0
ORDERS, CURRENCIES = 300, 3


def streamforge(env: Mapping[str, str], *args: str, beside: "Worker | None" = None) -> str:
    """Run a command to its end and return what it prints; fail at once, with the log, if the worker beside it ends before."""
    with subprocess.Popen(
        [sys.executable, "-m", "engine", *args], env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline_s = time.monotonic() + PATIENCE_S
        try:
            while True:
                try:
                    output, error = process.communicate(timeout=0.5)
                except subprocess.TimeoutExpired:
                    said = "" if beside is None else beside.log.read_text()
                    assert beside is None or beside.process.poll() is None, f"the worker has ended:\n{said}"
                    assert time.monotonic() < deadline_s, f"{args} does not end within {PATIENCE_S} s; the worker:\n{said}"
                else:
                    assert process.returncode == 0, error
                    return output
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker in the background, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def worker(env: Mapping[str, str], log: Path, *args: str) -> Iterator[Worker]:
    """Run a worker in the background; it must end well when it is asked to."""
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "engine", "worker", *args], env=dict(env), stdout=output, stderr=output)
        try:
            yield Worker(process, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, log.read_text()[-4_000:]
        finally:
            process.kill()
            process.wait()


def until_ready(beside: Worker, *ports: int) -> None:
    """Wait until the pages on these ports say that all tasks of their workers run; one without tasks is not ready."""
    deadline_s = time.monotonic() + PATIENCE_S
    for port in ports:
        while not is_ready(port):
            with suppress(subprocess.TimeoutExpired):
                beside.process.wait(0.2)
            assert beside.process.poll() is None and time.monotonic() < deadline_s, beside.log.read_text()


def is_ready(port: int) -> bool:
    """Return whether `GET /ready` of a worker answers 200."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_secure_payments_over_tls_and_sasl_are_added_up(kafka: KafkaServer, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "STREAMFORGE_BROKER": f"kafka://{kafka.secure_bootstrap}",
        "STREAMFORGE_STATE_DIR": str(tmp_path / "state"),
        "PAYMENTS_CA": str(kafka.cafile),
        "PAYMENTS_USER": USER,
        "PAYMENTS_PASSWORD": PASSWORD,
    }
    app = "tests.programs.secure_payments"
    values = [{"account": account, "cents": cents, "ts": ts} for ts, (account, cents) in enumerate([("a", 5), ("b", 7), ("a", 6)])]
    lines = [json.dumps({"value": value}) for value in values]
    (tmp_path / "payments.jsonl").write_text("\n".join([*lines, '{"valeu": 1}']))
    streamforge(env, "topics", "create", "--app", app)
    with worker(env, tmp_path / "worker.log", app, "--web-port", str(free_port())) as beside:
        assert streamforge(env, "send", "payments", str(tmp_path / "payments.jsonl"), "--app", app) == "3 records sent to payments\n"
        lines = streamforge(env, "tail", "payment-totals", "--app", app, "--from-start", "--limit", "3", beside=beside).splitlines()
        bad = json.loads(streamforge(env, "tail", "secure-payments-dlq", "--app", app, "--from-start", "--limit", "1", beside=beside))
    totals = sorted((record["key"], record["value"]["payments"], record["value"]["cents"]) for record in map(json.loads, lines))
    assert totals == [("a", 1, 5), ("a", 2, 11), ("b", 1, 7)]
    assert (bad["value"], bad["headers"]["line"]) == ({"valeu": 1}, "4")


def test_minute_revenue_on_two_workers_is_the_same_as_on_files(kafka: KafkaServer, tmp_path: Path) -> None:
    env = {**os.environ, "STREAMFORGE_BROKER": f"kafka://{kafka.bootstrap}", "STREAMFORGE_STATE_DIR": str(tmp_path / "state")}
    app = "tests.programs.minute_revenue"
    orders = [
        {"user_id": f"user-{n % 17}", "amount_cents": n, "currency": ["EUR", "USD", "GBP"][n % CURRENCIES], "ts": 1_000 * n}
        for n in range(ORDERS)
    ]
    # One more order of every user closes the windows of all the others: a worker on Kafka waits for more input, a run does not.
    last = [{"user_id": f"user-{n}", "amount_cents": 0, "currency": "EUR", "ts": 10_000_000} for n in range(17)]
    (tmp_path / "orders.jsonl").write_text("".join(json.dumps({"value": value}) + "\n" for value in orders + last))
    streamforge(env, "run", app, "--input", f"orders={tmp_path / 'orders.jsonl'}", "--output", str(tmp_path / "files"))
    expected = sorted(json.dumps(json.loads(line)["value"]) for line in (tmp_path / "files" / "revenue.jsonl").read_text().splitlines())
    assert len(expected) == CURRENCIES * ORDERS // 60
    streamforge(env, "topics", "create", "--app", app)
    listed = json.loads(streamforge(env, "topics", "list", "--app", app, "--json"))
    assert {row["name"]: row["partitions"] for row in listed}["revenue"] == 4
    assert "orders" in streamforge(env, "topics", "list")
    profile, ports = tmp_path / "profile", free_ports(2)
    with worker(env, tmp_path / "worker.log", app, "--workers", "2", "--web-port", str(ports[0]), "--profile", str(profile)) as beside:
        until_ready(beside, *ports)  # else one of them has done all before the other is there
        streamforge(env, "send", "orders", str(tmp_path / "orders.jsonl"), "--app", app)
        rows = streamforge(env, "tail", "revenue", "--app", app, "--from-start", "--limit", str(len(expected)), beside=beside)
        assert sorted(json.dumps(json.loads(line)["value"]) for line in rows.splitlines()) == expected
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["worker-0", "worker-1"]
    shares = re.findall(r"worker (\d): ([\d,]+) records, \d+ % \(tasks ([\d ]+)\)", (tmp_path / "worker.log").read_text())
    assert [number for number, _, _ in shares] == ["0", "1"]
    assert len({task for _, _, tasks in shares for task in tasks.split()}) == 4
    assert all(pstats.Stats(f"{profile}.{number}").total_calls > 0 for number in range(2))  # type: ignore[attr-defined]
