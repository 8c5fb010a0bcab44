"""`streamforge cep`: live rules on their topic, and why there was a match for a key, or none.

streamforge cep rules put rules.jsonl -A shop.py
streamforge cep rules list -A shop.py
streamforge cep rules remove probe -A shop.py
streamforge cep explain --pipeline fraud --key ann
"""

import asyncio
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from engine.errors import ConfigError, UnavailableError
from engine.runtime.cli.connection import Target, find_target, target_options
from engine.runtime.rule_topics import (
    Listed,
    RuleTopic,
    check_fits,
    find_topic,
    list_rules,
    put_rules,
    read_rules,
    remove_rule,
)

_TIMEOUT_S = 10.0
_YEAR_9999_MS = 253_402_300_799_000
_topic_option = click.option("--topic", help="Topic of the rules, where the app has several, or without --app.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def cep() -> None:
    """Change live rules, and see partial matches."""


@cep.group()
def rules() -> None:
    """List, put and remove live rules."""


@rules.command("list")
@target_options
@_topic_option
@_json_option
def list_(pipelines: str | None, broker: str | None, topic: str | None, as_json: bool) -> None:
    """List the rules of a topic, with what is wrong with them if anything is."""
    target, meant = _meant("cep rules list", pipelines, broker, topic)

    async def run() -> list[Listed]:
        async with target.connect() as transport:
            return await list_rules(transport, meant)

    found = asyncio.run(run())
    if as_json:
        click.echo(
            msgspec.json.encode([msgspec.to_builtins(one.rule) if one.rule else {"id": one.id, "problem": one.problem} for one in found])
        )
        return
    for one in found:
        click.echo(_line(one))
    if not found:
        click.echo("no rules")


@rules.command()
@click.argument("file", type=click.File("rb"))
@target_options
@_topic_option
@_json_option
def put(file: Any, pipelines: str | None, broker: str | None, topic: str | None, as_json: bool) -> None:
    """Put the rules of FILE ("-": standard input): one JSON object, a list, or one a line. All of them, or none.

    A line may be a rule, or a record line as `streamforge run` takes it: {"key": id, "value": rule}.

    With --app they are held against the pipelines that will run them, and nothing is sent if one could not run.
    """
    target, meant = _meant("cep rules put", pipelines, broker, topic)
    given = read_rules(file.read())
    check_fits(given, meant)

    async def run() -> None:
        async with target.connect() as transport:
            await put_rules(transport, meant, given, time.time_ns() // 1_000_000)

    asyncio.run(run())
    if as_json:
        click.echo(msgspec.json.encode({"topic": meant.spec.name, "put": [{"id": one.id, "version": one.version} for one in given]}))
    else:
        click.echo("\n".join(f"{one.id} version {one.version} put" for one in given))


@rules.command()
@click.argument("name", metavar="ID")
@target_options
@_topic_option
@_json_option
def remove(name: str, pipelines: str | None, broker: str | None, topic: str | None, as_json: bool) -> None:
    """Remove the rule ID with its partial matches. To let those end by themselves, put a version with "enabled": false."""
    target, meant = _meant("cep rules remove", pipelines, broker, topic)

    async def run() -> None:
        async with target.connect() as transport:
            await remove_rule(transport, meant, name, time.time_ns() // 1_000_000)

    asyncio.run(run())
    click.echo(msgspec.json.encode({"topic": meant.spec.name, "removed": name}) if as_json else f"{name} removed")


@cep.command()
@click.option("--pipeline", required=True, help="The pipeline that detects.")
@click.option("--key", required=True, help="The key, as on the wire: text, a decimal number, the JSON of a Struct.")
@click.option("--operator", default="detect", show_default=True, help="Name of the operator, where detect(name=…) gave one.")
@click.option(
    "--worker",
    "workers",
    multiple=True,
    default=("http://127.0.0.1:6066",),
    show_default=True,
    help="Web address of a worker; several are asked until one has the key's partition.",
)
@click.option("--token", envvar="STREAMFORGE_WEB_TOKEN", help="The app's web_token.")
@_json_option
def explain(pipeline: str, key: str, operator: str, workers: Sequence[str], token: str | None, as_json: bool) -> None:
    """Show the partial matches of a key that are alive, and what became of the last ones (as far as detect(history=…) keeps them)."""
    path = f"/state/{urllib.parse.quote(pipeline, safe='')}/{urllib.parse.quote(operator, safe='')}?{urllib.parse.urlencode({'key': key})}"
    answer = _ask(workers, path, token)
    if as_json:
        click.echo(msgspec.json.encode(answer))
    else:
        click.echo("\n".join(_page(answer)))


def _meant(command: str, pipelines: str | None, broker: str | None, topic: str | None) -> tuple[Target, RuleTopic]:
    target = find_target(command, pipelines, broker)
    return target, find_topic(target.app, topic)


def _line(one: Listed) -> str:
    if one.rule is None:
        return f"{one.id}  BAD: {one.problem}"
    rule = one.rule
    kind = "sql" if rule.match_recognize is not None else "pattern" if rule.pattern is not None else "ended"
    since = "" if rule.from_ms is None else f"  from {_time(rule.from_ms)}"
    return f"{rule.id}  version {rule.version}  {kind}{since}"


def _ask(workers: Sequence[str], path: str, token: str | None) -> dict[str, Any]:
    """Ask workers until one has the partition; one that cannot be reached is passed over.

    Raises:
        ConfigError: The question is none, or not allowed; or no worker that was asked has the partition.
        UnavailableError: That may be because one of them cannot be reached.
    """
    problem = ""
    missing: UnavailableError | None = None
    for worker in workers:
        if urllib.parse.urlsplit(worker).scheme not in ("http", "https"):
            raise ConfigError(f"--worker {worker}: an address such as http://127.0.0.1:6066 is needed")
        try:
            status, answer = _get(worker.rstrip("/") + path, token)
        except UnavailableError as error:
            missing = error
            continue
        if status == 200:
            return answer
        problem = str(answer.get("error", f"status {status}"))
        if status not in (421, 503):
            raise ConfigError(f"{worker}: {problem}")
    if missing is not None:
        raise UnavailableError(f"{problem}; {missing}" if problem else str(missing)) from missing
    raise ConfigError(f"{problem} (asked: {', '.join(workers)}; name the other workers by --worker)")


def _get(url: str, token: str | None) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # http or https: checked above
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would not be this machine
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.load(error)
        except ValueError:
            return error.code, {"error": f"no worker of ours answers there (status {error.code})"}
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        where, reason = url.partition("/state/")[0], getattr(error, "reason", error)
        advice = "start one by `streamforge worker`, or give the web address of a running one by --worker"
        raise UnavailableError(f"no worker answers at {where}: {reason}; {advice}") from error


def _page(answer: Mapping[str, Any]) -> Iterator[str]:
    state = answer["state"]
    alive, history, pending = (state.get(name, []) for name in ("partial_matches", "history", "pending"))
    yield f"{answer['key']}, partition {answer['partition']}: {len(alive)} alive, {len(pending)} records wait for the watermark"
    for one in alive:
        yield f"  {_rule(one)}since {_time(one['start_ms'])}: {_taken(one['taken'])}"
        if one["complete"]:
            yield "    complete; comes out unless a better one takes its place"
            continue
        ended_by = f", ends with {' or '.join(one['ended_by'])}" if one["ended_by"] else ""
        dies = "for ever" if one["dies_ms"] is None else f"until {_time(one['dies_ms'])}"
        yield f"    waits for {' or '.join(one['waits_for']) or 'nothing to happen'} {dies}{ended_by}"
    for one in history:
        what = one["what"].replace("_", " ")
        yield f"  {_rule(one)}{what} at {_time(one['at_ms'])}, since {_time(one['start_ms'])}: {_taken(one['taken'])}"
        if one.get("why"):
            yield f"    {one['why']}"


def _rule(one: Mapping[str, Any]) -> str:
    return f"{one['rule']} version {one['version']} " if one.get("rule") else ""


def _taken(taken: Mapping[str, Sequence[Any]]) -> str:
    return "; ".join(f"{stage} {' '.join(json.dumps(value) for value in values)}" for stage, values in taken.items())


def _time(ms: int) -> str:
    if not 0 <= ms <= _YEAR_9999_MS:
        return f"{ms} ms"
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
