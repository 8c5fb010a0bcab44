"""Rules as a file has them: one, a list or one a line; what is wrong is told with its place."""

import json

import pytest

from engine import RecordError
from engine.runtime.rule_topics import read_rules

ONE = {"id": "r", "version": 1, "match_recognize": "PATTERN (A)"}
RULE = json.dumps(ONE).encode()


@pytest.mark.parametrize("raw", [RULE, json.dumps(ONE, indent=2).encode(), b"\n" + RULE + b"\n", b"[" + RULE + b"]"])
def test_file_with_one_rule_has_it(raw: bytes) -> None:
    assert [rule.id for rule in read_rules(raw)] == ["r"]


@pytest.mark.parametrize("raw", [RULE + b"\n\n" + RULE, b"[" + RULE + b",\n" + RULE + b"]"])
def test_file_with_two_rules_has_them(raw: bytes) -> None:
    assert len(read_rules(raw)) == 2


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "there is no rule in it"),
        (b"[]", "there is no rule in it"),
        (b"nonsense", "^not a valid Rule: JSON is malformed"),
        (b'{\n"id": "r",\n"version": }', "^not a valid Rule: JSON is malformed"),
        (RULE + b"\n\n{", "^line 3: not a valid Rule"),
        (b"\n" + RULE + b'\n{"id": "s"}', "^line 3: not a valid Rule: Object missing required field `version`"),
        (b"[" + RULE + b', {"id": 5}]', "^rule 2 of the list: not a valid Rule"),
        (b"[" + RULE, "^not a list of rules"),
        (b"\xff\xfe", "^not a valid Rule"),
    ],
)
def test_file_that_is_wrong_is_told_where(raw: bytes, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        read_rules(raw)
