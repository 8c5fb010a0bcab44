"""`streamforge run`: pipelines over files, in this process, with no network."""

import logging
from pathlib import Path

import click
import msgspec

from engine.runtime.app import App
from engine.runtime.file_run import FileRun, run_files, summary
from engine.runtime.loading import load_app


class TopicFile(click.ParamType):
    """TOPIC=FILE."""

    name = "TOPIC=FILE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Split at the first equals sign."""
        topic, equals, path = str(value).partition("=")
        if not topic or not equals or not path:
            self.fail(f"{value!r} is not TOPIC=FILE, such as orders=orders.jsonl", param, ctx)
        return topic, Path(path)


@click.command()
@click.argument("pipelines")
@click.option("--input", "inputs", type=TopicFile(), multiple=True, required=True, help="Source topic and file of record lines; repeat it.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for <topic>.jsonl of each output topic."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def run(pipelines: str, inputs: tuple[tuple[str, Path], ...], output: Path, as_json: bool) -> None:
    """Run PIPELINES over files until all input is used up and every window is closed.

    PIPELINES is a module, module:app or file.py. A record line is a JSON object of which only "value" is needed:
    {"topic", "partition", "offset", "timestamp_ms", "key", "value", "headers"}.
    """
    logging.getLogger("engine").addHandler(logging.NullHandler())  # what ends a run is said once, by its exception
    result = run_files(load_app(pipelines, App).topology, inputs, output)
    if as_json:
        click.echo(msgspec.json.encode(summary(result)))
    else:
        click.echo(describe(result, output))
    if result.bad_lines:
        count = len(result.bad_lines)
        click.echo(
            f"{count} line{'s are' if count > 1 else ' is'} not a record and went to the dead letters; {result.bad_lines[0]}", err=True
        )


def describe(result: FileRun, output: Path) -> str:
    """Return the summary for people."""
    records_in, records_out = sum(result.records_in.values()), sum(result.records_out.values())
    rate = records_in / result.seconds if result.seconds else 0
    topics = "".join(f"{topic:24} {count:>12,}\n" for topic, count in result.records_out.items())
    return (
        f"{topics}{records_in:,} records in, {records_out:,} out, {result.late:,} late, {result.dead_letters:,} dead letters, "
        f"{result.seconds:.1f} s ({rate:,.0f} records/s), written to {output}"
    )
