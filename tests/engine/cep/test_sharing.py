"""What rules ask of the record alone is evaluated once a record, however many of them ask it, and however they write it."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from engine.cep.matcher import Found
from engine.cep.rules.compiled import CompiledRule, Frame, compile_rule
from engine.cep.rules.rule import parse_rule
from engine.cep.rules.sharing import Sharing
from engine.testing.driver import TestDriver
from tests.engine.cep.rules_world import Event, alerts, errors, feed, put, rule, stage, world

FRAME = Frame(dict, frozenset(["user"]), frozenset(["ts"]))
PAID = "kind = 'pay' AND cents > 10"
SQL = "PATTERN (A B) DEFINE A AS A.kind = 'pay' AND cents > 10, B AS kind = 'pay' AND (B.cents) > 10"


class Counted(Mapping[str, Any]):
    """A record that counts how often each field has been read."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self.reads: dict[str, int] = {}

    def __getitem__(self, name: str) -> Any:
        self.reads[name] = self.reads.get(name, 0) + 1
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def compiled(raw: bytes, sharing: Sharing) -> CompiledRule:
    found = compile_rule(parse_rule(raw), FRAME, sharing)
    assert found is not None
    return found


def sql(text: str) -> bytes:
    return rule("sql", 1).replace(b'"pattern":{"stages":[]}', b'"match_recognize":' + f'"{text}"'.encode())


def test_rules_and_stages_that_ask_the_same_read_each_record_once() -> None:
    raw = [
        rule("twice", 1, stage("a", PAID, times=2)),
        rule("pair", 1, stage("a", "kind='pay' and (a.cents)>10"), stage("b", f"({PAID})", after="followed_by_any")),
        sql(SQL),
    ]
    sharing = Sharing()
    sharing.serve(compiled(one, sharing).asked for one in raw)
    assert len(sharing.often) == 1
    matchers = [compiled(one, sharing).matcher for one in raw]
    found, records = Found(), [(ts, Counted(kind="pay", cents=20)) for ts in (1, 2, 3)]
    for matcher in matchers:
        matcher.run(None, "ann", records, 3, found)
    assert len(found.matches) == 2 + 3 + 1
    assert [value.reads for _, value in records] == [{"kind": 1, "cents": 1}] * 3


def test_a_condition_is_asked_again_in_the_next_batch() -> None:
    sharing = Sharing()
    sharing.serve([["t", "t"]])
    asked: list[int] = []

    def ask(value: int) -> bool:
        asked.append(value)
        return True

    test = sharing.test("t", ask)
    assert [test(5), test(5), len(asked)] == [True, True, 1]
    sharing.forget()
    assert test(5) and asked == [5, 5]


def test_a_condition_that_one_rule_asks_is_left_as_it_is() -> None:
    sharing = Sharing()
    sharing.serve([["t"], ["other"]])
    assert sharing.test("t", len) is len


@pytest.mark.parametrize(
    "other",
    ["kind = 'PAY' AND cents > 10", "cents > 10 AND kind = 'pay'", "kind = 'pay' AND cents > 10.0", "kind = 'pay' AND \"Cents\" > 10"],
)
def test_conditions_of_another_form_are_not_the_same(other: str) -> None:
    sharing = Sharing()
    sharing.serve(compiled(rule(name, 1, stage("a", where)), sharing).asked for name, where in (("x", PAID), ("y", other)))
    assert not sharing.often


def test_rules_that_share_find_what_they_find_alone_also_when_one_of_them_goes() -> None:
    with TestDriver(world()) as driver:
        put(driver, rule("one", 1, stage("a", PAID), output={"cents": "a.cents"}))
        feed(driver, "pay:20@1")
        put(driver, rule("two", 1, stage("b", f" ({PAID}) "), output={"cents": "b.cents"}))
        feed(driver, "pay:30@2 pay:5@3")
        put(driver, None, "one")
        feed(driver, "pay:40@4 pay:50@5")
        driver.finish()
        both = [(name, 1, {"cents": cents}) for cents in (20, 30) for name in ("one", "two")]  # the first one waited for its watermark
        assert alerts(driver) == both + [("two", 1, {"cents": cents}) for cents in (40, 50)]


def test_a_shared_condition_that_raises_spoils_the_firing_of_each_rule() -> None:
    with TestDriver(world()) as driver:
        for name in ("one", "two"):
            put(driver, rule(name, 1, stage("a", "note LIKE 'x%' AND cents / note > 1"), output={"cents": "a.cents"}))
        put(driver, rule("three", 1, stage("a", "cents > 1"), output={"cents": "a.cents"}))
        driver.send("events", Event("ann", "pay", 20, 1_000, "x"))
        driver.finish()
        assert alerts(driver) == [("three", 1, {"cents": 20})]
        assert len(errors(driver)) == 2


def test_what_is_known_of_a_record_is_not_told_of_another_one_in_its_place() -> None:
    """Records out of the store may be dropped before the batch is over, and their identity is given to the next one."""
    sharing = Sharing()
    sharing.serve([["c"], ["c"]])
    test = sharing.test("c", lambda value: value[0] % 2 == 0)
    assert [test([number]) for number in range(200)] == [number % 2 == 0 for number in range(200)]
