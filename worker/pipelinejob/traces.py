"""Traces of jobs for OpenTelemetry, where the environment asks for them; elsewhere nothing is imported for it, and nothing done.

A job is one trace, whoever works on it: its uid, 128 bits, is the trace's id, and the second half of it that of the root span. So nothing
need be handed from process to process. The root is told of when the job ends, by who writes that into the ledger.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelinejob.reasons import JobError, JobReason, Phase

if TYPE_CHECKING:
    from pipelinejob.otlp import Sender, Told
    from pipelinejob.store import Job

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")  # the first that is set is taken
_sender: Sender | None = None  # of this process, as OpenTelemetry itself has it


class Span:
    """Something that was done for a job; does nothing where there are no traces."""

    def __init__(self, told: Told | None = None) -> None:
        self._told = told

    def set(self, **attributes: object) -> None:
        """Adds attributes; those that are None are left out. None may hold a secret, or what is in a cell."""
        if self._told is not None:
            self._told.set(attributes)

    def batch(self, done: Mapping[str, Any]) -> None:
        """Tells of a batch below this span, as its process answered (child.py)."""
        if self._told is not None:
            told = self._told.below("batch", done["began"])
            told.set({"first_row": done["done"], **{key: done[key] for key in ("rows", "succeeded", "failed")}})
            told.end(done["ended"])


class Shards:
    """Spans of the shards that one process runs side by side, each from when it was taken up to the end of its last batch."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began: dict[int, float] = {}
        self._open: dict[int, Told] = {}
        self._ended: dict[int, float] = {}

    def begins(self, shard: int) -> None:
        """Notes that a shard is taken up."""
        self._began.setdefault(shard, time.time())

    def batch(self, shard: int, done: Mapping[str, Any]) -> None:
        """Tells of a batch of that shard."""
        if _sender is None:
            return
        if shard not in self._open:
            self._open[shard] = _sender.below_root(self._job, "shard", self._began.get(shard, done["began"]))
        Span(self._open[shard]).batch(done)
        self._ended[shard] = max(done["ended"], self._ended.get(shard, 0))

    def end(self, round_number: int) -> None:
        """Ends the spans of a round."""
        for shard, told in self._open.items():
            told.set({"shard": shard, "round": round_number})
            told.end(self._ended[shard])
        for known in (self._began, self._open, self._ended):
            known.clear()


def endpoint(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """(variable, URL) of the collector that the environment asks for; None where there are to be no traces."""
    said = {name: environment.get(name, "").strip() for name in (*ENDPOINTS, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER")}
    if said["OTEL_SDK_DISABLED"].lower() == "true" or said["OTEL_TRACES_EXPORTER"].lower() == "none":
        return None
    return next(((name, said[name]) for name in ENDPOINTS if said[name]), None)


def set_up(service: str, say: Callable[[str], None]) -> None:
    """From now on this process tells of what it does, if the environment asks for it.

    Args:
        service: its name in traces, where OTEL_SERVICE_NAME says no other.
        say: told, in another thread, when the collector does not take what it is sent.

    Raises:
        JobError: InvalidSpec, when the packages are not installed, or a variable cannot be read.
    """
    global _sender  # noqa: PLW0603 - see above
    wanted = endpoint(os.environ)
    if wanted is None or _sender is not None:
        return
    try:
        from pipelinejob.otlp import Sender  # noqa: PLC0415 - needs packages that nothing else does
    except ModuleNotFoundError as error:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"{wanted[0]} asks for traces, and the package {error.name!r} is not installed: pip install 'pipelinejob[traces]', "
            "or set OTEL_SDK_DISABLED=true for none",
        ) from None
    try:
        _sender = Sender(service, say)
    except ValueError as error:
        raise JobError(JobReason.INVALID_SPEC, f"a variable OTEL_* cannot be read: {error}") from None


@contextmanager
def span(job: Job, name: str, /, **attributes: object) -> Iterator[Span]:
    """A span below the root of a job's trace; of an error it has the reason, but no message: that may hold what is in a cell."""
    if _sender is None:
        yield Span()
        return
    told = _sender.below_root(job, name, time.time())
    told.set(attributes)
    try:
        yield Span(told)
    except BaseException as error:
        told.fail(str(getattr(error, "reason", None) or type(error).__name__))
        raise
    finally:
        told.end(time.time())


def past(job: Job, name: str, began: float, /, **attributes: object) -> None:
    """Tells of something that was done for a job from `began` (seconds of the epoch) until now."""
    if _sender is not None:
        told = _sender.below_root(job, name, began)
        told.set(attributes)
        told.end(time.time())


def ended(job: Job, began: float | None = None) -> None:
    """Tells of a job that has ended: the root of its trace, from its creation, or from `began` if that is earlier."""
    if _sender is None:
        return
    created = job.created_at.timestamp()
    told = _sender.root(job, created if began is None else min(created, began))
    told.set({"phase": job.phase, "reason": job.reason, **{f"rows.{name}": count for name, count in job.rows.counts().items()}})
    if job.phase == Phase.FAILED:
        told.fail(str(job.reason))
    told.end(job.finished_at.timestamp() if job.finished_at else time.time())


def request(method: str, route: str, status: int, began: float, headers: Mapping[str, str]) -> None:
    """Tells of a request that was answered, in the trace that its caller names, or in one of its own."""
    if _sender is not None:
        _sender.request(method, route, status, began, headers)


def flush() -> None:
    """Sends what is not sent yet, for two seconds at most; nothing is told after it."""
    global _sender  # noqa: PLW0603 - see above
    if _sender is not None:
        _sender.close()
        _sender = None
