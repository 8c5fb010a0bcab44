"""How streams meet: the checks and graph nodes behind `Stream.merge`, `join`, `lookup` and `as_of`.

What meets must be *co-partitioned*: equal keys lie in the same partition number, so that one task sees both. A stream whose key was
set by `key_by` goes through a repartition topic; one that comes from a source as it is has to be there already, and each record is
checked (`engine.operators.require_key`): another partitioner than Kafka's own is refused with that reason, not joined to nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.codecs import JsonCodec
from engine.durations import duration_ms
from engine.errors import ConfigError
from engine.graph import Node, SideSpec
from engine.operators.join import Bounds, How, JoinSpec, Within, join_operator
from engine.operators.merge import Merge

if TYPE_CHECKING:
    from engine.stream import Stream


def merge_streams(streams: "Sequence[Stream[Any, Any]]") -> "Stream[Any, Any]":
    """Return the union of streams: see `Stream.merge`."""
    first = streams[0]
    check_same_keys(streams, "merge")
    if any(stream._rekeyed != first._rekeyed for stream in streams):
        streams = [stream._co_partitioned("merge") for stream in streams]
    types = list(dict.fromkeys(stream._value_type for stream in streams))
    value_type: Any = Any if Any in types else types[0]
    for other_type in types[1:] if value_type is not Any else ():
        value_type = value_type | other_type
    node = Node("merge", "merge", inputs_of(streams), lambda context: Merge(context, len(streams)), first._key_type, value_type)
    return streams[0]._with(first._graph.add(node), value_type=value_type)


def join_streams(
    left: "Stream[Any, Any]",
    right: "Stream[Any, Any]",
    within: Within,
    how: How,
    bounds: Bounds,
    late_to: str | None,
    name: str,
) -> "Stream[Any, tuple[Any, Any]]":
    """Return the interval join of two streams: see `Stream.join`."""
    what = left._what(name)
    check_same_keys([left, right], name)
    if not isinstance(within, tuple) or len(within) != 2:
        raise ConfigError(f"{what}: within={within!r} is not a pair of durations; write one such as ('-1m', '5m')")
    lower_ms, upper_ms = (duration_ms(bound, f"within of {what}", minimum_ms=None) for bound in within)
    spec = JoinSpec(
        lower_ms,
        upper_ms,
        how,
        bounds=bounds,
        late_to=late_to,
        key_type=left._key_type,
        left_type=left._value_type,
        right_type=right._value_type,
    )
    make = join_operator(spec, what)
    streams = [left._placed(name), right._placed(name)]
    value_type = pair_type(left._value_type, right._value_type, how)
    sides = () if late_to is None else (SideSpec(late_to, JsonCodec(Any)),)
    signature = f"{name} {lower_ms} {upper_ms} {how}" + ("" if bounds == "[]" else f" {bounds}")
    node = Node("join", name, inputs_of(streams), make, left._key_type, value_type, signature, sides)
    return streams[0]._with(left._graph.add(node), value_type=value_type)


def check_same_keys(streams: "Sequence[Stream[Any, Any]]", operator: str) -> None:
    """Refuse streams that cannot meet.

    Raises:
        ConfigError: They belong to different pipelines, or their keys have different types.
    """
    first = streams[0]
    for other in streams[1:]:
        given = getattr(other, "_graph", None)
        if given is None:
            raise ConfigError(f"{first._what(operator)}: {other!r} is not a stream of this pipeline")
        if given is not first._graph:
            raise ConfigError(f"{first._what(operator)}: a stream of another pipeline cannot take part; name its source in @app.pipeline")
        if other._key_type != first._key_type:
            raise ConfigError(
                f"{first._what(operator)}: keys differ, {_name(first._key_type)} and {_name(other._key_type)}; use key_by first"
            )


def inputs_of(streams: "Sequence[Stream[Any, Any]]") -> tuple[tuple[Node, int], ...]:
    """Return the input ports of a node that reads streams in this order."""
    return tuple((stream._node, stream._output) for stream in streams)


def pair_type(left: Any, right: Any, how: str) -> Any:
    """Return the type of the pairs that a join gives."""
    if how in ("right", "outer"):
        left = left if left is Any else left | None
    if how in ("left", "outer"):
        right = right if right is Any else right | None
    return tuple.__class_getitem__((left, right))


def _name(key_type: Any) -> str:
    return getattr(key_type, "__name__", str(key_type))
