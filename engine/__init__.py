"""StreamForge: a stream engine in Python, on Kafka. These names are the public face; see the README for the guided tour.

Names are loaded when they are first used, so that a part of the engine (its core in a test, a codec in a batch job) does not bring
in the worker and Faust.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgspec import Struct as Struct

    from engine import agg as agg
    from engine import cep as cep
    from engine import triggers as triggers
    from engine import windows as windows
    from engine.cep import Match as Match
    from engine.codecs import Codec as Codec
    from engine.codecs import JsonCodec as JsonCodec
    from engine.errors import ConfigError as ConfigError
    from engine.errors import RecordError as RecordError
    from engine.operators.process import Context as Context
    from engine.operators.process import Timer as Timer
    from engine.records import Record as Record
    from engine.runtime.app import App as App
    from engine.state_handles import ListState as ListState
    from engine.state_handles import MapState as MapState
    from engine.state_handles import ValueState as ValueState
    from engine.stream import Sink as Sink
    from engine.stream import Stream as Stream
    from engine.table import Table as Table
    from engine.watermark_generator import WatermarkGenerator as WatermarkGenerator
    from engine.watermarks import bounded as bounded
    from engine.watermarks import monotonic as monotonic

_HOMES = {
    "App": "engine.runtime.app",
    "Codec": "engine.codecs",
    "ConfigError": "engine.errors",
    "Context": "engine.operators.process",
    "JsonCodec": "engine.codecs",
    "ListState": "engine.state_handles",
    "MapState": "engine.state_handles",
    "Match": "engine.cep",
    "Record": "engine.records",
    "RecordError": "engine.errors",
    "Sink": "engine.stream",
    "Stream": "engine.stream",
    "Struct": "msgspec",
    "Table": "engine.table",
    "Timer": "engine.operators.process",
    "ValueState": "engine.state_handles",
    "WatermarkGenerator": "engine.watermark_generator",
    "bounded": "engine.watermarks",
    "monotonic": "engine.watermarks",
}
_MODULES = ("agg", "cep", "triggers", "windows")

__all__ = [
    "App", "Codec", "ConfigError", "Context", "JsonCodec", "ListState", "MapState", "Match", "Record", "RecordError", "Sink",
    "Stream", "Struct", "Table", "Timer", "ValueState", "WatermarkGenerator", "agg", "bounded", "cep", "monotonic", "triggers", "windows",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"engine.{name}")
    raise AttributeError(f"module 'engine' has no attribute {name!r}")
