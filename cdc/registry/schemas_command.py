"""`streamforge schemas`: the schemas of an app against a registry, before a deployment.

    streamforge schemas check shop.py        what would break, in words; exit status 1 if anything would
    streamforge schemas diff shop.py         what has changed against the latest version, and which levels allow it
    streamforge schemas register shop.py     what a worker does at its start
    streamforge schemas list shop.py         subjects, versions, ids, levels

The registry is the one that the app's codecs name, or `--registry URL` (with STREAMFORGE_REGISTRY_AUTH="user:password" or a token).
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import msgspec

from cdc.registry.client import NotFoundError, Registry
from cdc.registry.uses import Use, Verdict, judge, uses_of
from engine.errors import ConfigError
from engine.runtime.app import App
from engine.runtime.loading import load_app

F = TypeVar("F", bound=Callable[..., Any])
AUTH = "STREAMFORGE_REGISTRY_AUTH"


@click.group()
def schemas() -> None:
    """Check, register, list and compare the schemas of an app."""


def _common(command: F) -> F:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--registry", "url", envvar="STREAMFORGE_REGISTRY", help="Another registry than the one that the app names."),
        click.argument("pipelines"),
    ):
        command = option(command)
    return command


@schemas.command()
@_common
def check(pipelines: str, url: str | None, as_json: bool) -> None:
    """Say what would break if PIPELINES were deployed now.

    A sink's schema must be compatible by its subject's level; a source must be able to read what is written now.
    """
    verdicts = _on_registry(pipelines, url, lambda use, registry: judge(use, registry))
    if as_json:
        click.echo(msgspec.json.encode([_as_json(verdict) for verdict in verdicts]))
    else:
        for verdict in verdicts:
            click.echo("\n".join(_said(verdict)))
    if any(verdict.breaks for verdict in verdicts):
        raise SystemExit(1)


@schemas.command()
@_common
def diff(pipelines: str, url: str | None, as_json: bool) -> None:
    """Show what has changed against the latest version, and which levels allow it."""
    verdicts = _on_registry(pipelines, url, lambda use, registry: judge(use, registry))
    if as_json:
        click.echo(msgspec.json.encode([_as_json(verdict) for verdict in verdicts]))
        return
    for verdict in verdicts:
        click.echo(f"{_head(verdict)}{'' if verdict.versions else ': not registered yet'}")
        for change in verdict.changes:
            click.echo(f"  {change}")
        if verdict.versions and not verdict.changes:
            click.echo(
                "  no change" if verdict.use.codec.kind == "AVRO" or verdict.known_as else f"  another {verdict.use.codec.kind} schema"
            )
        if verdict.changes and verdict.levels:
            click.echo("  allowed by " + ", ".join(level for level, allowed in verdict.levels.items() if allowed))


@schemas.command()
@_common
def register(pipelines: str, url: str | None, as_json: bool) -> None:
    """Register the schemas of the sinks of PIPELINES, as a worker does at its start; an incompatible one is refused."""

    async def one(use: Use, registry: Registry) -> dict[str, Any] | None:
        if not use.writes:
            return None
        codec = use.codec
        await codec.refer(registry, register=True)
        number = await registry.register(use.subject, codec.schema, kind=codec.kind, references=codec.references)
        found = await registry.find(use.subject, codec.schema, kind=codec.kind, references=codec.references)
        return {"subject": use.subject, "id": number, "version": found.version}

    done = [row for row in _on_registry(pipelines, url, one) if row is not None]
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    for row in done:
        click.echo(f"{row['subject']}: version {row['version']}, id {row['id']}")
    if not done:
        click.echo("no sink of the app has a schema")


@schemas.command("list")
@_common
def list_schemas(pipelines: str, url: str | None, as_json: bool) -> None:
    """List the subjects of PIPELINES with their versions, ids and levels."""

    async def one(use: Use, registry: Registry) -> dict[str, Any]:
        try:
            numbers = await registry.versions(use.subject)
        except NotFoundError:
            numbers = []
        found = [await registry.version(use.subject, number) for number in numbers]
        return {
            "subject": use.subject,
            "topic": use.topic,
            "role": "sink" if use.writes else "source",
            "type": use.codec.kind,
            "level": await registry.level(use.subject),
            "versions": {version.version: version.id for version in found},
        }

    rows = _on_registry(pipelines, url, one)
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    for row in rows:
        versions = ", ".join(f"{number} (id {schema_id})" for number, schema_id in row["versions"].items())
        click.echo(f"{row['subject']}  {row['role']} {row['topic']}  {row['type']}  {row['level']}  versions {versions or 'none'}")


T = TypeVar("T")


def _on_registry(pipelines: str, url: str | None, ask: Callable[[Use, Registry], Coroutine[Any, Any, T]]) -> list[T]:
    """Ask about each use of an app, and close what was opened."""
    uses = uses_of(load_app(pipelines, App).topology.plan())
    if not uses:
        raise ConfigError(f"{pipelines}: no source or sink has a codec with a schema registry")
    other = None if url is None else Registry(url, auth=auth_from_environment())

    async def run() -> list[T]:
        opened: list[Registry] = []
        try:
            answers = []
            for use in uses:
                registry = other or use.codec.registry
                if registry is None:
                    raise ConfigError(f"topic {use.topic!r}: its codec has no Registry; give --registry URL")
                opened.append(registry)
                answers.append(await ask(use, registry))
            return answers
        finally:
            for registry in {id(registry): registry for registry in opened}.values():
                await registry.close()

    return asyncio.run(run())


def auth_from_environment() -> tuple[str, str] | str | None:
    """Return what STREAMFORGE_REGISTRY_AUTH says: a user with a password, or a token."""
    given = os.environ.get(AUTH)
    if not given or ":" not in given:
        return given or None
    user, _, password = given.partition(":")
    return user, password


def _head(verdict: Verdict) -> str:
    use = verdict.use
    return f"{use.subject} ({'sink' if use.writes else 'source'} {use.topic}, {use.codec.kind}, {verdict.level})"


def _said(verdict: Verdict) -> list[str]:
    head = _head(verdict)
    if verdict.breaks:
        return [f"{head}: BREAKS", *(f"  {reason}" for reason in verdict.breaks)]
    notes = [f"  note: {warning}" for warning in verdict.warnings]
    if not verdict.versions:
        return [f"{head}: {'new, nothing to break' if verdict.use.writes else 'nothing is registered, so nothing is known'}"]
    if verdict.known_as is not None:
        return [f"{head}: version {verdict.known_as}", *notes]
    if verdict.use.writes:
        return [f"{head}: compatible with {_versions(verdict)}", *notes]
    return [f"{head}: reads version {verdict.versions[-1]}", *notes]


def _versions(verdict: Verdict) -> str:
    if verdict.level.endswith("_TRANSITIVE") and len(verdict.versions) > 1:
        return f"versions {', '.join(map(str, verdict.versions))}"
    return f"version {verdict.versions[-1]}"


def _as_json(verdict: Verdict) -> dict[str, Any]:
    use = verdict.use
    return {
        "subject": use.subject,
        "topic": use.topic,
        "role": "sink" if use.writes else "source",
        "type": use.codec.kind,
        "level": verdict.level,
        "versions": verdict.versions,
        "known_as": verdict.known_as,
        "changes": verdict.changes,
        "breaks": verdict.breaks,
        "warnings": verdict.warnings,
        "levels": verdict.levels,
    }
