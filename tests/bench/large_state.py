"""The app of `tests.bench.recovery`: one task that remembers a text of each user, and numbers what they send."""

from collections.abc import Iterator
from typing import Any

from engine import App, Context, Record, Sink, Stream, Struct, ValueState

app = App("large", broker="memory://", partitions=1, broker_session_timeout=3, checkpoint_interval="3s")


class Visit(Struct, frozen=True):
    """A visit of a user."""

    user: str
    text: str


class Seen(Struct):
    """What is remembered of a user: an entry of the state, some 100 bytes with its key."""

    visits: int
    text: str


visits = app.source("visits", Visit, key="user")


class Remember:
    """Counts the visits of a user, and keeps the last text."""

    seen = ValueState(Seen)

    def on_record(self, record: Record[str, Visit], ctx: Context) -> Iterator[dict[str, Any]]:
        """Count."""
        before = self.seen.get()
        self.seen.set(Seen(1 if before is None else before.visits + 1, record.value.text))
        yield {"user": ctx.key, "visits": 1 if before is None else before.visits + 1}


@app.pipeline(visits)
def seen(visits: Stream[str, Visit]) -> Sink:
    """How often each user has come."""
    return visits.process(Remember).to("seen")
