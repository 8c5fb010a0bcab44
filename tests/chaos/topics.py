"""The topics of a round, made before anything is sent: they keep everything, so that the oracle and late readers find it."""

from dataclasses import replace

from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport
from tests.chaos.results import TOPICS
from tests.chaos.shop import app

_NEVER_COMPACTED = {"min.compaction.lag.ms": str(2**62)}


async def make_topics(bootstrap: str) -> None:
    """Make all topics of the app, its sources too."""
    transport = KafkaTransport(KafkaSettings.of(f"kafka://{bootstrap}"))
    await transport.start()
    try:
        specs = app.topology.plan().topic_specs(create_sources=True)
        # The traffic lies in the past: what is older than a topic keeps would be deleted, or compacted, under the readers' feet. (A
        # transaction's marker carries the present, so that the segment with the first of them is closed, and can be compacted, at once.)
        kept = [replace(spec, config=_NEVER_COMPACTED) if spec.name in TOPICS and spec.compacted else spec for spec in specs]
        await transport.ensure_topics(
            [spec if spec.compacted or spec.retention_ms is not None else replace(spec, retention_ms=-1) for spec in kept]
        )
    finally:
        await transport.stop()
