"""The Kafka transport over TLS with SASL, on a real listener with a certificate of its own."""

import ssl

import faust
import pytest

from engine.errors import ConfigError, UnavailableError
from engine.records import TopicPartition
from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport
from tests.engine.runtime.kafka_harness import Member, columns, connected, new_topic, read_to_end, unique, values, wait_committed
from tests.kafka_server import PASSWORD, USER, KafkaServer

pytestmark = pytest.mark.kafka


def _settings(kafka: KafkaServer, mechanism: str, *, password: str = PASSWORD, trusted: bool = True) -> KafkaSettings:
    context = ssl.create_default_context(cafile=str(kafka.cafile) if trusted else None)
    credentials = faust.SASLCredentials(username=USER, password=password, mechanism=mechanism, ssl_context=context)
    return KafkaSettings.of(f"kafka://{kafka.secure_bootstrap}", credentials=credentials, group=unique("group"), connect_timeout_ms=5_000)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_everything_works_over_tls_and_sasl(kafka: KafkaServer, mechanism: str) -> None:
    async with connected(_settings(kafka, mechanism)) as transport:
        partition = TopicPartition(await new_topic(transport), 0)
        await transport.send({partition: columns((b"k", b"sent"))})
        producer = await transport.open_producer(unique("id"))
        committed = await producer.commit({partition: columns((b"k", b"committed"))}, {partition: 1})
        await producer.close()
        await wait_committed(transport, {partition: 1})
        assert values(await read_to_end(transport, partition, committed[partition])) == [b"sent", b"committed"]
        member = Member(transport)
        await member.join(partition.topic)
        member.go_on()
        await member.until(lambda: len(values(member.batches)) == 2)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_start_with_a_wrong_password_raises_config_error_at_once(kafka: KafkaServer, mechanism: str) -> None:
    transport = KafkaTransport(_settings(kafka, mechanism, password="wrong"))
    with pytest.raises(ConfigError, match=f"^Kafka at {kafka.secure_bootstrap} refused to connect: ") as caught:
        await transport.start()
    assert "wrong" not in str(caught.value)


async def test_start_with_a_mechanism_that_the_broker_lacks_raises_config_error(kafka: KafkaServer) -> None:
    with pytest.raises(ConfigError, match="refused to connect"):
        await KafkaTransport(_settings(kafka, "SCRAM-SHA-512")).start()


async def test_start_with_an_untrusted_certificate_raises_config_error(kafka: KafkaServer) -> None:
    with pytest.raises(ConfigError, match=r"refused to connect: .*certificate"):
        await KafkaTransport(_settings(kafka, "PLAIN", trusted=False)).start()


async def test_start_without_tls_on_a_tls_listener_is_unavailable(kafka: KafkaServer) -> None:
    with pytest.raises(UnavailableError, match=f"^Kafka at {kafka.secure_bootstrap} "):
        await KafkaTransport(KafkaSettings.of(f"kafka://{kafka.secure_bootstrap}", connect_timeout_ms=1_000)).start()
