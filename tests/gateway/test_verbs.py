"""Changing jobs over the API: fields that may change, cancel, suspend and resume, while real processes run them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gateway import Gateway, serving, wait
from support.project import Project

JOBS = "/api/v1/pipelinejobs"
ROWS = 60
BIG, SMALL = ({"name": "resize", "params": {"width": side, "height": side}} for side in (4000, 16))
SLOW: dict[str, Any] = {  # a tenth of a second a row, and more
    "functions": [BIG, SMALL, BIG, SMALL],
    "sharding": {"batchRows": 2},
    "parallelism": 1,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    project = Project(tmp_path_factory.mktemp("verbs"), None)
    project.catalogue(ROWS, without=range(10))
    with serving(project, "--jobs", "4") as served:
        yield served


def running(gateway: Gateway, name: str, **spec: Any) -> None:
    gateway.create(name, **{**SLOW, **spec})
    wait(lambda: gateway.get(f"{JOBS}/{name}")["status"]["rows"]["succeeded"], 30, f"{name} runs")


def phase(gateway: Gateway, name: str) -> str:
    return str(gateway.get(f"{JOBS}/{name}")["status"]["phase"])


def patch(gateway: Gateway, name: str, spec: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = gateway.client.patch(f"{JOBS}/{name}", json={"spec": spec}, headers={"Content-Type": "application/merge-patch+json"})
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_suspend_and_resume(gateway: Gateway) -> None:
    running(gateway, "rests")
    assert gateway.client.post(f"{JOBS}/rests/suspend", json={}).status_code == 200
    wait(lambda: phase(gateway, "rests") == "Suspended", 15)
    assert gateway.get(f"{JOBS}/rests")["spec"]["suspend"] is True
    patch(gateway, "rests", {"suspend": False, "parallelism": 2})
    status = gateway.ends("rests")
    assert (status["phase"], status["rows"]["succeeded"]) == ("Complete", ROWS - 10), str(status)
    spec = gateway.get(f"{JOBS}/rests")["spec"]
    assert (spec["suspend"], spec["parallelism"]) == (False, 2)
    for verb in ("suspend", "resume"):
        assert gateway.client.post(f"{JOBS}/rests/{verb}", json={}).status_code == 409


def test_cancel(gateway: Gateway) -> None:
    running(gateway, "ends")
    assert gateway.client.delete(f"{JOBS}/ends").status_code == 409, "a process runs it"
    body = patch(gateway, "ends", {"cancel": True})
    assert body["spec"]["cancel"] is True
    status = gateway.ends("ends")
    assert status["phase"] == "Cancelled" and status["rows"]["pending"] > 0
    assert "cannot be taken back" in patch(gateway, "ends", {"cancel": False}, 409)["detail"]
    assert gateway.client.post(f"{JOBS}/ends/cancel", json={}).json()["status"]["rows"] == status["rows"]


def test_a_raised_budget_goes_on(gateway: Gateway) -> None:
    gateway.create("budget", failurePolicy={"maxFailedRows": 3})
    status = gateway.ends("budget")
    assert (status["phase"], status["conditions"][-1]["reason"]) == ("Failed", "FailureBudgetExceeded")
    patch(gateway, "budget", {"failurePolicy": {"maxFailedRows": 50, "maxFailedRowsPercent": 100}})
    wait(lambda: phase(gateway, "budget") == "Complete", 40)
    assert gateway.get(f"{JOBS}/budget")["status"]["rows"]["failed"] == 10
    policy = gateway.get(f"{JOBS}/budget")["spec"]["failurePolicy"]
    assert policy == {"maxFailedRows": 50, "maxFailedRowsPercent": 100}


def test_fields_that_may_not_change(gateway: Gateway) -> None:
    gateway.create("fixed", **SLOW, suspend=True)
    for spec, named in (
        ({"seed": 1}, "spec.seed"),
        ({"parallelism": 0}, "spec.parallelism"),
        ({"parallelism": "two"}, "spec.parallelism"),
        ({"failurePolicy": {"maxFailedRow": 1}}, "spec.failurePolicy.maxFailedRow"),
        ({"parallelism": 3, "source": {"csv": "other.csv"}}, "spec.source"),
        ({"x\x00": 1}, "spec.x"),
    ):
        assert named in patch(gateway, "fixed", spec, 422)["detail"], spec  # type: ignore[arg-type]
    assert gateway.get(f"{JOBS}/fixed")["spec"]["parallelism"] == 1
    for body in ({}, {"spec": []}, {"spec": {}, "status": {}}, []):
        assert gateway.client.patch(f"{JOBS}/fixed", json=body).status_code == 422
    assert patch(gateway, "fixed", {})["spec"]["parallelism"] == 1
    assert patch(gateway, "fixed", {"parallelism": None})["spec"]["parallelism"] == 2, "null is the default"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_end_stops_its_database(tmp_path: Path, number: signal.Signals) -> None:
    gateway = Gateway(Project(tmp_path, None))
    gateway.get(JOBS)
    left = tmp_path / ".pipelinejob/postgres/postmaster.pid"
    assert left.exists()
    gateway.close(number)
    assert not left.exists()
