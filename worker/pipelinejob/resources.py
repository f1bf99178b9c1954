"""A PipelineJob as programs see it: the resource that Kubernetes would hold, apiVersion, kind, metadata, spec and status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pipelinejob import model
from pipelinejob.model import Rows, Shards, TopFailure
from pipelinejob.reasons import JobError, JobReason, RowReason
from pipelinejob.standing import note, standing
from pipelinejob.status import status_of
from pipelinejob.store import Job


class NoJobError(JobError):
    """There is no such job."""


class StateError(JobError):
    """The job is in no state to do that."""


class Source(NamedTuple):
    """Of a job's spec, what finds and judges the image of a row, before and after."""

    images: str | None = None  # the template
    url_column: str = "url"
    max_pixels: int = 100_000_000
    max_bytes: int = 67_108_864

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Source:
        """That of a spec, whose defaults may be left out."""
        source, defaults = spec["source"], cls()
        return cls(
            source.get("images"),
            (spec.get("output") or {}).get("urlColumn", defaults.url_column),
            source.get("maxPixels", defaults.max_pixels),
            source.get("maxBytes", defaults.max_bytes),
        )


class Output(NamedTuple):
    """Where the results of a job are, below which folder and where there; and where its images came from."""

    root: Path
    path: str
    data: Path
    source: Source

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.root / self.path


@dataclass(frozen=True)
class Event:
    """Something that was told of a job."""

    at: str
    type: str
    reason: str
    message: str
    count: int


class Page(NamedTuple):
    """Some jobs, and where the next page begins."""

    items: list[dict[str, Any]]
    after: tuple[datetime, str] | None


def check_reasons(reasons: Sequence[str]) -> None:
    """Refuses words that are no reason of a failed row.

    Raises:
        JobError: InvalidSpec.
    """
    for reason in reasons:
        if reason not in list(RowReason):
            raise JobError(JobReason.INVALID_SPEC, f"reason: {reason!r} is none: expected one of {', '.join(RowReason)}")


def resource(job: Job, rows: Rows | None = None, shards: Shards | None = None, top: Sequence[TopFailure] | None = None) -> dict[str, Any]:
    """A job as the resource that Kubernetes would hold.

    Args:
        job: the job as the ledger has it.
        rows: its counts; None: as the ledger has them.
        shards: the counts of its shards; None: as its stored status has them.
        top: its commonest failures; None: as its stored status has them.
    """
    said = note(job)
    annotations = {"pipelinejob.dev/standing": str(standing(job))} | ({"pipelinejob.dev/note": said} if said else {})
    return {
        "apiVersion": model.API_VERSION,
        "kind": model.KIND,
        "metadata": {
            "name": job.name,
            "namespace": job.namespace,
            "uid": job.uid,
            "creationTimestamp": job.created_at.isoformat(),
            "annotations": annotations,
        },
        "spec": job.spec,
        "status": _status(job, rows or job.rows, shards, top),
    }


def _status(job: Job, rows: Rows, shards: Shards | None, top: Sequence[TopFailure] | None) -> dict[str, Any]:
    stored = job.status
    if shards is None and stored.get("phase") == job.phase and stored.get("rows") == rows.counts():
        return stored
    shards = shards or (Shards(**stored["shards"]) if "shards" in stored else Shards())
    top = [TopFailure(**one) for one in stored.get("topFailures", [])] if top is None else top
    return status_of(job, rows, shards, top).as_dict()
