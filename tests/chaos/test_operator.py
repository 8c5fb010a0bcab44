"""The operator of the chaos rounds: runs the genuine command, and reports what was ended by whom."""

from collections.abc import Iterator

import pytest

from tests.chaos.operator import Operator
from tests.engine.runtime.hanging import SETTINGS
from tests.engine.runtime.kafka_harness import connected, read_to_end, settings_of, values
from tests.engine.runtime.test_kafka_transactions import hang
from tests.kafka_server import KafkaServer


@pytest.fixture(scope="module")
def forgetful() -> Iterator[KafkaServer]:
    """A broker that lets producers write outside of their transactions."""
    with KafkaServer(SETTINGS) as server:
        yield server


@pytest.mark.kafka
@pytest.mark.slow
async def test_operator_ends_what_hangs_and_says_so(forgetful: KafkaServer) -> None:
    said: list[str] = []
    operator = Operator(forgetful.bootstrap, said.append)
    await operator.end_what_hangs()
    assert (operator.ended, said) == ([], [])
    async with connected(settings_of(forgetful)) as transport:
        producer, there, _ = await hang(forgetful, transport, "commit")
        await operator.end_what_hangs()
        line = f"{there.topic}-0@2 is ended: commit"
        assert (operator.ended, said) == ([line], [f"transactions end: {line}"])
        assert values(await read_to_end(transport, there, 4)) == [b"v", b"late"]
        await producer.close()


def test_notes_tell_who_ended_what() -> None:
    operator = Operator("127.0.0.1:1", print)
    assert operator.notes(["nothing of it\n", ""]) == []
    log = "12:00:00 WARNING the broker had lost the end of a transaction, t-0@5 of producer 1: hanging; it is ended\n"
    operator.ended.append("t-1@7 is ended: abort")
    assert operator.notes([log, log]) == [
        "the broker lost 2 ends of transactions that tasks have ended: t-0@5 of producer 1: hanging; t-0@5 of producer 1: hanging",
        "the broker lost 1 ends of transactions that the command has ended: t-1@7 is ended: abort",
    ]
