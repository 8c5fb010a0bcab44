"""`streamforge savepoint`: everything that an app knows, by name: taken while it runs, restored into the same app or a changed one."""

import asyncio
from typing import Any

import click
import msgspec

from engine.control import Abort
from engine.errors import ConfigError
from engine.restoring import Words
from engine.runtime.cli.connection import Target, find_target, user_name
from engine.runtime.clock import SystemClock
from engine.runtime.epochs import read_epoch
from engine.runtime.savepoint_places import delete_savepoint, open_savepoint
from engine.runtime.savepoint_restoring import Restored, restore_savepoint
from engine.runtime.savepoint_taking import Wish, take_savepoint, tell
from state.remote import LocalFolder, open_folder
from state.savepoint import Manifest, list_savepoints, verify_savepoint


@click.group()
def savepoint() -> None:
    """Take, list, check, restore and delete savepoints."""


def _app_option(command: Any) -> Any:
    return click.option("--app", "-A", "pipelines", metavar="PIPELINES", required=True, help="The app.")(command)


def _folder_option(command: Any) -> Any:
    text = "Folder or URL (gs://, s3://) that holds the savepoints; all workers must reach it by this name."
    return click.option("--to", "--from", "folder", required=True, help=text)(command)


def _json_option(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _who_options(command: Any) -> Any:
    who = click.option("--who", default=user_name, show_default="you", help="Who does it, for the record.")
    return who(click.option("--why", default="", help="Why, for the record.")(command))


@savepoint.command()
@click.argument("name")
@_app_option
@_folder_option
@click.option("--stop", is_flag=True, help="The app does not go on: the savepoint is the end of its epoch.")
@click.option("--timeout", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds that the sources may be stopped.")
@click.option(
    "--write-timeout",
    type=click.FloatRange(1),
    default=3_600.0,
    show_default=True,
    help="Seconds that writing the files may take.",
)
@_who_options
@_json_option
def create(
    name: str, pipelines: str, folder: str, stop: bool, timeout: float, write_timeout: float, who: str, why: str, as_json: bool
) -> None:
    """Take the savepoint NAME of a running app.

    The sources stop, everything on its way arrives, every task has its cut, and all go on while the files are written.
    """
    target = find_target("savepoint create", pipelines, None)
    wish = Wish(name, folder, who, why, stop, timeout, write_timeout)
    manifest = asyncio.run(_create(target, wish, quiet=as_json))
    if as_json:
        click.echo(msgspec.json.encode(_row(manifest)))
    else:
        end = "the epoch ends with it" if stop else f"the longest pause was {manifest.pause_ms} ms"
        click.echo(f"{describe(manifest)}; {end}")


@savepoint.command("list")
@_folder_option
@_json_option
def list_all(folder: str, as_json: bool) -> None:
    """List the savepoints in a folder, the oldest first."""
    place = open_folder(folder)
    if isinstance(place, LocalFolder) and not place.path.is_dir():
        raise click.ClickException(f"there is no folder {place.path}")
    found = list_savepoints(place)
    if as_json:
        click.echo(msgspec.json.encode([one if isinstance(one, str) else _row(one) for one in found]))
        return
    if not found:
        click.echo(f"there are no savepoints in {folder}", err=True)
    for one in found:
        click.echo(f"{one}: no savepoint (it was not completed, or is damaged)" if isinstance(one, str) else describe(one))


@savepoint.command()
@click.argument("name")
@_folder_option
@_json_option
def verify(name: str, folder: str, as_json: bool) -> None:
    """Read all files of the savepoint NAME and compare their checksums."""
    manifest = verify_savepoint(open_savepoint(folder, name))
    click.echo(msgspec.json.encode(_row(manifest)) if as_json else f"{describe(manifest)}; all checksums are right")


@savepoint.command()
@click.argument("name")
@_app_option
@_folder_option
@click.option("--drop", multiple=True, metavar="PIPELINE/OPERATOR", help="Give up the state of an operator that is gone or has changed.")
@click.option("--replace", multiple=True, metavar="OLD=NEW", help="A new source topic takes the place of another one.")
@click.option("--drop-source", multiple=True, metavar="TOPIC", help="A source topic is not read any more.")
@click.option("--grow", is_flag=True, help="Let the topics that stay grow to the app's number of partitions.")
@_who_options
@_json_option
def restore(
    name: str,
    pipelines: str,
    folder: str,
    drop: tuple[str, ...],
    replace: tuple[str, ...],
    drop_source: tuple[str, ...],
    grow: bool,
    who: str,
    why: str,
    as_json: bool,
) -> None:
    """Make the savepoint NAME the state of a new epoch of an app, which must be stopped.

    The app's graph and number of partitions are those that it has now; what does not fit is refused before anything is touched.
    """
    pairs = dict(pair.partition("=")[::2] for pair in replace)
    if not all(pairs.values()):
        raise ConfigError("--replace takes OLD=NEW, the names of two topics")
    words = Words(frozenset(drop), pairs, frozenset(drop_source))
    target = find_target("savepoint restore", pipelines, None)
    restored = asyncio.run(_restore(target, folder, name, words, grow, who, why, quiet=as_json))
    if as_json:
        click.echo(msgspec.json.encode(restored))
        return
    click.echo(f"epoch {restored.epoch.epoch} has {sum(restored.entries):,} entries in {len(restored.entries)} tasks; start the workers")
    if restored.old_topics:
        click.echo(f"nobody reads {', '.join(restored.old_topics)} any more")


@savepoint.command()
@click.argument("name")
@_folder_option
@click.confirmation_option("--yes", prompt="Delete the savepoint for good?")
def delete(name: str, folder: str) -> None:
    """Delete the savepoint NAME, or what is left of one that was not completed; a folder with anything else in it stays."""
    child = open_savepoint(folder, name)
    delete_savepoint(child)
    click.echo(f"{child.url} is deleted")


@savepoint.command()
@_app_option
@_who_options
def abort(pipelines: str, who: str, why: str) -> None:
    """Let an app go on that a savepoint has stopped, such as one with --stop whose taker has died."""
    asyncio.run(_abort(find_target("savepoint abort", pipelines, None), who, why))
    click.echo("the tasks were told to go on")


def describe(manifest: Manifest) -> str:
    """Return a savepoint in a line."""
    by = f", by {manifest.who}" if manifest.who else ""
    why = f" ({manifest.why})" if manifest.why else ""
    size = f"{manifest.entries:,} entries in {manifest.partitions} tasks, {manifest.file_bytes:,} bytes"
    return f"{manifest.name}: {manifest.app}, epoch {manifest.epoch}, {size}{by}{why}"


def _row(manifest: Manifest) -> dict[str, Any]:
    fields = ("name", "app", "epoch", "partitions", "created_ms", "who", "why", "entries", "file_bytes", "pause_ms")
    return {name: getattr(manifest, name) for name in fields}


async def _create(target: Target, wish: Wish, *, quiet: bool) -> Manifest:
    assert target.app is not None
    async with target.connect() as transport:
        plan = target.app.topology.plan()
        return await take_savepoint(transport, plan, wish, SystemClock(), lambda line: click.echo(line, err=quiet))


async def _restore(target: Target, folder: str, name: str, words: Words, grow: bool, who: str, why: str, *, quiet: bool) -> Restored:
    assert target.app is not None
    async with target.connect() as transport:
        return await restore_savepoint(
            transport,
            target.app.topology.plan(),
            open_savepoint(folder, name),
            SystemClock(),
            words=words,
            grow=grow,
            who=who,
            why=why,
            say=lambda line: None if quiet else click.echo(line),
        )


async def _abort(target: Target, who: str, why: str) -> None:
    assert target.app is not None
    clock = SystemClock()
    async with target.connect() as transport:
        plan = target.app.topology.plan()
        epoch = await read_epoch(transport, plan)
        partitions = plan.partitions if epoch is None else epoch.partitions
        now_ms = clock.now_ms()
        await tell(transport, plan, Abort(id="*", who=who, why=why, at_ms=now_ms), range(partitions), now_ms)
