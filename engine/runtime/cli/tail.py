"""`streamforge tail`: the records of a topic as record lines, as they come."""

import asyncio
import sys
from collections.abc import Mapping

import click

from engine.records import TopicPartition
from engine.runtime.cli.connection import Target, find_target, partitions_of, target_options
from engine.runtime.record_lines import format_batch
from engine.runtime.transport.protocol import Transport

_WAIT_S = 0.5


@click.command()
@click.argument("topic")
@target_options
@click.option("--from-start", is_flag=True, help="Begin with the oldest records instead of the next ones.")
@click.option("--no-follow", is_flag=True, help="Stop at the present end of the topic.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many records.")
def tail(topic: str, pipelines: str | None, broker: str | None, from_start: bool, no_follow: bool, limit: int | None) -> None:
    """Print the committed records of TOPIC as record lines, until Ctrl-C."""
    target = find_target("tail", pipelines, broker)
    asyncio.run(_tail(target, topic, Printer(limit), from_start=from_start, follow=not no_follow))


class Printer:
    """Writes lines to standard output, up to a limit."""

    def __init__(self, limit: int | None) -> None:
        self.left = limit

    @property
    def done(self) -> bool:
        """Whether the limit has been reached."""
        return self.left == 0

    def write(self, line: bytes) -> None:
        """Write a line, if there is room."""
        if not self.done:
            sys.stdout.buffer.write(line + b"\n")
            self.left = None if self.left is None else self.left - 1


async def _tail(target: Target, topic: str, printer: Printer, *, from_start: bool, follow: bool) -> None:
    async with target.connect() as transport:
        partitions = await partitions_of(transport, topic)
        ends = await transport.end_offsets(partitions)
        begins = await transport.begin_offsets(partitions) if from_start else ends
        if follow:
            await _follow(transport, begins, printer)
        else:
            for partition in partitions:
                await _print(transport, partition, begins[partition], ends[partition], printer)


async def _follow(transport: Transport, begins: Mapping[TopicPartition, int], printer: Printer) -> None:
    """Print all partitions at the same time; stop all when the limit is reached."""
    readers = [asyncio.create_task(_print(transport, partition, begin, None, printer)) for partition, begin in begins.items()]
    done, pending = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    for reader in pending:
        reader.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for reader in done:
        reader.result()


async def _print(transport: Transport, partition: TopicPartition, begin: int, end: int | None, printer: Printer) -> None:
    """Print a partition up to an offset, or without end, until the limit is reached."""
    reader = await transport.open_reader(partition, begin)
    try:
        while not printer.done and (end is None or reader.position < end):
            batch = await reader.read(_WAIT_S)
            if batch is None:
                continue
            for offset, line in zip(batch.offsets, format_batch(batch), strict=True):
                if end is None or offset < end:
                    printer.write(line)
            sys.stdout.buffer.flush()
    finally:
        await reader.close()
