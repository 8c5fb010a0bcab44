"""The shop: the reference application. One file a pipeline, its records, its settings, its sample traffic.

    orders ─────┬─► revenue ──────► revenue, orders-late
                ├─► fraud ────────► fraud-alerts
                └─► first_order ──► first-orders, user-history
    page-views ───► sessions ─────► sessions

`streamforge worker agents` runs it on Kafka, `streamforge run agents …` over files, `streamforge demo` shows it at work.
"""

from agents import first_order, fraud, revenue, sessions
from agents.settings import app

__all__ = ["app", "first_order", "fraud", "revenue", "sessions"]
