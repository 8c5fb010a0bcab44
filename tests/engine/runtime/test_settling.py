"""What a task does with transactions that hang under its own id when it is opened, on a broker that is told what hangs."""

import logging
from typing import Any, cast

import pytest

from engine.errors import ConfigError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.settling import settle
from engine.runtime.transport.open_transactions import Decision, OpenTransaction
from engine.testing.clock import LoopClock, virtual_loop, virtual_time

P, Q = TopicPartition("app-changelog-1", 0), TopicPartition("results", 3)


class Producer:
    producer_id = 7


class Broker:
    """Has some transactions open; those that run end by themselves after a while."""

    def __init__(self, *transactions: OpenTransaction, may_look: bool = True, may_end: bool = True, running_for: int = 1_000) -> None:
        self.transactions = list(transactions)
        self.ended: list[tuple[str, Decision]] = []
        self.looks = 0
        self._may_look, self._may_end, self._running_for = may_look, may_end, running_for

    async def open_transactions(self, partitions: list[TopicPartition], producer_id: int | None = None) -> list[OpenTransaction]:
        if not self._may_look:
            raise ConfigError("TopicAuthorizationFailedError")
        assert partitions == [P, Q]
        self.looks += 1
        gone = {each for each in self.transactions if not each.hangs and self.looks > self._running_for}
        return [each for each in self.transactions if each not in gone and each.producer_id == producer_id]

    async def end_transaction(self, transaction: OpenTransaction, decided: Decision) -> None:
        if not self._may_end:
            raise ConfigError("ClusterAuthorizationFailedError")
        self.ended.append((transaction.place, decided))


def open_at(
    partition: TopicPartition, offset: int, decided: Decision | None = None, *, producer: int = 7, hangs: bool = True
) -> OpenTransaction:
    return OpenTransaction(partition, offset, producer, 2, 0, 1_000, "app-0", hangs, decided)


async def settled(broker: Broker) -> None:
    await settle(cast(Any, broker), cast(Any, Producer()), [P, Q], LoopClock(virtual_loop()))


@virtual_time
async def test_what_hangs_is_ended_as_was_decided_and_the_rest_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(open_at(P, 5, "commit"), open_at(Q, 9, "abort"), open_at(Q, 12, "commit", producer=8))
    await settled(broker)
    assert broker.ended == [("app-changelog-1-0@5", "commit"), ("results-3@9", "abort")]
    assert "results-3@9 of producer 7 epoch 2 (app-0): hanging, its end was decided: abort; it is ended" in caplog.text


@virtual_time
async def test_nothing_open_is_settled_at_the_first_look() -> None:
    broker = Broker(open_at(Q, 12, "commit", producer=8))
    await settled(broker)
    assert (broker.looks, broker.ended) == (1, [])


@virtual_time
async def test_end_that_nobody_knows_keeps_the_task_closed_and_names_the_command() -> None:
    broker = Broker(open_at(P, 5, None))
    with pytest.raises(UnavailableError, match=r"end is not known\. .*streamforge transactions end app-changelog-1-0@5 --unknown commit"):
        await settled(broker)
    assert broker.ended == []


@virtual_time
async def test_missing_right_to_end_keeps_the_task_closed_and_names_the_command() -> None:
    broker = Broker(open_at(P, 5, "commit"), may_end=False)
    with pytest.raises(UnavailableError, match=r"ClusterAuthorizationFailedError.*streamforge transactions end app-changelog-1-0@5"):
        await settled(broker)


@virtual_time
async def test_missing_right_to_look_is_logged_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await settled(Broker(open_at(P, 5, "commit"), may_look=False))
    assert "whether transactions hang cannot be seen: TopicAuthorizationFailedError" in caplog.text


@virtual_time
async def test_transaction_that_is_just_ending_is_waited_for() -> None:
    broker = Broker(open_at(P, 5, hangs=False), running_for=20)
    await settled(broker)
    assert (broker.looks, broker.ended) == (21, [])


@virtual_time
async def test_transaction_that_runs_on_keeps_the_task_closed() -> None:
    with pytest.raises(UnavailableError, match="running, though its producer is fenced"):
        await settled(Broker(open_at(P, 5, hangs=False)))
