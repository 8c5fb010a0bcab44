"""Dead letters: what cannot be processed goes to `<app>-dlq`, in the same transaction as everything else, with the reason.

A bad record keeps its key, value, timestamp and headers; a firing (timer, window close, match) has its key and no value. These
headers are added behind the record's own:

| header | |
|---|---|
| `topic`, `partition`, `offset` | where the record came from; not for a firing |
| `pipeline`, `operator` | who refused it; a record that cannot be decoded has all pipelines that read it, and operator `source` |
| `timer`, `timer_ms` | name and event time of a firing |
| `error`, `traceback` | what happened |
| `left_out` | bytes of the key, value and own headers, where they are more than the topic takes: look for them where the record was |
"""

import traceback
from functools import lru_cache

from engine.records import Headers

_TRACEBACK_MAX = 8_000
_ERROR_MAX = 8_000


def record_headers(
    headers: Headers, *, topic: str, partition: int, offset: int, pipeline: str, operator: str, error: BaseException
) -> Headers:
    """Return the headers of a bad record's dead letter."""
    place = [("topic", topic.encode()), ("partition", b"%d" % partition), ("offset", b"%d" % offset)]
    return [*headers, *place, *_reason(pipeline, operator, error)]


def firing_headers(*, name: str, timestamp_ms: int, pipeline: str, operator: str, error: BaseException) -> Headers:
    """Return the headers of a failed firing's dead letter."""
    return [("timer", name.encode()), ("timer_ms", b"%d" % timestamp_ms), *_reason(pipeline, operator, error)]


def without_payload(key: bytes | None, value: bytes | None, headers: Headers, own: int) -> tuple[None, None, Headers]:
    """Return a dead letter that only says where its record or firing is and why it came here; the first `own` headers are the record's."""
    size = len(key or b"") + len(value or b"") + sum(len(name) + len(content or b"") for name, content in headers[:own])
    return None, None, [*headers[own:], ("left_out", b"%d" % size)]


def _reason(pipeline: str, operator: str, error: BaseException) -> list[tuple[str, bytes]]:
    return [
        ("pipeline", pipeline.encode()),
        ("operator", operator.encode()),
        ("error", f"{type(error).__name__}: {error}"[:_ERROR_MAX].encode()),
        ("traceback", _text_of(error)[-_TRACEBACK_MAX:].encode()),
    ]


def _text_of(error: BaseException) -> str:
    """Return the traceback. Where one place raises for record after record, its lines are put together once."""
    told: set[int] = set()
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and id(cause) not in told:
        told.add(id(cause))
        frames = tuple((frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(cause.__traceback__))
        parts.append("".join(["Traceback (most recent call last):\n", _stack(frames), *traceback.format_exception_only(cause)]))
        if cause.__cause__ is not None:
            cause = cause.__cause__
            parts.append("\nThe above exception was the direct cause of the following exception:\n\n")
        else:
            cause = None if cause.__suppress_context__ else cause.__context__
            parts.append("\nDuring handling of the above exception, another exception occurred:\n\n")
    return "".join(reversed(parts[: 2 * len(told) - 1]))


@lru_cache(maxsize=256)
def _stack(frames: tuple[tuple[str, int, str], ...]) -> str:
    return "".join(traceback.format_list([traceback.FrameSummary(*frame) for frame in frames]))
