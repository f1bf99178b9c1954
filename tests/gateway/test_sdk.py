"""The SDK: the same objects on this machine and behind a gateway."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import pipelinejob
from pipelinejob import PipelineJob, connect, jobfile, model
from pipelinejob.admission import JobExistsError
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.resources import NoJobError, StateError
from pipelinejob.sdk import Connection
from support.gateway import Gateway, serving
from support.project import Project

ROWS = 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("sdk"), None)
    made.catalogue(ROWS, without=[3, 4], broken=[5])
    return made


@pytest.fixture(scope="module")
def gateway(project: Project) -> Iterator[Gateway]:
    with serving(project) as served:
        yield served


@pytest.fixture(scope="module", params=["laptop", "gateway"])
def on(request: pytest.FixtureRequest, project: Project) -> Iterator[Connection]:
    if request.param == "gateway":
        made = connect(url=request.getfixturevalue("gateway").url)
    else:
        made = connect(data=str(project.root), home=str(project.root / ".pipelinejob"))
    yield made
    made.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name of the test's own, on each of both."""
    return "".join(char if char.isalnum() else "-" for char in request.node.name.removeprefix("test_")).strip("-").lower()[:40].strip("-")


def job(project: Project, on: Connection, name: str, **spec: object) -> PipelineJob:
    return PipelineJob.from_yaml(project.root / project.job(name, **spec), on=on)


def test_from_the_file_to_a_data_frame(project: Project, on: Connection, name: str) -> None:
    done = job(project, on, name).submit().wait(timeout=60)
    assert done.phase == "Complete" and done.rows == {
        "total": ROWS, "succeeded": ROWS - 3, "filtered": 0, "skipped": 0, "failed": 3, "pending": 0,
    }  # fmt: skip
    table = done.metadata()
    assert list(table.columns) == ["id", "gender", "season", "year", "name", "url"] and len(table) == ROWS - 3
    assert table["id"].iloc[0] == "1000" and table["year"].dtype.kind == "i", "ids are names, years are numbers"
    assert dict(table["gender"].value_counts()) == {"Women": 8, "Men": 9}
    failed = done.failures()
    assert list(failed["reason"].value_counts().items()) == [("ImageNotFound", 2), ("ImageInvalid", 1)]
    images = list(done.images(limit=4))
    assert [row["id"] for row, _ in images] == ["1000", "1001", "1002", "1006"]
    assert all(image.size == (16, 16) for _, image in images)
    women = done.images(rows=table[table["gender"] == "Women"])
    assert {row["gender"] for row, _ in women} == {"Women"}
    again = PipelineJob.get(name, on=on)
    assert again.rows == done.rows and again.submit().wait().phase == "Complete", "one that has ended stays as it is"


def test_a_job_from_fields(project: Project, on: Connection, name: str) -> None:
    made = PipelineJob.new(name, on=on, source={"csv": "rows.csv", "where": {"gender": "Men"}}, functions=[])
    assert made.plan(count=True)["rows"]["filtered"] == ROWS // 2
    assert made.submit().wait(timeout=60).rows["filtered"] == ROWS // 2
    assert list(made.images()) == [] and len(made.metadata(usecols=["id"]).columns) == 1


def test_what_is_wrong(project: Project, on: Connection, name: str) -> None:
    with pytest.raises(JobError, match=r"spec\.functions\[0\]\.name: .*'resize'"):
        job(project, on, name, functions=[{"name": "resizze"}]).submit()
    with pytest.raises(JobError, match=r"spec\.parallelism"):
        PipelineJob.new(name, on=on, source={"csv": "rows.csv"}, parallelism=0)
    with pytest.raises(JobError) as caught:
        PipelineJob.new(name, on=on, source={"csv": "none.csv"}).submit()
    assert caught.value.reason is JobReason.INPUT_NOT_FOUND
    with pytest.raises(NoJobError):
        PipelineJob.get("nobody", on=on)
    with pytest.raises(JobError, match="cannot be read"):
        PipelineJob.from_yaml(project.root / "none.yaml", on=on)


def test_the_same_name_again(project: Project, on: Connection, name: str) -> None:
    job(project, on, name).submit().wait(timeout=60)
    changed = job(project, on, name, seed=5)
    with pytest.raises(JobError, match=r"spec\.seed"):
        changed.submit()
    with pytest.raises(JobExistsError):
        on.create(model.parse(jobfile.read(project.root / f"{name}.yaml")), project.root)
    assert changed.submit(replace=True).wait(timeout=60).phase == "Complete"


def test_a_budget_raised_since(project: Project, on: Connection, name: str) -> None:
    assert job(project, on, name, failurePolicy={"maxFailedRowsPercent": 5}).submit().wait(timeout=60).phase == "Failed"
    raised = job(project, on, name, failurePolicy={"maxFailedRowsPercent": 20}).submit().wait(timeout=60)
    assert raised.phase == "Complete"
    assert raised.patch(parallelism=5).submit() is raised
    assert on.get("default", name)["spec"]["parallelism"] == 5, "what was patched stays"


def test_suspend_resume_redrive_cancel_delete(project: Project, on: Connection, name: str) -> None:
    made = job(project, on, name, suspend=True).submit()
    with pytest.raises(StateError, match="resume"):
        made.wait()
    with pytest.raises(JobError):
        made.metadata()
    made.patch(parallelism=1).resume().wait(timeout=60)
    redriven = made.redrive(["ImageInvalid"])
    assert redriven is not None and redriven.wait(timeout=60).rows["total"] == 1
    assert made.redrive(["OutputError"]) is None
    assert made.cancel().phase == "Complete", "it had ended"
    made.delete(output=True)
    with pytest.raises(NoJobError):
        made.status()
    assert not (project.root / f"out/{name}").exists()


def test_a_timeout_ends_the_waiting_only(project: Project, on: Connection, name: str) -> None:
    big, small = ({"name": "resize", "params": {"width": side, "height": side}} for side in (4000, 16))
    made = job(project, on, name, functions=[big, small, big, small], parallelism=1).submit()
    with pytest.raises(TimeoutError):
        made.wait(timeout=0.1)
    assert made.wait(timeout=60).phase == "Complete"


def test_functions_of_ones_own(project: Project, name: str) -> None:
    on = connect(data=str(project.root), home=str(project.root / ".pipelinejob"))
    project.write("def mark(image, row):\n    return {'length': len(row['name'])}\n", "fn.py")
    made = job(project, on, name, functions=[{"name": "mark", "file": "fn.py"}])
    assert set(made.submit().wait(timeout=60).metadata()["length"]) == {7, 8}


def test_where_jobs_run_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINEJOB_URL", "http://127.0.0.1:9")
    before = connect()
    monkeypatch.setenv("PIPELINEJOB_URL", "http://127.0.0.1:19")
    assert connect() is not before
    assert connect() is connect(url="http://127.0.0.1:19"), "one connection for one place"


def test_no_gateway() -> None:
    with pytest.raises(JobError, match=r"no gateway at http://127\.0\.0\.1:9"):
        PipelineJob.get("x", on=connect(url="http://127.0.0.1:9"))


def test_the_package_itself_stays_light() -> None:
    code = "import pipelinejob, sys; assert not {'pandas', 'pydantic', 'PIL'} & set(sys.modules); from pipelinejob import PipelineJob"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError):
        _ = pipelinejob.nothing
    assert isinstance(PipelineJob.__doc__, str) and isinstance(pd.DataFrame, type) and Path(pipelinejob.__file__).exists()
