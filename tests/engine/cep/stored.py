"""States of matchers, stored and read again: in parts, then as one value."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.cep import linear_layout, partials
from engine.cep.layout import Layout
from engine.cep.recognize import attempt


def stored_again(layout: Layout, state: Any) -> Any:
    """Return a state as it is after it has been written and read in both ways."""
    parts, record, run = layout.parts(state), layout.record_codec, layout.run_codec
    records = {number: record.decode(record.encode(parts.record_of(number))) for number in parts.records}
    runs = {first: run.decode(run.encode(parts.run_of(first))) for first in parts.runs}
    joined = layout.join(layout.head(state), records, runs)
    return layout.decode(layout.encode(joined))


@contextmanager
def everything_in_parts() -> Iterator[None]:
    """Store every state in parts, however small it is."""
    modules: list[Any] = [partials, linear_layout, attempt]
    before = [module.PARTS_MIN for module in modules]
    for module in modules:
        module.PARTS_MIN = 0
    try:
        yield
    finally:
        for module, least in zip(modules, before, strict=True):
            module.PARTS_MIN = least
