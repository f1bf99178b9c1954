"""The objects of `--json`: what a program is told of jobs, plans and functions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelinejob.model import Rows, Shards
from pipelinejob.reasons import Phase

if TYPE_CHECKING:
    from pipelinejob.local import Result
    from pipelinejob.plan import CsvIndex
    from pipelinejob.planning import Request
    from pipelinejob.preview import Preview
    from pipelinejob.sample import Sample
    from pipelinejob.store import Job


def summary(
    *,
    name: str | None = None,
    namespace: str | None = None,
    uid: str | None = None,
    phase: str = Phase.FAILED,
    rows: Rows | None = None,
    shards: Shards | None = None,
    output: Path | None = None,
    seconds: float = 0.0,
    reason: str | None = None,
    message: str | None = None,
) -> dict[str, Any]:
    """The object that `--json` prints last, whatever happened."""
    return {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "phase": phase,
        "rows": (rows or Rows()).counts(),
        "shards": (shards or Shards()).model_dump(),
        "output": str(output) if output else None,
        "seconds": round(seconds, 3),
        "reason": reason,
        "message": message,
    }


def of_result(result: Result, seconds: float, message: str | None = None) -> dict[str, Any]:
    """A job as a command left it."""
    job = result.job
    return summary(
        name=job.name,
        namespace=job.namespace,
        uid=job.uid,
        phase=job.phase,
        rows=result.rows,
        shards=result.shards,
        output=result.output,
        seconds=seconds,
        reason=job.reason,
        message=message or job.message,
    )


def of_job(job: Job, state: str | None) -> dict[str, Any]:
    """A job as the ledger has it, with a word about its state."""
    return summary(
        name=job.name,
        namespace=job.namespace,
        uid=job.uid,
        phase=job.phase,
        rows=job.rows,
        shards=Shards(**job.status["shards"]) if "shards" in job.status else None,
        output=Path(job.output_root) / job.output,
        seconds=job.seconds,
        reason=job.reason,
        message=state,
    )


class Tried(NamedTuple):
    """A sample, and where it was drawn."""

    sample: Sample
    sheet: Path
    page: Path


def of_sample(tried: Tried, request: Request, index: CsvIndex, seen: Preview) -> dict[str, Any]:
    """What became of the rows of a sample, and how long the job will take: every matching row as long as these, in all processes."""
    rows = [
        {"row": row.row, "id": row.id, "status": row.status, "message": row.message, "columns": row.columns} for row in tried.sample.rows
    ]
    processes = max(1, min(request.job.spec.parallelism, os.cpu_count() or 1))
    estimate = seen.share * index.rows * tried.sample.seconds_a_row / processes
    return {"rows": rows, "sheet": str(tried.sheet), "page": str(tried.page), "estimatedSeconds": round(estimate, 1)}


def of_plan(request: Request, index: CsvIndex, shards: int, seen: Preview, seconds: float, tried: Tried | None = None) -> dict[str, Any]:
    """What a job would do."""
    meta = request.job.metadata
    rows = Rows(total=index.rows, pending=index.rows)
    if seen.exact:
        rows = Rows(total=index.rows, filtered=seen.filtered, failed=seen.malformed, pending=seen.matching)
    return {
        **summary(
            name=meta.name,
            namespace=meta.namespace,
            phase="Planned",
            rows=rows,
            shards=Shards(total=shards),
            output=request.output_root / request.job.output_path,
            seconds=seconds,
        ),
        "sample": {"rows": seen.rows, "exact": seen.exact, "matching": seen.matching, "malformed": seen.malformed},
        **({} if tried is None else {"tried": of_sample(tried, request, index, seen)}),
    }
