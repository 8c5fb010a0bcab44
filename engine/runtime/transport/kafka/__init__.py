"""The transport to Kafka: aiokafka is imported in this package and nowhere else.

    settings   where the brokers are, who we are       consumer   the group's member: columns, fetch states, heartbeats
    transport  the `Transport` protocol over the rest  columns    record batches to columns
    admin      topics, offsets, purging                reader     one partition by position (restore, standbys)
    producer   transactions, plain sending             assignor   our assignor in Kafka's group protocol
    failures   aiokafka's errors to ours               seam       every private name of aiokafka that is touched

aiokafka 0.14 speaks a classic group protocol with eager rebalances and offset commits without a group generation; what follows
from that (fencing by `transactional.id`, offsets in the changelog) is the runner's business, not this package's.
"""

from engine.runtime.transport.kafka.settings import KafkaSettings
from engine.runtime.transport.kafka.transport import KafkaTransport

__all__ = ["KafkaSettings", "KafkaTransport"]
