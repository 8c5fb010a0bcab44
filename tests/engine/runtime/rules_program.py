"""A program with live rules, for workers on a real Kafka."""

import os

from engine import App, Sink, Stream, Struct


class Event(Struct, frozen=True):
    """Something that a user did."""

    user: str
    kind: str
    cents: int
    ts: int


def make_app(name: str, *, partitions: int = 4) -> App:
    """Return the app; its topics begin with its name."""
    app = App(name, broker="memory://", partitions=partitions, commit_interval="100ms")
    events = app.source(f"{name}-events", Event, key="user", time="ts")
    rules = app.rules(f"{name}-rules")

    @app.pipeline(events)
    def alerts(events: Stream[str, Event]) -> Sink:
        """What the rules find."""
        return events.detect(rules=rules, history=3).to(f"{name}-alerts")

    return app


app = make_app(os.environ.get("RULES_APP", "rules-program"))
