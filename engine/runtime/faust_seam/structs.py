"""Structs in plain Faust topics: `app.topic("orders", value_type=Order)` reads and writes JSON, as sources do."""

from typing import Any

import msgspec
from faust.exceptions import KeyDecodeError, ValueDecodeError
from faust.serializers.registry import Registry


class StructRegistry(Registry):
    """Faust's serializers, and Structs beside its models."""

    def loads_key(self, typ: Any, key: bytes | None, *, serializer: Any = None) -> Any:
        """Decode a key."""
        if not _is_struct(typ):
            return super().loads_key(typ, key, serializer=serializer)
        try:
            return msgspec.json.decode(key or b"", type=typ)
        except msgspec.DecodeError as error:
            raise KeyDecodeError(str(error)) from error

    def loads_value(self, typ: Any, value: bytes | None, *, serializer: Any = None) -> Any:
        """Decode a value; a tombstone stays None."""
        if not _is_struct(typ):
            return super().loads_value(typ, value, serializer=serializer)
        if value is None:
            return None
        try:
            return msgspec.json.decode(value, type=typ)
        except msgspec.DecodeError as error:
            raise ValueDecodeError(str(error)) from error

    def dumps_key(self, typ: Any, key: Any, *, serializer: Any = None, **options: Any) -> bytes | None:
        """Encode a key."""
        if isinstance(key, msgspec.Struct):
            return msgspec.json.encode(key)
        return super().dumps_key(typ, key, serializer=serializer, **options)

    def dumps_value(self, typ: Any, value: Any, *, serializer: Any = None, **options: Any) -> bytes | None:
        """Encode a value."""
        if isinstance(value, msgspec.Struct):
            return msgspec.json.encode(value)
        return super().dumps_value(typ, value, serializer=serializer, **options)


def _is_struct(typ: Any) -> bool:
    return isinstance(typ, type) and issubclass(typ, msgspec.Struct)
