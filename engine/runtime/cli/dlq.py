"""`streamforge dlq`: the dead letters of an app: what failed and why, sending it back once the reason is gone, clearing up.

    streamforge dlq list -A shop.py --pipeline fraud
    streamforge dlq show 3/17 -A shop.py
    streamforge dlq replay -A shop.py --pipeline fraud --all

A letter is named by its place in `<app>-dlq`: partition/offset.
"""

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import click
import msgspec

from engine.errors import ConfigError
from engine.plan import Plan
from engine.replays import DeadLetter, refusal
from engine.runtime.cli.connection import find_target
from engine.runtime.replaying import Letter, Replayed, read_letters
from engine.runtime.replaying import purge as purge_letters
from engine.runtime.replaying import replay as replay_letters
from engine.runtime.transport.protocol import Transport

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_NAME = re.compile(r"\d+/\d+")


@click.group()
def dlq() -> None:
    """List, show, replay and purge the dead letters of an app."""


def _app_option(command: F) -> F:
    return click.option("--app", "-A", "pipelines", metavar="PIPELINES", required=True, help="The app whose dead letters are meant.")(
        command
    )


def _filters(command: F) -> F:
    for option in (
        click.option("--error", metavar="TEXT", help="Only letters whose error has this text in it."),
        click.option("--topic", help="Only records of this topic."),
        click.option("--operator", help="Only what this operator refused."),
        click.option("--pipeline", help="Only what this pipeline refused."),
    ):
        command = option(command)
    return command


@dlq.command("list")
@_app_option
@_filters
@click.option("--limit", type=click.IntRange(1), help="Stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a letter, with everything.")
def list_letters(pipelines: str, limit: int | None, as_json: bool, **filters: str | None) -> None:
    """List dead letters, by partition and offset: place, source, pipeline, operator, error."""

    async def run(transport: Transport, plan: Plan) -> int:
        shown = 0
        async with aclosing(read_letters(transport, plan)) as found:
            async for one in found:
                if _fits(one.letter, filters):
                    click.echo(msgspec.json.encode(_as_json(one, plan)) if as_json else _line(one))
                    shown += 1
                    if shown == limit:
                        break
        return shown

    shown = _on_broker("dlq list", pipelines, run)
    if not shown and not as_json:
        click.echo("no dead letters")


@dlq.command()
@click.argument("letter", metavar="PARTITION/OFFSET")
@_app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(letter: str, pipelines: str, as_json: bool) -> None:
    """Show one dead letter with its record, headers, traceback and history."""
    _require_names([letter])

    async def run(transport: Transport, plan: Plan) -> tuple[Letter | None, Plan]:
        async with aclosing(read_letters(transport, plan)) as found:
            async for one in found:
                if one.letter.name == letter:
                    return one, plan
        return None, plan

    one, plan = _on_broker("dlq show", pipelines, run)
    if one is None:
        raise ConfigError(f"there is no dead letter {letter} in {plan.dead_letter_topic!r}")
    click.echo(msgspec.json.encode(_as_json(one, plan)) if as_json else "\n".join(_page(one, plan)))


@dlq.command()
@click.argument("letters", nargs=-1, metavar="[PARTITION/OFFSET]...")
@_app_option
@_filters
@click.option("--all", "everything", is_flag=True, help="All that the filters leave.")
@click.option("--again", is_flag=True, help="Also those that have been replayed before.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def replay(letters: tuple[str, ...], pipelines: str, everything: bool, again: bool, as_json: bool, **filters: str | None) -> None:
    """Send the records of dead letters back to where they were: same key, timestamp and headers.

    Only the pipeline that refused a record takes it again. Each letter is replayed once, however often this is run; one that fails
    again is a new letter that knows its history.
    """
    _require_names(letters)
    if bool(letters) == everything:
        raise ConfigError("dlq replay: name letters (partition/offset), or give --all")

    def wanted(letter: DeadLetter) -> bool:
        return (everything or letter.name in letters) and _fits(letter, filters)

    async def run(transport: Transport, plan: Plan) -> Replayed:
        return await replay_letters(transport, plan, wanted, now_ms=time.time_ns() // 1_000_000, again=again)

    done = _on_broker("dlq replay", pipelines, run)
    for name, reason in done.refused:
        click.echo(f"{name} cannot be replayed: {reason}", err=True)
    if as_json:
        click.echo(msgspec.json.encode({"replayed": done.sent, "replayed_before": done.done_before, "refused": dict(done.refused)}))
    else:
        before = f"; {done.done_before} were before, and are not sent again without --again" if done.done_before else ""
        click.echo(f"{done.sent} replayed{before}")
    missing = 0 if everything else len(set(letters)) - done.sent - done.done_before - len(done.refused)
    if missing:
        raise ConfigError(f"dlq replay: {missing} of the letters named are not there, or do not fit the filters")
    if letters and done.refused:
        raise SystemExit(1)


@dlq.command()
@_app_option
@click.option("--all", "everything", is_flag=True, help="Also letters that have not been replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def purge(pipelines: str, everything: bool, yes: bool, as_json: bool) -> None:
    """Delete dead letters for good: in each partition up to the first that has not been replayed, or all."""
    if everything and not yes:
        click.confirm("Delete all dead letters, also those that were never replayed?", abort=True, err=True)

    async def run(transport: Transport, plan: Plan) -> int:
        return await purge_letters(transport, plan, everything=everything)

    gone = _on_broker("dlq purge", pipelines, run)
    click.echo(msgspec.json.encode({"purged": gone}) if as_json else f"{gone} purged")


def _on_broker(command: str, pipelines: str, run: Callable[[Transport, Plan], Coroutine[Any, Any, T]]) -> T:
    target = find_target(command, pipelines, None)
    assert target.app is not None
    plan = target.app.topology.plan()

    async def connected() -> T:
        async with target.connect() as transport:
            return await run(transport, plan)

    return asyncio.run(connected())


def _require_names(names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is not the place of a letter; write partition/offset as `dlq list` shows it, such as 3/17")


def _fits(letter: DeadLetter, filters: dict[str, str | None]) -> bool:
    pipeline, operator, topic, error = (filters[name] for name in ("pipeline", "operator", "topic", "error"))
    return (
        (pipeline is None or pipeline in letter.pipelines)
        and (operator is None or operator == letter.operator)
        and (topic is None or topic == letter.topic)
        and (error is None or error in letter.error)
    )


def _line(one: Letter) -> str:
    letter = one.letter
    attempts = "" if letter.history is None else f"  (attempt {letter.history.attempt + 1})"
    mark = "" if one.mark is None else "  [replayed]"
    return f"{letter.name}  {_place(letter)}  {','.join(letter.pipelines) or '-'}/{letter.operator or '-'}  {letter.error}{attempts}{mark}"


def _place(letter: DeadLetter) -> str:
    if letter.timer is not None:
        return f"timer {letter.timer!r} at {letter.timer_ms}" if letter.timer else f"firing at {letter.timer_ms}"
    if letter.file:
        return f"{letter.file}, line {letter.line}"
    return f"{letter.topic}/{letter.source_partition}/{letter.source_offset}" if letter.topic else "?"


def _page(one: Letter, plan: Plan) -> list[str]:
    letter = one.letter
    lines = [
        f"dead letter {letter.name} of {plan.dead_letter_topic}",
        f"  from       {_place(letter)}",
        f"  pipeline   {', '.join(letter.pipelines) or '-'}, operator {letter.operator or '-'}",
        f"  key        {_text(letter.key)}",
        f"  value      {_text(letter.value)}",
        f"  timestamp  {letter.timestamp_ms}",
        *(f"  header     {name}: {_text(value)}" for name, value in letter.headers),
        f"  error      {letter.error}",
    ]
    if letter.history is not None:
        lines += [f"  history    attempt {letter.history.attempt + 1} of {letter.history.origin}; before:"]
        lines += [f"               {number}. {error}" for number, error in enumerate(letter.history.errors, 1)]
    if one.mark is not None:
        lines.append(f"  replayed   {one.mark.times} time{'s' * (one.mark.times > 1)}, last at {one.mark.replayed_ms}")
    elif (reason := refusal(letter, plan)) is not None:
        lines.append(f"  replay     not possible: {reason}")
    return [*lines, "", *letter.traceback.splitlines()]


def _as_json(one: Letter, plan: Plan) -> dict[str, Any]:
    letter, mark = one.letter, one.mark
    return {
        "letter": letter.name,
        "source": {"topic": letter.topic, "partition": letter.source_partition, "offset": letter.source_offset} if letter.topic else None,
        "timer": None if letter.timer is None else {"name": letter.timer, "timestamp_ms": letter.timer_ms},
        "line": {"file": letter.file, "line": letter.line} if letter.file else None,
        "pipelines": letter.pipelines,
        "operator": letter.operator,
        "error": letter.error,
        "traceback": letter.traceback,
        "key": _plain(letter.key),
        "value": _plain(letter.value),
        "timestamp_ms": letter.timestamp_ms,
        "headers": [[name, _plain(value)] for name, value in letter.headers],
        "attempt": 1 if letter.history is None else letter.history.attempt + 1,
        "origin": None if letter.history is None else letter.history.origin,
        "earlier_errors": () if letter.history is None else letter.history.errors,
        "replayed": 0 if mark is None else mark.times,
        "cannot_be_replayed": refusal(letter, plan),
    }


def _plain(raw: bytes | None) -> Any:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(raw).decode()}


def _text(raw: bytes | None) -> str:
    if raw is None:
        return "none"
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"{len(raw)} bytes, hex {raw.hex(' ')[:300]}"
