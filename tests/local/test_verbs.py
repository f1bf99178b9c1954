"""Suspend, resume and scale on one machine: the running process hears of them through the ledger."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import pytest

from support.project import Project, Ran

SLOW = "import time\ndef mark(image, row):\n    time.sleep(0.05)\n    return image\n"
SLOWER = SLOW.replace("0.05", "0.15")  # two commands are to be heard while it runs, however busy the machine is
ROWS = 160


@pytest.fixture
def job(project: Project) -> str:
    """A job of some seconds, whose batches are short."""
    project.catalogue(ROWS)
    project.write(SLOW, "fn.py")
    return project.job(functions=[{"name": "mark", "file": "fn.py"}], sharding={"batchRows": 4}, parallelism=1)


def wait(what: Callable[[], bool], seconds: float = 20) -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "not in time"
        time.sleep(0.05)
    return time.monotonic() - began


def ended(process: subprocess.Popen[str], seconds: float = 60) -> Ran:
    out, err = process.communicate(timeout=seconds)
    return Ran(process.returncode, out, err)


def has_images(project: Project) -> bool:
    return len(list(project.root.glob("out/job/images/*/*.jpg"))) >= 8


def children(process: subprocess.Popen[str]) -> int:
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "pipelinejob.child"], capture_output=True, text=True)
    return len(found.stdout.split())


def test_a_running_job_is_suspended_and_resumed(project: Project, job: str) -> None:
    process = project.start("run", job, "--json")
    wait(lambda: has_images(project))
    told = project.run("suspend", "job", "--json")
    assert told.code == 0, told.err
    began = time.monotonic()
    ran = ended(process)
    assert time.monotonic() - began < 5
    assert (ran.code, ran.json["phase"]) == (1, "Suspended"), ran
    assert 0 < ran.json["rows"]["succeeded"] < ROWS
    assert "pipelinejob resume job" in ran.json["message"]
    assert not (project.root / "out/job/metadata.csv").exists()
    assert project.run("status", "job", "--json").json["phase"] == "Suspended"

    resumed = project.run("resume", "job", "--json")
    assert (resumed.code, resumed.json["phase"], resumed.json["rows"]["succeeded"]) == (0, "Complete", ROWS), resumed.err
    assert resumed.json["uid"] == ran.json["uid"]
    found = project.tree("out/job")
    project.run("run", job, "--replace", "--json")
    assert project.tree("out/job") == found


def test_a_job_that_does_not_run_is_suspended_until_its_file_is_run_again(project: Project, job: str) -> None:
    process = project.start("run", job)
    wait(lambda: has_images(project))
    process.kill()
    ended(process)
    wait(lambda: project.run("suspend", "job", "--json").json["phase"] == "Suspended")
    assert project.run("run", job, "--json").json["phase"] == "Complete"


def test_resume_goes_on_with_an_interrupted_job(project: Project, job: str) -> None:
    process = project.start("run", job)
    wait(lambda: has_images(project))
    process.kill()
    ended(process)
    resumed = project.run("resume", "job", "--workers", "2", "--json")
    assert (resumed.code, resumed.json["rows"]["succeeded"]) == (0, ROWS), resumed.err
    again = project.run("resume", "job", "--json")
    assert (again.code, again.json["phase"]) == (0, "Complete")


def test_a_job_that_has_ended_cannot_be_suspended_or_scaled(project: Project) -> None:
    project.catalogue(3)
    assert project.run("run", project.job()).code == 0
    for command in (["suspend", "job"], ["scale", "job", "3"]):
        told = project.run(*command, "--json")
        assert (told.code, told.json["reason"]) == (2, "InvalidSpec")
        assert "has ended (Complete)" in told.json["message"]


@pytest.mark.parametrize("count", ["0", "many", "-1"])
def test_a_parallelism_that_cannot_be(project: Project, job: str, count: str) -> None:
    assert project.run("scale", "job", "--json", "--", count).code == 2


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="no more processes than cores")
def test_a_running_job_gets_more_processes_and_fewer(project: Project, job: str) -> None:
    project.write(SLOWER, "fn.py")
    process = project.start("run", job, "--json")
    wait(lambda: has_images(project))
    assert children(process) == 1
    assert project.run("scale", "job", "2").code == 0
    wait(lambda: children(process) == 2, 6)
    assert project.run("scale", "job", "1").code == 0
    wait(lambda: children(process) == 1, 6)
    ran = ended(process)
    assert (ran.code, ran.json["rows"]["succeeded"]) == (0, ROWS), ran.err
    assert "died" not in ran.err


def test_the_budget_of_a_running_job_is_raised_by_its_file(project: Project) -> None:
    project.catalogue(ROWS, without=range(0, ROWS, 4))
    project.write(SLOWER, "fn.py")
    options = {"functions": [{"name": "mark", "file": "fn.py"}], "sharding": {"batchRows": 4}, "parallelism": 1}
    process = project.start("run", project.job(**options, failurePolicy={"maxFailedRows": 30, "maxFailedRowsPercent": 100}), "--json")
    wait(lambda: has_images(project))
    raised = project.run("run", project.job(**options, failurePolicy={"maxFailedRows": 40, "maxFailedRowsPercent": 100}), "--json")
    assert (raised.code, raised.json["name"]) == (2, "job")
    assert f"process {process.pid}" in raised.json["message"] and "goes on with spec.failurePolicy of this file" in raised.json["message"]
    ran = ended(process)
    assert (ran.code, ran.json["phase"], ran.json["rows"]["failed"]) == (0, "Complete", 40), ran


def test_what_is_refused_names_the_job_as_it_is(project: Project) -> None:
    project.catalogue(4, without=[1])
    ran = project.run("run", project.job(), "--json")
    for verb in (["scale", "job", "3"], ["suspend", "job"], ["redrive", "job", "--reason", "Bogus"]):
        refused = project.run(*verb, "--json")
        assert (refused.code, refused.json["uid"], refused.json["rows"]) == (2, ran.json["uid"], ran.json["rows"]), verb
    assert project.run("redrive", "job", "--json").json["name"] == "job-redrive-1"
    refused = project.run("redrive", "job", "--data", "nowhere", "--json")
    assert (refused.code, refused.json["name"]) == (1, "job"), "the redrive that ended is not the one that was refused"
