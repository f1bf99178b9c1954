"""A collector of OpenTelemetry's traces: a server that takes OTLP over HTTP, and keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """A span as it arrived."""

    service: str
    name: str
    trace: str  # in hexadecimal, as the next two
    id: str
    parent: str
    began: int  # nanoseconds
    ended: int
    attributes: dict[str, Any]  # without `pipelinejob.`
    error: str | None
    resource: dict[str, Any]


class Collector:
    """A collector on a free port; with `patience`, it answers only after so many seconds."""

    def __init__(self, patience: float = 0, host: str = "127.0.0.1") -> None:
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self._end = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer._end.wait(patience)
                outer.headers.append(dict(self.headers))
                if self.path == "/v1/traces":
                    outer._take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.port: int = self._server.server_address[1]
        self.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}"}

    def named(self, name: str) -> list[Span]:
        """The spans of that name, the earliest first."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.began)

    def close(self) -> None:
        """Ends it."""
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes) -> None:
        sent = ExportTraceServiceRequest.FromString(body)
        for process in sent.resource_spans:
            resource = _plain(process.resource.attributes)
            self.spans += [
                Span(
                    service=resource["service.name"],
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    began=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    attributes={key.removeprefix("pipelinejob."): value for key, value in _plain(span.attributes).items()},
                    error=span.status.message if span.status.code == 2 else None,
                    resource=resource,
                )
                for scope in process.scope_spans
                for span in scope.spans
            ]


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
