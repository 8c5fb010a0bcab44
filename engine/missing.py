"""What somebody looks for on a stream or table that is not there, and what stands for it: an error that says so.

    users.window(windows.tumbling("1m"))      ConfigError: … a table has no window(); its changes have: changes().window(…)

The error is an AttributeError too, so that `hasattr` and `getattr` with a default work as ever.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from engine.errors import ConfigError


class MissingMethodError(ConfigError, AttributeError):
    """There is no such method."""


class Hinted:
    """A step of a pipeline's declaration that knows what people look for on it.

    Attributes:
        _is: What it is, with its article.
        _hints: For a name that is not there what to write instead.
    """

    _is: ClassVar[str] = "this"
    _hints: ClassVar[Mapping[str, str]] = {}

    def _stands_in(self) -> str:
        """Return where it stands, for messages."""
        return "a pipeline"

    if not TYPE_CHECKING:  # a type checker knows what is there

        def __getattr__(self, name: str) -> object:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            hint = self._hints.get(name)
            if hint is None:
                hint = "it has " + ", ".join(sorted(one for one in dir(type(self)) if not one.startswith("_")))
            raise MissingMethodError(f"{self._stands_in()}: {self._is} has no {name}(); {hint}")


STREAM_HINTS: Mapping[str, str] = {
    "count": "write aggregate(n=agg.count()), or window(…).aggregate(n=agg.count())",
    "sum": "write aggregate(total=agg.sum('field')), or window(…).aggregate(…)",
    "reduce": "write aggregate(total=agg.reduce(function, initial))",
    "group_by": "a stream is keyed by key_by('field'); group_by is for tables: table('name').group_by(…)",
    "groupby": "it is keyed by key_by('field')",
    "select": "write map(function); select is for what detect(…) finds",
    "where": "write filter(predicate)",
    "foreach": "write process(function) for what happens with each record, and to('topic') at the end",
    "union": "write merge(other)",
    "sink": "write to('topic')",
    "tumbling": "write window(windows.tumbling('1m')).aggregate(…)",
    "changes": "its records are what there is; a table has changes: table('name').changes()",
}
TABLE_HINTS: Mapping[str, str] = {
    "window": "its rows change instead of passing by: group_by('field').aggregate(…), or changes().window(…)",
    "aggregate": "say by what its rows are grouped: group_by('field').aggregate(…)",
    "lookup": "a stream looks into a table: stream.lookup(table); two tables meet by table.join(other)",
    "as_of": "a stream looks into a table: stream.as_of(table)",
    "key_by": "rows keep their key; to count or sum them by another one write group_by('field').aggregate(…)",
    "merge": "merge streams before they become a table, or merge changes()",
    "process": "write changes().process(…): the function gets pairs of the old and the new value",
    "in_event_time_order": "write changes().in_event_time_order()",
    "detect": "write changes().detect(…)",
    "flat_map": "a row becomes one row or none: map(function), or changes().flat_map(function)",
    "branch": "write filter(predicate) once for each part, or changes().branch(…)",
}
GROUPS_HINTS: Mapping[str, str] = dict.fromkeys(
    ("to", "changes", "join", "filter", "map"), "say first what comes out of each group: aggregate(rows=agg.count())"
)
WINDOWED_HINTS: Mapping[str, str] = {
    **dict.fromkeys(
        ("to", "map", "filter", "key_by", "process", "merge"), "say first what comes out of each window: aggregate(n=agg.count())"
    ),
    "count": "write aggregate(n=agg.count())",
    "sum": "write aggregate(total=agg.sum('field'))",
    "reduce": "write aggregate(total=agg.reduce(function, initial))",
    "join": "streams join by a window so: stream.join(other, within=windows.tumbling('1m'))",
}

__all__ = ["GROUPS_HINTS", "STREAM_HINTS", "TABLE_HINTS", "WINDOWED_HINTS", "Hinted", "MissingMethodError"]
