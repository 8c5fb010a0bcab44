"""From a broker's address to a transport; the client of Kafka is imported only when it is needed."""

from collections.abc import Callable, Iterable

from engine.errors import ConfigError
from engine.runtime.assignor import WorkerAddress
from engine.runtime.clock import Clock
from engine.runtime.transport.memory import MemoryTransport
from engine.runtime.transport.memory_broker import MemoryBrokers
from engine.runtime.transport.memory_membership import GroupTimes
from engine.runtime.transport.protocol import Transport


def make_transport(
    broker: str,
    *,
    group: str,
    credentials: object | None = None,
    stored_numbers: Callable[[], Iterable[int]] = tuple,
    standbys: int = 0,
    instance_id: str | None = None,
    clock: Clock | None = None,
    session_timeout_s: float = 10.0,
    rebalance_timeout_s: float = 15.0,
    address: WorkerAddress | None = None,
) -> Transport:
    """Return a connection that is not started yet.

    Args:
        broker: "memory://name" or "kafka://host:9092,host2:9092".
        group: Consumer group; "" for none.
        credentials: As Faust takes them; Kafka only.
        stored_numbers: Partition numbers whose store lies on this worker's disk; asked at each rebalance.
        standbys: How many copies of each task other workers shall keep.
        instance_id: Static membership of the group; Kafka only.
        session_timeout_s: A member that is silent for so long loses its partitions.
        rebalance_timeout_s: How long the others wait for a member to let go of its partitions.
        address: Where this worker's pages are, for the other members to know.
    Raises:
        ConfigError: The address is not one.
    """
    if broker.startswith("memory://"):
        times = GroupTimes(session_timeout_s, session_timeout_s / 5, rebalance_timeout_s)
        return MemoryTransport(
            MemoryBrokers.open(broker, clock),
            group_id=group,
            clock=clock,
            stored=stored_numbers,
            standbys=standbys,
            address=address,
            times=times,
        )
    if broker.startswith("kafka://"):
        from engine.runtime.transport.kafka import KafkaSettings, KafkaTransport

        settings = KafkaSettings.of(
            broker,
            group=group,
            credentials=credentials,
            instance_id=instance_id,
            session_timeout_ms=round(session_timeout_s * 1_000),
            rebalance_timeout_ms=round(rebalance_timeout_s * 1_000),
        )
        return KafkaTransport(settings, stored_numbers=stored_numbers, standbys=standbys, address=address)
    raise ConfigError(f"broker {broker!r} is not known; use 'kafka://host:9092' or 'memory://'")
