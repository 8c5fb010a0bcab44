"""How many orders the results have counted: every result that there is, not only until there are enough."""

import json
from typing import Self

from engine.records import TopicPartition
from engine.runtime.transport.protocol import PartitionReader, Transport
from tests.soak.app import PARTITIONS


class Tally:
    """Reads a topic of windows, and that of the orders that came too late for them, from the beginning on.

    Attributes:
        counted: Orders in the windows.
        late: Orders that came too late.
    """

    def __init__(self, topic: str, transport: Transport) -> None:
        self.topic = topic
        self.counted = self.late = 0
        self._transport = transport
        self._readers: dict[TopicPartition, PartitionReader] = {}

    async def open(self) -> Self:
        """Go to the beginning."""
        for topic in (self.topic, f"{self.topic}-late"):
            for number in range(PARTITIONS):
                partition = TopicPartition(topic, number)
                self._readers[partition] = await self._transport.open_reader(partition, 0)
        return self

    async def read(self) -> int:
        """Read all that is committed by now; return how many orders have been counted in all, late ones included."""
        for partition, end in (await self._transport.end_offsets(list(self._readers))).items():
            reader = self._readers[partition]
            while reader.position < end:
                batch = await reader.read(1.0)
                if batch is None:
                    continue
                if partition.topic == self.topic:
                    self.counted += sum(json.loads(value or b"null")["orders"] for value in batch.values)
                else:
                    self.late += len(batch)
        return self.counted + self.late

    async def close(self) -> None:
        """Let go of the readers."""
        for reader in self._readers.values():
            await reader.close()
