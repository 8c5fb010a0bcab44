"""Change data capture: change events of Debezium's, schemas of a registry, and what they mean to a pipeline.

    users = app.source("pg.public.users", codec=debezium(User), key="id")

Names are loaded when they are first used, so that JSON needs neither fastavro nor httpx.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdc.change import Change as Change
    from cdc.change import Heartbeat as Heartbeat
    from cdc.change import Message as Message
    from cdc.change import Op as Op
    from cdc.change import OutboxEvent as OutboxEvent
    from cdc.change import Position as Position
    from cdc.change import Transaction as Transaction
    from cdc.change import TransactionMark as TransactionMark
    from cdc.debezium_codec import debezium as debezium
    from cdc.other_codecs import heartbeats as heartbeats
    from cdc.other_codecs import outbox as outbox
    from cdc.other_codecs import transaction_marks as transaction_marks
    from cdc.protobuf_codec import protobuf as protobuf
    from cdc.registry.client import Registry as Registry
    from cdc.schema_codecs import avro as avro
    from cdc.schema_codecs import jsonschema as jsonschema
    from cdc.together import Together as Together
    from cdc.together import transactions as transactions
    from cdc.unwrapped import Unwrapped as Unwrapped
    from cdc.values import INFINITY as INFINITY
    from cdc.values import MINUS_INFINITY as MINUS_INFINITY
    from cdc.values import Beyond as Beyond
    from cdc.values import Encoded as Encoded
    from cdc.values import Interval as Interval
    from cdc.values import Range as Range
    from cdc.values import Scale as Scale
    from cdc.values import Unit as Unit

_HOMES = {
    "Change": "cdc.change", "Heartbeat": "cdc.change", "Message": "cdc.change", "Op": "cdc.change", "OutboxEvent": "cdc.change",
    "Position": "cdc.change", "Transaction": "cdc.change", "TransactionMark": "cdc.change",
    "debezium": "cdc.debezium_codec",
    "heartbeats": "cdc.other_codecs", "outbox": "cdc.other_codecs", "transaction_marks": "cdc.other_codecs",
    "protobuf": "cdc.protobuf_codec", "Registry": "cdc.registry.client", "avro": "cdc.schema_codecs", "jsonschema": "cdc.schema_codecs",
    "Together": "cdc.together", "transactions": "cdc.together",
    "Unwrapped": "cdc.unwrapped",
    "Beyond": "cdc.values", "Encoded": "cdc.values", "INFINITY": "cdc.values", "Interval": "cdc.values", "MINUS_INFINITY": "cdc.values",
    "Range": "cdc.values", "Scale": "cdc.values", "Unit": "cdc.values",
}  # fmt: skip

__all__ = [
    "INFINITY", "MINUS_INFINITY", "Beyond", "Change", "Encoded", "Heartbeat", "Interval", "Message", "Op", "OutboxEvent", "Position",
    "Range", "Registry", "Scale", "Together", "Transaction", "TransactionMark", "Unit", "Unwrapped", "avro", "debezium", "heartbeats",
    "jsonschema", "outbox", "protobuf", "transaction_marks", "transactions",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
