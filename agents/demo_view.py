"""What the demo looks like in a terminal: figures and the newest result of each pipeline, four times a second; a table at the end."""

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agents.demo import Demo
from agents.payments import PAYMENTS

_REFRESH_S = 0.25
_YEAR_9999_MS = 253_402_300_799_000


async def show_progress(demo: Demo, running: Coroutine[object, object, None]) -> None:
    """Show a demo until it is over."""
    console = Console()
    shown = Speed()
    task = asyncio.create_task(running)
    with Live(console=console, refresh_per_second=1 / _REFRESH_S, transient=True, get_renderable=lambda: _frame(demo, shown)):
        await asyncio.wait([task])
    task.result()


def show_results(demo: Demo) -> None:
    """Print the final table: what each pipeline wrote, with an example."""
    results = demo.results()
    table = Table(title="What the shop and its watch found", title_justify="left")
    for heading in ("pipeline", "topic"):
        table.add_column(heading)
    table.add_column("records", justify="right")
    table.add_column("for example", overflow="fold")
    for pipeline, found in results["pipelines"].items():
        for topic, output in found["outputs"].items():
            newest = output["newest"]
            table.add_row(pipeline, topic, f"{output['records']:,}", Text(_short(newest[-1])) if newest else "")
    console = Console()
    console.print(table)
    late = sum(found["late"] for found in results["pipelines"].values())
    console.print(
        f"{demo.processed:,} records in {demo.seconds:.1f} s, {results['records_per_second']:,} a second; "
        f"{late:,} late, {results['dead_letters']:,} bad ones in the dead letters.",
        highlight=False,
    )
    if demo.avro is not None:
        subjects = ", ".join(f"{subject} (id {schema_id})" for subject, schema_id in demo.avro.subjects.items())
        console.print(f"Orders, page views and payments were Avro, their schemas at {demo.avro.url}: {subjects}.", highlight=False)


class Speed:
    """Records a second over the last few frames."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def rate(self, seconds: float, records: int) -> float:
        """Take note of a count and return the present rate."""
        self._seen = [*self._seen[-8:], (seconds, records)]
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def _frame(demo: Demo, speed: Speed) -> Table:
    processed = demo.processed
    sent = sum(demo.sent.values())
    figures = Text.assemble(
        ("StreamForge demo  ", "bold"),
        f"{processed:,} records, {speed.rate(demo.seconds, processed):,.0f} a second, lag {sent - processed:,}, ",
        f"watermark {_watermark(demo.shop.watermark_ms)}",
    )
    newest = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    newest.add_column(style="cyan", no_wrap=True, min_width=max(len(pipeline) for part in demo.parts for pipeline in part.plan.graphs))
    newest.add_column(no_wrap=True, overflow="ellipsis")
    for part in demo.parts:
        for pipeline in part.plan.graphs:
            values = part.newest(part.topics_of(pipeline)[0], 1)
            newest.add_row(pipeline, Text(_short(values[-1]) if values else "nothing yet"))
    frame = Table.grid()
    frame.add_row(figures)
    frame.add_row(ProgressBar(total=demo.events, completed=processed - demo.sent.get(PAYMENTS, 0), width=60))
    frame.add_row(newest)
    return frame


def _watermark(watermark_ms: int | None) -> str:
    if watermark_ms is None or watermark_ms < 0:
        return "not yet"
    return "end of input" if watermark_ms > _YEAR_9999_MS else _time(watermark_ms, "%Y-%m-%d %H:%M:%S")


def _short(value: Mapping[str, Any]) -> str:
    """Return a result on one line, with times and amounts as people write them."""
    parts = []
    for name, field in value.items():
        if name.endswith("_cents"):
            parts.append(f"{name.removesuffix('_cents').replace('_', ' ')} {field / 100:,.2f}")
        elif name.endswith("ts") or name.startswith("window_"):
            parts.append(f"{name.replace('_', ' ')} {_time(field, '%H:%M:%S')}")
        elif isinstance(field, Mapping):
            parts.append(_short(field))
        elif isinstance(field, list):
            parts.append(" + ".join(map(str, field)))
        elif isinstance(field, str) and field.partition("-")[0] in name:
            parts.append(field)
        else:
            parts.append(f"{name.replace('_', ' ')} {field}")
    return ", ".join(parts)


def _time(ms: int, form: str) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime(form)
