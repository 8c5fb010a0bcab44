"""Selectors: how a declaration points into a value: a field name ("user_id", "customer.id") or a callable of the value.

A field name is checked against the declared type when the pipeline is declared, so a typing error stops the start and not the
first record. Compiled selectors for field names are C getters: `list(map(selector, values))` reads a column at C speed.
"""

import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.functions import refuse_async

Selector = str | Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A selector that is ready to use.

    `get` reads the value, `type` is what it gives as far as declared (else Any), `field` the field name, None for a callable.
    """

    get: Callable[[Any], Any]
    type: Any
    field: str | None

    @property
    def text(self) -> str:
        """The selector as people wrote it."""
        return self.field or str(getattr(self.get, "__name__", "callable"))


def compile_selector(selector: Selector, value_type: Any, what: str) -> Compiled:
    """Check a selector against the type of the values and return the function that reads it.

    Args:
        value_type: A Struct, dict, a dataclass, or Any where nothing is known.
        what: What it is for; it opens the error message ("key of source 'orders'").
    Raises:
        ConfigError: Not a selector, or the type has no such field.
    """
    if callable(selector):
        refuse_async(selector, what)
        return Compiled(selector, return_type(selector), None)
    if not isinstance(selector, str) or not selector:
        raise ConfigError(f"{what}: {selector!r} is not a selector; give a field name or a callable of the value")
    path = selector.split(".")
    found: Any = value_type
    by_attribute: list[bool] = []
    for name in path:
        found, attribute = _field(found, name, selector, what)
        by_attribute.append(attribute)
    if all(by_attribute):
        return Compiled(operator.attrgetter(selector), found, selector)
    if len(path) == 1:
        getter = operator.itemgetter(path[0]) if _is_mapping(value_type) else _either(path[0])
        return Compiled(getter, found, selector)
    steps = [operator.attrgetter(name) if attribute else _either(name) for name, attribute in zip(path, by_attribute, strict=True)]

    def walk(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return Compiled(walk, found, selector)


def return_type(function: Callable[..., Any]) -> Any:
    """Return the annotated return type of a callable (a class returns itself), Any without one."""
    if isinstance(function, type):
        return function
    try:
        return typing.get_type_hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return Any


def fields_of(value_type: Any) -> dict[str, Any] | None:
    """Return the fields of a type with their types, None where the type does not tell."""
    origin = typing.get_origin(value_type) or value_type  # a generic Struct may be given its parameters
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return {field.name: _bare(field.type) for field in msgspec.structs.fields(value_type)}
    if isinstance(value_type, type) and hasattr(value_type, "__annotations__") and hasattr(value_type, "__total__"):
        return dict(typing.get_type_hints(value_type))
    if isinstance(value_type, type) and hasattr(value_type, "__dataclass_fields__"):
        return dict(typing.get_type_hints(value_type))
    return None


def _bare(declared: Any) -> Any:
    """Return a type without its notes (`Annotated`), which say how a value is written or what is valid, not what it is."""
    return typing.get_args(declared)[0] if typing.get_origin(declared) is typing.Annotated else declared


def _field(owner: Any, name: str, selector: str, what: str) -> tuple[Any, bool]:
    """Return the type of a field and whether it is read as an attribute."""
    members = [t for t in typing.get_args(owner) if t is not NoneType] if _is_union(owner) else [owner]
    types: list[Any] = []
    for member in members:
        fields = fields_of(member)
        if fields is None:
            if member is Any or _is_mapping(member):
                types.append(Any)
                continue
            raise ConfigError(f"{what}: {selector!r} needs a field {name!r}, but {_name(member)} has no fields")
        if name not in fields:
            known = ", ".join(sorted(fields))
            raise ConfigError(f"{what}: {_name(member)} has no field {name!r} (selector {selector!r}); it has {known}")
        types.append(fields[name])
    attribute = all(fields_of(member) is not None and not _is_mapping(member) for member in members)
    return (types[0] if len(set(map(repr, types))) == 1 else Any), attribute


def _is_union(t: Any) -> bool:
    return typing.get_origin(t) in (typing.Union, UnionType)


def _is_mapping(t: Any) -> bool:
    origin = typing.get_origin(t) or t
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _name(t: Any) -> str:
    return getattr(t, "__name__", str(t))


def _either(name: str) -> Callable[[Any], Any]:
    item, attribute = operator.itemgetter(name), operator.attrgetter(name)
    return lambda value: item(value) if isinstance(value, Mapping) else attribute(value)
