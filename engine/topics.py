"""What a topic must be like."""

from collections.abc import Mapping
from dataclasses import dataclass

RECORD_BYTES_MAX = 1_048_588
"""Kafka's default of max.message.bytes: the largest batch, so the largest record, that a topic takes."""
OWN_RECORD_BYTES_MAX = 16 << 20
"""The same of the topics that this engine makes for itself: state, moved records and dead letters may be larger than what caused them."""


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
