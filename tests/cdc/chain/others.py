"""Captures other tables under other settings: keys of every type, odd names, partitions, outboxes, names that are not the defaults.

    python -m tests.cdc.chain.others tests/cdc/fixtures/others

All connectors but the outboxes' see the same changes; `truth.json.xz` says what the tables held in the end.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.cdc.chain.capture import Services, read_topics, save, services, topic_names, write
from tests.cdc.chain.other_tables import TABLES, change, create, truth
from tests.cdc.chain.waiting import until

UNWRAP = {"transforms": "u", "transforms.u.type": "io.debezium.transforms.ExtractNewRecordState"}
META = {"provide.transaction.metadata": "true", "heartbeat.interval.ms": "500", "signal.data.collection": "public.signals"}
ROOT = {"publish.via.partition.root": "true"}
HEADERS = {f"{side}.converter.apicurio.registry.headers.enabled": "true" for side in ("key", "value")} | {
    f"{side}.converter.apicurio.registry.as-confluent": "false" for side in ("key", "value")
}
SETTINGS: dict[str, dict[str, str]] = {
    "eu.west-1.shop.jsonschema": {
        **META, **ROOT, "topic.heartbeat.prefix": "hb.pulse", "topic.transaction": "tx.marks", "unavailable.value.placeholder": "<absent>",
        "tombstones.on.delete": "false", "binary.handling.mode": "hex", "key.converter.schemas.enable": "true",
        "schema.name.adjustment.mode": "avro_unicode",
    },
    "plain.json": {"binary.handling.mode": "base64-url-safe", **META},
    "uni.avro": {**META, "schema.name.adjustment.mode": "avro_unicode", "field.name.adjustment.mode": "avro_unicode"},
    "headed.avro": {**ROOT, **HEADERS, "binary.handling.mode": "base64"},
    "prefixed.jsonschema": {
        **ROOT, **UNWRAP, "transforms.u.add.fields": "op:operation,lsn,source.sequence:seq,table", "transforms.u.add.fields.prefix": "cdc_",
        "transforms.u.add.headers": "op,source.txId", "transforms.u.add.headers.prefix": "h_",
        "transforms.u.delete.tombstone.handling.mode": "rewrite",
    },
    "dropped.json": {
        **ROOT, **UNWRAP, "transforms.u.add.fields": "op,source.lsn", "transforms.u.add.fields.prefix": "",
        "transforms.u.delete.tombstone.handling.mode": "drop",
    },
    "old_style.avro": {
        **ROOT, **UNWRAP, "transforms.u.drop.tombstones": "false", "transforms.u.delete.handling.mode": "rewrite",
        "transforms.u.add.fields": "op,source.sequence,source.ts_ms,source.schema,source.snapshot",
    },
}  # fmt: skip
_FEW = ("key_uuid", "generated", "bare_row")
SOME: dict[str, tuple[str, ...]] = {
    "plain.json": (*_FEW, "key_date", "key_composite", "key_bytea", "like_a_change", "firm", "parted_eu", "parted_us"),
    "headed.avro": (*_FEW, "firm", "key_numeric"),
    "prefixed.jsonschema": (*_FEW, "parted", "parted_eu", "parted_us", "firm", "key_time"),
    "dropped.json": _FEW,
    "old_style.avro": ("key_numeric", "key_timestamptz", "key_bytea", "parted", "parted_eu", "parted_us", "bare_row"),
}
"""The tables of a connector that does not take all of them."""
_ROUTE = {"transforms": "o", "transforms.o.type": "io.debezium.transforms.outbox.EventRouter"}
_TEXT = "org.apache.kafka.connect.storage.StringConverter"
OUTBOXES: dict[str, dict[str, str]] = {
    "box_a.avro": {
        **_ROUTE, "transforms.o.table.expand.json.payload": "true",
        "transforms.o.table.fields.additional.placement": "type:header:eventType,tenant:envelope,version:header:v,at:envelope:happened_at",
    },
    "box_b.text": {
        **_ROUTE, "transforms.o.table.fields.additional.placement": "type:header:eventType", "value.converter": _TEXT,
        "key.converter": _TEXT, "transforms.o.route.tombstone.on.empty.payload": "true",
    },
    "box_c.bytes": {
        **_ROUTE, "transforms.o.table.fields.additional.placement": "type:header:eventType",
        "value.converter": "io.debezium.converters.BinaryDataConverter",
        "value.converter.delegate.converter.type": "org.apache.kafka.connect.json.JsonConverter",
    },
}  # fmt: skip
_EVENTS = {"box_a.avro": 3, "box_b.text": 7, "box_c.bytes": 3}
"""How many each has at its end."""


def main() -> int:
    """Capture everything."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with services() as running:
        with running.postgres.connect() as connection:
            for statement in create():
                connection.execute(statement)
        for name, settings in SETTINGS.items():
            running.put(
                name,
                name.rpartition(".")[2],
                [t.replace(" ", "\\ ") for t in SOME.get(name, TABLES)],
                {"topic.creation.default.partitions": "2", **settings},
            )
            running.connect.wait_streaming(name, running.postgres, timeout_s=300)
            until(f"{name} has its snapshot", lambda name=name: _rows(running, name) >= 2)  # type: ignore[misc]
        for name, settings in OUTBOXES.items():
            replacement = {"transforms.o.route.topic.replacement": f"{name}.${{routedByValue}}"}
            running.put(name, name.rpartition(".")[2], [f"outbox_{name[4]}"], settings | replacement)
            running.connect.wait_streaming(name, running.postgres, timeout_s=300)
        with running.postgres.connect() as connection:
            for statement in change():
                connection.execute(statement)
            write(folder / "truth.json.xz", json.dumps(truth(connection), ensure_ascii=False))
        for name in (*SETTINGS, *OUTBOXES):
            try:
                until(f"{name} has the last change", lambda name=name: _is_complete(running, name))  # type: ignore[misc]
            except AssertionError:
                print(running.connect.log_tail())
                raise
            save(folder, name, _records(running, name), running.apicurio, "xz")
    return 0


def _records(running: Services, name: str) -> list[dict[str, Any]]:
    topics = [topic for topic in asyncio.run(topic_names(running.broker)) if topic.startswith(f"{name}.") or topic.endswith(f".{name}")]
    return asyncio.run(read_topics(running.broker, topics))


def _is_complete(running: Services, name: str) -> bool:
    if name in OUTBOXES:
        return len(_records(running, name)) >= _EVENTS[name]
    return _rows(running, name) >= 6


def _rows(running: Services, name: str) -> int:
    """Return how many rows of the last table have come."""
    return sum(record["topic"].endswith("bare_row") for record in _records(running, name))


if __name__ == "__main__":
    sys.exit(main())
