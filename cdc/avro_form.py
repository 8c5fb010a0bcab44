"""What stands behind the id of an Avro record: a Struct's schema, whole for reading, and for registering with others referred to.

    avro(registry, Order, references={Address: "address-value"})

    address-value   {"type": "record", "name": "Address", "fields": […]}
    orders-value    {"type": "record", "name": "Order", "fields": [{"name": "home", "type": "Address"}, …]}, refers to Address

The bytes of a record are the same either way: only the registered text is shorter, and the parts have subjects, versions and
compatibility of their own. What is referred to is registered before what refers to it, so a Struct's schema may refer to one that
refers to a third.

Source: Confluent documentation, "Schema references".
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from cdc.avro_types import schema_of
from cdc.avro_values import Resolver, Writer
from cdc.registry.client import Reference, Registry
from cdc.schema_form import HEADER_BYTES, Part, plain
from engine.errors import ConfigError, RecordError

_BAD_VALUE = (msgspec.MsgspecError, TypeError, ValueError)


class AvroForm:
    """The Avro schema of a Struct, or for dict that of each record.

    Args:
        row_type: A Struct, or dict.
        namespace: Of its records.
        references: Structs inside of it that have a subject of their own.
    """

    kind = "AVRO"

    def __init__(self, row_type: Any, namespace: str | None, references: Mapping[type[Struct], str]) -> None:
        self._type = row_type
        is_struct = isinstance(row_type, type) and issubclass(row_type, Struct)
        if not is_struct and row_type is not dict:
            raise ConfigError(f"avro: rows of {row_type!r}; use a Struct or dict")
        self._reader = schema_of(row_type, namespace=namespace) if is_struct else None
        self._writer = None if self._reader is None else Writer(self._reader)
        self.references: Sequence[Reference] = ()
        self.whole = "" if self._reader is None else _text(self._reader)
        self.record_name = "" if self._reader is None else _full(namespace, row_type)
        self.parts: Sequence[Part] = self._parts(references, namespace)
        apart = {struct.__name__: _full(namespace, struct) for struct in references}
        text = schema_of(row_type, namespace=namespace, apart=apart) if apart else self._reader
        self.schema = "" if text is None else _text(text)
        _check_defined_once({self.record_name: text, **{part.name: json.loads(part.schema) for part in self.parts}})
        self._refers_to = [name for name in apart.values() if name in set(_names_in(text))]

    def _parts(self, references: Mapping[type[Struct], str], namespace: str | None) -> list[Part]:
        """Return the schemas that are registered apart, those first that others refer to.

        Raises:
            ConfigError: A Struct that is not inside the row's.
        """
        names = {struct: _full(namespace, struct) for struct in references}
        inside = set(_defined_in(self._reader))
        parts: list[Part] = []
        for struct, subject in references.items():
            if struct is self._type or struct.__name__ not in inside:
                raise ConfigError(f"avro: references= names {struct.__name__}, which is no part of {self._type.__name__}")
            apart = {other.__name__: name for other, name in names.items() if other is not struct}
            schema = schema_of(struct, namespace=namespace, apart=apart)
            used = set(_names_in(schema))
            whole = _text(schema_of(struct, namespace=namespace))
            parts.append(Part(names[struct], subject, _text(schema), whole, tuple(name for name in apart.values() if name in used)))
        ordered: list[Part] = []
        while parts:
            known = {part.name for part in ordered}
            ready = [part for part in parts if known.issuperset(part.refers_to)]
            if not ready:
                names_left = ", ".join(part.name for part in parts)
                raise ConfigError(f"avro: {names_left} refer to each other; one of them must stand inside the other")
            ordered += ready
            parts = [part for part in parts if part not in ready]
        return ordered

    async def refer(self, registry: Registry, *, register: bool) -> None:
        """Register the schemas that stand apart, or look them up, deepest first."""
        found: dict[str, Reference] = {}
        for part in self.parts:
            references = [found[name] for name in part.refers_to]
            if register:
                await registry.register(part.subject, part.schema, references=references)
            version = (await registry.find(part.subject, part.schema, references=references)).version
            found[part.name] = Reference(part.name, part.subject, version)
        self.references = [found[name] for name in self._refers_to]

    def reader(self, found: Any) -> Callable[[bytes], Any]:
        """Return the function that reads records of a schema of the registry."""
        resolver = Resolver(getattr(found, "text", found), self._reader, getattr(found, "resolved", ()))
        if self._reader is None:
            return lambda raw: resolver.decode(raw, HEADER_BYTES)
        row_type, convert = self._type, msgspec.convert

        def read(raw: bytes) -> Any:
            value = resolver.decode(raw, HEADER_BYTES)
            try:
                return convert(value, row_type)
            except _BAD_VALUE as error:
                raise RecordError(f"not a valid {row_type.__name__}: {error}") from error

        return read

    def encode(self, value: Any, prefix: bytes) -> bytes:
        """Return prefix and payload of a value."""
        assert self._writer is not None
        if type(value) is not self._type:
            raise RecordError(f"a {type(value).__name__} where {self._type.__name__} is declared")
        return self._writer.encode(plain(value), prefix)


def _check_defined_once(texts: Mapping[str, Any]) -> None:
    """Raise ConfigError if two schemas that come together define the same type."""
    where: dict[str, str] = {}
    for name, schema in texts.items():
        for defined in _defined_in(schema):
            if defined in where:
                raise ConfigError(
                    f"avro: {defined} stands in {where[defined]} and in {name}; give it a subject of its own in references= too"
                )
            where[defined] = name


def _full(namespace: str | None, struct: Any) -> str:
    return ".".join(filter(None, (namespace, struct.__name__)))


def _text(schema: Any) -> str:
    return msgspec.json.encode(schema).decode()


def _defined_in(schema: Any) -> Iterator[str]:
    """Yield the names of the types that a schema defines."""
    if isinstance(schema, list):
        for part in schema:
            yield from _defined_in(part)
    elif isinstance(schema, dict):
        if "name" in schema and schema.get("type") in ("record", "enum"):
            yield schema["name"]
        for name in ("type", "items", "values", "fields"):
            yield from _defined_in(schema.get(name))


def _names_in(schema: Any) -> Iterator[str]:
    """Yield the names that stand in the places of types."""
    if isinstance(schema, str):
        yield schema
    elif isinstance(schema, list):
        for part in schema:
            yield from _names_in(part)
    elif isinstance(schema, dict):
        for name in ("type", "items", "values"):
            yield from _names_in(schema.get(name))
        for field in schema.get("fields", ()):
            yield from _names_in(field["type"])
