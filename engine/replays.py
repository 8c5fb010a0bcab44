"""Replays: a dead letter goes back into the topic where its record was, after the reason is gone.

    orders ──► revenue   took o-7                      orders ◄── o-7 again, header `streamforge-replay`:
           ──► fraud     refused o-7  ──►  shop-dlq               {"app":"shop","pipelines":["fraud"],"attempt":1,…}

A record is undone only in the pipeline that refused it; others have it. So a replayed record carries a header that says for whom it
is, and the tasks of every other pipeline, and of every other app, pass it over (counter `replays_passed_over`). The header also
keeps the history: the number of attempts, where the record stood first, and why each attempt failed. A replayed record that fails
again brings it along into its next letter.

A record that failed behind a repartition goes back into the repartition topic: what stands before has taken it. Its time is its
own: a window that has closed meanwhile calls it late. Readers that are not StreamForge apps see it as one more record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from engine.records import Headers, RecordBatch

if TYPE_CHECKING:
    from engine.plan import Plan

REPLAY_HEADER = "streamforge-replay"
_ERRORS_MAX = 20
_REASON = ("pipeline", "operator", "error", "traceback")
_RECORD_REASON = ("topic", "partition", "offset", *_REASON)
_FIRING_REASON = ("timer", "timer_ms", *_REASON)
_LINE_REASON = ("file", "line", "error")


class Replay(msgspec.Struct, frozen=True):
    """What the header of a replayed record says.

    Attributes:
        pipelines: Those that refused it: only they take it.
        attempt: 1 for the first replay.
        origin: "topic/partition/offset" of the record that failed first.
        letter: "partition/offset" of the dead letter that was replayed.
        errors: Why the attempts before this one failed, the first one first; of many the last ones.
    """

    app: str
    pipelines: tuple[str, ...]
    attempt: int
    origin: str
    letter: str
    errors: tuple[str, ...]

    def is_for(self, app: str, pipeline: str) -> bool:
        """Return whether a pipeline takes the record."""
        return app == self.app and pipeline in self.pipelines


_decode = msgspec.json.Decoder(Replay).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of `<app>-dlq`, taken apart.

    Attributes:
        partition, offset: Of the letter.
        headers: The record's own, without the reason and without what an earlier replay added.
        topic, source_partition, source_offset: Where the record stood; "" and -1 if it stood in no topic.
        pipelines: Those that refused it.
        timer, timer_ms: Of a firing.
        file, line: Of a line that was no record.
        history: What the record carried if it had been replayed before.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers
    topic: str = ""
    source_partition: int = -1
    source_offset: int = -1
    pipelines: tuple[str, ...] = ()
    operator: str = ""
    error: str = ""
    traceback: str = ""
    timer: str | None = None
    timer_ms: int | None = None
    file: str = ""
    line: int = 0
    history: Replay | None = None

    @property
    def name(self) -> str:
        """Its place in the dead-letter topic, as people write it: "3/17"."""
        return f"{self.partition}/{self.offset}"

    def replay_headers(self, app: str) -> Headers:
        """Return the headers of its record when it is replayed: its own, and the one that says for whom and why."""
        past = self.history
        origin = f"{self.topic}/{self.source_partition}/{self.source_offset}" if past is None else past.origin
        errors = (*(() if past is None else past.errors), f"{self.operator}: {self.error}")[-_ERRORS_MAX:]
        replay = Replay(app, self.pipelines, 1 if past is None else past.attempt + 1, origin, self.name, errors)
        return [*self.headers, (REPLAY_HEADER, _encode(replay))]


def refusal(letter: DeadLetter, plan: "Plan") -> str | None:
    """Return why a letter cannot be replayed, None if it can."""
    if letter.timer is not None:
        return "it is of a timer or a window's close, which is used up; there is no record to send again"
    if not letter.topic:
        return "it is no record of a topic; mend the line and send it" if letter.file else "it does not say where it came from"
    if letter.topic in plan.broadcasts:
        return f"{letter.topic!r} is read by every task, and some have it; send the row once more instead"
    if letter.topic not in plan.input_topics:
        return f"app {plan.app_id!r} does not read {letter.topic!r} any more"
    if not 0 <= letter.source_partition < plan.partitions:
        return f"{letter.topic!r} has no partition {letter.source_partition} any more"
    gone = [name for name in letter.pipelines if name not in plan.readers(letter.topic)]
    if gone or not letter.pipelines:
        return f"pipeline {', '.join(gone) or '?'} does not read {letter.topic!r} any more, and nobody else may take it"
    return None


def replays_in(batch: RecordBatch) -> dict[int, Replay]:
    """Return the replayed records of a batch, by row; worked out once for all that ask."""
    if batch.read_headers is None:
        return {}
    found: dict[int, Replay] | None = batch.attached.get(REPLAY_HEADER)
    if found is None:
        found = {}
        for row, headers in enumerate(batch.headers):
            if headers and (replay := _replay_of(headers)) is not None:
                found[row] = replay
        batch.attached[REPLAY_HEADER] = found
    return found


def _replay_of(headers: Headers) -> Replay | None:
    for name, value in headers:
        if name == REPLAY_HEADER:
            try:
                return _decode(value)
            except msgspec.DecodeError:
                return None  # somebody else's header of that name
    return None


def read_letter(partition: int, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers) -> DeadLetter:
    """Return a record of the dead-letter topic, taken apart; one that nobody of us wrote has no reason."""
    own, reason = _split(headers)
    found: dict[str, Any] = {}
    if "topic" in reason:
        found = {"topic": reason["topic"], "source_partition": int(reason["partition"]), "source_offset": int(reason["offset"])}
    elif "timer" in reason:
        found = {"timer": reason["timer"], "timer_ms": int(reason["timer_ms"])}
    elif "file" in reason:
        found = {"file": reason["file"], "line": int(reason["line"])}
    history = _replay_of(own)
    if history is not None:
        own = [pair for pair in own if pair[0] != REPLAY_HEADER]
    return DeadLetter(
        partition,
        offset,
        key,
        value,
        timestamp_ms,
        tuple(own),
        pipelines=tuple(filter(None, reason.get("pipeline", "").split(","))),
        operator=reason.get("operator", ""),
        error=reason.get("error", ""),
        traceback=reason.get("traceback", ""),
        history=history,
        **found,
    )


def _split(headers: Headers) -> tuple[Sequence[tuple[str, bytes]], dict[str, str]]:
    """Return the record's own headers and those of the reason, which stand behind them."""
    names = tuple(name for name, _ in headers)
    for reason in (_RECORD_REASON, _FIRING_REASON, _LINE_REASON):
        if names[-len(reason) :] == reason:
            place = len(headers) - len(reason)
            return headers[:place], {name: value.decode(errors="replace") for name, value in headers[place:]}
    return headers, {}
