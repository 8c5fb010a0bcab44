"""The worker's pages: `GET /metrics`, for Prometheus; `GET /ready` and `GET /live`, for whoever starts and stops workers."""

from collections.abc import Callable
from typing import Any

from faust.web import Request, Response, View

from engine.runtime.metrics import Metrics


def metrics_page(metrics: Metrics) -> type[View]:
    """Return the view that shows the worker's numbers."""

    class MetricsView(View):
        """Numbers of this worker in the Prometheus text format."""

        async def get(self, request: Request, **kwargs: Any) -> Response:
            return self.bytes(metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    return MetricsView


def ready_page(not_ready: Callable[[], list[str]]) -> type[View]:
    """Return the view that says whether the worker does its work: 200, or 503 with the reasons, a line each."""

    class ReadyView(View):
        """Whether all tasks of this worker run and move."""

        async def get(self, request: Request, **kwargs: Any) -> Response:
            reasons = not_ready()
            return self.text("\n".join(reasons) or "ready", status=503 if reasons else 200)

    return ReadyView


def live_page() -> type[View]:
    """Return the view that says that the event loop goes round, whatever the tasks do: a restore is no reason to start anew."""

    class LiveView(View):
        """Whether this process answers."""

        async def get(self, request: Request, **kwargs: Any) -> Response:
            return self.text("alive")

    return LiveView
