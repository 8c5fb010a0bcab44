"""Sinks: from blocks to the bytes of a topic."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.block import Block
from engine.codecs import Codec, JsonCodec
from engine.keys import key_codec, wire_bytes
from engine.operators.base import Operator, OperatorContext
from engine.outputs import Outputs
from engine.records import Headers
from engine.tracing import trace_headers

if TYPE_CHECKING:
    from engine.graph import Node

_JSON: Codec[Any] = JsonCodec(Any)


class TopicSink(Operator):
    """Encode records and place them by their key."""

    def __init__(self, context: OperatorContext, node: "Node", outputs: Outputs) -> None:
        super().__init__(context)
        assert node.sink is not None
        self._topic = node.sink.topic
        self._codec = node.sink.codec
        self._select = None if node.sink.key is None else node.sink.key.get
        self._key_bytes = wire_bytes if self._select is not None else key_codec(node.key_type).wire
        self._outputs = outputs

    def process(self, block: Block, port: int = 0) -> None:
        if not len(block):
            return
        key_bytes = self._key_bytes
        keys: Sequence[Any] = block.keys if self._select is None else list(map(self._select, block.values))
        if None in keys:
            encoded: list[bytes | None] = [None if key is None else key_bytes(key) for key in keys]
        else:
            encoded = list(map(key_bytes, keys))
        values = self._codec.encode_column(block.values)
        self._outputs.add(self._topic, encoded, values, kafka_times(block.timestamps), trace_headers(block))


def encode_side(
    outputs: Outputs,
    topic: str,
    codec: Codec[Any] | None,
    keys: Sequence[Any],
    values: Sequence[Any],
    timestamps: Sequence[int],
    headers: Sequence[Headers] | None,
) -> None:
    """Send records of an operator's side output; a topic that was not declared gets JSON."""
    encoded = [None if key is None else wire_bytes(key) for key in keys]
    outputs.add(topic, encoded, (codec or _JSON).encode_column(values), kafka_times(timestamps), headers)


def kafka_times(timestamps: Sequence[int]) -> Sequence[int]:
    """Return timestamps as Kafka can store them: it has none before 1970."""
    if len(timestamps) and min(timestamps) < 0:
        return [max(0, timestamp_ms) for timestamp_ms in timestamps]
    return timestamps
