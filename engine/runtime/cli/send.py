"""`streamforge send`: record lines from a file into a topic."""

import asyncio
import time
from pathlib import Path

import click
import msgspec

from engine.errors import RecordError
from engine.runtime.cli.connection import Target, find_target, partitions_of, target_options
from engine.runtime.placing import Placer, read_lines


@click.command()
@click.argument("topic")
@click.argument("file", type=click.Path(path_type=Path))
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def send(topic: str, file: Path, pipelines: str | None, broker: str | None, as_json: bool) -> None:
    """Send the record lines of FILE to TOPIC, in their order.

    With --app, keys and timestamps that the lines leave open are taken from the values, as the app's source reads them. Nothing
    is sent if a line is no record.
    """
    target = find_target("send", pipelines, broker)
    for _, bad in read_lines(file):
        if bad:
            raise RecordError(f"{bad[0]}; nothing was sent")
    sent = asyncio.run(_send(target, topic, file))
    click.echo(msgspec.json.encode({"topic": topic, "sent": sent}) if as_json else f"{sent:,} records sent to {topic}")


async def _send(target: Target, topic: str, file: Path) -> int:
    async with target.connect() as transport:
        partitions = await partitions_of(transport, topic)
        source = None if target.app is None else target.app.topology.sources.get(topic)
        placer = Placer(topic, len(partitions), None if source is None else source.spec, time.time_ns() // 1_000_000)
        for records, _ in read_lines(file):
            await transport.send(placer.place(records))
        return placer.records
