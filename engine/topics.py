"""What a topic must be like."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import ConfigError

RECORD_BYTES_MAX = 1_048_588
"""Kafka's default of max.message.bytes: the largest batch, so the largest record, that a topic takes."""
OWN_RECORD_BYTES_MAX = 16 << 20
"""The same of the topics that this engine makes for itself: state, moved records and dead letters may be larger than what caused them."""

_LEGAL = re.compile(r"[A-Za-z0-9._-]{1,249}")


def check_topic(topic: object, what: str) -> None:
    """Refuse what Kafka does not take as the name of a topic.

    Args:
        what: What it is for; it opens the error message ("source 'orders'").
    Raises:
        ConfigError: Not a str of 1 to 249 letters (ASCII), digits, dots, underscores and hyphens, or "." or "..".
    """
    if not topic or not isinstance(topic, str):
        raise ConfigError(f"{what}: a topic name is needed, not {topic!r}")
    if not _LEGAL.fullmatch(topic) or topic in (".", ".."):
        raise ConfigError(f"{what}: {topic!r} cannot be the name of a topic; use up to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that must exist.

    Attributes:
        partitions: Number of partitions, exactly.
        compacted: cleanup.policy=compact instead of delete.
        retention_ms: -1 keeps everything; None leaves the broker's default (and is not checked).
        create: Create it when missing; otherwise a missing topic is a ConfigError that says how to create it.
        config: Further settings, as Kafka spells them.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention_ms: int | None = None
    create: bool = True
    config: Mapping[str, str] | None = None
