"""`avro(registry, Row)` and `jsonschema(registry, Row)`: codecs for records that carry a schema id, for sources and for sinks.

    payments = app.source("payments", codec=avro(registry, Payment), key="user_id")
    ...to("refunds", codec=avro(registry, Refund))

A record is a zero byte, the id of its schema in 4 bytes, and the payload. Reading, the schema of the id is resolved against that of
the declared Struct: older and newer records run through the same pipeline. Writing, the Struct's schema is registered when the
worker starts (`auto_register=False`: only looked up), under `<topic>-value` or another subject; an incompatible one stops the start.

What cannot be had now (registry down) makes the partition wait; an id that the registry does not know, another framing, or bytes
that do not fit are dead letters that name the id.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from cdc.avro_form import AvroForm
from cdc.avro_values import check_schema
from cdc.debezium_codec import Fetches, schemas_of
from cdc.framing import Schemas
from cdc.registry.client import STRATEGIES, NotFoundError, Reference, RegisteredSchema, Registry, SubjectStrategy
from cdc.registry.rules import names_of, reader_breaks
from cdc.registry.unreadable import unreadable
from cdc.schema_form import HEADER_BYTES, Format, Part
from engine.codecs import BAD_JSON, Decoded
from engine.errors import ConfigError, RecordError
from engine.records import RecordBatch

V = TypeVar("V")

_MAGIC = b"\0"
_DRAFT_7, _DRAFT_2020 = "http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"


def avro(
    registry: Schemas | Mapping[int, Any] | Callable[[int], Any],
    row_type: type[V] = dict,  # type: ignore[assignment]  # V is dict then
    *,
    subject: str | SubjectStrategy = "topic",
    auto_register: bool = True,
    namespace: str | None = None,
    references: Mapping[type[Struct], str] | None = None,
) -> "SchemaCodec[V]":
    """Return the codec of Avro records with schema ids.

    Args:
        registry: A `Registry`; for sources a mapping or a function by id will do.
        row_type: A Struct; its schema is the reader's, and the writer's of a sink. dict takes records as they were written.
        subject: Of a sink: "topic" (`<topic>-value`), "record", "topic-record", or a function of topic and record name.
        auto_register: Register the schema of a sink; otherwise it must be there.
        namespace: Of the records in a sink's schema.
        references: Structs inside `row_type` whose schemas stand under subjects of their own, and to which a sink's schema refers.
    """
    return SchemaCodec(AvroForm(row_type, namespace, references or {}), row_type, registry, subject, auto_register)


def jsonschema(
    registry: Schemas | Mapping[int, Any] | Callable[[int], Any],
    row_type: type[V] = dict,  # type: ignore[assignment]  # V is dict then
    *,
    subject: str | SubjectStrategy = "topic",
    auto_register: bool = True,
) -> "SchemaCodec[V]":
    """Return the codec of JSON records with schema ids; the declared type says what is valid. For the arguments see `avro`."""
    return SchemaCodec(_Json(row_type), row_type, registry, subject, auto_register)


class SchemaCodec(Generic[V]):
    """Codec of records with a magic byte and a schema id."""

    def __init__(self, form: Format, row_type: Any, registry: Any, subject: str | SubjectStrategy, auto_register: bool) -> None:
        if isinstance(subject, str) and subject not in STRATEGIES:
            raise ConfigError(
                f"subject={subject!r} is not a strategy; use {', '.join(map(repr, STRATEGIES))} or a function of topic and record"
            )
        self.type = row_type
        self._form = form
        self._schemas = schemas_of(registry)
        self._subject = STRATEGIES[subject] if isinstance(subject, str) else subject
        self._auto_register = auto_register
        self._readers: dict[int, Callable[[bytes], Any]] = {}
        self._id: int | None = None

    @property
    def registry(self) -> Registry | None:
        """The registry, None where schemas come from a mapping or a function."""
        return self._schemas if isinstance(self._schemas, Registry) else None

    @property
    def schema(self) -> str:
        """The schema of the declared type as the registry knows it, "" for dict."""
        return self._form.schema

    @property
    def whole(self) -> str:
        """The same with all that it refers to inside, as far as the format can say so."""
        return self._form.whole

    @property
    def parts(self) -> Sequence[Part]:
        """What is registered apart, before the schema that refers to it."""
        return self._form.parts

    @property
    def kind(self) -> str:
        """AVRO, JSON or PROTOBUF."""
        return self._form.kind

    @property
    def references(self) -> Sequence[Reference]:
        """What the schema builds on."""
        return self._form.references

    async def refer(self, registry: Registry, *, register: bool) -> None:
        """Find what the schema builds on in a registry, or register it.

        Raises:
            NotFoundError: It is not there.
        """
        await self._form.refer(registry, register=register)

    def subject_of(self, topic: str) -> str:
        """Return the subject of a topic's values."""
        return self._subject(topic, self._form.record_name)

    async def prepare(self, batch: RecordBatch) -> None:
        """Fetch the schemas that a batch refers to."""
        if isinstance(self._schemas, Fetches):
            ids = {int.from_bytes(raw[1:5], "big") for raw in batch.values if raw is not None and len(raw) >= HEADER_BYTES and raw[0] == 0}
            unknown = ids - self._readers.keys()
            if unknown:
                await self._schemas.fetch_ids(sorted(unknown))

    async def prepare_source(self, topic: str) -> None:
        """See whether what is written to a topic now can be read; called when the worker starts.

        Raises:
            ConfigError: It cannot: every new record would be a dead letter.
            UnavailableError: The registry does not answer.
        """
        registry, subject = self.registry, self.subject_of(topic)
        if registry is None or not self.schema:
            return
        try:
            latest = await registry.version(subject)
        except NotFoundError:
            return  # nothing is written under this name
        writer = latest.schema
        if writer.kind != self.kind:
            raise ConfigError(
                f"source {topic!r}: version {latest.version} of {subject!r} is {writer.kind}, and its codec reads {self.kind}"
            )
        try:
            reasons = self._unreadable(writer)
        except (RecordError, ValueError):
            return  # not what is written is in doubt, but what can be said of it: the records will tell
        if reasons:
            raise ConfigError(
                f"source {topic!r}: records of version {latest.version} of {subject!r} cannot be read as {self._form.record_name}: "
                + "; ".join(reasons)
            )

    def _unreadable(self, writer: RegisteredSchema) -> list[str]:
        if self.kind != "AVRO":
            return unreadable(self.kind, self.whole, self._form.record_name, writer)
        return reader_breaks(msgspec.json.decode(self.whole), check_schema(writer.text, writer.resolved), names_of(writer.resolved))

    async def prepare_sink(self, topic: str) -> None:
        """Register the schema for a topic, or look it up; called before the first record is written.

        Raises:
            ConfigError: It is incompatible, not there (auto_register=False), or no schema can be made of the type.
            UnavailableError: The registry does not answer.
        """
        if not isinstance(self._schemas, Registry):
            raise ConfigError(f"sink {topic!r}: to write records with schema ids give a Registry, not {self._schemas!r}")
        if not self._form.schema:
            raise ConfigError(f"sink {topic!r}: there is no schema for {self.type!r}; declare a Struct")
        subject = self._subject(topic, self._form.record_name)
        if self._auto_register:
            await self._form.refer(self._schemas, register=True)
            found = await self._schemas.register(subject, self._form.schema, kind=self._form.kind, references=self._form.references)
        else:
            found = await self._look_up(subject)
        if self._id not in (None, found):
            raise ConfigError(
                f"sink {topic!r}: the schema has id {found} under {subject!r}, and another one elsewhere; use a codec for each sink"
            )
        self._id = found

    async def _look_up(self, subject: str) -> int:
        assert isinstance(self._schemas, Registry)
        try:
            await self._form.refer(self._schemas, register=False)
            return await self._schemas.look_up(subject, self._form.schema, kind=self._form.kind, references=self._form.references)
        except RecordError as error:
            raise ConfigError(
                f"the schema of {self._form.record_name} is not registered under {subject!r} (auto_register=False): {error}"
            ) from error

    def decode_batch(self, batch: RecordBatch) -> Decoded[V]:
        decoded: Decoded[V] = Decoded([])
        for row, raw in enumerate(batch.values):
            value: Any = None
            try:
                value = self._decode(raw)
            except RecordError as error:
                decoded.errors[row] = error
            decoded.values.append(value)
        return decoded

    def _decode(self, raw: bytes | None) -> Any:
        if raw is None:
            raise RecordError("the record has no value (a tombstone), and this source has none")
        if raw[:1] != _MAGIC or len(raw) < HEADER_BYTES:
            raise RecordError(f"the record does not begin with a zero byte and a schema id, but with {raw[:5]!r}")
        schema_id = int.from_bytes(raw[1:HEADER_BYTES], "big")
        read = self._readers.get(schema_id)
        try:
            if read is None:
                assert self._schemas is not None
                read = self._readers[schema_id] = self._form.reader(self._schemas.schema(schema_id))
            return read(raw)
        except RecordError as error:
            raise RecordError(f"schema {schema_id}: {error}") from error

    def encode_column(self, values: Sequence[V]) -> list[bytes | None]:
        if self._id is None:
            raise ConfigError("the schema of this sink has not been registered: its worker has not been started")
        prefix = _MAGIC + self._id.to_bytes(4, "big")
        encode = self._form.encode
        return [None if value is None else encode(value, prefix) for value in values]


class _Json:
    kind = "JSON"
    references: Sequence[Reference] = ()
    parts: Sequence[Part] = ()

    def __init__(self, row_type: Any) -> None:
        self._type = row_type
        self.record_name = getattr(row_type, "__name__", "")
        try:
            self._decode = msgspec.json.Decoder(row_type).decode
            self.schema = "" if row_type is dict else _json_schema(row_type)
        except TypeError as error:
            raise ConfigError(f"jsonschema: {row_type!r} has no JSON schema: {error}") from error
        self.whole = self.schema

    async def refer(self, registry: Registry, *, register: bool) -> None:
        """A type's schema stands alone."""

    def reader(self, found: Any) -> Callable[[bytes], Any]:
        decode = self._decode

        def read(raw: bytes) -> Any:
            try:
                return decode(raw[HEADER_BYTES:])
            except BAD_JSON as error:
                raise RecordError(f"not a valid {self.record_name}: {error}") from error

        return read

    def encode(self, value: Any, prefix: bytes) -> bytes:
        return prefix + msgspec.json.encode(value)


def _json_schema(row_type: Any) -> str:
    """Return the JSON Schema of a type, with its dialect, by which some registries tell what it is: the older one, if it says the same."""
    schema = msgspec.json.schema(row_type)
    newer = b'"prefixItems":' in msgspec.json.encode(schema)  # of tuples; older ones take it for an array of nothing
    return msgspec.json.encode({"$schema": _DRAFT_2020 if newer else _DRAFT_7, **schema}).decode()
