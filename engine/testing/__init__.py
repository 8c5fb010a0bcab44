"""Testing pipelines: `TestDriver` runs the genuine tasks of an app, synchronously, without a broker."""

from engine.testing.driver import TestDriver

__all__ = ["TestDriver"]
