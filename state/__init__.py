"""State: a sorted store for each task, an overlay with undo over it, and the changelog that both follow.

overlay   TaskState: what operators see (keyed, mapped, timed, panes), undo, changes
store     the Store protocol; memory and rocks are its two implementations
changelog the records of a changelog partition, and when local state may be trusted
keys, values, hashing   the formats
"""

from state.errors import FencedError, StateError, StreamForgeError, UnavailableError
from state.hashing import key_hash, murmur2, partition_of
from state.keys import Codec, KeyCodec
from state.memory import MemoryStore
from state.overlay import KeyedCells, MapCells, Pane, PaneCells, TaskState, TimedCells
from state.rocks import RocksMemory, RocksStore
from state.store import Change, Position, Store
from state.values import dated_codec, json_codec, msgpack_codec, raw_codec, unit_codec

__all__ = [
    "Change",
    "Codec",
    "FencedError",
    "KeyCodec",
    "KeyedCells",
    "MapCells",
    "MemoryStore",
    "Pane",
    "PaneCells",
    "Position",
    "RocksMemory",
    "RocksStore",
    "StateError",
    "Store",
    "StreamForgeError",
    "TaskState",
    "TimedCells",
    "UnavailableError",
    "dated_codec",
    "json_codec",
    "key_hash",
    "msgpack_codec",
    "murmur2",
    "partition_of",
    "raw_codec",
    "unit_codec",
]
