"""How many pods each job may have, so that all together stay within what the database bears."""

from __future__ import annotations

from typing import Any

from pipelinejob.reasons import Phase
from pipelinejob.store import Job
from pipelinejob_operator.grants import Grants


def job(uid: str, phase: Phase = Phase.RUNNING, stop: str | None = None, mode: str = "run") -> Job:
    fields: dict[str, Any] = dict.fromkeys(Job._fields)
    return Job(**{**fields, "uid": uid, "phase": phase, "stop": stop, "spec": {"mode": mode}})


def test_jobs_share_the_limit_first_come_first_served() -> None:
    grants = Grants(80)
    assert [grants.grant(job("a"), 50), grants.grant(job("b"), 50), grants.grant(job("c"), 5)] == [50, 30, 0]
    assert grants.held_back(50, 50) is None
    problem = grants.held_back(50, 30)
    assert problem is not None
    assert (problem.reason, "30 of 50" in problem.message) == ("DatabaseConnections", True)
    grants.release("a")
    assert [grants.grant(job("b"), 50), grants.grant(job("c"), 5)] == [50, 5]


def test_what_runs_already_keeps_its_pods_after_a_restart() -> None:
    grants = Grants(80)
    grants.resume({"old": 70})
    assert grants.grant(job("new"), 50) == 10
    assert grants.grant(job("old"), 70) == 70


def test_a_job_that_stops_gives_its_pods_back() -> None:
    grants = Grants(80)
    grants.grant(job("a"), 80)
    assert grants.grant(job("b"), 10) == 0
    grants.grant(job("a", stop="suspend"), 80)
    assert grants.grant(job("b"), 10) == 10


def test_a_job_that_only_plans_holds_nothing() -> None:
    grants = Grants(80)
    grants.grant(job("a", Phase.PENDING, mode="plan"), 80)
    assert grants.grant(job("b"), 80) == 80


def test_no_limit_is_no_limit() -> None:
    assert Grants(0).grant(job("a"), 9999) == 9999
