"""The status of a job: conditions and counts from what the ledger knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelinejob.model import Rows, Shards, Status, TopFailure
from pipelinejob.status import status_of
from pipelinejob.store import Job

BEGAN = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROWS = Rows(total=100, succeeded=90, filtered=5, failed=5)


def _job(**fields: Any) -> Job:
    empty = dict.fromkeys(Job._fields)
    known = {"uid": "u", "name": "n", "phase": "Complete", "output": "out", "output_root": "/data", "input": {"rows": 100}}
    times = {"created_at": BEGAN, "started_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=50)}
    return Job(**{**empty, **known, **times, **fields})


def test_a_complete_job() -> None:
    status = status_of(_job(input_digest="abc"), ROWS, Shards(total=1, succeeded=1), [])
    assert [condition.type for condition in status.conditions] == ["Accepted", "Planned", "Complete"]
    assert (status.progress, status.rows_per_second, status.output) == ("100/100", 2.0, "/data/out")
    assert Status.model_validate_json(status.model_dump_json(by_alias=True)) == status
    assert status.as_dict()["conditions"][2]["lastTransitionTime"] == "2026-11-01T12:00:50Z"


@pytest.mark.parametrize("jump", [timedelta(hours=-1), timedelta(microseconds=-1), timedelta()])
def test_a_clock_that_is_set_back_makes_no_negative_duration(jump: timedelta) -> None:
    job = _job(finished_at=BEGAN + jump)
    status = status_of(job, ROWS, Shards(), [])
    assert job.seconds == 0
    assert (status.start_time, status.completion_time, status.rows_per_second) == (BEGAN, BEGAN, None)
    assert {one.last_transition_time for one in status.conditions} == {BEGAN}


@pytest.mark.parametrize(
    ("fields", "last", "reason"),
    [
        ({"phase": "Failed", "reason": "InputChanged", "message": "edited"}, "Failed", "InputChanged"),
        ({"phase": "Cancelled", "reason": "Cancelled", "message": "done"}, "Failed", "Cancelled"),
        ({"phase": "Suspended"}, "Suspended", "Suspended"),
        ({"phase": "Running", "finished_at": None}, "Planned", "Planned"),
        ({"phase": "Planning", "finished_at": None, "started_at": None, "input": None}, "Accepted", "Accepted"),
    ],
)
def test_conditions(fields: dict[str, Any], last: str, reason: str) -> None:
    condition = status_of(_job(**fields), ROWS, Shards(), []).conditions[-1]
    assert (condition.type, condition.status, condition.reason) == (last, "True", reason)


def test_it_stays_small() -> None:
    top = [TopFailure(reason="FunctionError", count=10**9, example="x" * 500)] * 5
    status = status_of(_job(phase="Failed", reason="FailureBudgetExceeded", message="m" * 1000), ROWS, Shards(total=50_000), top)
    assert len(status.model_dump_json(by_alias=True)) < 8 * 1024
