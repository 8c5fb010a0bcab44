"""Values whose type is not declared: they may be stored and moved as plain data, but a Struct would come back as a dict."""

from collections.abc import Iterable
from typing import Any

import msgspec

from engine.errors import RecordError


def refuse_structs(values: Iterable[Any], where: str) -> None:
    """Refuse a Struct among values of undeclared type.

    Raises:
        RecordError: There is one; `where` says what would happen to it ("crosses a key_by").
    """
    for value in values:
        if isinstance(value, msgspec.Struct):
            raise RecordError(
                f"a {type(value).__name__} {where}, but its type is not declared: annotate the return type of the map before it"
            )
