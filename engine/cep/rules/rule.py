"""What a rule is as data. The format is strict: an unknown field, a wrong type or a missing one makes the record a bad one.

| field | |
|---|---|
| `id` | name of the rule, and key of its record |
| `version` | whole number; a change has a higher one |
| `match_recognize` | a clause without PARTITION BY and ORDER BY (or with those that the stream has), or |
| `pattern` | `{"stages": [...], "within": "5m"}`, the algebra of `engine.cep` |
| `skip` | with `pattern`: "none" (default), "to_next", "past_last", `{"to_first": stage}`, `{"to_last": stage}` |
| `output` | with `pattern`: name -> expression over the match; without it all values that each stage took |
| `old` | what becomes of the partial matches of the version before: "drain" (default) lets them end by themselves, "drop" forgets them |
| `from_ms` | event time from which the version counts; without it from the watermark at which a partition learns of it |
| `timeouts` | true: partial matches that run out of time go to the topic `detect(rules=..., timeouts_to=...)` names, as `RuleTimedOut` |
| `enabled` | false: this version finds nothing (so the rule ends, as `old` says) |

A stage: `stage` (its name), `after` ("next", "followed_by" (default), "followed_by_any", "not_next", "not_followed_by"), `where`,
`times` (n, [least, most], [least, null] for no end), `between` ("relaxed" (default), "consecutive", "combinations"), `optional`,
`greedy`, `until`, `within` (time since the record before). A group has `group` (a list of stages) in the place of `stage`.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine.codecs import BAD_JSON
from engine.errors import RecordError

Times = int | tuple[int, int | None]
Skips = Literal["none", "to_next", "past_last"] | dict[Literal["to_first", "to_last"], str]


class StageSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a pattern, or a group of steps."""

    stage: str | None = None
    group: "list[StageSpec] | None" = None
    after: Literal["next", "followed_by", "followed_by_any", "not_next", "not_followed_by"] | None = None
    where: str | None = None
    times: Times | None = None
    between: Literal["relaxed", "consecutive", "combinations"] = "relaxed"
    optional: bool = False
    greedy: bool = False
    until: str | None = None
    within: str | None = None


class PatternSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pattern: its stages in order, and the limit of the whole."""

    stages: list[StageSpec]
    within: str | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule; the fields are those of the table above."""

    id: str
    version: int
    match_recognize: str | None = None
    pattern: PatternSpec | None = None
    skip: Skips | None = None
    output: dict[str, str] | None = None
    old: Literal["drain", "drop"] = "drain"
    from_ms: int | None = None
    enabled: bool = True
    timeouts: bool = False


class RuleMatch(Struct, frozen=True):
    """What a rule found: its id and version, the key of the records, and the fields that the rule asked for."""

    rule: str
    version: int
    key: Any
    fields: dict[str, Any]


class RuleTimedOut(Struct, frozen=True):
    """A partial match of a rule whose time ran out.

    Attributes:
        rule, version: Of the rule.
        start_ms, end_ms: Event time of its first record, and of the limit.
        stages: Values that each stage (or variable) had taken by then.
        waited_for: Stages that the next record could have gone to, in the order of the pattern.
    """

    rule: str
    version: int
    key: Any
    start_ms: int
    end_ms: int
    stages: dict[str, list[Any]]
    waited_for: tuple[str, ...]


def parse_rule(raw: bytes | str) -> Rule:
    """Return the rule that JSON says.

    Raises:
        RecordError: It is not one; the message says where and why.
    """
    try:
        return msgspec.json.decode(raw, type=Rule)
    except BAD_JSON as error:
        raise RecordError(f"not a valid Rule: {error}") from error


def check_rule(rule: Rule) -> None:
    """Check what no type can say.

    Raises:
        RecordError: The parts contradict each other; the message says how.
    """
    if not rule.id:
        raise RecordError("a rule needs an id")
    if rule.version < 1:
        raise RecordError(f"version {rule.version}: versions are counted from 1")
    given = [name for name in ("match_recognize", "pattern") if getattr(rule, name) is not None]
    if not rule.enabled:
        if given or rule.skip is not None or rule.output is not None or rule.timeouts:
            raise RecordError("a rule that is not enabled finds nothing: leave match_recognize, pattern, skip, output and timeouts out")
        return
    if len(given) != 1:
        raise RecordError(f"a rule has either match_recognize or pattern; this one has {' and '.join(given) or 'neither'}")
    if rule.match_recognize is not None and (rule.skip is not None or rule.output is not None):
        raise RecordError("skip and output belong to pattern; SQL says it itself, by AFTER MATCH SKIP and MEASURES")
    if isinstance(rule.skip, dict) and len(rule.skip) != 1:
        raise RecordError('skip to one stage: {"to_first": stage} or {"to_last": stage}')
