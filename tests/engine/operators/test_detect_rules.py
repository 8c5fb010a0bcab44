"""Live rules in a task: what a version sees, what becomes of the one before it, and the same over crashes, cuts and errors."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Sink, Stream, Struct, cep
from engine.errors import ConfigError
from engine.testing.driver import TestDriver
from engine.topology import Topology
from tests.effort import examples
from tests.engine.cep.rules_world import Event, feed, found, put, rule, stage, world

PAIR = (stage("a", "kind = 'a'"), stage("b", "kind = 'b'"))
OUT = {"a": "a.cents", "b": "b.cents"}


def pair(version: int, **other: Any) -> bytes:
    """Return a rule that finds an "a" and the next "b" within ten minutes."""
    return rule("pair", version, *PAIR, within="10m", output=OUT, **other)


def alerts(driver: TestDriver) -> list[tuple[str, int, Any]]:
    return found(driver.read("alerts"))


class Renamed(Struct, frozen=True):
    """The records of the next version of the program."""

    user: str
    kind: str
    cents: int
    ts: int
    remark: str | None = None


def counted(driver: TestDriver, counter: str) -> int:
    return sum(count for (_, _, name), count in driver.counters().items() if name == counter)


def errors(driver: TestDriver) -> list[str]:
    return [dict(letter.headers)["error"].decode() for letter in driver.read("rules-app-dlq")]


def test_rules_added_changed_and_removed_while_running() -> None:
    with TestDriver(world()) as driver:
        feed(driver, "a:1@1 b:2@2 x@3")
        put(driver, pair(1))
        feed(driver, "a:3@4 b:4@5 x@6")
        put(driver, rule("pair", 2, *PAIR, within="10m", output={"cents": "a.cents + b.cents"}))
        feed(driver, "a:5@7 b:6@8 x@9")
        put(driver, None, "pair")
        feed(driver, "a:7@10 b:8@11 x@12")
        driver.finish()
        assert alerts(driver) == [("pair", 1, {"a": 3, "b": 4}), ("pair", 2, {"cents": 11})]


def test_rules_drain_lets_what_has_begun_end_and_begins_nothing() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, pair(2))
        feed(driver, "a:2@3 b:3@4 a:4@5 b:5@6 x@7")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 3}), ("pair", 2, {"a": 2, "b": 3}), ("pair", 2, {"a": 4, "b": 5})]


def test_rules_drop_forgets_what_has_begun() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, pair(2, old="drop"))
        feed(driver, "b:3@4 a:4@5 b:5@6 x@7")
        assert alerts(driver) == [("pair", 2, {"a": 4, "b": 5})]


@pytest.mark.parametrize(("old", "expected"), [("drain", [("pair", 1, {"a": 1, "b": 3})]), ("drop", [])])
def test_rules_not_enabled_ends_a_rule_as_it_says(old: str, expected: list[Any]) -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, msgspec.json.encode({"id": "pair", "version": 2, "enabled": False, "old": old}))
        feed(driver, "a:2@3 b:3@4 a:4@5 b:5@6 x@7")
        assert alerts(driver) == expected
        put(driver, pair(3))
        feed(driver, "a:6@8 b:7@9 x@10")
        assert alerts(driver) == [("pair", 3, {"a": 6, "b": 7})]


def test_rules_from_ms_is_the_point_whenever_the_rule_comes() -> None:
    records = ["a:1@1", "b:2@3", "a:3@4", "b:4@12", "a:5@13", "b:6@14", "x@15"]
    results = []
    for place in range(5):
        with TestDriver(world()) as driver:
            put(driver, pair(1))
            for number, record in enumerate(records):
                if number == place:
                    put(driver, pair(2, from_ms=12_500))
                feed(driver, record)
            results.append(alerts(driver))
    assert results == [[("pair", 1, {"a": 1, "b": 2}), ("pair", 1, {"a": 3, "b": 4}), ("pair", 2, {"a": 5, "b": 6})]] * 5


def test_rules_a_newer_version_takes_the_place_of_one_that_has_not_begun() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        put(driver, pair(2, from_ms=50_000))
        put(driver, pair(3, from_ms=20_000))
        feed(driver, "a:1@1 b:2@2 a:3@21 b:4@22 a:5@60 b:6@61 x@62")
        assert [version for _, version, _ in alerts(driver)] == [1, 3, 3]


def test_rules_put_in_the_past_of_the_watermark_begin_behind_it() -> None:
    with TestDriver(world()) as driver:
        feed(driver, "a:1@1 x@10 a:2@11 x@12")
        put(driver, pair(1, from_ms=0))
        feed(driver, "b:3@13 a:4@14 b:5@15 x@16")
        assert alerts(driver) == [("pair", 1, {"a": 4, "b": 5})]


def test_rules_put_in_the_past_of_the_watermark_let_the_version_before_them_drain() -> None:
    with TestDriver(world()) as driver:
        feed(driver, "x@10")
        put(driver, pair(1))
        feed(driver, "a:1@11 x@12")
        put(driver, pair(2, from_ms=0))
        feed(driver, "b:2@13 a:3@14 b:4@15 x@16")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2}), ("pair", 2, {"a": 3, "b": 4})]


def test_rules_bad_one_is_one_dead_letter_and_the_old_one_stays() -> None:
    with TestDriver(world(), partitions=3) as driver:
        put(driver, pair(1))
        put(driver, rule("pair", 2, stage("a", "nope = 1")))
        put(driver, b'{"id": "pair", "version": 2', "pair")
        put(driver, pair(1, old="drop"))
        driver.send("rules", pair(2), key="other")
        put(driver, pair(1))  # the same again is no change
        reasons = errors(driver)
        assert len(reasons) == 4
        for words in ("no field 'nope'", "truncated", "stands with version 1", "key is 'other' and its rule's id 'pair'"):
            assert any(words in reason for reason in reasons)
        feed(driver, "a:1@1 b:2@2 x@3")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2})]


def test_rules_with_on_error_fail_a_bad_one_stops() -> None:
    topology = Topology("rules-app", on_error="fail")
    events, rules = topology.source("events", Event, key="user", time="ts"), topology.rules("rules")
    topology.pipeline(events, name="alerts")(lambda events: events.detect(rules=rules).to("alerts"))
    with TestDriver(topology) as driver, pytest.raises(Exception, match="no field 'nope'"):
        put(driver, rule("pair", 2, stage("a", "nope = 1")))


def test_rules_of_one_time_come_out_by_key_then_rule() -> None:
    with TestDriver(world()) as driver:
        for name in ("z", "b", "a"):
            put(driver, rule(name, 1, stage("one", "kind = 'a'"), output={}))
        for user in ("bob", "ann"):
            feed(driver, "a@1", user)
        driver.finish()
        assert [(r.key, r.value["rule"]) for r in driver.read("alerts")] == [
            ("ann", "a"), ("ann", "b"), ("ann", "z"), ("bob", "a"), ("bob", "b"), ("bob", "z")
        ]  # fmt: skip


def test_rules_one_that_raises_spoils_only_its_own_firing() -> None:
    with TestDriver(world()) as driver:
        put(driver, rule("bad", 1, stage("a", "LENGTH(note) / (cents - 1) > UPPER(kind)")))
        put(driver, pair(1))
        driver.send("events", Event("ann", "a", 5, 1_000, note="text"))
        feed(driver, "b:2@2 x@3")
        assert alerts(driver) == [("pair", 1, {"a": 5, "b": 2})]
        (letter,) = driver.read("rules-app-dlq")
        headers = dict(letter.headers)
        assert (letter.key, headers["timer"], headers["timer_ms"]) == ("ann", b"rule bad version 1", b"1000")


def test_rules_that_no_longer_fit_the_program_find_nothing_are_counted_and_wait_for_a_version_that_does() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        put(driver, rule("noted", 1, stage("a", "note = 'x'"), output={"c": "a.cents"}))
        feed(driver, "a:1@1 x@2")
        driver.restart(world(Renamed))  # as after a deployment: the records have no `note` any more
        feed(driver, "b:2@3 x@4")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2})]
        assert counted(driver, "rules_that_do_not_fit") == 1
        put(driver, rule("noted", 2, stage("a", "remark = 'x'"), output={"c": "a.cents"}))
        driver.send("events", Renamed("ann", "a", 7, 5_000, remark="x"))
        feed(driver, "x@6")
        assert alerts(driver) == [("noted", 2, {"c": 7})]
        assert errors(driver) == []


def test_rules_one_that_raises_is_a_dead_letter_each_time_and_takes_no_result_from_others() -> None:
    """Careful mode with a rule that raises for one record in a hundred: the same alerts as without that rule."""
    text = " ".join(f"{'ab'[number % 2]}:{number}@{number}" for number in range(1, 400))
    outputs = []
    for trouble in (False, True):
        with TestDriver(world()) as driver:
            put(driver, pair(1))
            if trouble:
                put(driver, rule("bad", 1, stage("a", "cents % 100 = 0 AND cents > kind")))
            feed(driver, text)
            driver.finish()
            outputs.append(alerts(driver))
            letters = [dict(letter.headers) for letter in driver.read("rules-app-dlq")]
            assert [letter["timer"] for letter in letters] == [b"rule bad version 1"] * (3 if trouble else 0)
            assert all(b"'>' not supported" in letter["error"] for letter in letters)
    assert outputs[0] == outputs[1] and len(outputs[0]) > 150


def test_rules_state_goes_with_the_rule_and_slots_are_used_again() -> None:
    with TestDriver(world()) as driver:
        for version in range(1, 8):
            put(driver, pair(version, old="drop"))
            feed(driver, f"a:{version}@{version * 10} x@{version * 10 + 1}")
        assert len(driver.explain("alerts", "ann")) == 1
        put(driver, None, "pair")
        driver.commit()
        names = [raw for raw, _ in driver._stores[0].scan(b"", b"\xff" * 8)]
        driver.restart()
        feed(driver, "b:1@100 x@101")
        assert alerts(driver) == [] and driver.explain("alerts", "ann") == []
        assert len(names) < 12  # positions, times, one pending record


def test_rules_drained_version_is_forgotten_with_its_last_partial_match() -> None:
    with TestDriver(world()) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        put(driver, pair(2))
        assert [one.version for one in driver.explain("alerts", "ann")] == [1]
        feed(driver, "x@601 x@602")
        assert driver.explain("alerts", "ann") == []
        feed(driver, "b:1@603 x@604")
        assert alerts(driver) == []


@pytest.mark.parametrize("store", ["memory", "rocks"])
def test_rules_that_count_over_crash_and_restart(store: Any) -> None:
    with TestDriver(world(), store=store) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 x@2")
        driver.crash()
        put(driver, pair(2, from_ms=3_000))
        driver.restart()
        feed(driver, "a:2@3")
        driver.commit()
        feed(driver, "b:3@4 x@5")
        driver.crash()
        feed(driver, "b:4@6 x@7")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 3}), ("pair", 2, {"a": 2, "b": 3})]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skip": cep.skip.none}, "the rules say it"),
        ({"timeouts_to": "t"}, "the rules say it"),
        ({"on_too_many": "drop_newest"}, "not for rules"),
        ({"max_partials": 0}, "a positive number"),
        ({"max_records": 0}, "max_records=0"),
    ],
)
def test_rules_with_what_does_not_suit_them_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        world(**options)
    assert "pipeline 'alerts', detect" in str(error.value)


def test_rules_that_are_none_and_neither_pattern_nor_rules_are_refused() -> None:
    topology = Topology("rules-app")
    events = topology.source("events", Event, key="user", time="ts")
    with pytest.raises(ConfigError, match="no topic of rules"):
        topology.pipeline(events, name="one")(lambda events: events.detect(rules="rules").to("alerts"))
    with pytest.raises(ConfigError, match="give a pattern"):
        topology.pipeline(events, name="two")(lambda events: events.detect().to("alerts"))
    with pytest.raises(ConfigError, match="partitions=0"):
        topology.rules("rules", partitions=0)


def test_rules_topic_is_made_compacted_and_the_rules_may_stand_among_the_sources() -> None:
    topology = Topology("rules-app")
    events, rules = topology.source("events", Event, key="user", time="ts"), topology.rules("rules", partitions=2)

    @topology.pipeline(events, rules)
    def work(events: Stream[str, Event], rules: Any) -> Sink:
        return events.detect(rules=rules).to("alerts")

    (spec,) = [spec for spec in topology.plan().topic_specs() if spec.name == "rules"]
    assert (spec.partitions, spec.compacted, spec.create) == (2, True, True)
    with TestDriver(topology) as driver:
        put(driver, pair(1))
        feed(driver, "a:1@1 b:2@2 x@3")
        assert alerts(driver) == [("pair", 1, {"a": 1, "b": 2})]


# -- against the same pattern in the program

QUANTIFIERS: list[dict[str, Any]] = [{}, {"times": 2}, {"times": [1, 2]}, {"times": [1, None]}, {"optional": True}]
AFTERS = ["next", "followed_by", "followed_by_any", "not_next", "not_followed_by"]


@st.composite
def patterns(draw: Any) -> tuple[bytes, cep.Pattern, Any] | None:
    """Return a rule, the same pattern in Python, and its skip; None for what neither can be."""
    count, stages, pattern = draw(st.integers(1, 3)), [], None
    for place in range(count):
        name, kind, after = f"s{place}", draw(st.sampled_from("ab")), draw(st.sampled_from(AFTERS))
        quantifier = {} if after.startswith("not") and place else draw(st.sampled_from(QUANTIFIERS))
        stages.append(stage(name, f"kind = '{kind}'", **({"after": after} if place else {}), **quantifier))
        try:
            pattern = _extended(pattern, name, kind, after, quantifier)
        except ConfigError:
            return None
    skip = draw(st.sampled_from(["none", "to_next", "past_last"]))
    assert pattern is not None
    return rule("r", 1, *stages, within="20s", skip=skip), pattern.within("20s"), getattr(cep.skip, skip)


def _extended(pattern: cep.Pattern | None, name: str, kind: str, after: str, quantifier: dict[str, Any]) -> cep.Pattern:
    def fits(event: Event) -> bool:
        return event.kind == kind

    made = cep.begin(name, fits) if pattern is None else getattr(pattern, after)(name, fits)
    times = quantifier.get("times")
    if isinstance(times, int):
        made = made.times(times)
    elif times is not None:
        made = made.one_or_more() if times[1] is None else made.times(*times)
    return made.optional() if quantifier.get("optional") else made


def in_program(pattern: cep.Pattern, skip: Any) -> Topology:
    topology = Topology("static")
    events = topology.source("events", Event, key="user", time="ts")

    @topology.pipeline(events)
    def alerts(events: Stream[str, Event]) -> Sink:
        return events.detect(pattern, skip=skip).to("alerts")

    return topology


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 8), st.sampled_from(["", "", "commit", "crash", "restart"])), max_size=14)


@settings(max_examples=examples(60), deadline=None)
@given(patterns(), steps)
def test_rules_that_stand_from_the_start_find_what_the_same_pattern_finds(drawn: Any, steps: list[tuple[str, int, str]]) -> None:
    if drawn is None:
        return
    raw, pattern, skip = drawn
    try:
        static = in_program(pattern, skip)
    except ConfigError:
        with TestDriver(world()) as driver:
            put(driver, raw)
            assert len(errors(driver)) == 1
        return
    outputs = []
    for topology in (static, world()):
        with TestDriver(topology) as driver:
            if topology is not static:
                put(driver, raw)
            second = 0
            for number, (kind, wait, act) in enumerate(steps):
                second += wait
                feed(driver, f"{kind}:{number}@{second}")
                if act and topology is not static:
                    getattr(driver, act)()
            driver.finish()
            outputs.append([(r.timestamp_ms, r.value.get("stages", r.value.get("fields"))) for r in driver.read("alerts")])
            assert topology is static or not driver.read("rules-app-dlq")
    assert outputs[0] == outputs[1]


changes = st.lists(
    st.tuples(st.sampled_from(["a", "b", "x", "rule", "drop", "remove"]), st.integers(0, 5), st.sampled_from(["", "", "commit", "crash"])),
    max_size=16,
)


@settings(max_examples=examples(50), deadline=None)
@given(changes)
def test_rules_with_a_moment_of_their_own_give_the_same_over_crashes_and_errors(steps: list[tuple[str, int, str]]) -> None:
    """Versions that say from when they count, under crashes and with a rule that raises for every record (careful mode)."""
    outputs = []
    for trouble in (False, True):
        with TestDriver(world(), partitions=2) as driver:
            put(driver, pair(1))
            if trouble:
                put(driver, rule("bad", 1, stage("a", "cents > kind")))
            driver.commit()
            second = 0
            for version, (what, wait, act) in enumerate(steps, 2):
                second += wait
                if what in ("rule", "drop"):
                    put(driver, pair(version, from_ms=(second + 2) * 1_000, old="drop" if what == "drop" else "drain"))
                elif what == "remove":
                    end = {"id": "pair", "version": version, "enabled": False, "from_ms": (second + 2) * 1_000}
                    put(driver, msgspec.json.encode(end))
                else:
                    for user in ("ann", "bob"):
                        feed(driver, f"{what}:{version}@{second}", user)
                if act and trouble:
                    getattr(driver, act)()
            driver.finish()
            outputs.append([(r.key, r.timestamp_ms, r.value) for r in driver.read("alerts")])
    assert sorted(outputs[0], key=repr) == sorted(outputs[1], key=repr)
    for user in ("ann", "bob"):
        assert [one for one in outputs[0] if one[0] == user] == [one for one in outputs[1] if one[0] == user]
