"""How a job ended: by its failure budget, by a cancel, or, for the job whose rows a redrive ran again, anew."""

from __future__ import annotations

from pipelinejob.model import Rows, Shards, Spec, budget_breach
from pipelinejob.reasons import JobReason, Phase
from pipelinejob.status import status_of
from pipelinejob.store import Job, Store

Verdict = tuple[Phase, JobReason | None, str | None]


def judge(store: Store, job: Job, *, cancelled: bool) -> Verdict:
    """(phase, reason, message) of a job whose rows have ended, by its spec and its counts."""
    rows, _ = store.update_counts(job.uid)
    if cancelled:
        done = f"{rows.total - rows.pending} of {rows.total} rows were done"
        return Phase.CANCELLED, JobReason.CANCELLED, f"cancelled: {done}, their results are kept"
    breach = budget_breach(Spec.model_validate(job.spec).failure_policy, rows)
    if breach is None:
        return Phase.COMPLETE, None, None
    top = store.top_failures(job.uid, 1)[0]
    return Phase.FAILED, JobReason.FAILURE_BUDGET_EXCEEDED, f"{breach} (most often {top.reason}, {top.count} times; {top.example})"


def judge_root(store: Store, redrive: Job) -> None:
    """Judges the job whose rows a redrive ran again by its own budget, once no row of it is left to run; nothing for other jobs."""
    if redrive.root_uid is None:
        return
    judge_again(store, store.get_job(redrive.root_uid))


def judge_again(store: Store, job: Job) -> None:
    """Judges a job that has ended by its counts and its budget as they are now."""
    rows, _ = store.update_counts(job.uid)
    phase, reason, message = judge(store, job, cancelled=False)
    if not rows.pending:
        store.update_job(job.uid, phase=phase, reason=reason, message=message, stop=None)
    elif job.reason == JobReason.FAILURE_BUDGET_EXCEEDED:
        kept = f"the failure budget is kept again, and {rows.pending} rows were not run: run the job file again to go on"
        store.update_job(job.uid, message=message or kept)
    write_status(store, job.uid)


def write_status(store: Store, uid: str) -> tuple[Job, Rows, Shards]:
    """Brings the status of a job in the ledger up to date; returns what it says."""
    rows, shards = store.update_counts(uid)
    job = store.get_job(uid)
    store.update_job(uid, status=status_of(job, rows, shards, store.top_failures(uid)).as_dict())
    return job, rows, shards
