"""The shell of the engine: everything that waits, reads a clock or talks to the outside world."""
