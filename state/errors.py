"""Errors that the storage layer raises; `engine.errors` gives the whole family."""


class StreamForgeError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(StreamForgeError):
    """A declaration or setting cannot work: the message says which one, and what to write instead."""


class StoredTypeError(ConfigError):
    """What the state holds does not fit the type that is declared for it now: the state is sound, the declaration has changed."""


class StateError(StreamForgeError):
    """Local state is unusable (torn, foreign, too old): delete it and restore from the changelog."""


class FencedError(StreamForgeError):
    """Another worker owns this task now: drop it without a commit, and rejoin."""


class UnavailableError(StreamForgeError):
    """A service did not answer, or answered that it cannot for the moment: retry with bounded back-off."""


class DiskError(StateError):
    """The disk takes nothing more, or the process may open no more files: the state may be sound, so it is kept; try again."""
