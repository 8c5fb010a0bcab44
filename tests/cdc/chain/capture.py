"""What captures of change streams share: the services, a connector's settings, the records of its topics, and their files.

A capture is `NAME.jsonl.PACKED` (lines as in the other fixtures); of Avro its schemas too, `NAME.schemas.json.PACKED`.
"""

import base64
import gzip
import json
import lzma
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.records import TopicPartition
from engine.runtime.transports import make_transport
from tests.apicurio_server import ApicurioServer
from tests.cdc.chain.connect import Connect, connector
from tests.cdc.chain.postgres import Postgres
from tests.kafka_server import KafkaServer


@dataclass(frozen=True, slots=True)
class Services:
    """What a capture needs, running."""

    broker: str
    postgres: Postgres
    connect: Connect
    apicurio: ApicurioServer

    def put(self, name: str, encoding: str, tables: Iterable[str], settings: dict[str, str]) -> None:
        """Make a connector that reads tables into topics of its own name.

        Args:
            encoding: "avro", "json", or "jsonschema" for JSON with its schemas.
        """
        registry = self.apicurio.base_url if encoding == "avro" else None
        config = connector(self.postgres, "postgres", name, [f"public.{table}" for table in tables], registry=registry)
        config |= {"heartbeat.interval.ms": "0", "provide.transaction.metadata": "false"}
        if encoding == "json":
            config["value.converter.schemas.enable"] = "false"
        self.connect.put(name, config | settings)


@contextmanager
def services() -> Iterator[Services]:
    """Run everything, and end it."""
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaServer())
        postgres = stack.enter_context(Postgres())
        apicurio = ApicurioServer().start()
        stack.callback(apicurio.stop)
        connect = Connect(kafka.bootstrap, heap_mb=1_024)
        stack.callback(connect.stop)
        connect.start()
        yield Services(f"kafka://{kafka.bootstrap}", postgres, connect, apicurio)


def save(folder: Path, name: str, records: list[dict[str, Any]], apicurio: ApicurioServer, packed: str = "gz") -> None:
    """Write a capture; of Avro records their schemas too. Names that end in .avro or .bytes have their bytes as base64."""
    binary = name.endswith((".avro", ".bytes"))
    write(folder / f"{name}.jsonl.{packed}", "".join(_line(record, binary) for record in records))
    if name.endswith(".avro"):
        ids = sorted({schema_id for record in records for schema_id in _schema_ids(record)})
        write(folder / f"{name}.schemas.json.{packed}", json.dumps({schema_id: _schema(apicurio, schema_id) for schema_id in ids}))


def _schema_ids(record: dict[str, Any]) -> Iterator[int]:
    """Yield the ids of the schemas of a record's key and value: in front of them, or in headers."""
    headers = dict(record["headers"])
    for part in ("key", "value"):
        raw, in_header = record[part], headers.get(f"apicurio.{part}.contentId")
        if raw is not None:
            yield int.from_bytes(raw[1:5] if in_header is None else in_header, "big")


def said(connection: Any, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query by the names of their columns."""
    cursor = connection.execute(query)
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


async def records_of(broker: str, prefix: str, tables: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records of the topics of some tables, by partition and offset."""
    return await read_topics(broker, [f"{prefix}.public.{table}" for table in tables])


async def read_topics(broker: str, topics: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records of topics, by partition and offset; of one that does not exist none."""
    transport = make_transport(broker, group="")
    await transport.start()
    found: list[dict[str, Any]] = []
    try:
        for topic in topics:
            count = (await transport.partition_counts([topic])).get(topic, 0)
            partitions = [TopicPartition(topic, number) for number in range(count)]
            ends = await transport.end_offsets(partitions)
            for partition in partitions:
                reader = await transport.open_reader(partition, 0)
                while reader.position < ends[partition]:
                    batch = await reader.read(1.0)
                    if batch is None:
                        continue
                    columns = (batch.offsets, batch.timestamps, batch.keys, batch.values, batch.headers)
                    names = ("offset", "timestamp_ms", "key", "value", "headers")
                    place = {"topic": topic, "partition": partition.partition}
                    found += [place | dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
                await reader.close()
    finally:
        await transport.stop()
    return found


async def topic_names(broker: str) -> list[str]:
    """Return all topics, sorted."""
    transport = make_transport(broker, group="")
    await transport.start()
    try:
        return sorted(await transport.topics())
    finally:
        await transport.stop()


def _line(record: dict[str, Any], binary: bool) -> str:
    def text(raw: bytes | None) -> str | None:
        return None if raw is None else base64.b64encode(raw).decode() if binary else raw.decode()

    headers = [[name, text(value)] for name, value in record["headers"]]
    return json.dumps(record | {"key": text(record["key"]), "value": text(record["value"]), "headers": headers}, ensure_ascii=False) + "\n"


def _schema(apicurio: ApicurioServer, schema_id: int) -> Any:
    with urllib.request.urlopen(f"{apicurio.url}/schemas/ids/{schema_id}", timeout=30) as answer:
        return json.loads(json.loads(answer.read())["schema"])


def write(path: Path, text: str) -> None:
    """Write a file compressed, always alike."""
    path.write_bytes(lzma.compress(text.encode()) if path.suffix == ".xz" else gzip.compress(text.encode(), mtime=0))
    print(f"{path.name} {path.stat().st_size}", flush=True)
