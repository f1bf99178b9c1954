"""How a PipelineJob's status reads: a pure function of the ledger, the Jobs and what keeps the pods from running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from pipelinejob.model import Condition, Rows, Shards, Status, TopFailure
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.status import status_of
from pipelinejob.store import Job
from pipelinejob_operator.diagnose import Problem

MAX_MESSAGE = 900  # bytes of a condition's message: a status stays far below 8 KiB
MAX_EXAMPLE = 400

Truth = Literal["True", "False"]


class News(NamedTuple):
    """What an Event tells."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class View:
    """What a status is made of.

    Args:
        job: the job in the ledger.
        rows, shards, top: its counts, and its commonest failures.
        generation: of the spec that this answers.
        problem: what keeps the pods from running now.
        rate: rows a second of late, while it runs.
        previous: the status as it stands in the resource.
        now: the time of new transitions.
    """

    job: Job
    rows: Rows
    shards: Shards
    top: Sequence[TopFailure]
    generation: int
    problem: Problem | None
    rate: float | None
    previous: Mapping[str, Any]
    now: datetime


def status(view: View) -> dict[str, Any]:
    """The status as the resource spells it."""
    job, rows = view.job, view.rows
    base = status_of(job, rows, view.shards, [])
    rate = round(view.rate, 1) if view.rate is not None else base.rows_per_second
    eta = None
    if job.phase == Phase.RUNNING and rate and rows.pending:
        eta = (view.now + timedelta(seconds=rows.pending / rate)).replace(microsecond=0)
    top = [TopFailure(reason=one.reason, count=one.count, example=clip(one.example, MAX_EXAMPLE)) for one in view.top]
    return _as_dict(
        base.model_copy(
            update={
                "observed_generation": view.generation,
                "conditions": _dated(_conditions(view), view.previous, view.now),
                "output": job.output,
                "rows_per_second": rate,
                "estimated_completion_time": eta,
                "top_failures": top,
            }
        )
    )


def refused(error: JobError, generation: int, previous: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The status of a job whose spec is not accepted."""
    made = [
        ("Accepted", "False", error.reason, error.message),
        ("Complete", "False", error.reason, error.message),
        ("Failed", "True", error.reason, error.message),
    ]
    return _as_dict(
        Status(
            observed_generation=generation,
            conditions=_dated(iter(made), previous, now),
            phase=Phase.FAILED,
            rows=Rows(),
            shards=Shards(),
            progress="0/0",
            completion_time=_ended(previous, now),
            output="",
        )
    )


def _ended(previous: Mapping[str, Any], now: datetime) -> datetime:
    """When it was refused first."""
    known = previous.get("completionTime")
    return datetime.fromisoformat(known) if known else now.replace(microsecond=0)


def waiting(problem: Problem, previous: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The status that stands, with what the job waits for: all that can be said without the ledger."""
    old = [condition for condition in previous.get("conditions", []) if condition["type"] != "Complete"]
    made = _dated(iter([("Complete", "False", problem.reason, problem.message)]), previous, now)
    new = [condition.model_dump(mode="json", by_alias=True) for condition in made]
    return {**previous, "phase": previous.get("phase", Phase.PENDING.value), "conditions": [*old, *new]}


def news(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[News]:
    """The Events that a change of status is worth: one for each condition that changed its status or its reason."""
    before = {condition["type"]: condition for condition in previous.get("conditions", [])}
    result = []
    for condition in status["conditions"]:
        old = before.get(condition["type"])
        if old is not None and (old["status"], old["reason"]) == (condition["status"], condition["reason"]):
            continue
        told = _told(condition)
        if told is not None and told not in result:
            result.append(told)
    return result


def _told(condition: Mapping[str, Any]) -> News | None:
    kind, truth, reason, message = (condition[key] for key in ("type", "status", "reason", "message"))
    if kind == "Complete" and truth == "False":
        quiet = reason in tuple(Phase) or reason in tuple(JobReason) or reason in ("PlanOnly", "Queued")
        return None if quiet and reason != JobReason.DATABASE_UNAVAILABLE else News("Warning", reason, message)
    if kind == "Failed" and truth == "True":
        return News("Warning", reason, message)
    if kind == "Accepted" and truth == "False":
        return None  # Failed says the same
    if truth == "False" and kind != "Suspended":
        return None
    return News("Normal", reason, message)


def _conditions(view: View) -> Iterator[tuple[str, Truth, str, str]]:
    """(type, status, reason, message)"""
    job, rows, before = view.job, view.rows, {c["type"]: c for c in view.previous.get("conditions", [])}
    failed = job.phase in (Phase.FAILED, Phase.CANCELLED)
    reason, message = job.reason or job.phase, job.message or ""
    if failed and job.reason == JobReason.INVALID_SPEC:
        yield "Accepted", "False", reason, message
    else:
        yield "Accepted", "True", "Accepted", "the spec is valid"
    if job.input is not None:
        yield "Planned", "True", "Planned", f"{rows.total} rows in {view.shards.total} {'shard' if view.shards.total == 1 else 'shards'}"
    if job.phase == Phase.COMPLETE:
        yield "Complete", "True", "Complete", _account(rows)
    elif failed:
        yield "Complete", "False", reason, message
    elif view.problem is not None:
        yield "Complete", "False", view.problem.reason, view.problem.message
    elif job.input is not None and job.spec["mode"] == "plan":
        yield "Complete", "False", "PlanOnly", _planned_only(view)
    else:
        yield "Complete", "False", job.phase, _DOING.get(Phase(job.phase), "")
    if failed:
        yield "Failed", "True", reason, message
    elif "Failed" in before:
        yield "Failed", "False", "Resumed", "it goes on"
    if job.phase == Phase.SUSPENDED:
        yield "Suspended", "True", "Suspended", f"spec.suspend is true: {rows.total - rows.pending} of {rows.total} rows are done"
    elif "Suspended" in before:
        yield "Suspended", "False", "Resumed", "spec.suspend is false"


def _planned_only(view: View) -> str:
    report: Mapping[str, Any] = (view.job.input or {}).get("report") or {}
    found = ""
    if report:
        scope = "" if report["exact"] else f" of the first {report['rows']}"
        found = f"{report['matching']} rows{scope} match, {report['filtered']} do not, {report['malformed']} are malformed"
        seconds = report["estimatedSeconds"]
        found += f"; about {max(1, round(seconds))} s of work; " if seconds is not None else "; "
    return f"{found}nothing is run: 'kubectl annotate pipelinejob {view.job.name} pipelinejob.dev/approve=true' runs this very plan"


_DOING = {
    Phase.PLANNING: "reading the CSV",
    Phase.PENDING: "waiting to start the shards",
    Phase.RUNNING: "running the shards",
    Phase.FINALIZING: "writing metadata.csv, failures.csv and manifest.json",
    Phase.SUSPENDED: "spec.suspend is true",
}


def _account(rows: Rows) -> str:
    counts = f"{rows.succeeded} succeeded, {rows.filtered} filtered, {rows.skipped} skipped, {rows.failed} failed"
    return f"every row is accounted for: {counts}"


def _dated(conditions: Iterator[tuple[str, str, str, str]], previous: Mapping[str, Any], now: datetime) -> list[Condition]:
    """The conditions with the time of their last change of status."""
    before = {condition["type"]: condition for condition in previous.get("conditions", [])}
    result = []
    for kind, truth, reason, message in conditions:
        old = before.get(kind)
        since = old["lastTransitionTime"] if old is not None and old["status"] == truth else now.replace(microsecond=0)
        result.append(
            Condition.model_validate(
                {"type": kind, "status": truth, "reason": reason, "message": clip(message, MAX_MESSAGE), "lastTransitionTime": since},
                strict=False,
            )
        )
    return result


def clip(text: str, most: int) -> str:
    """The text, cut to that many bytes of UTF-8 with an ellipsis."""
    data = text.encode()
    return text if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"


def _as_dict(status: Status) -> dict[str, Any]:
    return status.as_dict()
