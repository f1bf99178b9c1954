"""How a job stands, from what the ledger knows of it: a pure function, the same for laptop and cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pipelinejob.model import Condition, Rows, Shards, Status, TopFailure
from pipelinejob.reasons import Phase
from pipelinejob.store import Job

ConditionType = Literal["Accepted", "Planned", "Complete", "Failed", "Suspended"]


def status_of(job: Job, rows: Rows, shards: Shards, top: Sequence[TopFailure]) -> Status:
    """The status of a job.

    Args:
        job: the job as the ledger has it.
        rows: its counts.
        shards: the counts of its shards.
        top: its commonest failures, at most 5.
    """
    done = rows.total - rows.pending
    return Status(
        conditions=list(_conditions(job)),
        phase=Phase(job.phase),
        rows=rows,
        shards=shards,
        progress=f"{done}/{rows.total}",
        plan=(job.input or {}).get("report"),
        rows_per_second=round(done / job.seconds, 1) if job.seconds > 0 else None,
        start_time=job.started_at,
        completion_time=job.ended_at,
        output=str(Path(job.output_root) / job.output),
        input_digest=job.input_digest,
        top_failures=list(top),
    )


def _conditions(job: Job) -> Iterator[Condition]:
    ended = job.ended_at or job.started_at or job.created_at
    yield _condition("Accepted", "Accepted", "the spec is valid", job.created_at)
    if job.input is not None:
        yield _condition("Planned", "Planned", f"{job.input['rows']} rows in the CSV", job.created_at)
    if job.phase == Phase.COMPLETE:
        yield _condition("Complete", "Complete", "every row is accounted for", ended)
    if job.phase in (Phase.FAILED, Phase.CANCELLED):
        yield _condition("Failed", job.reason or job.phase, job.message or "", ended)
    if job.phase == Phase.SUSPENDED:
        yield _condition("Suspended", "Suspended", "spec.suspend is true", ended)


def _condition(kind: ConditionType, reason: str, message: str, since: datetime) -> Condition:
    return Condition(type=kind, status="True", reason=reason, message=message, last_transition_time=since)
