"""Readings of sensors that come late: five minutes are waited for, what comes later is kept aside."""

from engine import App, Sink, Stream, Struct, agg, bounded, windows


class Reading(Struct, frozen=True):
    sensor: str
    celsius: float
    ts: int


app = App("climate", broker="memory://", partitions=4)
readings = app.source("readings", Reading, key="sensor", time="ts", watermark=bounded("0s"))


@app.pipeline(readings)
def climate(readings: Stream[str, Reading]) -> Sink:
    """Hourly mean and maximum of each sensor."""
    return (
        readings.window(windows.tumbling("1h"), lateness="5m", late_to="readings-late")
        .aggregate(mean=agg.mean("celsius"), highest=agg.max("celsius"))
        .to("climate")
    )
