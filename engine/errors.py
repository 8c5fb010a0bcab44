"""Errors, told apart by what the caller does about them.

| error              | who acts, and how                                                                    |
|--------------------|--------------------------------------------------------------------------------------|
| `ConfigError`      | the developer: fix the declaration or the settings, and start again                  |
| `StoredTypeError`  | the developer too: stored state has another type than is declared now                |
| `RecordError`      | nobody: this record is bad, the same every time; it goes to the dead-letter topic    |
| `StateError`       | the worker: local state is unusable; delete it and restore from the changelog        |
| `DiskError`        | the worker: the disk takes no more; try again, the state is as it was                |
| `FencedError`      | the worker: no longer the owner; drop the task without a commit and rejoin           |
| `UnavailableError` | the worker: retry with bounded back-off                                              |

A failed `assert` is a bug of this engine: it crashes the worker, on purpose.
"""

from state.errors import ConfigError, DiskError, FencedError, StateError, StoredTypeError, StreamForgeError, UnavailableError


class RecordError(StreamForgeError):
    """A record can never be processed (undecodable, or rejected by user code)."""


__all__ = [
    "ConfigError",
    "DiskError",
    "FencedError",
    "RecordError",
    "StateError",
    "StoredTypeError",
    "StreamForgeError",
    "UnavailableError",
]
