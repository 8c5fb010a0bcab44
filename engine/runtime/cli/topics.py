"""`streamforge topics`: what topics an app needs, which of them exist, and making the others."""

import asyncio
from collections.abc import Sequence

import click
import msgspec

from engine.drawing import topic_role
from engine.errors import ConfigError
from engine.plan import Plan
from engine.runtime.cli.connection import Target, find_target, target_options
from engine.runtime.epochs import visible_plan
from engine.topics import TopicSpec


@click.group()
def topics() -> None:
    """List and create topics."""


@topics.command("list")
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_topics(pipelines: str | None, broker: str | None, as_json: bool) -> None:
    """List the topics of an app and whether they exist, or without --app those of the broker."""
    target = find_target("topics list", pipelines, broker)
    rows = asyncio.run(_list(target))
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    width = max((len(str(row["name"])) for row in rows), default=0)
    for row in rows:
        state = f"{row['partitions']} partitions" if row["partitions"] else "missing"
        click.echo(f"{row['name']:{width}}  {state:14}  {row.get('role', '')}".rstrip())


@topics.command("create")
@click.argument("names", nargs=-1)
@target_options
@click.option("--partitions", type=click.IntRange(1), help="Number of partitions; that of the app with --app.")
@click.option("--compacted", is_flag=True, help="Keep the newest record of each key (cleanup.policy=compact).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create_topics(
    names: tuple[str, ...], pipelines: str | None, broker: str | None, partitions: int | None, compacted: bool, as_json: bool
) -> None:
    """Create the topics NAMES where they are missing; with --app and no names all that the app needs."""
    target = find_target("topics create", pipelines, broker)
    specs = asyncio.run(_create(target, names, partitions, compacted))
    created = [spec.name for spec in specs]
    click.echo(msgspec.json.encode({"topics": created}) if as_json else "\n".join(f"{name} is there" for name in created))


async def _list(target: Target) -> list[dict[str, str | int]]:
    async with target.connect() as transport:
        if target.app is None:
            counts = await transport.partition_counts(await transport.topics())
            return [{"name": name, "partitions": count} for name, count in sorted(counts.items())]
        plan = await visible_plan(transport, target.app.topology.plan())
        names = [spec.name for spec in plan.topic_specs()]
        counts = await transport.partition_counts(names)
        return [{"name": name, "partitions": counts.get(name, 0), "role": topic_role(plan, name)} for name in names]


async def _create(target: Target, names: Sequence[str], partitions: int | None, compacted: bool) -> list[TopicSpec]:
    """Create what the options ask for, internal topics of the epoch that the app is in."""
    _wanted(None if target.app is None else target.app.topology.plan(), names, partitions, compacted)  # refuses before it connects
    async with target.connect() as transport:
        plan = None if target.app is None else await visible_plan(transport, target.app.topology.plan())
        specs = _wanted(plan, names, partitions, compacted)
        await transport.ensure_topics(specs)
    return specs


def _wanted(plan: Plan | None, names: Sequence[str], partitions: int | None, compacted: bool) -> list[TopicSpec]:
    """Return what to create: as the app needs it, or as the options say.

    Raises:
        ConfigError: Nothing says which topics, or how many partitions.
    """
    known = {} if plan is None else {spec.name: spec for spec in plan.topic_specs(create_sources=True)}
    if not names:
        if not known:
            raise ConfigError("topics create: which topics? Name them, or give --app PIPELINES for all that an app needs")
        names = list(known)
    specs = []
    for name in names:
        if name in known and partitions is None and not compacted:
            specs.append(known[name])
            continue
        count = partitions or (None if plan is None else plan.partitions)
        if count is None:
            raise ConfigError(f"topics create {name}: give --partitions N")
        specs.append(TopicSpec(name, count, compacted=compacted))
    return specs
