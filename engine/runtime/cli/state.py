"""`streamforge state`: what an app knows of a key; in the stores of a stopped worker, in a savepoint; and edits, of a savepoint or live."""

import asyncio
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from engine.control import Command, Delete, Put, Report, partitions_for
from engine.errors import ConfigError, UnavailableError
from engine.plan import Plan
from engine.runtime.app import App
from engine.runtime.cli.connection import Target, find_target, user_name
from engine.runtime.clock import SystemClock
from engine.runtime.epochs import read_epoch
from engine.runtime.loading import load_app
from engine.runtime.savepoint_taking import obey_everywhere
from engine.runtime.state_files import StatePlace, edited_savepoint, nothing_of, of_savepoint, of_stores
from engine.task import catalog_of
from state.catalog import parse_key
from state.parquet import lines_to_parquet, parquet_to_lines
from state.remote import open_folder

_STORES_ARE_COPIES = (
    "the stores of a worker are copies of the changelog: what is changed there is lost with the next restore. Change a savepoint "
    "(--savepoint), or the app while it runs (neither --store nor --savepoint)"
)


@click.group()
def state() -> None:
    """Look at state, export it, and edit it."""


def _options(*wanted: str) -> Callable[[Any], Any]:
    options = {
        "app": click.option("--app", "-A", "pipelines", metavar="PIPELINES", required=True, help="The app."),
        "store": click.option("--store", type=click.Path(path_type=Path), help="Stores of a stopped worker: STATE_DIR/APP."),
        "savepoint": click.option("--savepoint", help="A savepoint: a folder or URL."),
        "state": click.option("--state", "name", metavar="PIPELINE/OPERATOR/STATE", help="One state; all without it."),
        "to": click.option("--as", "to", help="Folder or URL of the savepoint with the edit; the other one stays as it is."),
        "who": click.option("--who", default=user_name, show_default="you", help="Who edits, for the record."),
        "why": click.option("--why", default="", help="Why, for the record."),
    }

    def add(command: Any) -> Any:
        for name in reversed(wanted):
            command = options[name](command)
        return command

    return add


@state.command()
@click.argument("key")
@_options("app", "store", "savepoint", "state")
def get(key: str, pipelines: str, store: Path | None, savepoint: str | None, name: str | None) -> None:
    """Print everything that the states have of KEY, an entry a line, as JSON."""
    place = _place(_plan(pipelines), store, savepoint)
    found = [entry.line() for entry in place.entries(key, name)]
    if not found:
        raise nothing_of(key)
    for line in found:
        click.echo(msgspec.json.encode(line))


@state.command()
@_options("app", "store", "savepoint", "state")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many entries.")
def scan(pipelines: str, store: Path | None, savepoint: str | None, name: str | None, limit: int | None) -> None:
    """Print entries, one a line, as JSON."""
    for entry in islice(_place(_plan(pipelines), store, savepoint).entries(None, name), limit):
        click.echo(msgspec.json.encode(entry.line()))


@state.command()
@click.argument("file", type=click.Path(path_type=Path))
@_options("app", "store", "savepoint", "state")
def export(file: Path, pipelines: str, store: Path | None, savepoint: str | None, name: str | None) -> None:
    """Write entries to FILE: Parquet for a name that ends in .parquet (needs DuckDB), else JSON lines. `import` reads both."""
    place = _place(_plan(pipelines), store, savepoint)
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "entries.jsonl" if file.suffix == ".parquet" else file
        with lines.open("wb") as out:
            for entry in place.entries(None, name):
                out.write(msgspec.json.encode(entry.line(exact=True)) + b"\n")
                count += 1
        if file.suffix == ".parquet":
            lines_to_parquet(lines, file)
    click.echo(f"{count:,} entries written to {file}")


@state.command()
@click.argument("value")
@click.option("--key", required=True, help="The key, as text.")
@click.option("--state", "name", required=True, metavar="PIPELINE/OPERATOR/STATE", help="The state.")
@click.option("--sub", help="Key within a map, or place in a list, as JSON.")
@click.option("--time-ms", type=int, help="For a window: its start.")
@_options("app", "store", "savepoint", "to", "who", "why")
def put(
    value: str,
    key: str,
    name: str,
    sub: str | None,
    time_ms: int | None,
    pipelines: str,
    store: Path | None,
    savepoint: str | None,
    to: str | None,
    who: str,
    why: str,
) -> None:
    """Set an entry to VALUE (JSON, as `scan` shows it): of the running app, or of a savepoint."""
    app = load_app(pipelines, App)
    plan = app.topology.plan()
    spec = catalog_of(plan).spec(name)
    parsed, below, plain = parse_key(spec, key), _json(sub), _json(value)
    if savepoint is not None or store is not None:
        pipeline, operator, local = spec.parts
        line = {"pipeline": pipeline, "operator": operator, "state": local, "key": parsed, "value": plain}
        more = {"sub": below, "time_ms": time_ms}
        _edit_files(plan, store, savepoint, to, put=[line | {k: v for k, v in more.items() if v is not None}], who=who, why=why)
        return
    _live(pipelines, Put(**_said(who, why), state=name, key=parsed, value=plain, sub=below, time_ms=time_ms))


@state.command()
@click.option("--key", required=True, help="The key, as text.")
@click.option("--everywhere", is_flag=True, help="From all states of all pipelines (a data protection request).")
@_options("app", "store", "savepoint", "state", "to", "who", "why")
def delete(
    key: str,
    everywhere: bool,
    pipelines: str,
    store: Path | None,
    savepoint: str | None,
    name: str | None,
    to: str | None,
    who: str,
    why: str,
) -> None:
    """Delete a key from one state (--state) or from all (--everywhere): of the running app, or of a savepoint."""
    if everywhere == (name is not None):
        raise ConfigError("say either --everywhere or --state PIPELINE/OPERATOR/STATE")
    plan = _plan(pipelines)
    if savepoint is not None or store is not None:
        _edit_files(plan, store, savepoint, to, delete=[key], only=name, who=who, why=why)
        return
    if not _live(pipelines, Delete(**_said(who, why), key=key.encode(errors="surrogateescape"), state=name, is_text=True)):
        raise nothing_of(key)


@state.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@_options("app", "store", "savepoint", "to", "who", "why")
def import_entries(file: Path, pipelines: str, store: Path | None, savepoint: str | None, to: str | None, who: str, why: str) -> None:
    """Put the entries of FILE (as `export` writes them, perhaps edited) into a savepoint."""
    if savepoint is None and store is None:
        raise ConfigError("import goes into a savepoint (--savepoint): take one, import, and restore it; single entries can be put live")
    with tempfile.TemporaryDirectory() as folder:
        lines = file
        if file.suffix == ".parquet":
            lines = Path(folder) / "entries.jsonl"
            parquet_to_lines(file, lines)
        rows = [_row(line, number) for number, line in enumerate(lines.read_bytes().splitlines(), 1) if line.strip()]
    _edit_files(_plan(pipelines), store, savepoint, to, put=rows, who=who, why=why)


def _row(line: bytes, number: int) -> dict[str, Any]:
    """Return a line as a row; columns that Parquet filled with nulls are left out, but for a value that is null."""
    try:
        row = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"line {number} is no entry: {error}") from error
    return {name: value for name, value in row.items() if value is not None or name == "value"}


def _plan(pipelines: str) -> Plan:
    return load_app(pipelines, App).topology.plan()


def _place(plan: Plan, store: Path | None, savepoint: str | None) -> StatePlace:
    if (store is None) == (savepoint is None):
        raise ConfigError(
            "say where: --store STATE_DIR/APP (of a stopped worker) or --savepoint FOLDER; an app that runs answers on its web port"
        )
    if savepoint is not None:
        return of_savepoint(open_folder(savepoint), plan)
    assert store is not None
    return of_stores(store, plan)


def _edit_files(
    plan: Plan,
    store: Path | None,
    savepoint: str | None,
    to: str | None,
    *,
    put: Iterable[Mapping[str, Any]] = (),
    delete: Iterable[bytes | str] = (),
    only: str | None = None,
    who: str,
    why: str,
) -> None:
    if store is not None or savepoint is None:
        raise ConfigError(_STORES_ARE_COPIES)
    if to is None:
        raise ConfigError("say --as FOLDER: the edit makes a new savepoint, and the other one stays as it is")
    now_ms = SystemClock().now_ms()
    source, target = open_folder(savepoint), open_folder(to)
    manifest, changed = edited_savepoint(source, target, plan, put=put, delete=delete, only=only, who=who, why=why, now_ms=now_ms)
    click.echo(f"{changed} entries changed; the savepoint {target.url} has {manifest.entries:,}")


def _said(who: str, why: str) -> dict[str, Any]:
    return {"id": uuid.uuid4().hex[:16], "who": who, "why": why, "at_ms": SystemClock().now_ms()}


def _json(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{text!r} is not JSON: {error}") from error


def _live(pipelines: str, command: Command) -> int:
    """Send an edit to the running app, and say what became of it; return how many entries it was."""
    target = find_target("state", pipelines, None)
    reports = asyncio.run(_tell(target, command))
    refused = [report.error for report in reports if report.kind == "refused"]
    if refused:
        raise UnavailableError(f"refused: {refused[0]}")
    entries = sum(report.entries for report in reports)
    tasks = ", ".join(str(report.task) for report in sorted(reports, key=lambda report: report.task) if report.entries)
    click.echo(f"{entries} entries{f' in task {tasks}' if tasks else ''}; committed, and noted in the audit topic as {command.id}")
    return entries


async def _tell(target: Target, command: Command) -> list[Report]:
    assert target.app is not None
    async with target.connect() as transport:
        plan = target.app.topology.plan()
        epoch = await read_epoch(transport, plan)
        partitions = plan.partitions if epoch is None else epoch.partitions
        numbers = partitions_for(command, catalog_of(plan), partitions)
        return await obey_everywhere(transport, plan, command, numbers, SystemClock())
