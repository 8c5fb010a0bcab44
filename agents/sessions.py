"""Visits of each user: page views until 30 minutes pass without one."""

from agents.records import PageView, Session
from agents.settings import app, page_views
from engine import Sink, Stream, agg, windows


@app.pipeline(page_views)
def sessions(views: Stream[str, PageView]) -> Sink:
    """Visits of each user: what was looked at, from which page to which."""
    return (
        views.window(windows.session("30m"))
        .aggregate(
            into=Session,
            key_as="user_id",
            views=agg.count(),
            pages=agg.distinct("page"),
            first_page=agg.first("page"),
            last_page=agg.last("page"),
        )
        .to("sessions")
    )
