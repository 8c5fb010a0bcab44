"""Why a task cannot go on without a person."""

from engine.errors import StreamForgeError


class OutsideLogError(StreamForgeError):
    """The state's offset of an input is no longer in the log, or not yet: records are gone, and a person must decide."""


class EndedError(StreamForgeError):
    """The epoch is over: a savepoint was its end, or another one has been restored."""


STOPPED = (OutsideLogError, EndedError)
