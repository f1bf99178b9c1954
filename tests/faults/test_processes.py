"""Processes that die, are killed or are told to stop, and a database that goes away: the run goes on, or the next does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelinejob.store import EmbeddedServer
from support.project import Project

SLOW = """
import time
def slow(image, row, *, seconds: float = 0.02):
    time.sleep(seconds)
    return image
"""


def _slow_job(project: Project, rows: int = 200, seconds: float = 0.02) -> str:
    project.catalogue(rows, without=[5])
    project.file("slow.py", SLOW.encode())
    functions = [
        {"name": "slow", "file": "slow.py", "params": {"seconds": seconds}},
        {"name": "random_crop", "params": {"ratio": 0.5}},
    ]
    return project.job(functions=functions, sharding={"batchRows": 10, "rowsPerShard": 100})


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def _children(parent: int) -> list[int]:
    """The processes of a run that run rows."""
    listing = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if "pipelinejob.child" in line]


def _published(project: Project) -> int:
    return len(list((project.root / "out/job/images").glob("*")))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_children_end_with_their_parent_and_the_next_run_goes_on(project: Project) -> None:
    job = _slow_job(project)
    process = project.start("run", job)
    _wait(lambda: _published(project) >= 2)
    children = _children(process.pid)
    assert len(children) == 2
    process.kill()
    process.communicate()
    killed = time.monotonic()
    _wait(lambda: not any(map(_alive, children)))
    assert time.monotonic() - killed < 5

    status = project.run("status", "job", "--json")
    assert status.json["phase"] == "Running"
    assert "interrupted at row" in status.json["message"]
    assert "run the same command to go on" in status.json["message"]

    again = project.run("run", job, "--json")
    assert again.code == 0, again.err
    assert again.json["rows"]["succeeded"] == 199


def test_a_run_waits_for_children_that_still_end(project: Project) -> None:
    """The parent is gone, its children are stopped and so cannot end: they hold the job's lock until they do."""
    job = _slow_job(project)
    process = project.start("run", job)
    _wait(lambda: _published(project) >= 2)
    children = _children(process.pid)
    keeper = subprocess.Popen(["flock", str(project.root / "out/job/.pipelinejob/lock"), "sleep", "1.5"], stdin=subprocess.DEVNULL)
    process.kill()
    process.communicate()
    _wait(lambda: not any(map(_alive, children)))

    began = time.monotonic()
    again = project.run("run", job, "--json")

    assert again.code == 0, again.err
    assert again.json["rows"]["succeeded"] == 199
    assert keeper.wait() == 0
    assert time.monotonic() - began > 1.0


def test_a_second_run_of_a_running_job_is_refused(project: Project) -> None:
    job = _slow_job(project, seconds=0.08)  # two commands long, on a busy machine, too
    process = project.start("run", job, "--json")
    _wait(lambda: _published(project) >= 1)

    second = project.run("run", job, "--json")

    assert second.code == 2
    assert f"process {process.pid}" in second.json["message"]
    assert f"running as process {process.pid}" in project.run("status", "job", "--json").json["message"]
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert '"phase": "Complete"' in out


def test_children_killed_at_random(project: Project) -> None:
    job = _slow_job(project)
    undisturbed = Project(project.root / "undisturbed", project.environment["PIPELINEJOB_DATABASE_URL"])
    undisturbed.root.mkdir()
    process = project.start("run", job, "--json")
    kills = 0
    while process.poll() is None and kills < 8:
        time.sleep(0.25)
        for child in _children(process.pid)[:1]:
            os.kill(child, signal.SIGKILL)
            kills += 1
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert kills >= 3
    assert '"succeeded": 199' in out

    files = project.tree("out/job")
    assert project.run("run", job, "--replace", "--json").code == 0
    assert project.tree("out/job") == files


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed(project: Project, number: signal.Signals) -> None:
    job = _slow_job(project)
    process = project.start("run", job, "--json")
    _wait(lambda: _published(project) >= 3)
    began = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate()
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert "run the same command to go on" in out

    again = project.run("run", job, "--json")
    assert again.code == 0, again.err
    assert again.json["rows"]["succeeded"] == 199


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import ctypes; ctypes.string_at(0)", "the process died with signal 11"),
        ("import os; os.kill(os.getpid(), 9)", "the process died with signal 9"),
        ("import os; os._exit(3)", "the process ended with exit code 3"),
        ("import os; os._exit(0)", "the process ended with exit code 0"),
        ("import sys; sys.exit(0)", "SystemExit"),
    ],
)
def test_a_row_that_kills_its_process_costs_itself(project: Project, body: str, message: str) -> None:
    project.catalogue(30)
    project.file("fn.py", f"def die(image, row):\n    if row['id'] in ('1007', '1008'):\n        {body}\n    return image\n".encode())
    job = project.job(functions=[{"name": "die", "file": "fn.py"}], sharding={"batchRows": 10})

    ran = project.run("run", job, "--json")

    assert ran.code == 0, ran.err
    assert ran.json["rows"] == {"total": 30, "succeeded": 28, "filtered": 0, "skipped": 0, "failed": 2, "pending": 0}
    failures = project.table("out/job/failures.csv")
    assert [(row["row"], row["reason"], row["function"]) for row in failures] == [
        ("7", "FunctionError", "die"),
        ("8", "FunctionError", "die"),
    ]
    assert failures[0]["message"].startswith(message)


def test_a_row_that_hangs_costs_itself(project: Project) -> None:
    project.catalogue(30)
    project.file("fn.py", b"import time\ndef hang(image, row):\n    if row['id'] == '1007':\n        time.sleep(60)\n    return image\n")
    job = project.job(functions=[{"name": "hang", "file": "fn.py", "timeoutSeconds": 1}], sharding={"batchRows": 10})

    ran = project.run("run", job, "--json")

    assert ran.code == 0, ran.err
    (failure,) = project.table("out/job/failures.csv")
    assert (failure["row"], failure["reason"], failure["function"]) == ("7", "FunctionTimeout", "hang")
    assert failure["message"] == "the function took longer than 1 s"


def test_a_csv_edited_while_it_runs(project: Project) -> None:
    job = _slow_job(project)
    process = project.start("run", job, "--json")
    _wait(lambda: _published(project) >= 2)
    path = project.root / "rows.csv"
    path.write_text(path.read_text().replace("Shirt 1", "Skirt 1"))
    out, err = process.communicate()
    assert process.returncode == 1, err
    assert '"reason": "InputChanged"' in out

    again = project.run("run", job, "--json")
    assert again.code == 1
    assert again.json["reason"] == "InputChanged"


def test_the_database_goes_away_and_comes_back(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "server")
    project = Project(tmp_path / "project", server.url())
    project.root.mkdir()
    job = _slow_job(project)
    process = project.start("run", job, "--json")
    _wait(lambda: _published(project) >= 3)
    postmaster = int((tmp_path / "server/postgres/postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGQUIT)
    _wait(lambda: not _alive(postmaster))
    time.sleep(5)
    assert process.poll() is None
    server.url()

    out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert '"succeeded": 199' in out
    assert "the database is away" in err
    assert "the database is back" in err
    assert "stamina" not in err
    server.close()


def test_the_embedded_server_is_killed(bare_project: Project) -> None:
    job = _slow_job(bare_project)
    process = bare_project.start("run", job, "--json")
    _wait(lambda: _published(bare_project) >= 3)
    postmaster = int((bare_project.root / ".pipelinejob/postgres/postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)

    out, err = process.communicate(timeout=90)

    assert process.returncode == 0, err
    assert '"succeeded": 199' in out
    pid = int(bare_project.run("status", "job").code)
    assert pid == 0


def test_killed_during_initdb(bare_project: Project) -> None:
    bare_project.catalogue(5)
    job = bare_project.job()
    process = bare_project.start("run", job)
    _wait(lambda: list((bare_project.root / ".pipelinejob").glob("postgres-new-*/*")))
    process.kill()
    process.communicate()

    again = bare_project.run("run", job, "--json")

    assert again.code == 0, again.err
    assert not list((bare_project.root / ".pipelinejob").glob("postgres-new-*"))
    assert not (bare_project.root / ".pipelinejob/postgres/postmaster.pid").exists()  # the last user stopped it
