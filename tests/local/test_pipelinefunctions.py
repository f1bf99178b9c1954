"""A job file with PipelineFunctions in it runs on one machine as it does in a cluster."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from support.project import Project, Ran

CODE = "def how_bright(image: Image, row: Row, *, dark: int = 100):\n    return {'version': 1}\n"


def function(name: str, source: dict[str, Any], **spec: Any) -> dict[str, Any]:
    head = {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineFunction"}
    return {**head, "metadata": {"name": name}, "spec": {"source": source, **spec}}


def run(project: Project, *documents: dict[str, Any], **spec: Any) -> Ran:
    project.catalogue(6)
    file = project.root / project.job(**spec)
    file.write_text(yaml.safe_dump_all([*documents, yaml.safe_load(file.read_text())]))
    return project.run("run", file.name, "--json")


def test_inline_and_from_a_config_map(project: Project) -> None:
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "code"},
        "data": {"fn.py": CODE.replace("version", "mapped")},
    }
    mapped = function("mapped", {"configMap": {"name": "code", "key": "fn.py"}}, entrypoint="how_bright")
    calls = [{"name": "how-bright", "params": {"dark": 7}}, {"name": "mapped"}]
    ran = run(project, function("how-bright", {"inline": CODE}), mapped, config_map, functions=calls)
    assert ran.code == 0, ran.err
    assert {(row["version"], row["mapped"]) for row in project.table("out/job/metadata.csv")} == {("1", "1")}
    functions = json.loads(project.text("out/job/manifest.json"))["functions"]
    assert functions[0] == {"name": "how-bright", "params": {"dark": 7}, "digest": f"sha256:{hashlib.sha256(CODE.encode()).hexdigest()}"}
    assert project.run("run", "job.yaml").code == 0  # complete already


def test_a_redrive_runs_the_code_of_the_job_or_that_of_a_file(project: Project) -> None:
    code = "def mark(image, row):\n    assert row['id'] != '1002', 'two'\n    return {'version': 1}\n"
    job = {"functions": [{"name": "mark"}], "failurePolicy": {"maxFailedRowsPercent": 100}}
    assert run(project, function("mark", {"inline": code}), **job).json["rows"]["failed"] == 1
    assert project.run("redrive", "job", "--json").json["rows"]["failed"] == 1
    file = project.root / "job.yaml"
    file.write_text(file.read_text().replace("!= '1002'", "!= '9999'"))
    assert project.run("redrive", "job", "-f", "job.yaml", "--json").json["rows"]["succeeded"] == 1


def test_what_is_wrong_is_told_with_its_place(project: Project) -> None:
    for documents, calls, told in (
        ([function("mark", {"inline": "x = 1\nx.y"})], ["mark"], "spec.functions[0].name: mark, line 2: AttributeError"),
        ([function("mark", {})], ["mark"], "PipelineFunction 'mark': spec.source: must have one of inline, configMap and module"),
        ([function("mark", {"configMap": {"name": "a", "key": "b"}})], ["mark"], "no ConfigMap 'a' with the key 'b' stands in this file"),
        ([function("marc", {"inline": CODE})], ["mark"], "spec.functions[0].name: no built-in function 'mark'"),
        (
            [function("how-bright", {"inline": CODE}, requirements=[f"nosuch==1 --hash=sha256:{'0' * 64}"])],
            ["how-bright"],
            "this environment has no nosuch: pip install 'nosuch==1'",
        ),
    ):
        ran = run(project, *documents, functions=[{"name": name} for name in calls])
        assert ran.code == 2 and told in ran.err, ran.err
