"""The worker's pages: `GET /metrics`, for Prometheus; `GET /ready` and `GET /live`, for whoever starts and stops workers."""

import socket
from collections.abc import Callable
from typing import Any

from faust.types.settings import Settings
from faust.web import Request, Response, View

from engine.runtime.assignor import WorkerAddress
from engine.runtime.faust_seam.state_pages import is_loopback
from engine.runtime.metrics import Metrics


def worker_pages(metrics: Metrics, not_ready: Callable[[], list[str]]) -> dict[str, type[View]]:
    """Return the pages about the worker itself, by path."""
    return {"/metrics": metrics_page(metrics), "/live": live_page(), "/ready": ready_page(not_ready)}


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


def web_address(settings: Settings) -> WorkerAddress | None:
    """Return where the pages of a worker with these settings are; None with its web server off, or on a socket file.

    What was set counts (`canonical_url`, else `web_host`). A server that only its own machine can reach has the address there, unless
    `canonical_url` names what stands before it.
    """
    if not settings.web_enabled or settings.web_transport.scheme != "tcp":
        return None
    host, url, bind = socket.gethostname(), settings.canonical_url, str(settings.web_bind)
    is_default = url.host == settings.web_host and url.port == settings.web_port
    if is_default and (bind == "localhost" or is_loopback(bind)):
        return WorkerAddress(f"http://{f'[{bind}]' if ':' in bind else bind}:{settings.web_port}", host)
    return WorkerAddress(str(url).rstrip("/"), host)
