"""Dead letters taken apart, and sent back: once, to the pipeline that refused the record and to nobody else."""

from collections.abc import Iterator

import pytest

from engine import App, ConfigError, Context, Record, Sink, Stream
from engine.dead_letters import firing_headers, record_headers
from engine.records import Headers, RecordBatch, TopicPartition
from engine.replays import REPLAY_HEADER, read_letter, refusal, replays_in
from engine.testing import TestDriver
from tests.engine.dead_letter_world import Order, Refusals, broken_app

OWN: Headers = (("topic", b"the record's own"), ("trace", b"\xff"))


def letter_of(
    headers: Headers, topic: str = "orders", partition: int = 1, pipeline: str = "checks", operator: str = "check", error: str = "no"
) -> Headers:
    return record_headers(
        headers, topic=topic, partition=partition, offset=7, pipeline=pipeline, operator=operator, error=ValueError(error)
    )


def test_letter_keeps_the_records_own_headers_apart_from_the_reason() -> None:
    letter = read_letter(3, 17, b"ann", b"{}", 5, letter_of(OWN))
    assert (letter.name, letter.topic, letter.source_partition, letter.source_offset) == ("3/17", "orders", 1, 7)
    assert (letter.pipelines, letter.operator, letter.error) == (("checks",), "check", "ValueError: no")
    assert letter.headers == OWN and letter.history is None
    assert "ValueError: no" in letter.traceback


def test_letter_of_a_firing_names_its_timer() -> None:
    headers = firing_headers(name="over", timestamp_ms=90_000, pipeline="visits", operator="process", error=ValueError("no"))
    letter = read_letter(0, 0, b"ann", None, 90_000, headers)
    assert (letter.timer, letter.timer_ms, letter.topic, letter.headers) == ("over", 90_000, "", ())


def test_letter_of_a_line_names_its_file() -> None:
    letter = read_letter(0, 0, None, b"oops", 0, [("file", b"orders.jsonl"), ("line", b"4"), ("error", b"not a record line")])
    assert (letter.file, letter.line, letter.error) == ("orders.jsonl", 4, "not a record line")


def test_letter_that_somebody_else_wrote_has_no_reason() -> None:
    letter = read_letter(0, 0, None, b"x", 0, [("hello", b"x")])
    assert (letter.topic, letter.pipelines, letter.error, letter.headers) == ("", (), "", (("hello", b"x"),))


def test_history_grows_with_each_attempt_and_keeps_the_origin() -> None:
    first = read_letter(3, 17, b"ann", b"{}", 5, letter_of(OWN))
    again = letter_of(first.replay_headers("shop"), operator="source", error="still")
    second = read_letter(2, 4, b"ann", b"{}", 5, again)
    assert second.headers == OWN
    assert second.history is not None
    assert (second.history.attempt, second.history.origin, second.history.letter) == (1, "orders/1/7", "3/17")
    assert second.history.errors == ("check: ValueError: no",)
    headers = second.replay_headers("shop")
    assert [name for name, _ in headers] == ["topic", "trace", REPLAY_HEADER]
    third = read_letter(0, 0, None, None, 0, headers).history
    assert third is not None
    assert (third.attempt, third.origin, third.letter) == (2, "orders/1/7", "2/4")
    assert third.errors == ("check: ValueError: no", "source: ValueError: still")


def test_header_of_that_name_by_somebody_else_is_no_replay() -> None:
    batch = RecordBatch("orders", 0, [0, 1], [0, 0], [None] * 2, [b"{}"] * 2, 0, 2, read_headers=lambda: [[(REPLAY_HEADER, b"yes")], ()])
    assert replays_in(batch) == {}


def test_replay_reaches_only_the_pipeline_that_refused() -> None:
    fault = Refusals({"o2": "not yet"})
    with TestDriver(broken_app(fault)) as driver:
        for order, cents in (("o1", 100), ("o2", 20), ("o3", 3)):
            driver.send("orders", Order(order, "ann", cents), at=1_000 + cents)
        assert [record.value["cents"] for record in driver.read("shop-totals")] == [100, 120, 123]
        assert [record.value["seen"] for record in driver.read("shop-checked")] == [1, 2], "o2 is undone in checks"
        (letter,) = driver.dead_letters()
        assert (letter.topic, letter.source_offset, letter.pipelines, letter.operator) == ("orders", 1, ("checks",), "check")
        fault.refused.clear()
        assert driver.replay(letter) == 1
        (record,) = driver.read("shop-checked")
        assert (record.key, record.value, record.timestamp_ms) == ("ann", {"order_id": "o2", "seen": 3}, 1_020)
        assert driver.read("shop-totals") == [], "totals had it"
        assert driver.counters()["totals", "orders", "replays_passed_over"] == 1
        assert driver.replay(letter) == 0, "a letter goes back once"
        assert driver.dead_letters() == []


def test_replay_that_fails_again_keeps_its_history() -> None:
    fault = Refusals({"o1": "not yet"})
    with TestDriver(broken_app(fault)) as driver:
        driver.send("orders", Order("o1", "ann", 1))
        assert driver.replay() == 1
        fault.refused["o1"] = "still not"
        assert driver.replay() == 1
        (letter,) = driver.dead_letters()
        assert letter.history is not None
        assert (letter.history.attempt, letter.history.origin) == (2, "orders/0/0")
        assert letter.history.errors == ("check: ValueError: not yet", "check: ValueError: not yet")
        assert letter.error == "ValueError: still not"
        fault.refused.clear()
        assert driver.replay() == 1
        assert [record.value for record in driver.read("shop-checked")] == [{"order_id": "o1", "seen": 1}]
        assert len(driver.read("shop-totals")) == 1


def test_undecodable_record_is_for_all_that_read_it_and_its_replay_too() -> None:
    with TestDriver(broken_app(Refusals())) as driver:
        driver.send("orders", b"{", key="ann")
        (letter,) = driver.dead_letters()
        assert letter.pipelines == ("totals", "checks")
        driver.replay(letter)
        (second,) = driver.dead_letters()
        assert second.pipelines == ("totals", "checks") and second.history is not None and second.history.attempt == 1


def test_replay_of_another_app_is_passed_over_even_if_it_cannot_be_decoded() -> None:
    with TestDriver(broken_app(Refusals(), name="other")) as other:
        other.send("orders", b"{", key="ann")
        (letter,) = other.dead_letters()
        good = letter.replay_headers("other")
    with TestDriver(broken_app(Refusals())) as driver:
        for value in (b"{", b'{"order_id": "o1", "user": "ann", "cents": 1}'):
            driver._log(TopicPartition("orders", 0)).append((0, b"ann", value, good))
        driver._deliver(TopicPartition("orders", 0))
        assert driver.read("shop-totals") == [] and driver.read("shop-checked") == [] and driver.dead_letters() == []
        assert driver.counters()["checks", "orders", "replays_passed_over"] == 2


def test_record_that_failed_behind_a_repartition_goes_back_behind_it() -> None:
    app = App("regions", broker="memory://", partitions=2)
    orders = app.source("orders", Order, key="order_id")
    refused = {"ann"}
    passed: list[str] = []

    def greet(record: Record[str, Order], ctx: Context) -> Iterator[object]:
        if record.key in refused:
            raise ValueError("who is that?")
        yield {"user": record.key}

    def note(order: Order) -> bool:
        passed.append(order.order_id)
        return True

    @app.pipeline(orders)
    def greetings(orders: Stream[str, Order]) -> Sink:
        return orders.filter(note).key_by("user").process(greet, name="greet").to("greetings")

    with TestDriver(greetings, partitions=2) as driver:
        driver.send("orders", Order("o1", "ann", 1))
        (letter,) = driver.dead_letters()
        assert letter.topic.startswith("regions-greetings-") and letter.key == b"ann"
        refused.clear()
        assert driver.replay(letter) == 1
        assert [record.value for record in driver.read("greetings")] == [{"user": "ann"}]
        assert passed == ["o1"], "what stands before the repartition has it already"


def test_what_cannot_be_replayed_says_why() -> None:
    plan = broken_app(Refusals()).topology.plan()
    firing = firing_headers(name="", timestamp_ms=1, pipeline="checks", operator="check", error=ValueError("no"))
    for headers, words in [
        (firing, "used up"),
        ([("file", b"a"), ("line", b"1"), ("error", b"x")], "mend the line"),
        ([("error", b"x")], "does not say where it came from"),
        (letter_of((), topic="gone"), "does not read 'gone'"),
        (letter_of((), partition=9), "no partition 9"),
        (letter_of((), pipeline="old"), "pipeline old does not read"),
    ]:
        reason = refusal(read_letter(0, 0, b"", b"", 0, headers), plan)
        assert reason is not None and words in reason
    with TestDriver(broken_app(Refusals())) as driver, pytest.raises(ConfigError, match="0/5 cannot be replayed: it is of a timer"):
        driver.replay(read_letter(0, 5, b"", None, 0, firing))
