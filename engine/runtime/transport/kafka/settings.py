"""How to reach a Kafka cluster: addresses, credentials, group, and the few times that matter.

    KafkaSettings.of("kafka://broker-1:9092,broker-2:9092", group="shop", credentials=faust.SSLCredentials(...))

Credentials are taken by their shape (`protocol`, `context`, `mechanism`, `username`, …), so that Faust's objects fit and Faust
need not be imported. A bare `ssl.SSLContext` means TLS without SASL.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import ConfigError

_DEFAULT_PORT = 9092


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """What a worker's connection needs to know.

    Attributes:
        servers: `host:port` of the brokers to ask first.
        group: Consumer group; empty for a connection that joins none (`send`, `tail`, `topics`).
        instance_id: Static membership: a restart within `session_timeout_ms` causes no rebalance. One process at a time may
            have it.
        security: Arguments of aiokafka's clients, made by `security_arguments`.
        connect_timeout_ms: How long `start` and `open_producer` try before they give up.
        request_timeout_ms: How long any other call waits for the brokers.
        session_timeout_ms: A member that is silent for so long loses its partitions.
        rebalance_timeout_ms: How long the others wait for a member to let go of its partitions.
        transaction_timeout_ms: The broker aborts a transaction that is open longer; readers wait for it until then.
        fetch_bytes: Most bytes of one partition in one fetch answer (a larger record still comes, alone).
        batch_bytes: Most bytes of one produced batch (a larger record still goes, alone).
        replication: Replicas of topics that we create; -1 leaves it to the broker.
    """

    servers: tuple[str, ...]
    group: str = ""
    client_id: str = "streamforge"
    instance_id: str | None = None
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    connect_timeout_ms: int = 15_000
    request_timeout_ms: int = 10_000
    session_timeout_ms: int = 10_000
    rebalance_timeout_ms: int = 15_000
    transaction_timeout_ms: int = 10_000
    fetch_bytes: int = 1 << 20
    batch_bytes: int = 1 << 18
    replication: int = -1

    @classmethod
    def of(cls, url: str, *, credentials: object | None = None, **options: Any) -> "KafkaSettings":
        """Return settings for a broker address such as `kafka://host:9092,host2:9092`, with any other attribute by name."""
        return cls(servers=parse_servers(url), security=security_arguments(credentials), **options)

    @property
    def address(self) -> str:
        """The brokers, as messages name them."""
        return ",".join(self.servers)

    def client_arguments(self) -> dict[str, Any]:
        """Return the arguments that every aiokafka client takes."""
        return {"bootstrap_servers": list(self.servers), "client_id": self.client_id, **self.security}


def parse_servers(url: str) -> tuple[str, ...]:
    """Return the `host:port` pairs of `kafka://host[:port],host2[:port]`; the scheme may be repeated or missing.

    Raises:
        ConfigError: There is no host in it, or a port is not a number.
    """
    servers = []
    for part in url.replace(";", ",").split(","):
        server = part.strip().removeprefix("kafka://").removeprefix("aiokafka://").rstrip("/")
        if not server:
            continue
        host, colon, port = server.rpartition(":")
        if not colon or server.endswith("]"):
            host, port = server, str(_DEFAULT_PORT)
        if not host or not port.isdigit() or "://" in server:
            raise ConfigError(f"broker address {url!r}: {part.strip()!r} is not host:port; write kafka://host:9092,host2:9092")
        servers.append(f"{host}:{port}")
    if not servers:
        raise ConfigError(f"broker address {url!r} names no host; write kafka://host:9092")
    return tuple(servers)


def security_arguments(credentials: object | None) -> dict[str, Any]:
    """Return aiokafka's security arguments for credentials shaped like Faust's, `{}` for none.

    Raises:
        ConfigError: The object has none of the known shapes, or lacks a password.
    """
    if credentials is None:
        return {}
    if isinstance(credentials, ssl.SSLContext):
        return {"security_protocol": "SSL", "ssl_context": credentials}
    arguments: dict[str, Any] = {"security_protocol": _text(getattr(credentials, "protocol", None))}
    if hasattr(credentials, "context"):
        return arguments | {"ssl_context": credentials.context}
    arguments |= {
        "sasl_mechanism": _text(getattr(credentials, "mechanism", None)),
        "ssl_context": getattr(credentials, "ssl_context", None),
    }
    if hasattr(credentials, "oauth_cb"):
        return arguments | {"sasl_oauth_token_provider": credentials.oauth_cb}
    if hasattr(credentials, "kerberos_service_name"):
        domain = getattr(credentials, "kerberos_domain_name", None)
        return arguments | {"sasl_kerberos_service_name": credentials.kerberos_service_name, "sasl_kerberos_domain_name": domain}
    if hasattr(credentials, "username") and hasattr(credentials, "password"):
        if credentials.username is None or credentials.password is None:
            raise ConfigError("broker credentials: SASL needs a username and a password")
        return arguments | {"sasl_plain_username": credentials.username, "sasl_plain_password": credentials.password}
    raise ConfigError(
        f"broker credentials: {type(credentials).__name__} is of no known kind; use faust.SSLCredentials, SASLCredentials, "
        "OAuthCredentials or GSSAPICredentials"
    )


def _text(value: object) -> object:
    """Return the text of an enumeration's member, or the value itself."""
    return getattr(value, "value", value)
