"""The worker's pages: `GET /metrics`, for Prometheus."""

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
