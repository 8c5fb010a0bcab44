"""A Faust transport over ours, for what is plain Faust in an app: agents on topics, and `app.topic(...).send`.

Plain agents and pipelines do not disturb each other's rebalances, since the plain part has a connection and a consumer group of its
own. Delivery is at least once: offsets are committed after the agents' acks, as Faust does it. The same code serves kafka:// and
memory://.
"""

from collections.abc import Callable, Sequence

from faust.tables.manager import TableManager
from faust.transport.base import Transport as FaustTransport
from faust.transport.conductor import Conductor
from faust.types import AppT
from faust.types.tuples import TP
from yarl import URL

from engine.runtime.faust_seam.side_connection import Connection
from engine.runtime.faust_seam.side_consumer import SideConsumer
from engine.runtime.faust_seam.side_producer import SideProducer


class NoTables(TableManager):
    """The table manager of an app whose tables are ours: what is left is to resume plain agents after a rebalance."""

    async def on_start(self) -> None:
        """Start nothing: there is nothing to recover."""

    async def wait_until_tables_registered(self) -> None:
        """Return at once: there are none."""

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0) -> None:
        """Resume plain agents, outside the rebalance callback."""
        consumer = self.app.consumer
        assert isinstance(consumer, SideConsumer)
        consumer.add_future(consumer.resume(generation_id))


class SideTransport(FaustTransport):
    """The Faust transport of an app."""

    Consumer = SideConsumer
    Producer = SideProducer
    Conductor = Conductor
    driver_version = "streamforge"

    def __init__(self, url: Sequence[URL], app: AppT, *, connection: Connection, now_ms: Callable[[], int]) -> None:
        super().__init__(list(url), app)
        self.connection = connection
        self.now_ms = now_ms
