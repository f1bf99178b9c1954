"""predict and embed in jobs: models loaded in child processes, once in each, and the same metadata however the rows are divided."""

from __future__ import annotations

import json
import shutil

from support.onnx_models import GARMENTS, LABELS, REPOSITORY
from support.project import Project


def test_a_job_that_predicts_and_embeds(project: Project) -> None:
    shutil.copytree(REPOSITORY / "data/fashion", project.root / "fashion")
    for path in (GARMENTS, LABELS):
        project.file(f"models/{path.name}", path.read_bytes())
    functions = [{"name": name, "params": {"model": "models/garments.onnx"}} for name in ("predict", "embed")]
    source = {"csv": "fashion/styles.csv", "images": "fashion/images/{id}.jpg"}
    tables = []
    for name, rows in (("together", 120), ("apart", 5)):
        job = project.job(name, source=source, functions=functions, sharding={"batchRows": rows}, parallelism=2)
        ran = project.run("run", job, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["rows"]["succeeded"] == 233 and ran.json["rows"]["failed"] == 7
        tables.append([{key: value for key, value in row.items() if key != "url"} for row in project.table(f"out/{name}/metadata.csv")])
    assert tables[0] == tables[1]
    right = sum(row["label"] == row["articleType"] for row in tables[0])
    assert right / len(tables[0]) >= 0.97
    assert all(len(json.loads(row["embedding"])) == 48 for row in tables[0])


def test_a_job_whose_model_is_not_there_or_not_to_be_had_as_named(project: Project) -> None:
    project.catalogue(2)
    project.file("models/m.onnx", b"no model")
    for number, (params, code, message) in enumerate(
        (
            ({"model": "../m.onnx"}, 2, "spec.functions[0].params.model: must be a path relative to the data root, without '..'"),
            ({"model": "m.onnx", "top_k": 0}, 2, "spec.functions[0].params.top_k: must be a positive integer of at most 100, got 0"),
            ({"model": "models/m.onnx"}, 1, "models/m.onnx is no ONNX model that onnxruntime"),
            ({"model": "models/none.onnx"}, 2, "spec.functions[0].params: no file 'models/none.onnx' below the data root"),
        )
    ):
        job = project.job(f"job-{number}", functions=[{"name": "predict", "params": params}])
        ran = project.run("run", job, "--json")
        assert ran.code == code and message in ran.err, ran.err


def test_another_model_is_another_job_and_a_redrive_runs_with_the_same(project: Project) -> None:
    project.catalogue(4, without=[2])
    for path in (GARMENTS, LABELS):
        project.file(f"models/{path.name}", path.read_bytes())
    functions = [{"name": "predict", "params": {"model": "models/garments.onnx"}}]
    job = project.job(functions=functions, failurePolicy={"maxFailedRowsPercent": 100})
    assert project.run("run", job).code == 0
    (function,) = json.loads(project.text("out/job/manifest.json"))["functions"]
    assert function["digest"].startswith("builtin:predict@1+sha256:")
    labels = (project.root / "models/garments.labels.txt").read_text()
    project.write(labels.upper(), "models/garments.labels.txt")
    ran = project.run("run", job)
    assert ran.code == 2 and "spec.functions (the code of a function)" in ran.err
    ran = project.run("redrive", "job")
    assert ran.code == 2 and "the model of predict was changed since 'job' ran" in ran.err
    project.write(labels, "models/garments.labels.txt")
    project.image("img/1002.jpg")
    assert project.run("redrive", "job").code == 0
    assert len(project.table("out/job/metadata.csv")) == 4
