"""What to do next for one PipelineJob: a pure function from what is there to one step.

    Planning ──▶ Pending ──▶ Running ──▶ Finalizing ──▶ Complete, Failed, Cancelled
                    ▲            │ stop (suspend, cancel, budget): the Jobs go, then on to Suspended or Finalizing
                    └────────────┘ resume, a raised budget, shards that made progress: another round

The phase in the ledger says where the story is; the Jobs in the cluster say what has happened since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelinejob.model import Rows, Spec, budget_breach
from pipelinejob.reasons import JobReason, Phase
from pipelinejob.store import Job
from pipelinejob_operator.diagnose import Problem, job_state, terminating
from pipelinejob_operator.manifests import final_job_name, plan_job_name, run_job_name

TERMINAL = frozenset({Phase.COMPLETE, Phase.FAILED, Phase.CANCELLED})
FOR_GOOD = frozenset(JobReason) - {JobReason.SHARDS_FAILED, JobReason.DATABASE_UNAVAILABLE}  # another try changes nothing


def is_over(job: Job) -> bool:
    """Whether nothing of a job runs any more, unless its owner changes it: it has ended, or was only to be planned."""
    return job.phase in TERMINAL or (job.phase == Phase.PENDING and job.input is not None and job.spec["mode"] == "plan")


class Step:
    """One change to the cluster or the ledger; None in place of a step means: wait for news."""


def described(step: Step) -> dict[str, object]:
    """What a step is about, but for messages: they may name what is in a cell."""
    return {name: value for name, value in vars(step).items() if name != "message"}


@dataclass(frozen=True)
class CreatePlanJob(Step):
    """Starts the first stage."""


@dataclass(frozen=True)
class OpenRound(Step):
    """Gives the unfinished shards a new round."""


@dataclass(frozen=True)
class CreateRunJob(Step):
    """Starts the pods of the current round."""


@dataclass(frozen=True)
class CreateFinalJob(Step):
    """Starts the last stage."""


@dataclass(frozen=True)
class Scale(Step):
    """Changes how many pods of the round may run at once."""

    parallelism: int


@dataclass(frozen=True)
class Delete(Step):
    """Deletes a child Job with its pods; it stays visible until they are gone."""

    name: str


@dataclass(frozen=True)
class Stop(Step):
    """Tells the workers, through the ledger, to start no new batch."""

    why: str


@dataclass(frozen=True)
class FinalizeRedrive(Step):
    """Starts the last stage of a redrive that was deleted before its end."""


@dataclass(frozen=True)
class EndRedrive(Step):
    """Says in the ledger how a redrive ended that was deleted before."""

    phase: Phase
    reason: JobReason
    message: str


@dataclass(frozen=True)
class Enter(Step):
    """Goes to another phase."""

    phase: Phase
    reason: JobReason | None = None
    message: str | None = None
    clear_stop: bool = False


@dataclass(frozen=True)
class Observed:
    """What is known of one job, all of the same moment.

    Args:
        job: its row in the ledger.
        spec: as accepted, with the mutable fields as the resource has them now.
        children: its Jobs in the cluster.
        rows: its counts.
        shards: how many shards it has.
        allowance: how many pods it may run at once: spec.parallelism, unless the database has no room for so many.
        are_live: whether any of its pods has not ended.
        problem: what a pod reported, or what is wrong with the pods.
        redrive: the redrive of it that has not ended, if there is one; its PipelineJob may be deleted.
        redrive_is_live: whether pods of such a deleted one still run.
    """

    job: Job
    spec: Spec
    children: Sequence[Mapping[str, Any]]
    rows: Rows
    shards: int
    allowance: int
    are_live: bool = False
    problem: Problem | None = None
    redrive: Job | None = None
    redrive_is_live: bool = False

    def child(self, name: str) -> Mapping[str, Any] | None:
        """The Job of that name, if it is there."""
        return next((child for child in self.children if child["metadata"]["name"] == name), None)


def decide(seen: Observed) -> Step | None:
    """The next step of a job, or None when there is nothing to do but wait for news."""
    job, spec = seen.job, seen.spec
    if job.phase in TERMINAL:
        return _reopen(seen) if seen.redrive is None else _settle(seen, seen.redrive)
    if spec.cancel and job.stop != "cancel":
        return Stop("cancel")  # wins over suspend, and cannot be taken back
    if job.phase == Phase.FINALIZING:
        return _finalizing(seen)
    if spec.suspend and job.stop is None:
        return Stop("suspend")
    if job.stop is not None:
        return _stopping(seen)
    if job.phase == Phase.SUSPENDED:
        return Enter(_first_phase(job))
    if job.phase == Phase.PLANNING:
        return _planning(seen)
    if job.phase == Phase.PENDING:
        return _pending(seen)
    return _running(seen)


def _reopen(seen: Observed) -> Step | None:
    """A job that broke its failure budget goes on when the budget is raised, or kept after a redrive; raised by too little, it says so."""
    if seen.job.reason != JobReason.FAILURE_BUDGET_EXCEEDED:
        return None
    breach = budget_breach(seen.spec.failure_policy, seen.rows)
    if breach is None:
        return Enter(Phase.PENDING, clear_stop=True)
    if not (seen.job.message or "").startswith(breach):
        return Enter(Phase.FAILED, JobReason.FAILURE_BUDGET_EXCEEDED, breach)
    return None


def _settle(seen: Observed, redrive: Job) -> Step | None:
    """A redrive that was deleted before its end ends as a cancelled one does, but by a Job of the PipelineJob whose rows it ran."""
    if redrive.deleted_at is None or seen.redrive_is_live:
        return None
    if redrive.input is None:
        return EndRedrive(Phase.CANCELLED, JobReason.CANCELLED, "deleted before any row was run")
    final = seen.child(final_job_name(seen.job.name, redrive.uid, redrive.round))
    if final is None:
        return FinalizeRedrive()
    state = job_state(final)
    if state == "complete":
        return EndRedrive(Phase.CANCELLED, JobReason.CANCELLED, "deleted before its end: the results of what was done are written")
    if state == "failed":
        advice = "see the events of its Job; the next redrive, or job that goes on, writes them again"
        return EndRedrive(Phase.FAILED, JobReason.SHARDS_FAILED, f"deleted before its end, and the results could not be written: {advice}")
    return None


def _stopping(seen: Observed) -> Step | None:
    """The Jobs go first; only when they and their pods are gone does the story go on."""
    job = seen.job
    for child in seen.children:
        state = job_state(child)
        if state == "running":
            return Delete(child["metadata"]["name"])
        if (state == "deleting" or terminating(child)) and seen.are_live:
            return None  # a Job whose last pods are on a lost node stays; nobody has to wait for it
    if job.stop == "suspend":
        if not seen.spec.suspend:
            return Enter(_first_phase(job), clear_stop=True)
        return None if job.phase == Phase.SUSPENDED else Enter(Phase.SUSPENDED)
    if job.input is None or seen.spec.mode == "plan":
        return Enter(Phase.CANCELLED, JobReason.CANCELLED, "cancelled before any row was run")
    return Enter(Phase.FINALIZING)


def _first_phase(job: Job) -> Phase:
    return Phase.PLANNING if job.input is None else Phase.PENDING


def _planning(seen: Observed) -> Step | None:
    job = seen.job
    if job.input is not None:
        return Enter(Phase.PENDING)
    plan = seen.child(plan_job_name(job.name, job.uid))
    if plan is None:
        return CreatePlanJob()
    if job_state(plan) == "failed":
        return _failed(seen, Phase.FAILED, "the CSV could not be planned")
    return None


def _pending(seen: Observed) -> Step | None:
    if seen.spec.mode == "plan":
        return None
    if seen.rows.pending == 0:
        return Enter(Phase.FINALIZING)
    return OpenRound() if seen.allowance else None


def _running(seen: Observed) -> Step | None:
    job = seen.job
    run = seen.child(run_job_name(job.name, job.uid, job.round))
    if run is None:
        if _made_progress(seen):  # somebody deleted it half-way
            return Enter(Phase.PENDING)
        return CreateRunJob() if seen.allowance else None
    state = job_state(run)
    if state == "running":
        current = run["spec"]["parallelism"]
        wanted = max(1, min(seen.allowance, run["spec"]["completions"]))
        return Scale(wanted) if current != wanted else None
    if state == "deleting":
        return None
    if terminating(run):
        return None
    return _judge_round(seen)


def _made_progress(seen: Observed) -> bool:
    return seen.rows.total - seen.rows.pending > seen.job.round_done


def _judge_round(seen: Observed) -> Step:
    """The round's Job is finished: with rows left, shards that made progress get another round."""
    if seen.rows.pending == 0:
        return Enter(Phase.FINALIZING)
    if seen.problem is not None and seen.problem.reason in FOR_GOOD:
        return _failed(seen, Phase.FINALIZING, "")
    if _made_progress(seen):
        return Enter(Phase.PENDING)
    return _failed(seen, Phase.FINALIZING, f"{seen.rows.pending} of {seen.rows.total} rows could not be run")


def _failed(seen: Observed, phase: Phase, what: str) -> Enter:
    """Why a stage failed: in the words of its pod, if it could say so, else by what became of the pod."""
    problem = seen.problem
    if problem is None:
        return Enter(phase, JobReason.SHARDS_FAILED, f"{what}: its pods failed; see the events of its Jobs")
    if problem.reason in tuple(JobReason):
        return Enter(phase, JobReason(problem.reason), problem.message)
    return Enter(phase, JobReason.SHARDS_FAILED, f"{what}: {problem.reason}: {problem.message}")


def _finalizing(seen: Observed) -> Step | None:
    job = seen.job
    final = seen.child(final_job_name(job.name, job.uid, job.round))
    if final is None:
        return CreateFinalJob()
    state = job_state(final)
    if state == "complete":
        return verdict(seen)
    if state == "failed":
        return _failed(seen, Phase.FAILED, "the results could not be written")
    return None


def verdict(seen: Observed) -> Enter:
    """How a finalized job ended."""
    job, rows = seen.job, seen.rows
    done = f"{rows.total - rows.pending} of {rows.total} rows were done"
    if job.stop == "cancel":
        return Enter(Phase.CANCELLED, JobReason.CANCELLED, f"cancelled: {done}, their results are kept")
    if job.reason is not None:
        return Enter(Phase.FAILED, JobReason(job.reason), job.message)
    breach = budget_breach(seen.spec.failure_policy, rows)
    if breach:
        return Enter(Phase.FAILED, JobReason.FAILURE_BUDGET_EXCEEDED, breach)
    if rows.pending:  # stopped for a budget that was raised since
        return Enter(Phase.PENDING, clear_stop=True)
    return Enter(Phase.COMPLETE)
