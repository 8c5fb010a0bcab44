"""What Faust offers and this engine does not: refused, with the name of what takes its place."""

from typing import NoReturn

from engine.errors import ConfigError


def refuse(what: str, instead: str) -> NoReturn:
    """Raise a ConfigError that says what to use instead."""
    raise ConfigError(f"{what} of Faust is not used here: {instead}")


def refuse_leader(on_leader: bool) -> None:
    """Raise a ConfigError for work that only a leader would do."""
    if on_leader:
        refuse("on_leader=True", "workers are equal here; put work that must happen once into a pipeline")
