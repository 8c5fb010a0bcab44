"""The intake of a task: in order, without holes, bounded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.records import RecordBatch, TopicPartition
from engine.runtime.intake import JOINED_RECORDS, EndOfInput, Intake
from engine.runtime.metrics import TaskMetrics
from engine.testing.clock import virtual_time

CLICKS, VIEWS = TopicPartition("clicks", 0), TopicPartition("views", 0)


class Calls:
    """The part of a transport that an intake uses."""

    def __init__(self) -> None:
        self.made: list[tuple[str, object]] = []

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.made.append(("seek", dict(offsets)))

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.made.append(("pause", tuple(partitions)))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self.made.append(("resume", tuple(partitions)))


def batch(position: int, count: int) -> RecordBatch:
    offsets = list(range(position, position + count))
    return RecordBatch("clicks", 0, offsets, offsets, [None] * count, [b""] * count, position=position, next_offset=position + count)


def opened(records_max: int = 100) -> tuple[Intake, Calls]:
    calls = Calls()
    intake = Intake(calls, [CLICKS], records_max, TaskMetrics())  # type: ignore[arg-type]
    intake.open({CLICKS: 5})
    calls.made.clear()
    return intake, calls


@virtual_time
async def test_intake_batch_that_continues_is_taken() -> None:
    intake, calls = opened()
    intake.offer(batch(5, 3))
    intake.offer(batch(8, 2))
    assert len(intake) == 2
    assert calls.made == []


@virtual_time
async def test_intake_batch_of_another_position_is_dropped_and_fetched_again() -> None:
    intake, calls = opened()
    intake.offer(batch(5, 3))
    intake.offer(batch(20, 1))
    intake.offer(batch(5, 3))
    assert len(intake) == 1
    assert calls.made == [("seek", {CLICKS: 8})] * 2


@virtual_time
async def test_intake_shut_takes_nothing() -> None:
    intake, calls = opened()
    intake.offer(batch(5, 3))
    intake.shut()
    intake.offer(batch(8, 1))
    assert len(intake) == 0
    assert calls.made == []


@virtual_time
async def test_intake_full_pauses_and_resumes_when_half_is_gone() -> None:
    intake, calls = opened(records_max=10)
    intake.offer(batch(5, 6))
    assert calls.made == []
    intake.offer(batch(11, 6))
    assert calls.made == [("pause", (CLICKS,))]
    intake.done(CLICKS, 6)
    assert calls.made == [("pause", (CLICKS,))]
    intake.done(CLICKS, 1)
    assert calls.made == [("pause", (CLICKS,)), ("resume", (CLICKS,))]


@virtual_time
async def test_intake_full_of_one_input_has_room_for_the_others() -> None:
    calls = Calls()
    intake = Intake(calls, [CLICKS, VIEWS], 10, TaskMetrics())  # type: ignore[arg-type]
    intake.open({CLICKS: 5, VIEWS: 0})
    calls.made.clear()
    intake.offer(batch(5, 6))
    assert calls.made == [("pause", (CLICKS,))]
    intake.offer(replace(batch(0, 4), topic="views"))
    assert (len(intake), intake.queued) == (2, 10)
    assert len(calls.made) == 1
    assert intake.heads() == [CLICKS, VIEWS]
    intake.pop(CLICKS)
    intake.set_aside(batch(7, 4))
    assert intake.heads() == [CLICKS, VIEWS], "what is left goes first"


@virtual_time
async def test_intake_partition_that_is_held_keeps_its_order_and_takes_no_room() -> None:
    intake, calls = opened(records_max=4)
    intake.offer(batch(5, 3))
    intake.offer(batch(8, 1))
    intake.end(["clicks"])
    assert calls.made == [("pause", (CLICKS,))]  # full
    in_hand = intake.pop()
    assert isinstance(in_hand, RecordBatch)
    intake.done(CLICKS, 1)
    intake.hold(CLICKS)
    intake.set_aside(batch(6, 2))
    intake.offer(batch(9, 6))  # it was on its way
    assert (len(intake), intake.queued, intake.held, intake.is_held(CLICKS)) == (0, 0, 1, True)
    assert calls.made == [("pause", (CLICKS,))] * 2
    calls.made.clear()
    intake.let_go(CLICKS)
    assert calls.made == [("resume", (CLICKS,)), ("pause", (CLICKS,))]  # and full again
    items = [intake.pop() for _ in range(len(intake))]
    assert [item.position if isinstance(item, RecordBatch) else "end" for item in items] == [6, 8, "end", 9]


def test_intake_small_batches_that_wait_are_taken_together() -> None:
    intake, _ = opened(records_max=100_000)
    for position in range(5, 25, 4):
        intake.offer(batch(position, 4))
    intake.offer(batch(25, JOINED_RECORDS))
    intake.end(["clicks"])
    taken = intake.take(CLICKS)
    assert isinstance(taken, RecordBatch)
    assert (taken.position, list(taken.offsets), taken.next_offset) == (5, list(range(5, 25)), 25)
    large = intake.take(CLICKS)
    assert isinstance(large, RecordBatch) and (large.position, len(large)) == (25, JOINED_RECORDS)
    assert intake.take(CLICKS) == EndOfInput("clicks")


def test_intake_batch_that_was_looked_at_is_taken_alone() -> None:
    intake, _ = opened()
    for position in (5, 7, 9):
        intake.offer(batch(position, 2))
    peeked = intake.peek(CLICKS)
    assert isinstance(peeked, RecordBatch)
    peeked.attached["rows"] = "what was read of it"
    assert intake.take(CLICKS) is peeked
    rest = intake.take(CLICKS)
    assert isinstance(rest, RecordBatch) and (rest.position, rest.next_offset) == (7, 11)
