"""`streamforge transactions`: what is open in the topics of an app, and ending what hangs.

    streamforge transactions list -A shop.py
    shop-changelog-1-3@48122 of producer 7 epoch 4 (shop-3): hanging, its end was decided: commit
    streamforge transactions end shop-changelog-1-3@48122 -A shop.py

A broker can lose the end of a transaction (KAFKA-20734): then no reader gets past it, also not the task itself when it is opened. The end
that is written is the one that the coordinator decided. Only where its log does not say any more has a person to choose, and cannot know.
"""

import asyncio
from collections.abc import Sequence

import click
import msgspec

from engine.errors import ConfigError
from engine.records import TopicPartition
from engine.runtime.cli.connection import Target, find_target, target_options
from engine.runtime.epochs import visible_plan
from engine.runtime.transport.open_transactions import Decision, OpenTransaction
from engine.runtime.transport.protocol import Transport


@click.group()
def transactions() -> None:
    """List open transactions, and end those that hang."""


@transactions.command("list")
@target_options
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated.")
@click.option("--hanging", "only_hanging", is_flag=True, help="Only those that hang.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a transaction.")
def list_transactions(pipelines: str | None, broker: str | None, topics: tuple[str, ...], only_hanging: bool, as_json: bool) -> None:
    """List what is open in the topics of an app, or without --app in all topics of the broker: place, producer, whether it hangs."""
    target = find_target("transactions list", pipelines, broker)
    found = [each for each in asyncio.run(_find(target, topics)) if each.hangs or not only_hanging]
    for each in found:
        click.echo(msgspec.json.encode(as_row(each)) if as_json else str(each))
    if not found and not as_json:
        click.echo("no transaction hangs" if only_hanging else "no transaction is open")


@transactions.command("end")
@click.argument("places", nargs=-1, metavar="[TOPIC-PARTITION@OFFSET]...")
@target_options
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="All that hang and whose end was decided.")
@click.option("--unknown", type=click.Choice(["commit", "abort"]), help="How to end a named one of which the log says nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a transaction that was ended.")
def end_transactions(
    places: tuple[str, ...],
    pipelines: str | None,
    broker: str | None,
    topics: tuple[str, ...],
    everything: bool,
    unknown: Decision | None,
    as_json: bool,
) -> None:
    """End transactions that hang, each as its coordinator decided. Needs the right to alter the cluster.

    Those that are running are left alone. One whose decision cannot be found is ended only if it is named, by --unknown: with the wrong
    end a result is lost or comes twice.
    """
    if bool(places) == everything:
        raise ConfigError("transactions end: name transactions (topic-partition@offset, as `transactions list` prints them), or give --all")
    if everything and unknown is not None:
        raise ConfigError("transactions end: --unknown is for transactions that are named, each looked at by a person")
    target = find_target("transactions end", pipelines, broker)
    ended, left = asyncio.run(_end(target, places, topics, unknown))
    for each, decided in ended:
        click.echo(msgspec.json.encode(as_row(each) | {"ended": decided}) if as_json else f"{each.place} is ended: {decided}")
    if not ended and not left and not as_json:
        click.echo("no transaction hangs")
    if left:
        raise ConfigError(
            f"transactions end: {'; '.join(map(str, left))}. Name them, with --unknown commit or --unknown abort: commit if other "
            "partitions of the same transaction have it committed, else abort"
        )


def as_row(transaction: OpenTransaction) -> dict[str, object]:
    """Return a transaction for JSON."""
    row = msgspec.to_builtins(transaction)
    topic, number = transaction.partition
    return {"place": transaction.place, "topic": topic, **row, "partition": number}


async def _partitions(target: Target, transport: Transport, topics: Sequence[str]) -> list[TopicPartition]:
    """Return the partitions of the topics that are meant."""
    if topics:
        names = list(topics)
    elif target.app is None:
        names = await transport.topics()
    else:
        names = [spec.name for spec in (await visible_plan(transport, target.app.topology.plan())).topic_specs()]
    counts = await transport.partition_counts(names)
    missing = sorted(set(topics) - counts.keys())
    if missing:
        raise ConfigError(f"topic {missing[0]!r} does not exist")
    return [TopicPartition(name, number) for name in sorted(counts) for number in range(counts[name])]


async def _find(target: Target, topics: Sequence[str]) -> list[OpenTransaction]:
    async with target.connect() as transport:
        return await transport.open_transactions(await _partitions(target, transport, topics))


async def _end(
    target: Target, places: Sequence[str], topics: Sequence[str], unknown: Decision | None
) -> tuple[list[tuple[OpenTransaction, Decision]], list[OpenTransaction]]:
    """End what hangs (all, or what is named); return what was ended and how, and what is left because nobody knows its end."""
    async with target.connect() as transport:
        found = await transport.open_transactions(await _partitions(target, transport, topics))
        if places:
            by_place = {each.place: each for each in found}
            absent = [place for place in places if place not in by_place]
            if absent:
                raise ConfigError(f"transactions end: nothing is open at {', '.join(absent)}")
            found = [by_place[place] for place in places]
            running = [each for each in found if not each.hangs]
            if running:
                raise ConfigError(f"transactions end: {'; '.join(map(str, running))}: its producer or its time-out ends it")
        ended, left = [], []
        for each in found:
            decided = each.decided or (unknown if places else None)
            if not each.hangs:
                continue
            if decided is None:
                left.append(each)
                continue
            await transport.end_transaction(each, decided)
            ended.append((each, decided))
        return ended, left
