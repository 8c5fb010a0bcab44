"""Dead letters: what cannot be processed goes to `<app>-dlq`, in the same transaction as everything else, with the reason.

A bad record keeps its key, value, timestamp and headers; a firing (timer, window close, match) has its key and no value. These
headers are added behind the record's own:

| header | |
|---|---|
| `topic`, `partition`, `offset` | where the record came from; not for a firing |
| `pipeline`, `operator` | who refused it; a record that cannot be decoded has all pipelines that read it, and operator `source` |
| `timer`, `timer_ms` | name and event time of a firing |
| `error`, `traceback` | what happened |
"""

import traceback

from engine.records import Headers

_TRACEBACK_MAX = 8_000


def record_headers(
    headers: Headers, *, topic: str, partition: int, offset: int, pipeline: str, operator: str, error: BaseException
) -> Headers:
    """Return the headers of a bad record's dead letter."""
    place = [("topic", topic.encode()), ("partition", b"%d" % partition), ("offset", b"%d" % offset)]
    return [*headers, *place, *_reason(pipeline, operator, error)]


def firing_headers(*, name: str, timestamp_ms: int, pipeline: str, operator: str, error: BaseException) -> Headers:
    """Return the headers of a failed firing's dead letter."""
    return [("timer", name.encode()), ("timer_ms", b"%d" % timestamp_ms), *_reason(pipeline, operator, error)]


def _reason(pipeline: str, operator: str, error: BaseException) -> list[tuple[str, bytes]]:
    text = "".join(traceback.format_exception(error))
    return [
        ("pipeline", pipeline.encode()),
        ("operator", operator.encode()),
        ("error", f"{type(error).__name__}: {error}".encode()),
        ("traceback", text[-_TRACEBACK_MAX:].encode()),
    ]
