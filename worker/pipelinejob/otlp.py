"""What traces.py tells, made into spans and sent by OTLP over HTTP; the one module that imports OpenTelemetry."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer, set_span_in_context

if TYPE_CHECKING:
    from pipelinejob.store import Job

TIMEOUT = 2.0  # seconds for sending once, in a thread of its own, where the environment says no other
FLUSH = 2.0  # seconds for what is left, at the end
_ROOT: ContextVar[int | None] = ContextVar("root", default=None)  # the trace id of the root that is being made


class Sender:
    """Sends spans in a thread of its own; one that cannot be sent is lost, and nobody waits for it.

    Args:
        service: the name of this process in traces, where the environment says no other.
        say: told once when the collector does not take what it is sent, until it does again.

    Raises:
        ValueError: a variable OTEL_* cannot be read.
    """

    def __init__(self, service: str, say: Callable[[str], None]) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        limited = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{which}TIMEOUT") for which in ("", "TRACES_"))
        self._exporter = _Once(OTLPSpanExporter(timeout=None if limited else TIMEOUT), say)
        self._processor = BatchSpanProcessor(self._exporter)
        # A ratio goes by the trace's id, which chance has not made alone: of uids it would take all or none, and roots without the rest.
        provider = TracerProvider(DEFAULT_ON, resource, id_generator=_Ids(), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("pipelinejob")
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # from now on: each try would be a line; _Once tells of them

    def root(self, job: Job, began: float) -> Told:
        """The root span of a job."""
        token = _ROOT.set(uuid.UUID(job.uid).int)
        try:
            return Told(self._tracer, job, "PipelineJob", began, Context())
        finally:
            _ROOT.reset(token)

    def below_root(self, job: Job, name: str, began: float) -> Told:
        """A span below the root, which another process may tell of, later."""
        trace = uuid.UUID(job.uid).int
        root = SpanContext(trace, _root_span(trace), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        return Told(self._tracer, job, name, began, set_span_in_context(NonRecordingSpan(root), Context()))

    def request(self, method: str, route: str, status: int, began: float, headers: Mapping[str, str]) -> None:
        """A request that was answered."""
        span = self._tracer.start_span(f"{method} {route}", propagate.extract(headers), SpanKind.SERVER, start_time=_nanoseconds(began))
        span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Sends what is left, unless the collector does not answer."""
        if not self._exporter.fails:
            thread = threading.Thread(target=self._processor.shutdown, daemon=True)
            thread.start()
            thread.join(FLUSH)
            if thread.is_alive():
                self._exporter.tell()


class Told:
    """A span of a job, begun and not ended."""

    def __init__(self, tracer: Tracer, job: Job, name: str, began: float, parent: Context) -> None:
        self._tracer, self._job = tracer, job
        self._span = tracer.start_span(name, parent, start_time=_nanoseconds(began))
        self.set({"namespace": job.namespace, "job": job.name})

    def below(self, name: str, began: float) -> Told:
        """A span below this one."""
        return Told(self._tracer, self._job, name, began, set_span_in_context(self._span, Context()))

    def set(self, attributes: Mapping[str, object]) -> None:
        """Adds attributes, but for those that are None."""
        said = {f"pipelinejob.{key}": value for key, value in attributes.items() if value is not None}
        self._span.set_attributes({key: value if isinstance(value, int | float) else str(value) for key, value in said.items()})

    def fail(self, reason: str) -> None:
        """Says that it failed, and why, in a word."""
        self._span.set_status(StatusCode.ERROR, reason)

    def end(self, when: float) -> None:
        """Ends it; from here on it may be sent."""
        self._span.end(_nanoseconds(when))


class _Ids(RandomIdGenerator):
    """Ids by chance, but for roots."""

    def generate_trace_id(self) -> int:
        return _ROOT.get() or super().generate_trace_id()

    def generate_span_id(self) -> int:
        trace = _ROOT.get()
        return _root_span(trace) if trace else super().generate_span_id()


class _Once(SpanExporter):
    """An exporter that says once that it cannot send."""

    def __init__(self, exporter: SpanExporter, say: Callable[[str], None]) -> None:
        self._exporter, self._say = exporter, say
        self.fails = False  # as of the last try

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.fails = False
        else:
            self.tell()
        return result

    def tell(self) -> None:
        """Says that something was not sent, unless that was said before. The URL is not repeated: it may hold a password."""
        if not self.fails:
            self.fails = True
            self._say("traces are lost: the collector that OTEL_EXPORTER_OTLP_ENDPOINT names does not take them; nothing else is")

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _root_span(trace: int) -> int:
    return trace & (1 << 64) - 1


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
