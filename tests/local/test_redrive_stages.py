"""A redrive by the stages of pods, each with the redrive's own role: planned by the ledger, into the output of its root."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from pipelinejob import model
from pipelinejob.reasons import JobError
from pipelinejob.store import Job, roles
from pipelinejob_operator.accept import accept
from pipelinejob_operator.apply import NotYet, insert_job
from support.pods import Pods
from support.project import Project

SPEC: dict[str, Any] = {
    "source": {"where": {"year": {"gte": 2009}}},
    "sharding": {"batchRows": 5, "rowsPerShard": 20},
    "output": {"path": "out/job"},
}
LATE = [3, 4, 21, 22, 37, 59]


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


def _run(pods: Pods, env: dict[str, str] | None = None) -> list[int]:
    """Plan, a round of shards, finalize; returns the exit codes."""
    codes = [pods.run("plan")[0]]
    codes += [pods.run("shard", index, env)[0] for index in range(pods.open_round())]
    return [*codes, pods.run("finalize")[0]]


def _end(pods: Pods, job: Job, phase: str = "Complete", **more: object) -> None:
    pods.store.update_counts(job.uid)
    pods.store.update_job(job.uid, phase=phase, **more)


def _redrive(pods: Pods, **of: Any) -> Job:
    """Enters a redrive as the operator does."""
    source = {"csv": "rows.csv", "images": "img/{id}.jpg", "where": {"year": {"gte": 2009}}, "failedRowsOf": {"name": "job", **of}}
    chain = [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 16, "height": 16}}]
    data = {"persistentVolumeClaim": {"claimName": "catalogue"}}
    metadata = {"name": "again", "namespace": "default", "uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {**SPEC, "source": source, "functions": chain, "output": {}, "data": data}
    accepted, _ = accept({"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": spec}, [])
    job = insert_job(pods.store, str(metadata["uid"]), accepted, 1, "worker:test")
    assert (job.output, job.spec["failurePolicy"]["maxFailedRowsPercent"]) == ("out/job", 100)
    return pods.enter(job)


@pytest.fixture
def root(pods: Pods) -> Job:
    """A job of which seven rows failed, and the images of six of them have come since."""
    project = pods.project
    project.catalogue(60, without=[*LATE, 41])
    job = pods.accept(project.job(**SPEC))
    assert _run(pods) == [0, 0, 0, 0, 0]
    _end(pods, job)
    for row in LATE:
        project.image(f"img/{1000 + row}.jpg", colour=(row * 7 % 256, row * 13 % 256, row * 29 % 256))
    return job


def test_its_files_are_those_of_a_clean_run(pods: Pods, root: Job, tmp_path_factory: pytest.TempPathFactory) -> None:
    job = _redrive(pods)
    assert _run(pods) == [0, 0, 0]
    rows, _ = pods.store.update_counts(job.uid)
    assert (rows.total, rows.succeeded, rows.failed, rows.pending) == (7, 6, 1, 0)
    rows, _ = pods.store.update_counts(root.uid)
    assert (rows.total, rows.succeeded, rows.filtered, rows.failed) == (60, 47, 12, 1)
    assert [(row.row, row.attempts) for row in pods.store.failures(root.uid)] == [(41, 2)]

    clean = Project(tmp_path_factory.mktemp("clean"), None)
    clean.catalogue(60, without=[41])
    assert clean.run("run", clean.job(**SPEC)).code == 0
    ignored = {"failures.csv": "", "manifest.json": ""}
    assert pods.project.tree("out/job") | ignored == clean.tree("out/job") | ignored
    assert pods.project.text("out/job/failures.csv").endswith(",2\n")


@pytest.mark.parametrize("step", ["durable:2", "moved:2", "published:2", "record", "recorded"])
def test_a_pod_that_dies_leaves_the_rest_to_the_next(pods: Pods, root: Job, step: str) -> None:
    _redrive(pods)
    assert _run(pods, {"PIPELINEJOB_FAULT": step})[1] == -signal.SIGKILL
    codes = [pods.run("shard", index)[0] for index in range(pods.open_round())]
    assert codes in ([0], []) and pods.run("finalize")[0] == 0
    rows, _ = pods.store.update_counts(root.uid)
    assert (rows.succeeded, rows.filtered, rows.failed, rows.pending) == (47, 12, 1, 0)
    urls = {row["url"] for row in pods.project.table("out/job/metadata.csv")}
    assert urls == {name for name in pods.project.tree("out/job") if name.startswith("images/")} and len(urls) == 47
    assert [row.attempts for row in pods.store.failures(root.uid)] == [2]


@pytest.mark.parametrize(("step", "least"), [("moved:2", 0), ("published:2", 2), ("recorded", 0)])
def test_deleted_while_a_pod_dies(pods: Pods, root: Job, step: str, least: int) -> None:
    job = _redrive(pods)
    assert pods.run("plan")[0] == 0 and pods.open_round() == 1
    assert pods.run("shard", env={"PIPELINEJOB_FAULT": step})[0] == -signal.SIGKILL
    pods.store.mark_deleted(job.uid)
    assert pods.store.unfinished_redrive(root.uid) == pods.store.get_job(job.uid)
    roles.drop_roles_of_ended(pods.database)  # not its own, for it has files to write
    code, log = pods.run("shard")
    assert (code, "the job was deleted" in log) == (75, True)
    assert pods.run("finalize")[0] == 0
    rows, _ = pods.store.update_counts(root.uid)
    done = rows.succeeded - 41
    assert least <= done <= 6 and (rows.failed, rows.pending) == (7 - done, 0)
    tree = pods.project.tree("out/job")
    assert {row["url"] for row in pods.project.table("out/job/metadata.csv")} == {name for name in tree if name.startswith("images/")}
    assert len(pods.project.table("out/job/failures.csv")) == rows.failed
    assert json.loads(pods.project.text("out/job/manifest.json"))["counts"]["succeeded"] == rows.succeeded
    assert not any(job.uid in name for name in tree), "its round is closed"

    _end(pods, job, "Cancelled")
    again = _redrive(pods)
    assert again.redrive == 2 and _run(pods) == [0, 0, 0]
    rows, _ = pods.store.update_counts(root.uid)
    assert (rows.succeeded, rows.failed) == (47, 1)


def test_reasons_and_a_changed_csv(pods: Pods, root: Job) -> None:
    _redrive(pods, reasons=["ImageInvalid"])
    assert _run(pods) == [0, 0], "there is nothing to run"
    _end(pods, pods.job)
    pods.store.mark_deleted(pods.job.uid)
    _redrive(pods)
    pods.project.write(pods.project.text("rows.csv").replace("Shirt 9", "Shirt 8"))
    code, log = pods.run("plan")
    assert code == 43, log
    assert pods.why()["reason"] == "InputChanged"


def test_what_is_not_accepted(pods: Pods, root: Job) -> None:
    def refused(**of: Any) -> str:
        with pytest.raises(JobError) as error:
            _redrive(pods, **of)
        assert error.value.message.startswith("spec.source.failedRowsOf.name: ")
        return error.value.message

    assert "no PipelineJob 'other'" in refused(name="other")
    pods.store.update_job(root.uid, phase="Running")
    assert "has not ended" in refused()
    pods.store.update_job(root.uid, phase="Complete", spec={**root.spec, "seed": 7})
    assert "spec.seed" in refused()
    pods.store.update_job(root.uid, spec=root.spec)
    first = _redrive(pods)
    assert "'again' runs rows of 'job' now" in refused()
    assert "is a redrive itself" in refused(name="again")
    pods.store.mark_deleted(first.uid)
    with pytest.raises(NotYet, match="'again' was deleted"):
        _redrive(pods)
    _end(pods, first, "Failed")
    assert _redrive(pods).redrive == 2
