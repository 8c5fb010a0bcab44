"""Addresses and credentials of the Kafka transport; no broker needed."""

import ssl
import time

import faust
import pytest

from engine.errors import ConfigError, UnavailableError
from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport
from engine.runtime.transport.kafka.settings import parse_servers, security_arguments
from tests.ports import free_port


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://broker", ("broker:9092",)),
        ("kafka://one:1,two:2", ("one:1", "two:2")),
        ("kafka://one:1;kafka://two", ("one:1", "two:9092")),
        ("127.0.0.1:19092", ("127.0.0.1:19092",)),
        ("kafka://[::1]:1, [::2]", ("[::1]:1", "[::2]:9092")),
    ],
)
def test_servers_of_an_address_are_host_and_port(url: str, servers: tuple[str, ...]) -> None:
    assert parse_servers(url) == servers


@pytest.mark.parametrize("url", ["kafka://", "kafka://:9092", "kafka://broker:port", "memory://broker:1"])
def test_servers_of_a_wrong_address_raise_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="kafka://host:9092"):
        parse_servers(url)


def test_security_of_faust_credentials_becomes_aiokafka_arguments() -> None:
    context = ssl.create_default_context()
    assert security_arguments(None) == {}
    assert security_arguments(context) == {"security_protocol": "SSL", "ssl_context": context}
    assert security_arguments(faust.SSLCredentials(context)) == {"security_protocol": "SSL", "ssl_context": context}
    plain = faust.SASLCredentials(username="u", password="p", ssl_context=context, mechanism="SCRAM-SHA-256")
    assert security_arguments(plain) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "ssl_context": context,
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }
    kerberos = faust.GSSAPICredentials(kerberos_service_name="kafka", kerberos_domain_name="example.org")
    assert security_arguments(kerberos) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "GSSAPI",
        "ssl_context": None,
        "sasl_kerberos_service_name": "kafka",
        "sasl_kerberos_domain_name": "example.org",
    }


@pytest.mark.parametrize("credentials", ["password", faust.SASLCredentials(username="u")])
def test_security_of_useless_credentials_raises_config_error(credentials: object) -> None:
    with pytest.raises(ConfigError, match="broker credentials"):
        security_arguments(credentials)


def test_settings_as_text_do_not_tell_the_password() -> None:
    settings = KafkaSettings.of("kafka://h", credentials=faust.SASLCredentials(username="u", password="very-secret"))
    assert "very-secret" not in repr(settings)


async def test_start_without_a_broker_is_unavailable_within_the_bound() -> None:
    address = f"127.0.0.1:{free_port()}"
    transport = KafkaTransport(KafkaSettings.of(f"kafka://{address}", connect_timeout_ms=300))
    started_s = time.monotonic()
    with pytest.raises(UnavailableError, match=f"^Kafka at {address} could not connect: ConnectionRefusedError") as caught:
        await transport.start()
    assert time.monotonic() - started_s < 2
    assert "\n" not in str(caught.value)
    await transport.stop()


def test_transactions_end_after_ten_seconds_unless_told_otherwise() -> None:
    """Every read_committed reader waits for an open transaction: a dead worker must not hold it open for long."""
    assert KafkaSettings.of("kafka://broker").transaction_timeout_ms == 10_000
