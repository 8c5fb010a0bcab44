"""Payments on a cluster with TLS and SASL; the certificate, the user and the password come from the environment."""

import os
import ssl

import faust

from engine import App, Sink, Stream, Struct, agg, bounded


class Payment(Struct, frozen=True):
    """Topic `payments`."""

    account: str
    cents: int
    ts: int


class Total(Struct, frozen=True):
    """What an account has paid so far."""

    account: str
    payments: int
    cents: int


app = App(
    "secure-payments",
    broker="kafka://localhost:9093",
    partitions=2,
    broker_credentials=faust.SASLCredentials(
        username=os.environ.get("PAYMENTS_USER"),
        password=os.environ.get("PAYMENTS_PASSWORD"),
        mechanism="SCRAM-SHA-256",
        ssl_context=ssl.create_default_context(cafile=os.environ.get("PAYMENTS_CA")),
    ),
)
payments = app.source("payments", Payment, key="account", time="ts", watermark=bounded("10s"))


@app.pipeline(payments)
def totals(payments: Stream[str, Payment]) -> Sink:
    """Running totals, one result a payment."""
    return payments.aggregate(emit="record", into=Total, key_as="account", payments=agg.count(), cents=agg.sum("cents")).to(
        "payment-totals"
    )


if __name__ == "__main__":
    app.main()
