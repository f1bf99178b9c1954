"""The notebook of the docs, run from top to bottom: on this machine, and behind a gateway."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from support import notebook
from support.gateway import serving
from support.notebook import FASHION, NOTEBOOK, PICTURED, PICTURES, REPOSITORY, Executed
from support.project import Project


@pytest.fixture(params=["laptop", "gateway"])
def executed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Executed]:
    data, own = tmp_path / "data", tmp_path / "own"
    shutil.copytree(FASHION, data / "fashion")
    own.mkdir()
    if request.param == "laptop":
        project = Project(data, None)
        home = tmp_path / "home"
        yield notebook.execute(own, {**project.environment, "PIPELINEJOB_DATA": str(data), "PIPELINEJOB_HOME": str(home)})
        assert (home / "postgres").is_dir()
    else:
        project = Project(data, request.getfixturevalue("database"))
        with serving(project) as gateway:
            there = {"PIPELINEJOB_URL": gateway.url, "PIPELINEJOB_NAMESPACE": "team", "PIPELINEJOB_CLAIM": "catalogue"}
            yield notebook.execute(own, {**Project(own, None).environment, **there})
            ran = gateway.get("/api/v1/pipelinejobs", namespace="team")["items"]
            assert {job["metadata"]["name"] for job in ran} == {"men-fall-2010", "catalogue", "catalogue-redrive-1"}
    assert not (own / ".pipelinejob").exists(), "nothing of ours beside the notebook"


def test_it_runs_and_says_what_is_so(executed: Executed) -> None:
    notebook.check(executed)


def test_it_is_kept_without_outputs() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    kept = nbformat.reads(text, as_version=4)
    nbformat.validate(kept)
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), "clear all outputs before committing"
    assert set(kept["metadata"]) == {"kernelspec", "language_info"} and set(kept["metadata"]["language_info"]) == {"name"}
    assert not [cell["id"] for cell in kept["cells"] if cell["metadata"]]


def test_the_guide_shows_its_pictures() -> None:
    guide = (REPOSITORY / "docs/guide.md").read_text(encoding="utf-8")
    pictures = {path.stem.removeprefix("notebook-"): path for path in PICTURES.glob("notebook-*.png")}
    assert set(pictures) == PICTURED, "PYTHONPATH=tests .venv/bin/python -m support.notebook draws them"
    for path in pictures.values():
        assert f"(pictures/{path.name})" in guide and path.stat().st_size < 150_000
