"""Functions that users hand in: checked when they are declared, so that nobody finds out by the first record."""

import functools
import inspect

from engine.errors import ConfigError


def check_function(function: object, what: str, takes: str = "a function of the value", *, arguments: int = 1) -> None:
    """Refuse what cannot be called, or would have to be awaited.

    Args:
        what: What it is for; it opens the error message ("pipeline 'revenue', map").
        takes: What is wanted.
        arguments: How many it is called with.
    Raises:
        ConfigError: Not callable, or an async function, or one of other arguments.
    """
    if not callable(function):
        raise ConfigError(f"{what}: {function!r} is not callable; give {takes}")
    refuse_async(function, what)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of C: it does not say
    try:
        signature.bind(*[None] * arguments)
    except TypeError as error:
        raise ConfigError(f"{what}: {getattr(function, '__name__', function)!r} must be {takes}, and takes {signature}: {error}") from error


def refuse_async(function: object, what: str) -> None:
    """Refuse a function that gives a coroutine or an async generator instead of a value.

    Raises:
        ConfigError: It does.
    """
    called = function if inspect.isroutine(function) or isinstance(function, functools.partial) else getattr(function, "__call__", None)  # noqa: B004  # its code is wanted
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigError(
            f"{what}: {getattr(function, '__name__', function)!r} is an async function, and a pipeline does not wait: a replay must give "
            "the same again. Fetch outside in a plain Faust agent and feed the answers in by a topic"
        )


__all__ = ["check_function", "refuse_async"]
