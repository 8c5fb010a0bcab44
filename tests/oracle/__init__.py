"""Slow, obvious computations of what must come out, independent of the engine: plain Python, no import from it."""
