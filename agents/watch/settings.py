"""The watch's app and its sources; the environment decides where it runs, as for the shop (`agents.settings`)."""

from agents.records import Order, PageView
from agents.watch.records import Payment
from engine import App, bounded

app = App("shop-watch", broker="memory://", state_dir="var/state", partitions=12)

orders = app.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))
page_views = app.source("page-views", PageView, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))
payments = app.source("payments", Payment, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))
rules = app.rules("watch-rules")
