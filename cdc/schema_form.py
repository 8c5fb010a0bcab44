"""What a codec with schema ids needs of a format: Avro (`cdc.avro_form`), JSON (`cdc.schema_codecs`), Protobuf (`cdc.protobuf_codec`)."""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct

from cdc.registry.client import Reference, Registry

HEADER_BYTES = 5


@dataclass(frozen=True, slots=True)
class Part:
    """A schema that is registered apart, under a subject of its own.

    Attributes:
        name: By which others refer to it.
        schema: What is registered; `whole`: the same with all that it refers to inside.
        refers_to: Names of the parts that `schema` refers to.
    """

    name: str
    subject: str
    schema: str
    whole: str
    refers_to: Sequence[str] = ()


class Format(Protocol):
    """What stands behind the id.

    Attributes:
        schema: As it is registered, "" for none; `whole`: with what it refers to inside, as far as the format can say so.
        references: What `schema` refers to; set by `refer`.
        parts: Schemas that the declared type asks to be registered apart, those first that others refer to.
    """

    kind: str
    record_name: str
    schema: str
    whole: str
    references: Sequence[Reference]
    parts: Sequence[Part]

    async def refer(self, registry: Registry, *, register: bool) -> None:
        """Find what the schema builds on, or register it; then it stands in `references`."""
        ...

    def reader(self, found: Any) -> Callable[[bytes], Any]:
        """Return the function that reads records of a schema of the registry."""
        ...

    def encode(self, value: Any, prefix: bytes) -> bytes:
        """Return prefix and payload of a value."""
        ...


def plain(value: Any) -> Any:
    """Return a value as fastavro takes it: structs as dicts, enums as their symbols."""
    if isinstance(value, Struct):
        return {name: plain(getattr(value, field)) for field, name in _fields(type(value))}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return value.value if isinstance(value, enum.Enum) else value


def _fields(struct: type[Struct]) -> list[tuple[str, str]]:
    return list(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
