"""How a PipelineJob's status reads, how large it can be, and which Events a change of it is worth."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelinejob.model import Rows, Shards, Spec, TopFailure
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.store import Job
from pipelinejob_operator.conditions import View, clip, news, refused, status, waiting
from pipelinejob_operator.diagnose import Problem

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPEC = Spec.model_validate({"source": {"csv": "rows.csv"}}).as_dict()
ROWS = Rows(total=100, succeeded=30, filtered=5, skipped=3, failed=2, pending=60)


def view(phase: Phase, **of: Any) -> View:
    fields: dict[str, Any] = dict.fromkeys(Job._fields)
    fields |= {
        "uid": "0a1b",
        "namespace": "default",
        "name": "men",
        "phase": phase,
        "spec": SPEC,
        "output": "out/men",
        "output_root": "/data",
    }
    fields |= {"input": {"rows": 100, "sha256": "ab"}, "created_at": NOW, "started_at": NOW}
    fields |= {key: of.pop(key) for key in list(of) if key in Job._fields and key != "problem"}
    given: dict[str, Any] = {"rows": ROWS, "shards": Shards(total=4, active=2, succeeded=1), "top": [], "generation": 3}
    given |= {"problem": None, "rate": None, "previous": {}, "now": NOW, **of}
    return View(job=Job(**fields), **given)


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in found["conditions"] if one["type"] == kind)


def test_a_running_job_shows_progress_rate_and_when_it_will_be_done() -> None:
    found = status(view(Phase.RUNNING, rate=20.0))
    assert (found["phase"], found["progress"], found["rowsPerSecond"], found["output"]) == ("Running", "40/100", 20.0, "out/men")
    assert found["estimatedCompletionTime"] == "2026-01-01T12:00:03Z"
    assert found["rows"] == {"total": 100, "succeeded": 30, "filtered": 5, "skipped": 3, "failed": 2, "pending": 60}
    assert found["observedGeneration"] == 3
    assert condition(found, "Accepted")["status"] == condition(found, "Planned")["status"] == "True"
    assert (condition(found, "Complete")["status"], condition(found, "Complete")["reason"]) == ("False", "Running")


def test_what_keeps_the_pods_from_running_is_a_condition_and_an_event() -> None:
    before = status(view(Phase.RUNNING))
    found = status(view(Phase.RUNNING, problem=Problem("ImagePullBackOff", "no image x: check spec.worker.image"), previous=before))
    assert (condition(found, "Complete")["reason"], condition(found, "Complete")["status"]) == ("ImagePullBackOff", "False")
    assert news(before, found) == [("Warning", "ImagePullBackOff", "no image x: check spec.worker.image")]
    assert news(found, found) == []


def test_events_tell_of_each_change_once() -> None:
    accepted = status(view(Phase.PLANNING, input=None, rows=Rows(), shards=Shards()))
    planned = status(view(Phase.PENDING, previous=accepted))
    done = status(view(Phase.COMPLETE, previous=planned, rows=Rows(total=100, succeeded=100), finished_at=NOW))
    assert [one.reason for one in news({}, accepted)] == ["Accepted"]
    assert [one.reason for one in news(accepted, planned)] == ["Planned"]
    assert [(one.type, one.reason) for one in news(planned, done)] == [("Normal", "Complete")]


def test_transition_times_stay_until_a_condition_changes_its_status() -> None:
    before = status(view(Phase.RUNNING))
    later = NOW + timedelta(minutes=5)
    found = status(view(Phase.COMPLETE, previous=before, now=later, rows=Rows(total=100, succeeded=100), finished_at=later))
    assert condition(found, "Accepted")["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    assert condition(found, "Complete")["lastTransitionTime"] == "2026-01-01T12:05:00Z"


def test_suspended_and_resumed() -> None:
    off = status(view(Phase.SUSPENDED))
    assert condition(off, "Suspended")["status"] == "True"
    on = status(view(Phase.RUNNING, previous=off))
    assert (condition(on, "Suspended")["status"], condition(on, "Suspended")["reason"]) == ("False", "Resumed")
    assert ("Normal", "Resumed", "spec.suspend is false") in news(off, on)


def test_a_failed_job_names_its_reason_and_a_raised_budget_takes_it_back() -> None:
    failed = status(view(Phase.FAILED, reason=JobReason.FAILURE_BUDGET_EXCEEDED, message="6 of 100 rows failed", finished_at=NOW))
    assert condition(failed, "Failed")["reason"] == "FailureBudgetExceeded"
    assert condition(failed, "Accepted")["status"] == "True"
    again = status(view(Phase.PENDING, previous=failed))
    assert condition(again, "Failed")["status"] == "False"


def test_a_spec_that_is_not_accepted() -> None:
    error = JobError(JobReason.INVALID_SPEC, "spec.functions[0].name: unknown function 'rezise'; did you mean 'resize'?")
    found = refused(error, 1, {}, NOW)
    assert (condition(found, "Accepted")["status"], condition(found, "Failed")["status"], found["phase"]) == ("False", "True", "Failed")
    assert "spec.functions[0].name" in condition(found, "Accepted")["message"]
    assert [one.type for one in news({}, found)] == ["Warning"]
    in_a_pod = status(view(Phase.FAILED, reason=JobReason.INVALID_SPEC, message="no column 'x'", input=None, finished_at=NOW))
    assert condition(in_a_pod, "Accepted")["status"] == "False"


def test_without_the_ledger_the_status_stands_and_says_so() -> None:
    before = status(view(Phase.RUNNING, rate=20.0))
    found = waiting(Problem("DatabaseUnavailable", "no database"), before, NOW)
    assert found["rows"] == before["rows"]
    assert condition(found, "Complete")["reason"] == "DatabaseUnavailable"
    assert len(found["conditions"]) == len(before["conditions"])
    assert waiting(Problem("DatabaseUnavailable", "no database"), {}, NOW)["phase"] == "Pending"


def test_a_status_stays_below_8_kib_whatever_the_messages_are() -> None:
    top = [TopFailure(reason="FunctionError", count=10**9, example="row 1: " + "ö" * 500) for _ in range(5)]
    huge = "ö\n" * 5000
    rows = Rows(total=10**12, failed=10**12)
    before = status(view(Phase.SUSPENDED))
    found = status(view(Phase.FAILED, reason=JobReason.INVALID_SPEC, message=huge, top=top, rows=rows, previous=before, finished_at=NOW))
    assert len(json.dumps(found, ensure_ascii=False).encode()) < 8192


def test_a_clipped_text_is_whole_characters() -> None:
    assert clip("ööö", 100) == "ööö"
    assert clip("ö" * 100, 10) == "ööö…"
