"""The command line: exit codes, the object of --json on every exit, and what each verb shows and writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.project import COMMAND, Project, Ran

TYPES: dict[str, Any] = {
    "name": (str, type(None)),
    "namespace": (str, type(None)),
    "uid": (str, type(None)),
    "phase": str,
    "rows": dict,
    "shards": dict,
    "output": (str, type(None)),
    "seconds": float,
    "reason": (str, type(None)),
    "message": (str, type(None)),
}
ROWS = ["total", "succeeded", "filtered", "skipped", "failed", "pending"]
SHARDS = ["total", "active", "succeeded", "failed"]


def is_promised(value: dict[str, Any], *more: str) -> None:
    """That an object has exactly the keys and types of the contract, in its order."""
    assert list(value) == [*TYPES, *more], value
    for key, kind in TYPES.items():
        assert isinstance(value[key], kind), (key, value)
    assert list(value["rows"]) == ROWS and list(value["shards"]) == SHARDS
    assert all(type(count) is int for count in [*value["rows"].values(), *value["shards"].values()])
    assert value["rows"]["total"] == sum(value["rows"][name] for name in ROWS[1:])


def ends(ran: Ran, code: int, phase: str | None, reason: str | None, *named: str) -> dict[str, Any]:
    """That a command ended so, with its object alone on standard output."""
    assert ran.code == code, ran
    assert len(ran.out.splitlines()) == 1, ran.out
    value = ran.json
    is_promised(value)
    assert value["reason"] == reason, value
    assert phase is None or value["phase"] == phase, value
    for text in named:
        assert text in (value["message"] or ""), (text, value["message"])
    assert "Traceback" not in ran.err
    return value


def test_a_run_that_completes(project: Project) -> None:
    project.catalogue(9, without=[3])
    value = ends(project.run("run", project.job("men"), "--json"), 0, "Complete", None)
    assert value["rows"] == {"total": 9, "succeeded": 8, "filtered": 0, "skipped": 0, "failed": 1, "pending": 0}
    assert value["shards"] == {"total": 1, "active": 0, "succeeded": 1, "failed": 0}
    assert (value["name"], value["namespace"], value["output"]) == ("men", "default", str(project.root / "out/men"))
    assert value["message"] is None and value["seconds"] > 0
    again = ends(project.run("run", "men.yaml", "--json"), 0, "Complete", None)
    assert again["uid"] == value["uid"]


def test_without_json_people_read_a_table(project: Project) -> None:
    project.catalogue(9, without=[3])
    ran = project.run("run", project.job("men"))
    assert ran.code == 0
    for text in ("Complete", "ImageNotFound", "row 3", "succeeded", str(project.root / "out/men"), "pipelinejob failures men"):
        assert text in ran.out, (text, ran.out)


USAGE = [
    (["run"], "FILE"),
    (["run", "nowhere.yaml"], "nowhere.yaml"),
    (["run", "."], "."),
    (["run", "job.yaml", "--worker", "2"], "--worker"),
    (["run", "job.yaml", "--workers", "0"], "workers"),
    (["run", "job.yaml", "--workers", "two"], "--workers"),
    (["run", "job.yaml", "--limit", "0"], "limit"),
    (["run", "job.yaml", "extra"], "extra"),
    (["frobnicate"], "frobnicate"),
    (["status"], "NAME"),
    (["status", "nobody"], "nobody"),
    (["failures", "nobody"], "nobody"),
    (["results", "nobody"], "nobody"),
    (["cancel", "nobody"], "nobody"),
    (["delete", "nobody"], "nobody"),
    (["plan", "nowhere.yaml"], "nowhere.yaml"),
    (["plan", "job.yaml", "--replace"], "--replace"),
    (["failures", "nobody", "--reason", "Nonsense"], "ImageNotFound"),
    (["init", "rows.csv"], "rows.yaml"),
]


def test_usage_errors_are_exit_2_with_an_object(project: Project) -> None:
    project.catalogue(1)
    project.job()
    project.write("", "rows.yaml")
    for arguments, named in USAGE:
        value = ends(project.run(*arguments, "--json"), 2, "Failed", "InvalidSpec")
        assert named.lower() in value["message"].lower(), (arguments, value["message"])
    assert not (project.root / "out").exists()
    ran = project.run("run", "nowhere.yaml")
    assert (ran.code, ran.out) == (2, "") and "nowhere.yaml" in ran.err


def test_help_is_exit_0(project: Project) -> None:
    for arguments in (["--help"], ["run", "--help"], ["plan", "-h"]):
        ran = project.run(*arguments)
        assert ran.code == 0 and "pipelinejob" in ran.out.lower()
    assert project.run().code == 2


BAD_FILES = {
    "not: [valid": "line 1",
    "": "is empty",
    "just text": "mapping",
    "kind: PipelineJob\nkind: PipelineJob\n": "twice",
    "apiVersion: pipelinejob.dev/v1\nkind: PipelineJob\nmetadata: {name: a}\nspec: {source: {csv: rows.csv}}": "apiVersion",
    "apiVersion: pipelinejob.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: a}\nspec: {source: {csv: rows.csv}}": "kind",
    "apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nspec: {source: {csv: rows.csv}}": "metadata",
    "apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nmetadata: {name: A_b}\nspec: {source: {csv: rows.csv}}": "metadata.name",
    f"apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nmetadata: {{name: {'a' * 41}}}\nspec: {{source: {{csv: rows.csv}}}}": "40",
    "apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nmetadata: {name: a}\nspec: {sorce: {csv: rows.csv}}": "source",
    "apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nmetadata: {name: a}\nspec: {source: {csv: 5}}": "spec.source.csv",
    "apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nmetadata: {name: a}\nspec: [1]": "spec",
    "apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nmetadata: {name: 5}\nspec: {source: {csv: rows.csv}}": "metadata.name",
}


def test_bad_job_files(project: Project) -> None:
    project.catalogue(1)
    for text, named in BAD_FILES.items():
        project.write(text, "bad.yaml")
        value = ends(project.run("run", "bad.yaml", "--json"), 2, "Failed", "InvalidSpec")
        assert named in value["message"], (text, value["message"])
    project.write(b"\xff\xfe\0", "bad.yaml")
    ends(project.run("run", "bad.yaml", "--json"), 2, "Failed", "InvalidSpec", "bad.yaml")


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"paralelism": 2}, "spec.paralelism", "parallelism"),
    ({"parallelism": "2"}, "spec.parallelism", "'2'"),
    ({"parallelism": 0}, "spec.parallelism", "0"),
    ({"output": {"path": "out/job", "qualty": 5}}, "spec.output.qualty", "quality"),
    ({"output": {"path": "out/job", "quality": 101}}, "spec.output.quality", "101"),
    ({"output": {"path": "out/job", "format": "gif"}}, "spec.output.format", "gif"),
    ({"output": {"path": "out/job", "background": "nocolour"}}, "spec.output.background", "nocolour"),
    ({"output": {"path": "/abs/out"}}, "spec.output.path", "/abs/out"),
    ({"output": {"path": "../out"}}, "spec.output.path", ".."),
    ({"source": {"csv": "../rows.csv"}}, "spec.source.csv", ".."),
    ({"source": {"delimiter": ""}}, "spec.source.delimiter", "''"),
    ({"source": {"delimiter": ";;"}}, "spec.source.delimiter", ";;"),
    ({"source": {"delimiter": '"'}}, "spec.source.delimiter", '"'),
    ({"sharding": {"batchRows": 0}}, "spec.sharding.batchRows", "0"),
    ({"failurePolicy": {"maxFailedRowsPercent": 101}}, "spec.failurePolicy.maxFailedRowsPercent", "101"),
    ({"failurePolicy": {"maxFailedRows": -1}}, "spec.failurePolicy.maxFailedRows", "-1"),
    ({"seed": 1.5}, "spec.seed", "1.5"),
    ({"mode": "dry"}, "spec.mode", "dry"),
    ({"suspend": "no"}, "spec.suspend", "no"),
    ({"functions": {"name": "resize"}}, "spec.functions", "list"),
    ({"worker": {"imag": "x"}}, "spec.worker.imag", "image"),
]


def test_bad_fields_are_named(project: Project) -> None:
    project.catalogue(1)
    for spec, path, named in BAD_FIELDS:
        value = ends(project.run("run", project.job(**spec), "--json"), 2, "Failed", "InvalidSpec")
        assert path in value["message"] and named in value["message"], (spec, value["message"])
    assert not (project.root / "out").exists() and not (project.root / ".pipelinejob").exists()


def test_an_absolute_csv_says_what_to_pass(project: Project) -> None:
    project.catalogue(1)
    ends(
        project.run("run", project.job(source={"csv": str(project.root / "rows.csv")}), "--json"),
        2, "Failed", "InvalidSpec", "spec.source.csv", "absolute", "--data",
    )  # fmt: skip


def test_input_that_is_not_there(project: Project) -> None:
    project.catalogue(1)
    job = project.job(source={"csv": "nowhere.csv"})
    value = ends(project.run("run", job, "--json"), 1, "Failed", "InputNotFound", "nowhere.csv", "--data")
    assert value["name"] == "job"
    ends(project.run("plan", job, "--json"), 1, "Failed", "InputNotFound", "nowhere.csv")
    ends(project.run("run", project.job(source={"csv": "img"}), "--json"), 1, "Failed", "InputNotFound", "img")
    value = ends(project.run("run", project.job(), "--data", "nowhere", "--json"), 1, "Failed", "InputNotFound", "nowhere", "--data DIR")
    ends(project.run("run", "job.yaml", "--data", "rows.csv", "--json"), 1, "Failed", "InputNotFound", "--data DIR")


def test_input_that_is_invalid(project: Project) -> None:
    project.write("")
    value = ends(project.run("run", project.job(), "--json"), 1, "Failed", "InputInvalid", "rows.csv")
    assert value["name"] == "job"


def test_a_broken_budget_is_exit_1(project: Project) -> None:
    project.catalogue(4, without=[1, 2])
    value = ends(
        project.run("run", project.job(failurePolicy={}), "--json"),
        1, "Failed", "FailureBudgetExceeded", "spec.failurePolicy.maxFailedRowsPercent",
    )  # fmt: skip
    assert value["rows"]["failed"] == 2 and value["uid"] and value["output"]
    status = ends(project.run("status", "job", "--json"), 0, "Failed", "FailureBudgetExceeded", "maxFailedRowsPercent")
    assert status["rows"] == value["rows"]


def test_data_elsewhere(project: Project) -> None:
    elsewhere = Project(project.root / "data here", None)
    elsewhere.root.mkdir()
    elsewhere.catalogue(3)
    job = project.job()
    value = ends(project.run("run", job, "--data", "data here", "--json"), 0, "Complete", None)
    assert value["output"] == str(elsewhere.root / "out/job")
    assert not (project.root / "out").exists()
    assert project.run("status", "job", "--json").json["output"] == value["output"]


def test_limit(project: Project) -> None:
    project.catalogue(10)
    value = ends(project.run("run", project.job(sharding={"batchRows": 3}), "--limit", "4", "--json"), 0, "Complete", None)
    assert value["rows"]["total"] == value["rows"]["succeeded"] == 4
    assert [row["id"] for row in project.table("out/job/metadata.csv")] == ["1000", "1001", "1002", "1003"]
    ends(project.run("run", "job.yaml", "--json"), 2, None, "InvalidSpec", "--limit")
    value = ends(project.run("run", project.job("more"), "--limit", "40", "--json"), 0, "Complete", None)
    assert value["rows"]["total"] == 10


# Plan.


def test_plan_writes_nothing_and_starts_nothing(bare_project: Project) -> None:
    project = bare_project
    project.catalogue(30, without=[2])
    with open(project.root / "rows.csv", "a") as file:
        file.write("1030,too,few\n")
    job = project.job(source={"where": {"gender": "Men"}}, sharding={"batchRows": 4, "rowsPerShard": 8})
    before = project.everything()
    ran = project.run("plan", job)
    assert ran.code == 0, ran
    for text in (
        "31 rows",
        "4 shards",
        "15 match",
        "50.0%",
        "1 is malformed",
        "row 30",
        "expected 5 fields, found 3",
        "1000",
        str(project.root / "out/job"),
    ):
        assert text in ran.out, (text, ran.out)
    assert project.run("plan", job, "--json").code == 0
    assert project.run("plan", job, "--count").code == 0
    assert project.run("run", project.job(mode="plan", source={"where": {"gender": "Men"}}), "--json").json["phase"] == "Planned"
    after = project.everything()
    after["job.yaml"] = before["job.yaml"]
    assert after == before


def test_plan_counts_exactly(bare_project: Project) -> None:
    project = bare_project
    rows = [(row, "Men" if row % 3 == 0 else "Women") for row in range(12_000)]
    project.write_csv(rows, ("id", "gender"))
    with open(project.root / "rows.csv", "a") as file:
        file.write("x,Men,y\n" * 7)
    job = project.job(source={"images": None, "where": {"gender": "Men"}})
    counted = project.run("plan", job, "--count", "--json").json
    is_promised({key: counted[key] for key in TYPES})
    assert set(counted) - set(TYPES) <= {"sample"}
    assert (counted["phase"], counted["uid"], counted["reason"], counted["message"]) == ("Planned", None, None, None)
    assert counted["rows"] == {"total": 12_007, "succeeded": 0, "filtered": 8000, "skipped": 0, "failed": 7, "pending": 4000}
    assert counted["shards"] == {"total": 2, "active": 0, "succeeded": 0, "failed": 0}
    assert counted["output"] == str(project.root / "out/job")

    sampled = project.run("plan", job, "--json").json
    assert sampled["rows"] == {"total": 12_007, "succeeded": 0, "filtered": 0, "skipped": 0, "failed": 0, "pending": 12_007}
    text = project.run("plan", job).out
    assert "sample" in text and "10,000" in text


def test_plan_of_a_header_alone(bare_project: Project) -> None:
    bare_project.write("id\n")
    ran = bare_project.run("plan", bare_project.job(), "--count", "--json")
    assert (ran.code, ran.json["rows"]["total"], ran.json["shards"]["total"]) == (0, 0, 0), ran
    assert bare_project.run("plan", "job.yaml").code == 0


def test_plan_shows_what_is_wrong(bare_project: Project) -> None:
    bare_project.catalogue(2)
    before = bare_project.everything()
    for spec in ({"output": {"path": "img/out"}}, {"functions": [{"name": "nope"}]}, {"source": {"idColumn": "nope"}}):
        ran = bare_project.run("plan", bare_project.job(**spec), "--json")  # type: ignore[arg-type]
        assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec"), ran
    assert {name for name in bare_project.everything()} == {*before, "job.yaml"}


# The small verbs.


def test_init_writes_a_job_that_runs(project: Project) -> None:
    project.catalogue(3)
    (project.root / "img").rename(project.root / "images")
    ran = project.run("init", "rows.csv")
    assert ran.code == 0 and "rows.yaml" in ran.out, ran
    text = project.text("rows.yaml")
    assert "#" in text and "images/{id}.jpg" in text
    ends(project.run("run", "rows.yaml", "--json"), 0, "Complete", None)
    again = project.run("init", "rows.csv", "--json")
    ends(again, 2, "Failed", "InvalidSpec", "rows.yaml")
    assert project.text("rows.yaml") == text


ODD_HEADERS = {
    "semicolons": ("Shop Items (2024).csv", "sku;name;photo\n7;a;x.jpg\n"),
    "a column that yaml reads as a boolean": ("y.csv", "no,on,y\n1,2,3\n"),
    "odd names": ("odd.csv", '"a: b","c#d","e{f}","""g"""\n1,2,3,4\n'),
    "numbers": ("2024.csv", "1,2,3\n4,5,6\n"),
    "line ends in names": ("lines.csv", '"id\nof it",name\n1,a\n'),
    "unicode": ("ключ.csv", "ключ,имя\n1,a\n"),
}


@pytest.mark.parametrize(("name", "text"), ODD_HEADERS.values(), ids=ODD_HEADERS.keys())
def test_init_of_odd_headers_gives_a_valid_job(project: Project, name: str, text: str) -> None:
    project.write(text, name)
    ran = project.run("init", name, "--json")
    assert ran.code == 0, ran
    planned = project.run("plan", ran.json["file"], "--json")
    assert planned.code == 0, (planned, project.text(ran.json["file"]))
    assert planned.json["rows"]["total"] == 1


def test_init_of_what_is_no_csv(project: Project) -> None:
    project.write("")
    ends(project.run("init", "rows.csv", "--json"), 1, "Failed", "InputInvalid", "rows.csv")
    ends(project.run("init", "nowhere.csv", "--json"), 1, "Failed", "InputNotFound", "nowhere.csv")
    assert not list(project.root.glob("*.yaml"))


def test_functions_are_listed(bare_project: Project) -> None:
    ran = bare_project.run("functions")
    assert ran.code == 0 and "random_crop" in ran.out and "ratio" in ran.out
    listed = bare_project.run("functions", "--json").json["functions"]
    names = {function["name"] for function in listed}
    assert names >= {
        "random_crop",
        "center_crop",
        "crop",
        "resize",
        "thumbnail",
        "grayscale",
        "rotate",
        "flip",
        "autocontrast",
        "sharpen",
        "blur",
        "convert",
    }
    assert not list(bare_project.root.iterdir()), "nothing is written"


def test_list_status_failures_results(project: Project) -> None:
    assert project.run("list", "--json").json == {"jobs": []}
    assert "no jobs" in project.run("list").out
    project.catalogue(30, without=[4])
    one = project.run("run", project.job("one"), "--json").json
    two = project.run("run", project.job("two", failurePolicy={"maxFailedRows": 0}), "--json").json
    ran = project.run("list", "--json")
    assert list(ran.json) == ["jobs"]
    for job in ran.json["jobs"]:
        is_promised(job)
    assert {job["name"]: job["uid"] for job in ran.json["jobs"]} == {"one": one["uid"], "two": two["uid"]}
    assert {job["name"]: job["phase"] for job in ran.json["jobs"]} == {"one": "Complete", "two": "Failed"}
    assert {job["name"]: job["shards"] for job in ran.json["jobs"]} == {"one": one["shards"], "two": two["shards"]}
    text = project.run("list").out
    assert "one" in text and "two" in text and "Complete" in text and "30/30" in text

    ran = project.run("failures", "one", "--json")
    assert ran.json == {
        "failures": [
            {"row": 4, "id": "1004", "reason": "ImageNotFound", "function": "", "message": "img/1004.jpg: no such file", "attempts": 1}
        ]
    }
    assert "ImageNotFound" in project.run("failures", "one").out
    assert project.run("failures", "one", "--reason", "ImageInvalid", "--json").json == {"failures": []}
    typo = project.run("failures", "one", "--reason", "ImageInvalidd", "--json")
    assert typo.code == 2 and "ImageInvalid" in typo.json["message"], "a reason that does not exist is a mistake"

    ran = project.run("results", "one", "--json")
    assert ran.code == 0
    is_promised({key: ran.json[key] for key in TYPES})
    sheet = Path(ran.json["contactSheet"])
    assert sheet.is_file() and sheet.read_bytes().startswith(b"\x89PNG")
    text = project.run("results", "one").out
    assert str(project.root / "out/one") in text and str(sheet) in text and "manifest.json" in text


def test_results_without_images(project: Project) -> None:
    project.write_csv([("images/1", "images/x")], ("id", "picture"))
    project.run("run", project.job(source={"images": None}, functions=[]))
    ran = project.run("results", "job", "--json")
    assert (ran.code, ran.json["contactSheet"]) == (0, None), ran
    assert project.run("results", "job").code == 0


def test_results_of_a_source_column_that_looks_like_a_path(project: Project) -> None:
    project.images(1)
    project.write_csv([(1, "images/styles/1.jpg")], ("id", "original"))
    project.run("run", project.job())
    ran = project.run("results", "job", "--json")
    assert ran.code == 0 and ran.json["contactSheet"], ran


def test_verbs_need_neither_file_nor_data(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    project.catalogue(2)
    project.run("run", project.job())
    (project.root / "job.yaml").unlink()
    away = Project(tmp_path_factory.mktemp("away"), project.environment["PIPELINEJOB_DATABASE_URL"])
    for verb in ("status", "failures", "results"):
        assert away.run(verb, "job", "--json").code == 0
    assert away.run("delete", "job", "--output", "--json").code == 0
    assert not (project.root / "out/job").exists()


def test_delete(project: Project) -> None:
    project.catalogue(2)
    project.run("run", project.job())
    ran = project.run("delete", "job")
    assert ran.code == 0 and str(project.root / "out/job") in ran.out
    assert (project.root / "out/job/metadata.csv").exists()
    ends(project.run("status", "job", "--json"), 2, "Failed", "InvalidSpec", "job")


SLOW = "import time\ndef mark(image, row):\n    time.sleep(0.05)\n    return image\n"


def slow(project: Project, rows: int = 100) -> str:
    project.catalogue(rows)
    project.write(SLOW, "fn.py")
    return project.job(functions=[{"name": "mark", "file": "fn.py"}], sharding={"batchRows": 2})


def until(project: Project, what: str, least: int = 1, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while len(list(project.root.glob(what))) < least:
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.02)


def ended(process: subprocess.Popen[str], seconds: float = 30) -> Ran:
    out, err = process.communicate(timeout=seconds)
    return Ran(process.returncode, out, err)


def test_cancel_a_running_job(project: Project) -> None:
    job = slow(project, 300)
    process = project.start("run", job, "--json")
    until(project, "out/job/images/*/*.jpg", 4)
    assert project.run("cancel", "job", "--json").code == 0
    value = ends(ended(process), 1, "Cancelled", "Cancelled")
    assert 0 < value["rows"]["pending"] < 300
    assert len(project.table("out/job/metadata.csv")) == value["rows"]["succeeded"]
    manifest = json.loads(project.text("out/job/manifest.json"))
    assert sum(part["rows"] for part in manifest["pending"]) == value["rows"]["pending"]
    again = ends(project.run("run", job, "--json"), 1, "Cancelled", "Cancelled")
    assert again["rows"] == value["rows"], "cancelled is for good"


def test_cancel_a_job_that_was_interrupted(project: Project) -> None:
    job = slow(project)
    process = project.start("run", job, "--json")
    until(project, "out/job/images/*/*.jpg", 4)
    process.send_signal(signal.SIGINT)
    assert ended(process).code == 130
    ran = project.run("cancel", "job", "--json")
    assert (ran.code, ran.json["phase"], ran.json["reason"]) == (0, "Cancelled", "Cancelled"), ran
    assert (project.root / "out/job/manifest.json").exists()
    done = project.run("cancel", "job", "--json")
    assert (done.code, done.json["phase"]) == (0, "Cancelled")


def test_cancelling_a_complete_job_changes_nothing(project: Project) -> None:
    project.catalogue(2)
    job = project.job()
    project.run("run", job)
    project.run("cancel", "job", "--json")
    ends(project.run("status", "job", "--json"), 0, "Complete", None)
    ends(project.run("run", job, "--json"), 0, "Complete", None)


def test_spec_cancel(project: Project) -> None:
    project.catalogue(4)
    value = ends(project.run("run", project.job(cancel=True), "--json"), 1, "Cancelled", "Cancelled")
    assert value["rows"]["pending"] == 4
    assert project.table("out/job/metadata.csv") == [] and (project.root / "out/job/manifest.json").exists()
    ends(project.run("run", project.job(cancel=False), "--json"), 1, "Cancelled", "Cancelled")


def test_spec_suspend(project: Project) -> None:
    project.catalogue(4)
    ran = project.run("run", project.job(suspend=True), "--json")
    is_promised(ran.json)
    assert (ran.json["phase"], ran.json["rows"]["pending"]) == ("Suspended", 4), ran
    assert not (project.root / "out/job/metadata.csv").exists()
    ends(project.run("run", project.job(suspend=False), "--json"), 0, "Complete", None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_run(project: Project, number: signal.Signals) -> None:
    job = slow(project)
    process = project.start("run", job, "--json")
    until(project, "out/job/images/*/*.jpg", 4)
    began = time.monotonic()
    process.send_signal(number)
    ran = ended(process)
    assert time.monotonic() - began < 12
    assert ran.code == 130, ran
    is_promised(ran.json)
    assert ran.json["rows"]["pending"] > 0 and "run the same command" in ran.json["message"]


def test_ctrl_c_reaches_the_whole_group(project: Project) -> None:
    """A terminal sends it to the children, too."""
    job = slow(project)
    process = subprocess.Popen(
        [COMMAND, "run", job, "--json"], cwd=project.root, env=project.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    until(project, "out/job/images/*/*.jpg", 4)
    os.killpg(process.pid, signal.SIGINT)
    ran = ended(process)
    assert ran.code == 130, ran
    assert "Traceback" not in ran.err
    assert project.run("run", job, "--json").code == 0


# Databases.


def test_an_unreachable_database(project: Project) -> None:
    project.catalogue(2)
    job = project.job()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://user@127.0.0.1:{closed.getsockname()[1]}/db"
        began = time.monotonic()
        value = ends(project.run("run", job, "--database", url, "--json"), 1, "Failed", "DatabaseUnavailable", "--database")
        assert time.monotonic() - began < 16
    assert value["name"] == "job"
    assert not (project.root / "out").exists()


def test_a_database_that_does_not_exist_is_told_at_once(project: Project) -> None:
    project.catalogue(2)
    url = project.environment["PIPELINEJOB_DATABASE_URL"].replace("/test_", "/nothere_")
    began = time.monotonic()
    ends(project.run("run", project.job(), "--database", url, "--json"), 1, "Failed", "DatabaseUnavailable", "does not exist")
    assert time.monotonic() - began < 12
    ends(project.run("status", "job", "--json", env={"PIPELINEJOB_DATABASE_URL": "no url at all"}), 1, "Failed", "DatabaseUnavailable")


def test_the_embedded_server(bare_project: Project) -> None:
    project = bare_project
    project.catalogue(3)
    ends(project.run("run", project.job(), "--json", env={"PIPELINEJOB_HOME": "my home"}), 0, "Complete", None)
    assert (project.root / "my home/.gitignore").read_text() == "*\n"
    assert not (project.root / ".pipelinejob").exists()
    assert project.run("status", "job", "--json", env={"PIPELINEJOB_HOME": "my home"}).code == 0
    assert not list((project.root / "my home/postgres").glob("postmaster.pid")), "the last run stops the server"


# Outputs in the wrong place.


def test_an_output_that_is_not_ours(project: Project) -> None:
    project.catalogue(2)
    notes = project.write("mine", "out/job/notes.txt")
    ends(project.run("run", project.job(), "--json"), 2, "Failed", "InvalidSpec", "spec.output.path", "not empty")
    assert [path for path in (project.root / "out/job").iterdir()] == [notes]
    notes.unlink()
    ends(project.run("run", "job.yaml", "--json"), 0, "Complete", None)


@pytest.mark.parametrize("path", ["img", "img/out", "rows.csv", ".", "deep", "deep/pictures", "deep/pictures/x/y"])
def test_outputs_in_or_above_the_input(project: Project, path: str) -> None:
    project.catalogue(2)
    (project.root / "img").rename(project.root / "tmp")
    (project.root / "deep").mkdir()
    (project.root / "tmp").rename(project.root / "deep/pictures")
    (project.root / "img").symlink_to("deep/pictures")
    before = project.everything()
    images = "deep/pictures/{id}.jpg" if path.startswith("deep") else "img/{id}.jpg"
    ends(
        project.run("run", project.job(output={"path": path}, source={"images": images}), "--json"),
        2, "Failed", "InvalidSpec", "spec.output.path",
    )  # fmt: skip
    assert project.everything() == before | {"job.yaml": project.everything()["job.yaml"]}


def test_outputs_through_a_link_into_the_input(project: Project) -> None:
    project.catalogue(2)
    (project.root / "alias").symlink_to("img")
    ends(project.run("run", project.job(output={"path": "alias/out"}), "--json"), 2, "Failed", "InvalidSpec", "spec.output.path")
    assert not (project.root / "img/out").exists()


def test_images_all_over_the_root(project: Project) -> None:
    """A template that begins with a column: an output anywhere below the root is fine."""
    project.catalogue(2)
    project.write_csv([(1000, "img/1000.jpg"), (1001, "img/1001.jpg")], ("id", "file"))
    ends(project.run("run", project.job(source={"images": "{file}"}), "--json"), 0, "Complete", None)


@pytest.mark.parametrize("other", ["out/one", "out/one/inner", "out/one/images", "out", "out/./one"])
def test_two_jobs_with_the_same_or_nested_outputs(project: Project, other: str) -> None:
    project.catalogue(2)
    assert project.run("run", project.job("one")).code == 0
    files = project.everything("out")
    ends(project.run("run", project.job("two", output={"path": other}), "--json"), 2, "Failed", "InvalidSpec", "spec.output.path", "one")
    assert project.everything("out") == files
    assert [job["name"] for job in project.run("list", "--json").json["jobs"]] == ["one"]


@pytest.mark.parametrize("other", ["out/one", "out/one/inner", "out"])
def test_the_output_of_a_job_of_another_ledger(project: Project, server: str, other: str) -> None:
    project.catalogue(2)
    assert project.run("run", project.job("one")).code == 0
    files = project.everything("out")
    ran = project.run("run", project.job("two", output={"path": other}), "--json", "--database", server)
    ends(ran, 2, "Failed", "InvalidSpec", "spec.output.path")
    after = {name: digest for name, digest in project.everything("out").items() if not name.endswith("/lock")}
    assert after == {name: digest for name, digest in files.items() if not name.endswith("/lock")}
    assert "two" not in [job["name"] for job in project.run("list", "--json", "--database", server).json["jobs"]]


def test_outputs_that_cannot_be_written(project: Project) -> None:
    project.catalogue(2)
    project.write("a file", "out")
    ends(project.run("run", project.job(), "--json"), 2, "Failed", "InvalidSpec", "spec.output.path")
    project.write("a file", "file")
    ends(project.run("run", project.job(output={"path": "file"}), "--json"), 2, "Failed", "InvalidSpec", "spec.output.path", "file")
    ends(project.run("run", project.job(), "--output-root", "file/below", "--json"), 2, "Failed", "InvalidSpec", "--output-root")
    ends(project.run("run", project.job(), "--output-root", "/proc/nowhere", "--json"), 2, "Failed", "InvalidSpec", "--output-root")
    assert project.text("out") == project.text("file") == "a file"


def test_an_output_root_beside_read_only_data(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    project.catalogue(2)
    before = project.everything("img")
    outputs = tmp_path_factory.mktemp("outputs") / "made"
    value = ends(project.run("run", project.job(), "--output-root", str(outputs), "--json"), 0, "Complete", None)
    assert value["output"] == str(outputs / "out/job") and (outputs / "out/job/metadata.csv").exists()
    assert not (project.root / "out").exists() and project.everything("img") == before
    assert project.run("results", "job", "--json").json["output"] == value["output"]
    ends(project.run("run", "job.yaml", "--json"), 2, None, "InvalidSpec", "output root")


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs a read-only mount")
def test_read_only_data_says_what_to_pass(project: Project) -> None:
    project.catalogue(2)
    job = project.job()
    inner = f"mount --bind '{project.root}' '{project.root}' && mount -o remount,ro,bind '{project.root}' && exec '{COMMAND}' \"$@\""
    command = ["unshare", "-m", "sh", "-c", inner, "sh"]
    if subprocess.run([*command, "--help"], capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    home = project.root.parent / f"{project.root.name}-home"
    outputs = project.root.parent / f"{project.root.name}-outputs"

    def run(*arguments: str) -> Ran:
        environment = {**project.environment, "PIPELINEJOB_HOME": str(home)}
        done = subprocess.run(
            [*command, "run", str(project.root / job), "--data", str(project.root), "--json", *arguments],
            cwd="/", env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    ends(run(), 2, "Failed", "InvalidSpec", "spec.output.path", "--output-root DIR")
    ends(run("--output-root", str(outputs)), 0, "Complete", None)


def test_output_survives_a_reader_that_leaves(project: Project) -> None:
    project.catalogue(2)
    project.run("run", project.job())
    done = subprocess.run(
        f"'{COMMAND}' functions | head -n 1", shell=True, cwd=project.root, env=project.environment, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr


def test_a_plain_ascii_terminal(project: Project) -> None:
    project.images("żółć")
    project.write_csv([("żółć", "🎽"), ("b", "é")], ("id", "name"))
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    assert project.run("run", project.job(), env=env).code == 0
    for verb in ("status", "failures", "results", "list"):
        ran = project.run(*([verb] if verb == "list" else [verb, "job"]), env=env)
        assert ran.code == 0 and "Traceback" not in ran.err, ran
