"""Protobuf messages to Structs and back, by the names of their fields.

| Protobuf                                     | Struct                                        |
|----------------------------------------------|-----------------------------------------------|
| numbers, bool, string, bytes                 | int, float, bool, str, bytes                  |
| enum                                         | its name: str, or an Enum of texts            |
| message, repeated, map                       | a Struct (or dict), list, dict                |
| google.protobuf.Timestamp, Duration          | datetime (UTC), timedelta, to the microsecond |
| google.protobuf wrappers (Int64Value …)      | the value, or None                            |
| a field that is not set and can tell so      | the Struct's default                          |
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from engine.errors import RecordError

_TIMESTAMP, _DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"
_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value" for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)


def to_dict(message: Message) -> dict[str, Any]:
    """Return the fields of a message as Python values; unset ones that can tell so are left out."""
    out: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value, read = getattr(message, field.name), _reader(field)
        if _is_map(field):
            inner = _reader(field.message_type.fields_by_name["value"])
            out[field.name] = {key: inner(value[key]) for key in value}
        else:
            out[field.name] = [read(one) for one in value] if _is_repeated(field) else read(value)
    return out


def fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set the fields of a message.

    Raises:
        RecordError: A field that the message does not have, or a value that does not fit.
    """
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        field = fields.get(name)
        if field is None:
            raise RecordError(f"{message.DESCRIPTOR.full_name} has no field {name!r}")
        if value is None:
            continue
        try:
            _set(message, field, value)
        except (TypeError, ValueError, AttributeError) as error:
            raise RecordError(f"{message.DESCRIPTOR.full_name}.{name}: {value!r} does not fit: {error}") from error


def _set(message: Message, field: Any, value: Any) -> None:
    target = getattr(message, field.name)
    if _is_map(field):
        inner = field.message_type.fields_by_name["value"]
        for key, one in value.items():
            if inner.message_type is not None:
                _set_message(target[key], one)
            else:
                target[key] = _scalar(inner, one)
    elif _is_repeated(field):
        for one in value:
            if field.message_type is not None:
                _set_message(target.add(), one)
            else:
                target.append(_scalar(field, one))
    elif field.message_type is not None:
        target.SetInParent()
        _set_message(target, value)
    else:
        setattr(message, field.name, _scalar(field, value))


def _set_message(target: Any, value: Any) -> None:
    name = target.DESCRIPTOR.full_name
    if name == _TIMESTAMP:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError("a time with a time zone is needed")
        target.FromDatetime(value)
    elif name == _DURATION:
        if not isinstance(value, timedelta):
            raise ValueError("a timedelta is needed")
        target.FromTimedelta(value)
    elif name in _WRAPPERS:
        target.value = value
    else:
        fill(target, value)


def _scalar(field: Any, value: Any) -> Any:
    if field.enum_type is None or isinstance(value, int):
        return value
    if value not in field.enum_type.values_by_name:
        raise ValueError(f"{field.enum_type.full_name} has no {value!r}")
    return field.enum_type.values_by_name[value].number


def _reader(field: Any) -> Callable[[Any], Any]:
    """Return what makes a Python value of one value of a field."""
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        return lambda number: names[number].name if number in names else number
    if field.message_type is None:
        return lambda value: value
    name = field.message_type.full_name
    if name == _TIMESTAMP:
        return lambda value: value.ToDatetime(tzinfo=UTC)
    if name == _DURATION:
        return lambda value: value.ToTimedelta()
    return (lambda value: value.value) if name in _WRAPPERS else to_dict


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
