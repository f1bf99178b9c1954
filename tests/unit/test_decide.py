"""The operator's story: what is done next, for everything that can be there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelinejob import traces
from pipelinejob.model import Rows, Spec
from pipelinejob.reasons import JobReason, Phase
from pipelinejob.store import Job
from pipelinejob_operator.decide import (
    CreateFinalJob,
    CreatePlanJob,
    CreateRunJob,
    Delete,
    EndRedrive,
    Enter,
    FinalizeRedrive,
    Observed,
    OpenRound,
    Scale,
    Stop,
    decide,
    described,
)
from pipelinejob_operator.diagnose import Problem
from pipelinejob_operator.manifests import final_job_name, plan_job_name, run_job_name

UID, OTHER = "0a1b2c3d-0000-4000-8000-000000000000", "4d3c2b1a-0000-4000-8000-000000000000"
PLANNED = {"rows": 100, "sha256": "0" * 64, "columns": ["id"]}
SPEC = {"source": {"csv": "rows.csv"}, "parallelism": 4, "data": {"persistentVolumeClaim": {"claimName": "catalogue"}}}


def seen(phase: Phase, *children: dict[str, Any], spec: dict[str, Any] | None = None, pending: int = 100, **of: Any) -> Observed:
    """A job of 100 rows in 5 shards, with `of` laid over its row and over what else is observed."""
    current = Spec.model_validate({**SPEC, **(spec or {})})
    fields: dict[str, Any] = dict.fromkeys(Job._fields)
    now = datetime.now(UTC)
    fields |= {"uid": UID, "namespace": "default", "name": "men", "phase": phase, "spec": current.as_dict(), "round": 1, "round_done": 0}
    fields |= {"input": None if phase == Phase.PLANNING else PLANNED, "created_at": now}
    fields |= {key: of.pop(key) for key in list(of) if key in Job._fields and key not in ("problem", "redrive")}
    base = Observed(Job(**fields), current, children, counts(pending), 5, current.parallelism)
    return replace(base, **of)


def counts(pending: int, failed: int = 0) -> Rows:
    return Rows(total=100, succeeded=100 - pending - failed, failed=failed, pending=pending)


def child(name: str, state: str = "running", parallelism: int = 4, terminating: int = 0) -> dict[str, Any]:
    body: dict[str, Any] = {
        "metadata": {"name": name, "uid": name},
        "spec": {"parallelism": parallelism, "completions": 5},
        "status": {"terminating": terminating},
    }
    if state in ("complete", "failed"):
        body["status"]["conditions"] = [{"type": state.capitalize(), "status": "True"}]
    if state == "deleting":
        body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return body


PLAN, RUN, FINAL = plan_job_name("men", UID), run_job_name("men", UID, 1), final_job_name("men", UID, 1)
DATABASE = Problem("DatabaseConnections", "held back")


@pytest.mark.parametrize(
    ("what", "step"),
    [
        (seen(Phase.PLANNING), CreatePlanJob()),
        (seen(Phase.PLANNING, child(PLAN)), None),
        (seen(Phase.PLANNING, child(PLAN, "complete")), None),  # the ledger will show the plan in a moment
        (seen(Phase.PLANNING, child(PLAN), input=PLANNED), Enter(Phase.PENDING)),
        (seen(Phase.PENDING), OpenRound()),
        (seen(Phase.PENDING, pending=0), Enter(Phase.FINALIZING)),
        (seen(Phase.PENDING, allowance=0, problem=DATABASE), None),
        (seen(Phase.PENDING, spec={"mode": "plan"}), None),
        (seen(Phase.RUNNING), CreateRunJob()),
        (seen(Phase.RUNNING, child(RUN)), None),
        (seen(Phase.RUNNING, child(RUN, "complete"), pending=0), Enter(Phase.FINALIZING)),
        (seen(Phase.RUNNING, child(RUN, "complete", terminating=1), pending=0), None),
        (seen(Phase.FINALIZING), CreateFinalJob()),
        (seen(Phase.FINALIZING, child(FINAL)), None),
        (seen(Phase.FINALIZING, child(FINAL, "complete"), pending=0), Enter(Phase.COMPLETE)),
        (seen(Phase.COMPLETE, pending=0), None),
    ],
)
def test_a_job_goes_through_its_stages(what: Observed, step: object) -> None:
    assert decide(what) == step


def test_a_plan_that_failed_gives_the_reason_of_its_pod() -> None:
    what = seen(Phase.PLANNING, child(PLAN, "failed"), problem=Problem("InputNotFound", "no file 'rows.csv'"))
    assert decide(what) == Enter(Phase.FAILED, JobReason.INPUT_NOT_FOUND, "no file 'rows.csv'")


def test_a_plan_that_failed_for_no_reason_of_ours_says_what_became_of_its_pod() -> None:
    step = decide(seen(Phase.PLANNING, child(PLAN, "failed"), problem=Problem("OOMKilled", "exit code 137")))
    assert isinstance(step, Enter)
    assert step.reason is JobReason.SHARDS_FAILED
    assert "OOMKilled" in str(step.message)


@pytest.mark.parametrize(("wanted", "step"), [(4, None), (2, Scale(2)), (1, Scale(1)), (9, Scale(5))])
def test_the_parallelism_of_running_pods_follows_the_spec_up_to_the_shards(wanted: int, step: object) -> None:
    assert decide(seen(Phase.RUNNING, child(RUN), spec={"parallelism": wanted}, allowance=wanted)) == step


def test_shards_that_made_progress_get_another_round() -> None:
    assert decide(seen(Phase.RUNNING, child(RUN, "failed"), pending=60)) == Enter(Phase.PENDING)


def test_shards_without_progress_end_the_job_after_its_results_are_written() -> None:
    step = decide(seen(Phase.RUNNING, child(RUN, "failed"), pending=60, round_done=40, problem=Problem("OOMKilled", "137")))
    assert isinstance(step, Enter)
    assert (step.phase, step.reason) == (Phase.FINALIZING, JobReason.SHARDS_FAILED)
    after = seen(Phase.FINALIZING, child(FINAL, "complete"), pending=60, reason=step.reason, message=step.message)
    assert decide(after) == Enter(Phase.FAILED, JobReason.SHARDS_FAILED, step.message)


def test_a_changed_csv_ends_the_job_even_after_progress() -> None:
    step = decide(seen(Phase.RUNNING, child(RUN, "failed"), pending=60, problem=Problem("InputChanged", "the CSV was changed")))
    assert step == Enter(Phase.FINALIZING, JobReason.INPUT_CHANGED, "the CSV was changed")


def test_a_run_job_that_somebody_deleted_is_made_again_in_a_new_round_once_rows_are_done() -> None:
    assert decide(seen(Phase.RUNNING, child(RUN, "deleting"))) is None
    assert decide(seen(Phase.RUNNING)) == CreateRunJob()
    assert decide(seen(Phase.RUNNING, pending=60)) == Enter(Phase.PENDING)


def test_suspend_stops_deletes_waits_and_resumes_in_a_new_round() -> None:
    off: dict[str, Any] = {"spec": {"suspend": True}}
    assert decide(seen(Phase.RUNNING, child(RUN), **off)) == Stop("suspend")
    assert decide(seen(Phase.RUNNING, child(RUN), stop="suspend", **off)) == Delete(RUN)
    assert decide(seen(Phase.RUNNING, child(RUN, "deleting"), stop="suspend", are_live=True, **off)) is None
    assert decide(seen(Phase.RUNNING, stop="suspend", **off)) == Enter(Phase.SUSPENDED)
    assert decide(seen(Phase.SUSPENDED, stop="suspend", **off)) is None
    assert decide(seen(Phase.SUSPENDED, stop="suspend")) == Enter(Phase.PENDING, clear_stop=True)


def test_a_job_that_is_suspended_from_the_start_makes_nothing() -> None:
    off: dict[str, Any] = {"spec": {"suspend": True}}
    assert decide(seen(Phase.PLANNING, **off)) == Stop("suspend")
    assert decide(seen(Phase.PLANNING, stop="suspend", **off)) == Enter(Phase.SUSPENDED)
    assert decide(seen(Phase.SUSPENDED, stop="suspend", input=None)) == Enter(Phase.PLANNING, clear_stop=True)


def test_cancel_wins_over_suspend_and_writes_the_results_of_what_is_done() -> None:
    both: dict[str, Any] = {"spec": {"suspend": True, "cancel": True}}
    assert decide(seen(Phase.SUSPENDED, stop="suspend", **both)) == Stop("cancel")
    assert decide(seen(Phase.RUNNING, child(RUN), stop="cancel", **both)) == Delete(RUN)
    assert decide(seen(Phase.SUSPENDED, stop="cancel", **both)) == Enter(Phase.FINALIZING)
    step = decide(seen(Phase.FINALIZING, child(FINAL, "complete"), pending=70, stop="cancel", **both))
    assert step == Enter(Phase.CANCELLED, JobReason.CANCELLED, "cancelled: 30 of 100 rows were done, their results are kept")


def test_cancel_before_the_plan_ends_at_once() -> None:
    step = decide(seen(Phase.PLANNING, stop="cancel", spec={"cancel": True}))
    assert isinstance(step, Enter)
    assert step.phase is Phase.CANCELLED


def test_a_broken_budget_is_judged_at_the_end_and_reopened_when_it_is_raised() -> None:
    rows = counts(0, failed=6)
    step = decide(seen(Phase.FINALIZING, child(FINAL, "complete"), rows=rows))
    assert isinstance(step, Enter)
    assert (step.phase, step.reason) == (Phase.FAILED, JobReason.FAILURE_BUDGET_EXCEEDED)
    failed: dict[str, Any] = {"rows": rows, "reason": JobReason.FAILURE_BUDGET_EXCEEDED, "message": f"{step.message} (most often ...)"}
    assert decide(seen(Phase.FAILED, **failed)) is None
    too_little = decide(seen(Phase.FAILED, spec={"failurePolicy": {"maxFailedRowsPercent": 5.5}}, **failed))
    assert isinstance(too_little, Enter)
    assert too_little.phase is Phase.FAILED and "maxFailedRowsPercent 5.5:" in (too_little.message or "")
    raised = {"failurePolicy": {"maxFailedRowsPercent": 6}}
    assert decide(seen(Phase.FAILED, spec=raised, **failed)) == Enter(Phase.PENDING, clear_stop=True)


def test_a_budget_that_a_redrive_brings_back_waits_for_its_end() -> None:
    failed: dict[str, Any] = {"rows": counts(0, failed=5), "reason": JobReason.FAILURE_BUDGET_EXCEEDED}
    assert decide(seen(Phase.FAILED, redrive=redrive(), **failed)) is None
    assert decide(seen(Phase.FAILED, **failed)) == Enter(Phase.PENDING, clear_stop=True)


def redrive(**of: Any) -> Job:
    """One that was not deleted, unless `of` says when."""
    return Job(**{**dict.fromkeys(Job._fields), "name": "men-again", "uid": OTHER, "phase": Phase.RUNNING, "round": 2, **of})


@pytest.mark.parametrize("phase", [Phase.COMPLETE, Phase.FAILED, Phase.CANCELLED])
def test_a_redrive_that_was_deleted_is_finalized_when_its_pods_are_gone(phase: Phase) -> None:
    deleted = redrive(deleted_at=datetime.now(UTC), input=PLANNED)
    final = final_job_name("men", OTHER, 2)
    assert decide(seen(phase, redrive=redrive(input=PLANNED))) is None
    assert decide(seen(phase, redrive=deleted, redrive_is_live=True)) is None
    assert decide(seen(phase, redrive=deleted)) == FinalizeRedrive()
    assert decide(seen(phase, child(final), redrive=deleted)) is None
    ends = [decide(seen(phase, child(final, state), redrive=deleted)) for state in ("complete", "failed")]
    ends.append(decide(seen(phase, redrive=deleted._replace(input=None))))
    assert [one.phase for one in ends if isinstance(one, EndRedrive)] == [Phase.CANCELLED, Phase.FAILED, Phase.CANCELLED]


def test_a_job_with_its_last_pods_on_a_lost_node_is_not_waited_for() -> None:
    assert decide(seen(Phase.RUNNING, child(RUN, "deleting"), stop="suspend", spec={"suspend": True})) == Enter(Phase.SUSPENDED)


def test_a_plan_that_is_cancelled_has_nothing_to_finalize() -> None:
    step = decide(seen(Phase.PENDING, stop="cancel", spec={"cancel": True, "mode": "plan"}))
    assert isinstance(step, Enter)
    assert step.phase is Phase.CANCELLED


def test_raising_the_number_of_failures_is_enough_before_a_percentage_counts() -> None:
    rows = Rows(total=100, succeeded=46, failed=4, pending=50)
    failed: dict[str, Any] = {"rows": rows, "reason": JobReason.FAILURE_BUDGET_EXCEEDED}
    still = decide(seen(Phase.FAILED, spec={"failurePolicy": {"maxFailedRows": 2}}, **failed))
    assert isinstance(still, Enter) and still.phase is Phase.FAILED
    assert decide(seen(Phase.FAILED, spec={"failurePolicy": {"maxFailedRows": 9}}, **failed)) == Enter(Phase.PENDING, clear_stop=True)


def test_a_job_stopped_for_its_budget_goes_on_when_the_budget_was_raised_meanwhile() -> None:
    what = seen(Phase.FINALIZING, child(FINAL, "complete"), pending=50, stop="budget", spec={"failurePolicy": {"maxFailedRowsPercent": 50}})
    assert decide(what) == Enter(Phase.PENDING, clear_stop=True)


def test_every_step_can_be_told_of_in_a_trace() -> None:
    """What a step is about may have any name, also that of an argument."""
    for step in (Delete("job-run-1"), Scale(2), Enter(Phase.SUSPENDED, message="secret")):
        with traces.span(None, type(step).__name__, **described(step)) as span:  # type: ignore[arg-type]
            span.set(**described(step))
        assert "message" not in described(step)
