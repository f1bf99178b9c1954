"""What Prometheus may know of a gateway, and of each request a trace; nothing is served or sent unless that is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelinejob import traces

REGISTRY = CollectorRegistry()
REQUESTS = Histogram(
    "pipelinejob_gateway_request_seconds",
    "How long requests took until their last byte was sent, by route; those that no route took are 'none'.",
    ["method", "route", "status"],
    registry=REGISTRY,
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)
LISTENERS = Gauge("pipelinejob_gateway_listeners", "Open streams of events.", registry=REGISTRY)
PROBES = ("/healthz", "/readyz")
_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT")


class Metrics:
    """Counts and times the requests of an application, and tells of them; an event stream is counted when it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.monotonic() - began
            REQUESTS.labels(method, route, str(status)).observe(seconds)
            if route not in PROBES:
                traces.request(method, route, status, time.time() - seconds, Headers(scope=scope))


def serve(port: int | None, listeners: Callable[[], int]) -> None:
    """Answers Prometheus on a port, from threads of its own; None: does not.

    Raises:
        OSError: the port is taken.
    """
    if port is None:
        return
    LISTENERS.set_function(listeners)
    start_http_server(port, registry=REGISTRY)
