"""Storage that fails under a job: a disk that is full, reading that is an I/O error. No row is blamed, nothing half-written is seen."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ledger import contents, execute, fresh_database
from support.mounts import Disk, small_disk, unreadable
from support.pods import Pods
from support.project import Project

ROWS = 60
SPEC: dict[str, Any] = {"sharding": {"batchRows": 5, "rowsPerShard": 60}, "output": {"path": "out/job"}}
LEFT = 30  # pages: less than the images take
SOON = {"PIPELINEJOB_PATIENCE": "1"}


def _job(project: Project, **spec: Any) -> str:
    project.catalogue(ROWS, without=[3, 21], broken=[22])
    return project.job(**{**SPEC, **spec})


class Undisturbed:
    """The job's files and its ledger, of a run that nobody disturbed."""

    def __init__(self, root: Path, url: str) -> None:
        project = Project(root, url)
        ran = project.run("run", _job(project), "--json")
        assert ran.code == 0, ran.err
        self.tree, self.ledger = project.tree("out/job"), contents(url)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, server: str) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"), fresh_database(server))


@pytest.fixture
def disk(project: Project) -> Iterator[Disk]:
    """The disk that the project's outputs are on."""
    with small_disk(project.root / "out") as made:
        yield made


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def _nothing_half_done(project: Project, undisturbed: Undisturbed) -> None:
    """What is seen of the output is as it will be, and what the ledger has is there."""
    url = project.environment["PIPELINEJOB_DATABASE_URL"]
    seen = {name: digest for name, digest in project.tree("out/job").items() if not name.endswith(".batch.jsonl")}
    assert seen.items() <= undisturbed.tree.items()
    recorded = contents(url)["batches"]  # never a batch that is not there
    assert 0 < len(recorded) < len(undisturbed.ledger["batches"])
    assert all(batch in undisturbed.ledger["batches"] for batch in recorded)
    published = {int(folder.name) for folder in (project.root / "out/job/images").iterdir()}
    assert published >= {first for (first,) in execute(url, "SELECT first_row FROM pipelinejob.batches WHERE images > 0")}


def test_the_disk_of_a_run_is_full_and_there_is_room_again(project: Project, disk: Disk, undisturbed: Undisturbed) -> None:
    disk.fill(leaving=LEFT)
    process = project.start("run", _job(project), "--json")
    assert process.stderr is not None
    line = next(line for line in process.stderr if "room" in line)
    assert "no room is left (No space left on device: " in line and "waiting up to 600 s for it" in line
    _nothing_half_done(project, undisturbed)
    time.sleep(1)
    disk.clear()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "the storage works again: going on" in err and "no room" not in err
    assert project.tree("out/job") == undisturbed.tree
    assert contents(project.environment["PIPELINEJOB_DATABASE_URL"]) == undisturbed.ledger


def test_the_disk_of_a_run_stays_full(project: Project, disk: Disk, undisturbed: Undisturbed) -> None:
    job = _job(project)
    disk.fill(leaving=LEFT)
    ran = project.run("run", job, "--json", env=SOON)
    assert ran.code == 1 and ran.json["reason"] == "ShardsFailed" and ran.json["rows"]["failed"] <= 3
    assert ran.json["message"].startswith("no room is left (No space left on device")
    assert ran.json["message"].endswith("make room, then run the same command to go on")
    assert "Traceback" not in ran.err
    _nothing_half_done(project, undisturbed)
    assert "run the same command to go on" in project.run("status", "job", "--json").json["message"]
    disk.clear()
    assert project.run("run", job, "--json").code == 0
    assert project.tree("out/job") == undisturbed.tree
    assert contents(project.environment["PIPELINEJOB_DATABASE_URL"]) == undisturbed.ledger


@pytest.mark.parametrize("step", ["claimed", "closed-ledger"])
def test_the_disk_is_full_before_the_first_row_and_after_the_last(
    project: Project, disk: Disk, undisturbed: Undisturbed, step: str
) -> None:
    job = _job(project)
    assert project.run("run", job, env={"PIPELINEJOB_FAULT": step}).code == -signal.SIGKILL
    disk.fill()
    ran = project.run("run", job, "--json", env=SOON)
    assert ran.code == 1 and ran.json["message"].endswith("make room, then run the same command to go on"), ran.err
    assert not list((project.root / "out/job").glob("*.[cj]s*")) and not list((project.root / "out/job/.pipelinejob").glob("*.part"))
    disk.clear()
    assert project.run("run", job, "--json").code == 0
    assert project.tree("out/job") == undisturbed.tree


def test_the_disk_of_a_pod_is_full(pods: Pods, disk: Disk, undisturbed: Undisturbed) -> None:
    pods.accept(_job(pods.project))
    assert pods.run("plan")[0] == 0
    pods.open_round()
    disk.fill(leaving=LEFT)
    code, log = pods.run("shard", env=SOON)
    assert code == 1, log
    assert pods.why()["reason"] == "ShardsFailed" and pods.why()["message"].endswith("make room, the pod is tried again")
    assert not list((pods.project.root / "out/job/.pipelinejob").glob("*/*/*"))  # what it could not finish takes no room
    _nothing_half_done(pods.project, undisturbed)
    pod = pods.start("shard")
    assert pod.stdout is not None
    assert any("waiting up to" in line for line in pod.stdout)
    disk.clear()
    out, _ = pod.communicate(timeout=60)
    assert pod.returncode == 0 and "the storage works again" in out, out
    pods.finalize()
    assert pods.project.tree("out/job") == undisturbed.tree
    pods.store.update_counts(pods.job.uid)
    assert contents(pods.url) == undisturbed.ledger


@pytest.mark.parametrize("name", ["img/1031.jpg", "rows.csv"])
def test_an_input_that_cannot_be_read_for_a_while(project: Project, undisturbed: Undisturbed, name: str) -> None:
    """An I/O error says nothing about a row: it is no ImageNotFound, and the CSV has not changed."""
    job = _job(project)
    with unreadable(project.root / name):
        process = project.start("run", job, "--json")
        assert process.stderr is not None
        line = next(line for line in process.stderr if "storage" in line)
        assert "the storage fails (Input/output error: " in line and name in line
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "the storage works again: going on" in err
    assert project.tree("out/job") == undisturbed.tree
    assert contents(project.environment["PIPELINEJOB_DATABASE_URL"]) == undisturbed.ledger


def test_a_pod_that_cannot_read_the_csv_for_a_while(pods: Pods, undisturbed: Undisturbed) -> None:
    pods.accept(_job(pods.project))
    with unreadable(pods.project.root / "rows.csv"):
        code, log = pods.run("plan", env=SOON)
        assert code == 1 and pods.why()["message"].endswith("mend the storage, the pod is tried again"), log
    assert pods.run("plan")[0] == 0
    pods.open_round()
    with unreadable(pods.project.root / "rows.csv"):
        pod = pods.start("shard")
        assert pod.stdout is not None
        assert any("waiting up to" in line for line in pod.stdout)
    out, _ = pod.communicate(timeout=60)
    assert pod.returncode == 0, out
    pods.finalize()
    assert pods.project.tree("out/job") == undisturbed.tree
