"""The stages of pods as real processes, each with a job's own database role: same bytes, same ledger as on a laptop."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pipelinejob.store import Job
from support.ledger import contents, fresh_database
from support.pods import PLAIN, Pods
from support.project import Project

ROWS = 60
SPEC: dict[str, Any] = {
    "source": {"where": {"year": {"gte": 2009}}},
    "sharding": {"batchRows": 5, "rowsPerShard": 20},
    "output": {"path": "out/job"},
}
needs_setpriv = pytest.mark.skipif(bool(PLAIN) and shutil.which("setpriv") is None, reason="root, and no setpriv to be less than that")
SLOW = "import time\ndef slow(image, row, *, seconds: float = 0.05):\n    time.sleep(seconds)\n    return {'n': len(row['name'])}\n"


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


def _catalogue(project: Project) -> str:
    project.catalogue(ROWS, without=[3, 21], broken=[22])
    return project.job(**SPEC)


class Laptop:
    """The same job, run with the command."""

    def __init__(self, root: Path, url: str) -> None:
        project = Project(root, url)
        ran = project.run("run", _catalogue(project), "--json")
        assert ran.code == 0, ran.err
        self.tree, self.ledger = project.tree("out/job"), contents(url)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, server: str) -> Laptop:
    return Laptop(tmp_path_factory.mktemp("laptop"), fresh_database(server))


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def _same_as(pods: Pods, laptop: Laptop) -> None:
    assert pods.project.tree("out/job") == laptop.tree
    pods.store.update_counts(pods.job.uid)
    assert contents(pods.url) == laptop.ledger


def test_the_same_bytes_and_the_same_ledger_as_on_a_laptop(pods: Pods, laptop: Laptop) -> None:
    pods.accept(_catalogue(pods.project))
    code, log = pods.run("plan")
    assert code == 0 and "planned job job: 60 rows" in log
    assert pods.run("plan")[0] == 0  # again
    assert pods.open_round() == 3
    shards = [pods.start("shard", index) for index in range(3)]
    logs = [shard.communicate(timeout=60)[0] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0, 0], logs
    assert "shard 1 of job job, rows 20-39 begins: 0 done, 0 failed" in logs[1]
    assert "shard 1 of job job, rows 20-39 ends: 20 done, 2 failed" in logs[1]
    assert pods.run("shard", 1)[0] == 0  # a pod of a finished shard finds nothing to do
    pods.finalize()
    pods.finalize()
    _same_as(pods, laptop)
    assert not pods.termination.exists()


def test_a_job_that_is_only_planned_says_what_to_expect_and_runs_as_it_was_planned(pods: Pods, laptop: Laptop) -> None:
    job = pods.accept(_catalogue(pods.project))
    pods.store.update_job(job.uid, spec={**job.spec, "mode": "plan"})
    code, log = pods.run("plan")
    assert code == 0, log
    report = (pods.store.get_job(job.uid).input or {})["report"]
    assert report["rows"] == 60 and report["exact"] is True and report["sampled"] == 20
    assert report["matching"] + report["filtered"] + report["malformed"] == 60 and report["estimatedSeconds"] >= 0
    assert not (pods.project.root / "out/job").exists()
    pods.store.update_job(job.uid, spec=job.spec)
    assert pods.open_round() == 3
    shards = [pods.start("shard", index) for index in range(3)]
    logs = [shard.communicate(timeout=60)[0] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0, 0], logs
    pods.finalize()
    assert pods.project.tree("out/job") == laptop.tree


def test_two_of_everything_at_once(pods: Pods, laptop: Laptop) -> None:
    pods.accept(_catalogue(pods.project))
    for stage, indexes in (("plan", [0, 0]), ("shard", [0, 0, 1, 1, 2, 2]), ("finalize", [0, 0, 0])):
        if stage == "shard":
            pods.open_round()
        started = [pods.start(stage, index) for index in indexes]
        logs = [pod.communicate(timeout=60)[0] for pod in started]
        assert [pod.returncode for pod in started] == [0] * len(started), logs
    _same_as(pods, laptop)


STEPS = [("plan", step) for step in ("claimed", "planned")]
STEPS += [("shard", step) for step in ("durable:1", "durable:3", "published:1", "published:3", "record", "recorded")]
STEPS += [("finalize", step) for step in ("closed", "closed-ledger", "collected", "tables", "manifest")]


@pytest.mark.parametrize(("stage", "step"), STEPS)
def test_killed_at_a_step_and_started_again(pods: Pods, laptop: Laptop, stage: str, step: str) -> None:
    pods.accept(_catalogue(pods.project))
    for each in ("plan", "shard", "finalize"):
        for index in range(pods.open_round() if each == "shard" else 1):
            if each == stage:
                code, log = pods.run(each, index, env={"PIPELINEJOB_FAULT": step})
                assert code == -signal.SIGKILL, f"{step} was never reached: {log}"
            code, log = pods.run(each, index)
            assert code == 0, log
    _same_as(pods, laptop)


@pytest.mark.parametrize("step", ["rows-done:2", "summary-written:2", "batch-done:2"])
def test_children_that_die(pods: Pods, laptop: Laptop, step: str) -> None:
    pods.accept(_catalogue(pods.project))
    assert pods.run("plan")[0] == 0
    for index in range(pods.open_round()):
        code, log = pods.run("shard", index, env={"PIPELINEJOB_FAULT": step})
        assert "a worker process died" in log
        if code != 0:
            assert pods.run("shard", index)[0] == 0
    pods.finalize()
    _same_as(pods, laptop)


def test_what_was_published_is_not_run_again(pods: Pods) -> None:
    pods.accept(_catalogue(pods.project))
    pods.run("plan")
    pods.open_round()
    assert pods.run("shard", 0, env={"PIPELINEJOB_FAULT": "record"})[0] == -signal.SIGKILL
    published = {path: path.stat().st_ino for path in (pods.project.root / "out/job/images").glob("*")}
    assert published and pods.store.update_counts(pods.job.uid)[0].pending == ROWS
    assert pods.run("shard", 0, env={"PIPELINEJOB_FAULT": "adopted"})[0] == -signal.SIGKILL
    assert pods.store.update_counts(pods.job.uid)[0].pending == ROWS - 5 * len(published)
    assert pods.run("shard", 0)[0] == 0
    assert {path: path.stat().st_ino for path in published} == published


def _slow(pods: Pods, seconds: float = 0.15) -> Job:
    """A job that takes some seconds, with a function from a module that the image has."""
    project = pods.project
    project.file("modules/slowly.py", SLOW.encode())
    project.environment["PYTHONPATH"] = str(project.root / "modules")
    project.catalogue(ROWS)
    functions = [{"name": "slow", "module": "slowly", "params": {"seconds": seconds}}]
    job = pods.accept(project.job(functions=functions, sharding={"batchRows": 5}))
    code, log = pods.run("plan")
    assert code == 0, log
    assert pods.open_round() == 1
    return job


def _published(pods: Pods) -> int:
    return pods.store.update_counts(pods.job.uid)[0].succeeded


def test_told_to_end(pods: Pods) -> None:
    _slow(pods)
    pod = pods.start("shard")
    _wait(lambda: _published(pods) >= 10)
    pod.send_signal(signal.SIGTERM)
    began = time.monotonic()
    out, _ = pod.communicate(timeout=20)
    assert pod.returncode == 75, out
    assert time.monotonic() - began < 5 and "stopped: told to end" in out
    assert 0 < pods.store.update_counts(pods.job.uid)[0].pending < ROWS
    assert pods.run("shard")[0] == 0
    pods.finalize()
    assert pods.store.update_counts(pods.job.uid)[0].succeeded == ROWS


@pytest.mark.parametrize("stage", ["plan", "shard"])
def test_told_to_end_while_the_database_is_away(pods: Pods, stage: str) -> None:
    pods.accept(_catalogue(pods.project))
    pod = pods.start(stage, env={"PIPELINEJOB_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    line = pod.stdout.readline() if pod.stdout else ""
    assert "the database is away" in line and line.rstrip().endswith("waiting for it")
    pod.send_signal(signal.SIGTERM)
    began = time.monotonic()
    pod.communicate(timeout=20)
    assert pod.returncode == 75 and time.monotonic() - began < 10


def test_the_jobs_stop_is_heard_with_the_next_record(pods: Pods) -> None:
    job = _slow(pods)
    pod = pods.start("shard")
    _wait(lambda: _published(pods) >= 5)
    pods.store.update_job(job.uid, stop="suspend")
    out, _ = pod.communicate(timeout=20)
    assert pod.returncode == 75, out
    began = time.monotonic()
    code, log = pods.run("shard")
    assert code == 75 and "stopped: suspend" in log
    assert time.monotonic() - began > 4  # Kubernetes would start the next at once, and the next
    pods.store.update_job(job.uid, stop=None)
    pods.open_round()
    assert pods.run("shard")[0] == 0


def test_a_round_that_is_over(pods: Pods) -> None:
    job = _slow(pods)
    pod = pods.start("shard")
    _wait(lambda: _published(pods) >= 5)
    pods.store.open_round(job.uid)  # the pod is of the round before
    out, _ = pod.communicate(timeout=20)
    assert pod.returncode == 75, out
    code, log = pods.run("shard")
    assert code == 75 and "stopped: round 1 is over" in log
    pods.round = 2
    assert pods.run("shard")[0] == 0


def test_a_late_pod_leaves_nothing_behind(pods: Pods) -> None:
    pods.accept(_catalogue(pods.project))
    pods.run("plan")
    for index in range(pods.open_round()):
        pods.run("shard", index)
    pods.finalize()
    before = pods.project.everything("out/job")
    assert pods.run("shard", 0)[0] == 75
    assert pods.project.everything("out/job") == before


def test_a_job_that_was_deleted(pods: Pods) -> None:
    pods.accept(_catalogue(pods.project))
    pods.run("plan")
    pods.open_round()
    pods.store.mark_deleted(pods.job.uid)
    for stage in ("plan", "shard", "finalize"):
        assert pods.run(stage)[0] == 75


def test_a_csv_that_is_not_there(pods: Pods) -> None:
    job = pods.accept(_catalogue(pods.project))
    (pods.project.root / "rows.csv").unlink()
    code, _ = pods.run("plan")
    assert code == 43
    message = "spec.source.csv: no file 'rows.csv' in the claim 'catalogue': check the path"
    assert pods.why() == {"reason": "InputNotFound", "message": message}
    assert pods.store.get_job(job.uid).problem == {"stage": "plan", "reason": "InputNotFound", "message": message}


def test_a_csv_that_was_changed(pods: Pods) -> None:
    job = pods.accept(_catalogue(pods.project))
    pods.run("plan")
    pods.open_round()
    path = pods.project.root / "rows.csv"
    path.write_text(path.read_text().replace("Shirt 1\n", "Skirt 1\n"))
    code, log = pods.run("shard", 0)
    assert code == 43, log
    assert pods.why()["reason"] == "InputChanged" and "rows 0 to 4 are not those planned" in pods.why()["message"]
    assert (pods.store.get_job(job.uid).problem or {})["stage"] == "shard"
    assert pods.run("shard", 1)[0] == 0  # other rows are as they were
    path.unlink()
    assert pods.run("shard", 2)[0] == 43
    assert pods.why()["reason"] == "InputNotFound"


@needs_setpriv
def test_an_output_that_cannot_be_written_to(pods: Pods) -> None:
    pods.accept(_catalogue(pods.project))
    pods.project.root.chmod(0o555)
    code, log = pods.run("plan", plain=True)
    pods.project.root.chmod(0o755)
    assert code == 43, log
    assert pods.why()["reason"] == "InvalidSpec"
    where = f"the folder out/job of the claim 'catalogue' as uid {os.geteuid()} (Permission denied)"
    assert f"cannot write to {where}" in pods.why()["message"]
    assert (pods.store.get_job(pods.job.uid).problem or {}) == {"stage": "plan", **pods.why()}


def test_functions_that_no_pod_has(pods: Pods) -> None:
    pods.project.file("fn.py", SLOW.encode())
    pods.project.catalogue(3)
    functions = [{"name": "slow", "file": "fn.py"}]
    pods.accept(pods.project.job(functions=functions))
    assert pods.run("plan")[0] == 43
    assert pods.why()["reason"] == "InvalidSpec"
    assert pods.why()["message"].startswith("spec.functions[0].file: 'fn.py' is not in the pods' image")
    pods.accept(pods.project.job("other", functions=[{"name": "slow", "module": "no.such"}]))
    assert pods.run("plan")[0] == 43
    assert "spec.functions[0].module: module no.such: ModuleNotFoundError" in pods.why()["message"]


@needs_setpriv
def test_users_code_sees_no_credentials(pods: Pods) -> None:
    """Neither where the plan imports its module nor where rows run."""
    spy = (
        "import os\n"
        "names = ' '.join(sorted(os.environ))\n"
        "assert 'DATABASE' not in names, names\n"
        "def spy(image, row):\n"
        "    assert 'DATABASE' not in ' '.join(os.environ)\n"
        "    try:\n"
        "        return {'seen': 'DATABASE' in open(f'/proc/{os.getppid()}/environ').read()}\n"
        "    except PermissionError:\n"
        "        return {'seen': False}\n"
    )
    project = pods.project
    project.file("modules/spy.py", spy.encode())
    project.environment["PYTHONPATH"] = str(project.root / "modules")
    project.catalogue(4)
    pods.accept(project.job(functions=[{"name": "spy", "module": "spy"}]))
    for stage in ("plan", "shard", "finalize"):
        if stage == "shard":
            pods.open_round()
        code, log = pods.run(stage, plain=True)
        assert code == 0, log
    assert [row["seen"] for row in project.table("out/job/metadata.csv")] == ["false"] * 4


def test_a_plan_claims_no_output(pods: Pods) -> None:
    _catalogue(pods.project)
    pods.accept(pods.project.job(**SPEC, mode="plan"))
    before = pods.project.everything()
    assert pods.run("plan")[0] == 0
    assert pods.project.everything() == before
    assert pods.store.get_job(pods.job.uid).rows_total == ROWS


def test_a_job_of_the_name_of_a_deleted_one(pods: Pods, laptop: Laptop) -> None:
    file = _catalogue(pods.project)
    old = pods.accept(file)
    pods.run("plan")
    pods.open_round()
    pods.run("shard", 0)
    pods.store.mark_deleted(old.uid)
    before = pods.project.tree("out/job")
    new = pods.accept(file)

    pods.run("plan")

    assert pods.project.tree(f"out/job.{old.uid}") == before
    assert pods.project.tree("out/job") == {}
    assert (pods.store.get_job(new.uid).input or {})["moved"] == f"out/job.{old.uid}"
    for index in range(pods.open_round()):
        assert pods.run("shard", index)[0] == 0
    pods.finalize()
    assert pods.project.tree("out/job") == laptop.tree


def test_a_process_of_a_deleted_job_leaves_the_new_ones_output_alone(pods: Pods) -> None:
    old = _slow(pods)
    old_url = pods.worker_url
    pod = pods.start("shard")
    _wait(lambda: _published(pods) >= 5)
    pods.store.mark_deleted(old.uid)
    pods.accept("job.yaml")
    assert pods.run("plan")[0] == 0
    out, _ = pod.communicate(timeout=30)
    assert pod.returncode != 0, out
    assert pods.project.tree("out/job") == {}
    new, pods.job, new_url, pods.worker_url = pods.job, old, pods.worker_url, old_url
    connection = psycopg2.connect(pods.url)
    with connection, connection.cursor() as cursor:  # as if its pod had asked before it was deleted
        cursor.execute("UPDATE pipelinejob.jobs SET deleted_at = NULL, name = 'old', stop = NULL WHERE uid = %s", (old.uid,))
    connection.close()
    for stage in ("shard", "finalize"):
        assert pods.run(stage)[0] == 43
        assert pods.why()["reason"] == "OutputConflict" and new.uid in pods.why()["message"]
    pods.job, pods.worker_url, pods.round = new, new_url, 0
    assert pods.project.tree("out/job") == {}
    pods.open_round()
    assert pods.run("shard")[0] == 0


def test_an_output_of_another_job(pods: Pods) -> None:
    _catalogue(pods.project)
    pods.accept(pods.project.job("first", **{**SPEC, "output": {"path": "out/a"}}))
    assert pods.run("plan")[0] == 0
    for path in ("out/a", "out"):
        pods.accept(pods.project.job(f"second-{len(path)}", **{**SPEC, "output": {"path": path}}))
        assert pods.run("plan")[0] == 43
        assert pods.why()["reason"] == "OutputConflict" and "'first'" in pods.why()["message"]
    pods.project.file("full/of/things", b"")
    pods.accept(pods.project.job("third", **{**SPEC, "output": {"path": "full"}}))
    assert pods.run("plan")[0] == 43
    assert "is not empty" in pods.why()["message"]


def test_only_a_header(pods: Pods) -> None:
    pods.project.write_csv([])
    pods.accept(pods.project.job())
    assert pods.run("plan")[0] == 0
    assert pods.store.unfinished_count(pods.job.uid) == 0
    pods.finalize()
    assert set(pods.project.tree("out/job")) == {"failures.csv", "manifest.json", "metadata.csv"}
