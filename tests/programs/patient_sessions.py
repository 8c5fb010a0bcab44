"""Visits with a gap of their own: a checkout may take longer than looking around before the visit counts as over."""

from engine import App, Sink, Stream, Struct, agg, monotonic, windows

LOOKING_MS, BUYING_MS = 10 * 60_000, 60 * 60_000


class View(Struct, frozen=True):
    user_id: str
    page: str
    ts: int


class Visit(Struct, frozen=True):
    user_id: str
    window_start: int
    window_end: int
    pages: list[str]


def gap_ms(view: View) -> int:
    """How long nothing may happen after a view."""
    return BUYING_MS if view.page == "checkout" else LOOKING_MS


app = App("visits", broker="memory://", partitions=4)
views = app.source("views", View, key="user_id", time="ts", watermark=monotonic())


@app.pipeline(views)
def visits(views: Stream[str, View]) -> Sink:
    """The pages of each visit."""
    return views.window(windows.session(gap_ms)).aggregate(into=Visit, key_as="user_id", pages=agg.collect("page", limit=100)).to("visits")
