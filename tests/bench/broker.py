"""The broker of a measurement."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.kafka_server import KafkaServer
from tests.maven import JavaMissing


@contextmanager
def measured_broker(say: Callable[[str], None] = print, *, heap_mb: int = 1_024) -> Iterator[KafkaServer]:
    """Run a Kafka for a measurement; where there is no Java, say so and end the program with status 2."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it reports each retry on a topic that has just been made
    server = KafkaServer(heap_mb=heap_mb, measured=True)
    try:
        server.start()
    except JavaMissing as error:
        say(f"NO BENCH: {error}")
        sys.exit(2)
    try:
        yield server
    finally:
        server.stop()
