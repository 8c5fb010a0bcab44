"""The root group: finds the commands, and turns errors into sentences."""

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from engine.errors import ConfigError, StreamForgeError

GROUP = "streamforge.commands"

_COMMANDS = ("cep", "dlq", "pipelines", "run", "savepoint", "send", "state", "tail", "topics", "transactions", "worker")


class Root(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of our commands and of those that other packages bring."""
        return sorted({*_COMMANDS, *(point.name for point in entry_points(group=GROUP))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None for a name that nobody knows."""
        if cmd_name in _COMMANDS:
            return _command(getattr(importlib.import_module(f"engine.runtime.cli.{cmd_name}"), cmd_name), cmd_name)
        for point in entry_points(group=GROUP, name=cmd_name):
            return _command(_load(point), cmd_name)
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what a person can mend becomes one sentence."""
        try:
            return super().invoke(ctx)
        except StreamForgeError as error:
            raise click.ClickException(_said(error)) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.filename is None:
                raise
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


def _said(error: StreamForgeError) -> str:
    """Return an error's message on one line; one that marks a place below a line of text keeps its lines."""
    return str(error) if str(error).rstrip(" ").endswith("^") else one_sentence(error)


def one_sentence(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _load(point: EntryPoint) -> object:
    """Import a command of another package; one that is not here becomes a command that says so."""
    try:
        return point.load()
    except ModuleNotFoundError as error:
        sentence = f"{point.name} needs {error.name!r}, which is not installed here"

    def refuse() -> None:
        raise ConfigError(sentence)

    return click.Command(
        point.name, callback=refuse, help=sentence, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
    )


def _command(found: object, name: str) -> click.Command:
    assert isinstance(found, click.Command), f"{name} is not a click command"
    return found


@click.command(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamforge", message="%(version)s")
def main() -> None:
    """Stream processing on Kafka, in Python: exactly once, by event time."""
