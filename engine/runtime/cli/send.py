"""`streamforge send`: record lines from a file into a topic."""

import asyncio
import time
from pathlib import Path

import click
import msgspec

from engine.errors import RecordError
from engine.records import TopicPartition
from engine.runtime.cli.connection import Target, find_target, partitions_of, target_options
from engine.runtime.placing import BadLine, Placer, bury, read_lines


@click.command()
@click.argument("topic")
@click.argument("file", type=click.Path(path_type=Path))
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def send(topic: str, file: Path, pipelines: str | None, broker: str | None, as_json: bool) -> None:
    """Send the record lines of FILE to TOPIC, in their order.

    With --app, keys and timestamps that the lines leave open are taken from the values, as the app's source reads them, and lines
    that are no records go to the app's dead letters. Without it there is no such place: nothing is sent if a line is no record.
    """
    target = find_target("send", pipelines, broker)
    if target.app is None:
        for _, bad in read_lines(file):
            if bad:
                raise RecordError(f"{bad[0]}; nothing was sent (with --app PIPELINES, bad lines go to the app's dead letters)")
    sent, bad_lines = asyncio.run(_send(target, topic, file))
    if bad_lines:
        click.echo(f"{len(bad_lines)} of the lines are not a record and went to the dead letters; {bad_lines[0]}", err=True)
    summary = {"topic": topic, "sent": sent, "bad_lines": [str(bad) for bad in bad_lines]}
    click.echo(msgspec.json.encode(summary) if as_json else f"{sent:,} records sent to {topic}")


async def _send(target: Target, topic: str, file: Path) -> tuple[int, list[BadLine]]:
    now_ms = time.time_ns() // 1_000_000
    bad_lines: list[BadLine] = []
    async with target.connect() as transport:
        partitions = await partitions_of(transport, topic)
        source = None if target.app is None else target.app.topology.sources.get(topic)
        placer = Placer(topic, len(partitions), None if source is None else source.spec, now_ms)
        for records, bad in read_lines(file):
            await transport.send(placer.place(records))
            bad_lines += bad
        if bad_lines and target.app is not None:
            plan = target.app.topology.plan()
            await transport.ensure_topics([spec for spec in plan.topic_specs() if spec.name == plan.dead_letter_topic])
            await transport.send({TopicPartition(plan.dead_letter_topic, 0): bury(bad_lines, now_ms)})
    return placer.records, bad_lines
