"""kill -9 between every two steps, then the same command again: the same bytes as a run that nobody disturbed."""

from __future__ import annotations

import signal

import pytest

from support.project import Project

PARENT_STEPS = [
    "claimed",
    "registered",
    "planned",
    "round-opened",
    "adopted",
    "durable:1",
    "durable:7",
    "published:1",
    "published:7",
    "record",
    "recorded",
    "closed",
    "closed-ledger",
    "collected",
    "draft:1",
    "draft:3",
    "tables",
    "manifest",
]
CHILD_STEPS = ["rows-done:2", "summary-written:2", "batch-done:2"]
ROWS, BATCH = 60, 5


def _job(project: Project, name: str) -> str:
    project.catalogue(ROWS, without=[3, 21], broken=[22])
    sharding = {"batchRows": BATCH, "rowsPerShard": 20}
    return project.job(name, source={"where": {"year": {"gte": 2009}}}, sharding=sharding, output={"path": "out/job"})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, server: str) -> dict[str, str]:
    """The files of a run that nobody disturbed."""
    project = Project(tmp_path_factory.mktemp("undisturbed"), None)
    ran = project.run("run", _job(project, "job"), "--json")
    assert ran.code == 0, ran.err
    return project.tree("out/job")


@pytest.mark.parametrize("step", PARENT_STEPS)
def test_the_parent_dies(project: Project, undisturbed: dict[str, str], step: str) -> None:
    job = _job(project, "job")
    killed = project.run("run", job, env={"PIPELINEJOB_FAULT": step})
    assert killed.code == -signal.SIGKILL, f"{step} was never reached: {killed.err}"

    again = project.run("run", job, "--json")

    assert again.code == 0, again.err
    assert again.json["rows"] == {"total": 60, "succeeded": 45, "filtered": 12, "skipped": 0, "failed": 3, "pending": 0}
    assert project.tree("out/job") == undisturbed
    left = {path.name for path in (project.root / "out/job/.pipelinejob").iterdir()}
    assert left == {"owner.json", "lock", "records"}  # no attempt, no draft


@pytest.mark.parametrize("step", CHILD_STEPS)
def test_every_child_dies_at_its_second_batch(project: Project, undisturbed: dict[str, str], step: str) -> None:
    job = _job(project, "job")
    # One at a time: of two, one batch could be the second of three that die, and that would be its own fault.
    first = project.run("run", job, "--json", "--workers", "1", env={"PIPELINEJOB_FAULT": step})
    assert "a worker process died" in first.err, f"{step} was never reached"
    again = first if first.code == 0 else project.run("run", job, "--json")

    assert again.code == 0, again.err
    assert project.tree("out/job") == undisturbed


def test_killed_again_and_again(project: Project, undisturbed: dict[str, str]) -> None:
    job = _job(project, "job")
    for step in ("planned", "published:2", "recorded", "published:3", "collected", "tables"):
        project.run("run", job, env={"PIPELINEJOB_FAULT": step})

    again = project.run("run", job, "--json")

    assert again.code == 0, again.err
    assert project.tree("out/job") == undisturbed
