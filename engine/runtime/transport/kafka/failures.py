"""Translate aiokafka's errors at the door, and keep trying what is worth another try, for a bounded time.

| what the broker or driver says                            | becomes            |
|-----------------------------------------------------------|--------------------|
| a newer producer has the transactional id                 | `FencedError`      |
| wrong credentials, missing rights, a topic that cannot be | `ConfigError`      |
| everything else: unreachable, timed out, leader elections | `UnavailableError` |
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiokafka import errors
from aiokafka.conn import create_conn

from engine.errors import ConfigError, StreamForgeError, UnavailableError
from engine.runtime.transport.kafka.settings import KafkaSettings

T = TypeVar("T")

_RETRY_AFTER_S = 0.1
_REFUSED: Sequence[type[Exception]] = (
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
    ssl.SSLCertVerificationError,
)
_NO_BROKER = "Did we not perform bootstrap?"
_FENCED: Sequence[type[Exception]] = (errors.ProducerFenced, errors.InvalidProducerEpoch)


def is_fenced(error: BaseException | None) -> bool:
    """Return whether the broker said that a newer producer owns the transactional id."""
    while error is not None:
        if isinstance(error, tuple(_FENCED)):
            return True
        error = error.__cause__
    return False


def translate(error: BaseException, what: str, address: str) -> StreamForgeError:
    """Return our error for one of the driver's, in one sentence: what failed, where, why."""
    if isinstance(error, StreamForgeError):
        return error
    reason = describe(error)
    if isinstance(error, tuple(_REFUSED)):
        return ConfigError(f"Kafka at {address} refused to {what}: {reason}")
    if isinstance(error, TimeoutError):
        return UnavailableError(f"Kafka at {address} did not answer in time: could not {what}")
    return UnavailableError(f"Kafka at {address} could not {what}: {reason}")


def describe(error: BaseException) -> str:
    """Return an error as one line, with its type's name where its text says nothing."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return text if name in text else f"{name}: {text}" if text else name


async def persist(attempt: Callable[[], Awaitable[T]], what: str, address: str, timeout_ms: int) -> T:
    """Call until it succeeds, for at most `timeout_ms`; errors that no other try can mend end it at once.

    Raises:
        ConfigError: The broker refuses us.
        UnavailableError: The time is over; the message tells the last reason.
    """
    deadline = time.monotonic() + timeout_ms / 1000
    last: BaseException | None = None
    while True:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await attempt()
        except (errors.KafkaError, OSError) as error:
            last = error if last is None or not isinstance(error, TimeoutError) else last
        except AssertionError as error:
            if str(error) != _NO_BROKER:
                raise
            last = errors.NodeNotReadyError("a broker that is just starting named no broker")  # aiokafka is sure that one is named
        if isinstance(last, tuple(_REFUSED)) or time.monotonic() + _RETRY_AFTER_S > deadline:
            raise translate(last, what, address) from last
        await asyncio.sleep(_RETRY_AFTER_S)


async def probe(settings: KafkaSettings) -> None:
    """Connect to one of the brokers and let go again: the clients would hide why a connection fails.

    Raises:
        ConfigError: Bad credentials, or a certificate that is not trusted.
        UnavailableError: None of the brokers answered within `connect_timeout_ms`.
    """

    async def connect() -> None:
        failure: BaseException | None = None
        for server in settings.servers:
            host, _, port = server.rpartition(":")
            try:
                connection = await create_conn(
                    host.strip("[]"), int(port), request_timeout_ms=settings.request_timeout_ms, **_of_connection(settings)
                )
            except (errors.KafkaError, OSError) as error:
                failure = error
            else:
                connection.close()
                return
        assert failure is not None
        raise failure

    await persist(connect, "connect", settings.address, settings.connect_timeout_ms)


def _of_connection(settings: KafkaSettings) -> dict[str, object]:
    return {"client_id": settings.client_id, **settings.security}
