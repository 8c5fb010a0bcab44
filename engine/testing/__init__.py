"""Testing pipelines: `TestDriver` runs the genuine tasks of an app, synchronously, without a broker."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.testing.driver import TestDriver as TestDriver

__all__ = ["TestDriver"]


def __getattr__(name: str) -> Any:
    if name == "TestDriver":
        from engine.testing.driver import TestDriver

        return TestDriver
    raise AttributeError(f"module 'engine.testing' has no attribute {name!r}")
