"""Which epoch an app is in: the newest record of `<app>-epochs`, epoch 1 if there is none.

An epoch begins when a savepoint has been restored: the internal topics carry its number, so that nothing of the one before is ever
read again. A worker finds out when it starts, and each task asks again when it has fenced its predecessor: whoever still runs an epoch
that is over finds out there and stops.
"""

import msgspec

from engine.plan import Plan
from engine.records import TopicPartition
from engine.runtime.opening_errors import EndedError
from engine.runtime.transport.protocol import Transport

_READ_TIMEOUT_S = 1.0


class Epoch(msgspec.Struct, frozen=True):
    """A restored savepoint: the epoch that it began, and where it came from."""

    epoch: int
    partitions: int
    savepoint: str
    who: str
    why: str
    at_ms: int


async def read_epoch(transport: Transport, plan: Plan) -> Epoch | None:
    """Return the record of the present epoch, None for the first one. The topic must exist."""
    partition = TopicPartition(plan.epochs_topic, 0)
    begin = (await transport.begin_offsets([partition]))[partition]
    end = (await transport.end_offsets([partition]))[partition]
    found: bytes | None = None
    if begin < end:
        reader = await transport.open_reader(partition, begin)
        try:
            while reader.position < end:
                batch = await reader.read(_READ_TIMEOUT_S)
                if batch is not None and len(batch):
                    found = batch.values[-1]
        finally:
            await reader.close()
    return None if found is None else msgspec.json.decode(found, type=Epoch)


async def present_plan(transport: Transport, plan: Plan) -> Plan:
    """Return the plan of the epoch that the app is in; makes the epochs topic if it is missing."""
    await transport.ensure_topics([spec for spec in plan.topic_specs() if spec.name == plan.epochs_topic])
    epoch = await read_epoch(transport, plan)
    return plan if epoch is None else plan.in_epoch(epoch.epoch)


async def visible_plan(transport: Transport, plan: Plan) -> Plan:
    """Return the plan of the epoch that the app is in, and make nothing: without an epochs topic it is the first one."""
    there = await transport.partition_counts([plan.epochs_topic])
    return await present_plan(transport, plan) if there else plan


async def check_epoch(transport: Transport, plan: Plan) -> None:
    """Raise an EndedError if the app has gone on to another epoch than the plan's."""
    epoch = await read_epoch(transport, plan)
    number = 1 if epoch is None else epoch.epoch
    if number != plan.epoch:
        raise EndedError(f"app {plan.app_id!r} is in epoch {number}, this worker runs epoch {plan.epoch}: restart it")
