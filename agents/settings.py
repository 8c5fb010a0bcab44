"""The shop's app and its sources.

The environment decides where it runs: `STREAMFORGE_BROKER=kafka://host:9092`, `STREAMFORGE_STATE_DIR=…` beat what stands here,
as for every option of an app. `memory://` lives inside one process: for the demo, for `streamforge run` and for tests.
"""

from agents.records import Order, PageView
from engine import App, bounded

app = App("shop", broker="memory://", state_dir="var/state", partitions=12)

orders = app.source("orders", Order, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))
page_views = app.source("page-views", PageView, key="user_id", time="ts", watermark=bounded("30s", idle="1m"))
