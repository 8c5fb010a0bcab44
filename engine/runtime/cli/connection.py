"""Which broker a command talks to: that of an app (`--app PIPELINES`, with its credentials), or `--broker kafka://host:9092`.

What is said by `--broker` counts, also with an app (its credentials are used then); else the app's, which STREAMFORGE_BROKER beats; else
STREAMFORGE_BROKER.
"""

import getpass
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from engine.errors import ConfigError
from engine.records import TopicPartition
from engine.runtime.app import App
from engine.runtime.loading import load_app
from engine.runtime.transport.protocol import Transport
from engine.runtime.transports import make_transport

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Target:
    """A broker to talk to; `app`, None where only an address was given, has the credentials."""

    broker: str
    app: App | None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Transport]:
        """Yield a connection that belongs to no group.

        Raises:
            ConfigError: The address is not one, or the credentials are refused.
            UnavailableError: No broker answers there.
        """
        transport = make_transport(self.broker, group="") if self.app is None else self.app.make_transport("", broker=self.broker)
        try:
            await transport.start()
            yield transport
        finally:
            await transport.stop()


def target_options(command: F) -> F:
    """Add the options that `find_target` takes."""
    app = click.option("--app", "-A", "pipelines", metavar="PIPELINES", help="Use the broker and credentials of this app.")
    broker = click.option("--broker", help="Address, such as kafka://host:9092; else that of the app, or STREAMFORGE_BROKER.")
    return app(broker(command))


def find_target(command: str, pipelines: str | None, broker: str | None) -> Target:
    """Return the broker that the options name.

    Raises:
        ConfigError: None is named, or memory://, which no second process can reach.
    """
    app = None if pipelines is None else load_app(pipelines, App)
    address = broker or (os.environ.get("STREAMFORGE_BROKER") if app is None else app.options.broker)
    if address is None:
        raise ConfigError(f"{command}: which broker? Give --app PIPELINES, --broker kafka://host:9092, or set STREAMFORGE_BROKER")
    refuse_memory(command, address)
    return Target(address, app)


def user_name() -> str:
    """Return who gives a command, for the record: the number of a user without a name (of a container, say)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())


def refuse_memory(command: str, broker: str) -> None:
    """Raise a ConfigError for a broker that lives inside one process."""
    if broker.startswith("memory://"):
        raise ConfigError(
            f"{command}: memory:// lives inside one process, so no other process can reach it; "
            "use `streamforge run` over files, or a broker at kafka://host:9092 (STREAMFORGE_BROKER)"
        )


async def partitions_of(transport: Transport, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic.

    Raises:
        ConfigError: There is no such topic.
    """
    counts = await transport.partition_counts([topic])
    if topic not in counts:
        raise ConfigError(f"topic {topic!r} does not exist; create it with: streamforge topics create {topic} --partitions N")
    return [TopicPartition(topic, number) for number in range(counts[topic])]
