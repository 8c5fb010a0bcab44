"""The demo's traffic as Avro: a schema registry in this process, records with schema ids, and sources that read them by it.

    traffic (JSON) ──► Avro + id ──► orders, page-views, payments ──► sources: the id's schema from http://127.0.0.1:…

The pattern is the one of production, with the embedded registry in the place of a server.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from agents.traffic import TrafficRecord
from cdc import Registry, avro
from cdc.registry.server import RegistryServer
from engine.graph import SourceSpec
from engine.plan import Plan


class AvroTraffic:
    """A registry, the plans that read by it, and what makes Avro of the traffic.

    Args:
        plans: Of the apps with JSON values.
        folder: Where the registry keeps its schemas.
    """

    def __init__(self, plans: Sequence[Plan], folder: Path) -> None:
        self._server = RegistryServer(str(folder / "schemas.sqlite")).start()
        self._registry = Registry(self._server.url)
        types = {topic: spec.codec.type for plan in plans for topic, spec in plan.sources.items()}
        self._json: dict[str, Any] = {topic: msgspec.json.Decoder(kind).decode for topic, kind in types.items()}
        self._codecs = {topic: avro(self._registry, kind) for topic, kind in types.items()}
        self.plans = [replace(plan, sources={topic: self._source(spec) for topic, spec in plan.sources.items()}) for plan in plans]
        self.url = self._server.url
        self.subjects: dict[str, int] = {}

    def _source(self, spec: SourceSpec) -> SourceSpec:
        return replace(spec, codec=avro(self._registry, spec.codec.type))

    async def register(self) -> None:
        """Register the schemas of the traffic, as a producer does."""
        for topic, codec in self._codecs.items():
            await codec.prepare_sink(topic)
            subject = codec.subject_of(topic)
            self.subjects[subject] = (await self._registry.version(subject)).id

    def encoded(self, records: Iterable[TrafficRecord]) -> Iterator[TrafficRecord]:
        """Yield the traffic with Avro values; what is broken stays as it is."""
        for record in records:
            try:
                value = self._json[record.topic](record.value)
            except msgspec.DecodeError:
                yield record
                continue
            (raw,) = self._codecs[record.topic].encode_column([value])
            assert raw is not None
            yield record._replace(value=raw)

    async def close(self) -> None:
        """Stop the registry."""
        await self._registry.close()
        self._server.close()
