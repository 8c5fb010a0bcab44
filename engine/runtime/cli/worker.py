"""`streamforge worker`: run the pipelines on Kafka until Ctrl-C or SIGTERM, in one process or in several."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from engine.errors import StreamForgeError, UnavailableError
from engine.runtime.app import App
from engine.runtime.cli.connection import Target, refuse_memory
from engine.runtime.cli.observing import observed, shares
from engine.runtime.epochs import present_plan
from engine.runtime.loading import load_app

_KILL_AFTER_S = 30.0
_WATCH_S = 1.0
_CHECK_S = 5.0
_LEVELS = ["debug", "info", "warn", "error"]


@click.command()
@click.argument("pipelines")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Number of processes on this machine.")
@click.option(
    "--web-port",
    type=click.IntRange(1, 65_535),
    default=6066,
    show_default=True,
    help="Port of the first worker; each next one has the next.",
)
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write what cProfile counts into a file at the end; FILE.0, FILE.1 and so on with several workers.",
)
@click.option("--note", type=click.Path(path_type=Path), hidden=True, help="Where to say at the end what was done.")
@click.option("--parent", type=int, hidden=True, help="End when this process is no longer the parent.")
def worker(
    pipelines: str, workers: int, web_port: int, log_level: str, profile: Path | None, note: Path | None, parent: int | None
) -> None:
    """Run PIPELINES on Kafka. Workers share the partitions; start more, here or elsewhere, at any time.

    Each of several workers keeps its state in a folder of its own, STATE_DIR/worker-0 and so on, and finds it again. In the end the
    share of each in the records is printed.
    """
    app = load_app(pipelines, App)
    refuse_memory("worker", app.options.broker)
    asyncio.run(_check(app))
    if parent is not None:
        end_with(parent)
    if workers == 1:
        sys.argv = [sys.argv[0], "worker", "--loglevel", log_level, "--web-port", str(web_port)]
        with observed(app.metrics, profile=profile, note=note):
            _run(app)
    raise SystemExit(_run_processes(pipelines, str(app.state_dir), workers, web_port, log_level, profile))


async def _check(app: App) -> None:
    """Find out what can be known to be wrong before anything starts: credentials, topics. A broker that is away is waited for later."""
    try:
        async with asyncio.timeout(_CHECK_S), Target(app.options.broker, app).connect() as transport:
            plan = await present_plan(transport, app.topology.plan())
            await transport.ensure_topics(plan.topic_specs())
    except (UnavailableError, TimeoutError):
        click.echo(f"no broker answers at {app.options.broker} yet; the worker starts, and waits for it", err=True)


def _run(app: App) -> None:
    """Run a worker in this process; an error of ours that ends it is told in one sentence, below all that was logged."""
    try:
        app.main()
    except SystemExit as ended:
        error = app.crash_reason
        if not ended.code or not isinstance(error, StreamForgeError):
            raise
        raise error from None


def _run_processes(pipelines: str, state_dir: str, workers: int, web_port: int, log_level: str, profile: Path | None) -> int:
    """Run one process a worker; when one ends, end all. Return the first exit status that is not 0."""
    with TemporaryDirectory(prefix="streamforge-") as folder:
        notes = [Path(folder) / str(number) for number in range(workers)]
        children = _start(pipelines, state_dir, web_port, log_level, profile, notes)
        statuses = _wait_for_all(children)
        for line in shares(notes):
            print(line, file=sys.stderr)
    return next((abs(status) for status in statuses if status), 0)


def _start(
    pipelines: str, state_dir: str, web_port: int, log_level: str, profile: Path | None, notes: Sequence[Path]
) -> list[subprocess.Popen[bytes]]:
    children = []
    for number, note in enumerate(notes):
        command = [sys.executable, "-m", "engine", "worker", pipelines, "--web-port", str(web_port + number), "--log-level", log_level]
        command += ["--parent", str(os.getpid()), "--note", str(note)]
        command += [] if profile is None else ["--profile", f"{profile}.{number}"]
        own = {"STREAMFORGE_STATE_DIR": f"{state_dir}/worker-{number}"}
        if instance := os.environ.get("STREAMFORGE_INSTANCE_ID"):
            own["STREAMFORGE_INSTANCE_ID"] = f"{instance}-{number}"
        children.append(subprocess.Popen(command, env={**os.environ, **own}))
    return children


def _wait_for_all(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait until one of the processes ends or a signal comes, end all, and return their exit statuses."""
    asked = False

    def stop(*_: object) -> None:
        # Once: a second signal would kill a worker that is about to end.
        nonlocal asked
        if not asked:
            asked = True
            for child in children:
                child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the workers too: they are of the same group
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    stop()
    return [_wait(child) for child in children]


def end_with(parent: int) -> None:
    """Ask this process to end, as by SIGTERM, soon after its parent has gone without a word (kill -9)."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(_KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
