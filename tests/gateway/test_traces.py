"""A gateway's requests, as a collector of OpenTelemetry's traces gets them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipelinejob import traces
from pipelinejob_gateway.metrics import Metrics
from support.collector import Collector


async def _ask(app: Metrics) -> None:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await client.get("/jobs/men?id=hush", headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
        for path in ("/jobs/bad", "/elsewhere", "/healthz"):
            await client.get(path)


def test_each_request_is_a_span_in_its_callers_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    async def job(request: Request) -> JSONResponse:
        if request.path_params["name"] == "bad":
            raise RuntimeError("hush")
        return JSONResponse({})

    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}/")
    said: list[str] = []
    traces.set_up("pipelinejob-gateway", said.append)
    try:
        app = Starlette(routes=[Route("/jobs/{name}", job), Route("/healthz", job)])
        asyncio.run(_ask(Metrics(app)))
    finally:
        traces.flush()
        collector.close()
    first, second, third = sorted(collector.spans, key=lambda span: span.began)
    assert (first.name, first.trace, first.parent) == ("GET /jobs/{name}", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert first.attributes == {"http.request.method": "GET", "http.route": "/jobs/{name}", "http.response.status_code": 200}
    assert (second.attributes["http.response.status_code"], second.error, second.parent) == (500, "", "")
    assert third.name == "GET none"
    assert "hush" not in str(collector.spans) and said == []
