"""StreamForge: a stream engine in Python, on Kafka. These names are the public face; see the README for the guided tour."""

from msgspec import Struct

from engine import agg, cep, triggers, windows
from engine.cep import Match
from engine.codecs import Codec, JsonCodec
from engine.errors import ConfigError, RecordError
from engine.operators.process import Context, Timer
from engine.records import Record
from engine.runtime.app import App
from engine.state_handles import ListState, MapState, ValueState
from engine.stream import Sink, Stream
from engine.watermarks import bounded, monotonic

__all__ = [
    "App",
    "Codec",
    "ConfigError",
    "Context",
    "JsonCodec",
    "ListState",
    "MapState",
    "Match",
    "Record",
    "RecordError",
    "Sink",
    "Stream",
    "Struct",
    "Timer",
    "ValueState",
    "agg",
    "bounded",
    "cep",
    "monotonic",
    "triggers",
    "windows",
]
