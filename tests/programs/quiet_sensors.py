"""Which sensors reported and which were expected to: readings and schedules of the same minute."""

from typing import Any

from engine import App, Sink, Stream, Struct, bounded, windows


class Expected(Struct, frozen=True):
    sensor: str
    ts: int


class Reading(Struct, frozen=True):
    sensor: str
    celsius: float
    ts: int


def verdict(found: tuple[Expected | None, Reading | None]) -> dict[str, Any]:
    """What a minute tells of a sensor."""
    expected, reading = found
    if reading is None:
        return {"verdict": "silent"}
    return {"verdict": "fine" if expected is not None else "unexpected", "celsius": reading.celsius}


app = App("sensors", broker="memory://", partitions=2)
schedule = app.source("schedule", Expected, key="sensor", time="ts", watermark=bounded("5s"))
readings = app.source("readings", Reading, key="sensor", time="ts", watermark=bounded("5s"))


@app.pipeline(schedule, readings)
def check(schedule: Stream[str, Expected], readings: Stream[str, Reading]) -> Sink:
    """A verdict for each expected reading, minute by minute, and for readings that nobody expected."""
    return schedule.join(readings, within=windows.tumbling("1m"), how="outer").map(verdict).to("verdicts")
