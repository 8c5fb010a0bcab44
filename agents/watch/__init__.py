"""The watch: a second app over the shop's topics, which looks for what a person should look at. One file a pipeline.

    payments ──┬─► probes ────► probe-alerts       live rules (topic watch-rules; the first ones are in rules.jsonl)
    orders ────┼─► unpaid ────► unpaid-orders      an order without a payment within 30 minutes
               └─► journeys ──► odd-journeys       a visit that orders from one country, and then from another
    page-views ──►

It has an id, a consumer group and state of its own, so it can be stopped, changed and started without touching the shop.
`streamforge worker agents.watch` runs it on Kafka, `streamforge cep rules put agents/watch/rules.jsonl -A agents.watch` gives it its
rules.
"""

from agents.watch import journeys, probes, unpaid
from agents.watch.settings import app

__all__ = ["app", "journeys", "probes", "unpaid"]
