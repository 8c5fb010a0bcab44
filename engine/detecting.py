"""What `Stream.detect` adds to the graph: for a pattern, and for a MATCH_RECOGNIZE clause.

A clause keys the stream by PARTITION BY, and gives its rows as dicts. Its ORDER BY must be the event time. Which field that is can be
known as long as the values are those of a source; where they are not (after `map`, say), the column `timestamp_ms` always is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from engine.cep import Match, Pattern, Skip
from engine.cep.matcher import OnTooMany
from engine.cep.recognize import Recognizer
from engine.cep.recognize.measures import Recognized
from engine.codecs import JsonCodec
from engine.errors import ConfigError
from engine.graph import Node, SideSpec
from engine.operators.arrivals import Ties
from engine.operators.base import OperatorContext
from engine.operators.detect import Detect, detect_operator
from engine.operators.history import HISTORY_MAX
from engine.operators.pending import PENDING_MS
from engine.selectors import compile_selector

if TYPE_CHECKING:
    from engine.stream import Stream

_SAME_VALUES = ("filter", "branch", "key_by", "repartition", "require_key", "require_place", "merge", "in_event_time_order")
_SAME_KEYS = ("filter", "branch", "repartition", "require_key", "require_place", "merge", "in_event_time_order", "map", "flat_map")
_DEADLINE_PANE_MS = 60_000


class DetectKeywords(TypedDict, total=False):
    """The arguments of `Stream.detect` that are the same for a pattern, a clause and rules."""

    name: str
    late_to: str | None
    timeouts_to: str | None
    max_partials: int
    max_records: int
    on_too_many: OnTooMany
    history: int


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """What is the same for both: see `Stream.detect`."""

    name: str
    late_to: str | None
    max_partials: int
    max_records: int
    on_too_many: OnTooMany
    history: int = 0

    def check(self, what: str) -> None:
        """Refuse limits that are none, what is to happen beyond them that is not known, and a length of the history that is none."""
        for option, limit in (("max_partials", self.max_partials), ("max_records", self.max_records)):
            if type(limit) is not int or limit < 1:
                raise ConfigError(f"{what}: {option}={limit!r}: a positive number is needed")
        if self.on_too_many not in ("drop_oldest", "drop_newest", "fail"):
            raise ConfigError(f"{what}: on_too_many={self.on_too_many!r} is not known; use 'drop_oldest', 'drop_newest' or 'fail'")
        if type(self.history) is not int or not 0 <= self.history <= HISTORY_MAX:
            raise ConfigError(f"{what}: history={self.history!r}: how many matches and near misses to keep of a key, 0 to {HISTORY_MAX}")


def detect_matches(
    stream: "Stream[Any, Any]", pattern: Pattern, options: DetectOptions, skip: Skip, timeouts_to: str | None, ties: Ties | None
) -> tuple["Stream[Any, Any]", Node]:
    """Return the stream as the operator reads it, and the operator, which gives `Match` records."""
    name, late_to = options.name, options.late_to
    keyed = stream._keyed(name)
    if not isinstance(pattern, Pattern):
        raise ConfigError(f"{stream._what(name)}: {pattern!r} is not a pattern; start one with cep.begin('name')")
    make = detect_operator(
        pattern,
        skip=skip,
        timeouts_to=timeouts_to,
        late_to=late_to,
        value_type=keyed._value_type,
        key_type=keyed._key_type,
        max_partials=options.max_partials,
        max_records=options.max_records,
        on_too_many=options.on_too_many,
        ties=ties,
        history=options.history,
    )
    sides = [SideSpec(topic, JsonCodec(Any)) for topic in (timeouts_to, late_to) if topic is not None]
    signature = f"detect {name} {pattern.signature} {skip.kind}"
    return keyed, keyed._node_after("detect", make, name=name, value_type=Match, signature=signature, sides=sides)


def detect_rows(
    stream: "Stream[Any, Any]", recognizer: Recognizer, options: DetectOptions, timeouts_to: str | None
) -> "Stream[Any, dict[str, Any]]":
    """Return the stream of rows that a clause gives.

    Raises:
        ConfigError: The clause does not fit the stream; the message points at the place where it can.
    """
    name, late_to = options.name, options.late_to
    what = stream._what(name)
    if options.on_too_many not in ("drop_oldest", "fail"):
        raise ConfigError(
            f"{what}: on_too_many={options.on_too_many!r} is not for SQL, which tries one row after another; use 'drop_oldest' or 'fail'"
        )
    if timeouts_to is not None and recognizer.query.within_ms is None:
        raise ConfigError(f"{what}: timeouts_to={timeouts_to!r}: without a limit nothing runs out of time; give the clause a WITHIN")
    if timeouts_to is not None and timeouts_to == late_to:
        raise ConfigError(f"{what}: timeouts_to and late_to are the same topic {late_to!r}; give each its own")
    recognizer.check_order(times_of(stream._node), stream._value_type)
    keyed = _partitioned(stream, recognizer)._keyed(name)
    value_type, key_type = keyed._value_type, keyed._key_type
    ties = recognizer.ties(value_type)
    # Its rows are shared by all open ways through the pattern, so both limits are one.
    limit = min(options.max_partials, options.max_records)
    matcher = recognizer.matcher(value_type, max_partials=limit, on_too_many=options.on_too_many, timeouts=timeouts_to is not None)
    within_ms = recognizer.query.within_ms or _DEADLINE_PANE_MS

    def make(context: OperatorContext) -> Detect:
        return Detect(
            context,
            matcher,
            key_type=key_type,
            value_type=value_type,
            timeouts_to=timeouts_to,
            late_to=late_to,
            ties=ties,
            deadline_pane_ms=min(max(within_ms // 256, PENDING_MS), 3_600_000),
            history=options.history,
        )

    sides = [SideSpec(topic, JsonCodec(Any)) for topic in (timeouts_to, late_to) if topic is not None]
    signature = f"detect {name} {recognizer.signature}"
    node = keyed._node_after("detect", make, name=name, value_type=Recognized, signature=signature, sides=sides)
    return keyed._with(node, value_type=Recognized).map(_row_of)


def _row_of(found: Recognized) -> dict[str, Any]:
    return found.row


def times_of(node: Node) -> set[str | None]:
    """Return the fields that hold the event time; None among them where it is not known."""
    if node.source is not None:
        return {None if node.source.time is None else node.source.time.field}
    if node.kind not in _SAME_VALUES:
        return {None}
    return set().union(*(times_of(before) for before, _ in node.inputs))


def _partitioned(stream: "Stream[Any, Any]", recognizer: Recognizer) -> "Stream[Any, Any]":
    """Return the stream keyed by the columns of PARTITION BY."""
    columns = recognizer.query.partition_by
    if len(columns) == 1 and keys_of(stream._node) == {columns[0].name}:
        return stream
    names = [column.name for column in columns]
    try:
        return stream.key_by(names[0]) if len(names) == 1 else stream.key_by(_several(names, stream._value_type))
    except ConfigError as error:
        recognizer.fail(columns[0], f"the stream cannot be partitioned by {', '.join(names)}: {error}")


def keys_of(node: Node) -> set[str | None]:
    """Return the fields that the key of a stream was read from; None among them where it is not known."""
    if node.source is not None:
        return {None if node.source.key is None else node.source.key.field}
    if node.kind == "key_by":
        return {node.key_field}
    if node.kind not in _SAME_KEYS:
        return {None}
    return set().union(*(keys_of(before) for before, _ in node.inputs))


def _several(names: list[str], value_type: Any) -> Callable[[Any], Any]:
    """Return a selector of several fields: a Struct with a field for each."""
    columns = [compile_selector(name, value_type, "PARTITION BY") for name in names]
    fields = [(name.replace(".", "_"), column.type) for name, column in zip(names, columns, strict=True)]
    key_type = msgspec.defstruct("PartitionKey", fields, frozen=True)
    getters = [column.get for column in columns]

    def key(value: Any) -> Any:
        return key_type(*[get(value) for get in getters])

    key.__annotations__["return"] = key_type
    return key
