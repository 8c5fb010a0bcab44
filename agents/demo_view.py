"""What the demo looks like in a terminal: figures and the newest result of each pipeline, four times a second; a table at the end."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agents.demo import Demo

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
    table = Table(title="What the shop found", title_justify="left")
    for heading in ("pipeline", "topic"):
        table.add_column(heading)
    table.add_column("records", justify="right")
    table.add_column("for example", overflow="fold")
    for pipeline, found in results["pipelines"].items():
        for topic, output in found["outputs"].items():
            newest = output["newest"]
            table.add_row(pipeline, topic, f"{output['records']:,}", _short(newest[-1]) if newest else "")
    console = Console()
    console.print(table)
    late = sum(found["late"] for found in results["pipelines"].values())
    console.print(
        f"{demo.processed:,} records in {demo.seconds:.1f} s, {results['records_per_second']:,} a second; "
        f"{late:,} late, {results['dead_letters']:,} bad ones in the dead letters.",
        highlight=False,
    )


class Speed:
    """Records a second over the last few frames."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def rate(self, seconds: float, records: int) -> float:
        """Take note of a count and return the present rate."""
        self._seen = [*self._seen[-8:], (seconds, records)]
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def _frame(demo: Demo, speed: Speed) -> Group:
    processed = demo.processed
    sent = sum(demo.sent.values())
    figures = Text.assemble(
        ("StreamForge demo  ", "bold"),
        f"{processed:,} of {demo.events:,} records   {speed.rate(demo.seconds, processed):,.0f}/s   lag {sent - processed:,}   ",
        f"watermark {_clock_time(demo.watermark_ms)}   {demo.seconds:.0f} s",
    )
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for pipeline in demo.plan.graphs:
        newest = demo.newest(demo.topics_of(pipeline)[0], 1)
        table.add_row(pipeline, _short(newest[-1]) if newest else "…")
    return Group(figures, ProgressBar(total=demo.events, completed=processed, width=60), table)


def _clock_time(watermark_ms: int | None) -> str:
    if watermark_ms is None or watermark_ms < 0:
        return "not yet"
    if watermark_ms > _YEAR_9999_MS:
        return "end of input"
    return datetime.fromtimestamp(watermark_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _short(value: object) -> str:
    return msgspec.json.encode(value).decode().replace('"', "").strip("{}").replace(",", ", ").replace(":", " ")
