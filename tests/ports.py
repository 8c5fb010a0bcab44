"""Loopback ports for the services that tests start."""

import random
import socket
from contextlib import suppress

_BELOW_OUTGOING = range(10_000, 32_000)
"""Linux takes the ports of outgoing connections from above it."""


def free_ports(count: int) -> range:
    """Return so many ports in a row that nobody listens on now.

    Chance picks them: test runs beside each other must not take the same ones between this look and a service's start.
    """
    for first in random.sample(_BELOW_OUTGOING, 1_000):
        found = range(first, first + count)
        if all(map(_is_free, found)):
            return found
    raise AssertionError(f"there are no {count} free ports in a row")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as tried, suppress(OSError):
        tried.bind(("127.0.0.1", port))
        return True
    return False
