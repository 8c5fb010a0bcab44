"""Refunds out of payments, both Avro with schema ids; payments that were written before there was a reason still count."""

import os
from typing import Annotated

from cdc import Registry, avro
from cdc.avro_types import Aliases
from engine import App, Sink, Stream, Struct

registry = Registry(os.environ.get("SCHEMA_REGISTRY", "memory://refund-letters"))


class Payment(Struct, frozen=True):
    payment_id: str
    customer: Annotated[str, Aliases("client")]
    cents: int
    reason: str = "unknown"


class Refund(Struct, frozen=True):
    payment_id: str
    cents: int
    letter: str


app = App("refund-letters", broker="memory://", partitions=2)
payments = app.source("payments", codec=avro(registry, Payment), key="customer")


def refund(payment: Payment) -> Refund:
    """What to write to the customer."""
    return Refund(payment.payment_id, -payment.cents, f"Dear {payment.customer}, your money is on its way: {payment.reason}.")


@app.pipeline(payments)
def refunds(payments: Stream[str, Payment]) -> Sink:
    """A letter for each payment below zero."""
    return payments.filter(lambda payment: payment.cents < 0).map(refund).to("refunds", codec=avro(registry, Refund))
