"""What the driver alone can do: plain aiokafka `getmany` and JSON decoding, no engine, no output: `python -m tests.bench.control`."""

import asyncio
import os
import time

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.bench.measured import note
from tests.bench.workload import PARTITIONS


async def main() -> None:
    """Read the topic to its end and say when the first and the last records were decoded."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=os.environ["BENCH_BROKER"],
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    partitions = [TopicPartition(os.environ["BENCH_TOPIC"], number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    wanted, got, decode = int(os.environ["BENCH_RECORDS"]), 0, orjson.loads
    first = cpu_s = 0.0
    while got < wanted:
        found = await consumer.getmany(timeout_ms=1_000, max_records=10_000)
        if not first:
            first, cpu_s = time.time(), time.process_time()
        for records in found.values():
            for record in records:
                decode(record.value)
            got += len(records)
    note(first=first, last=time.time(), cpu_s=time.process_time() - cpu_s)
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
