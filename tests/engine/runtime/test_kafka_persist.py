"""What is tried again, and what is not: no broker needed."""

import inspect
from collections.abc import Awaitable, Callable

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NodeNotReadyError, TopicAuthorizationFailedError

from engine.errors import ConfigError, UnavailableError
from engine.runtime.transport.kafka.failures import persist

NO_BROKER = "Did we not perform bootstrap?"


def failing(*failures: BaseException) -> Callable[[], Awaitable[str]]:
    """Return an attempt that fails so often, then succeeds."""
    left = list(failures)

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


async def test_persist_tries_again_what_time_can_mend() -> None:
    assert await persist(failing(NodeNotReadyError(), TimeoutError()), "try", "b:1", 5_000) == "done"


async def test_persist_tries_again_when_a_starting_broker_named_no_broker() -> None:
    assert await persist(failing(AssertionError(NO_BROKER)), "try", "b:1", 5_000) == "done"
    with pytest.raises(UnavailableError, match=r"Kafka at b:1 could not try: .*named no broker"):
        await persist(failing(*[AssertionError(NO_BROKER)] * 9), "try", "b:1", 150)


async def test_persist_raises_a_failed_assertion_of_any_other_kind() -> None:
    with pytest.raises(AssertionError, match="ours"):
        await persist(failing(AssertionError("ours")), "try", "b:1", 5_000)


async def test_persist_ends_at_once_where_the_broker_refuses() -> None:
    with pytest.raises(ConfigError, match="Kafka at b:1 refused to try"):
        await persist(failing(TopicAuthorizationFailedError()), "try", "b:1", 5_000)


def test_aiokafka_still_asserts_in_these_words_that_a_broker_is_known() -> None:
    assert NO_BROKER in inspect.getsource(AIOKafkaClient.coordinator_lookup)
