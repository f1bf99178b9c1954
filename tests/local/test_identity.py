"""Which job a command means: the same again, a changed one, a replaced one, one that runs just now."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from support.project import Project, Ran

SLOW = "import time\ndef mark(image, row):\n    time.sleep(0.05)\n    return image\n"


def refused(ran: Ran, *named: str) -> None:
    """That a command ended as one that may not do what it was asked, saying all of these."""
    assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec"), ran
    for text in named:
        assert text in ran.json["message"], (text, ran.json["message"])


WAYS_ON = ("metadata.name", "run --replace", "delete job")


def test_the_same_again_is_already_complete(project: Project) -> None:
    project.catalogue(5, without=[2])
    job = project.job()
    first = project.run("run", job, "--json")
    files = project.tree("out/job")
    again = project.run("run", job, "--json")

    assert (again.code, again.json["phase"]) == (0, "Complete")
    assert {key: value for key, value in again.json.items() if key != "seconds"} == {
        key: value for key, value in first.json.items() if key != "seconds"
    }
    assert project.tree("out/job") == files
    assert "already complete" in project.run("run", job).out
    touched = project.root / "rows.csv"
    os.utime(touched, (1, 1))  # the same bytes
    assert project.run("run", job).code == 0


CHANGES = {
    "spec.seed": {"seed": 1},
    "spec.source.where": {"source": {"where": {"gender": "Men"}}},
    "spec.source.maxBytes": {"source": {"maxBytes": 5}},
    "spec.output.quality": {"output": {"path": "out/job", "quality": 90}},
    "spec.output.path": {"output": {"path": "out/other"}},
    "spec.functions": {"functions": []},
    "spec.sharding.batchRows": {"sharding": {"batchRows": 3}},
    "spec.sharding.rowsPerShard": {"sharding": {"rowsPerShard": 400}},
    "spec.backoffLimitPerIndex": {"backoffLimitPerIndex": 1},
    "spec.worker": {"worker": {"image": "x"}},
}


def test_a_changed_field_is_refused_by_name(project: Project) -> None:
    project.catalogue(2)
    assert project.run("run", project.job()).code == 0
    files = project.everything("out")
    for field, change in CHANGES.items():
        refused(project.run("run", project.job(**change), "--json"), field, *WAYS_ON)  # type: ignore[arg-type]
    refused(project.run("run", project.job(), "--limit", "1", "--json"), "--limit", *WAYS_ON)
    assert project.everything("out") == files
    assert project.run("run", project.job()).code == 0


def test_a_default_written_out_is_no_change(project: Project) -> None:
    project.catalogue(2)
    assert project.run("run", project.job()).code == 0
    job = project.job(seed=0, sharding={"batchRows": 200}, source={"delimiter": ",", "idColumn": "id", "where": {}}, mode="run")
    assert project.run("run", job, "--json").code == 0


def test_a_params_default_written_out_is_no_change(project: Project) -> None:
    project.catalogue(2)
    assert project.run("run", project.job(functions=[{"name": "random_crop"}])).code == 0
    ran = project.run("run", project.job(functions=[{"name": "random_crop", "params": {"ratio": 0.8}}]), "--json")
    assert ran.code in (0, 2), ran


def test_changed_code_of_a_function_is_refused(project: Project) -> None:
    project.catalogue(2)
    project.write("def mark(image, row):\n    return {'a': 1}\n", "fn.py")
    job = project.job(functions=[{"name": "mark", "file": "fn.py"}])
    assert project.run("run", job).code == 0
    project.write("def mark(image, row):\n    return {'a': 2}\n", "fn.py")
    refused(project.run("run", job, "--json"), "spec.functions", *WAYS_ON)
    assert [row["a"] for row in project.table("out/job/metadata.csv")] == ["1", "1"]


def test_mutable_fields_are_taken_over(project: Project) -> None:
    project.catalogue(4, without=[0])
    assert project.run("run", project.job(failurePolicy={"maxFailedRows": 0})).code == 1
    ran = project.run(
        "run",
        project.job(failurePolicy={"maxFailedRows": 1, "maxFailedRowsPercent": 50}, parallelism=1, ttlSecondsAfterFinished=9),
        "--json",
    )
    assert (ran.code, ran.json["phase"]) == (0, "Complete"), ran
    for change in ({"parallelism": 5}, {"suspend": True}, {"ttlSecondsAfterFinished": None}):
        ran = project.run("run", project.job(**change), "--json")
        assert (ran.code, ran.json["phase"]) == (0, "Complete"), (change, ran)


def test_another_data_root_is_another_job(project: Project) -> None:
    project.catalogue(2)
    job = project.job()
    assert project.run("run", job).code == 0
    elsewhere = Project(project.root / "elsewhere", None)
    elsewhere.root.mkdir()
    elsewhere.catalogue(2)
    refused(project.run("run", job, "--data", "elsewhere", "--json"), "data root", str(project.root), *WAYS_ON)
    (project.root / "link").symlink_to(project.root)
    assert project.run("run", job, "--data", "link").code == 0, "the real path is the same"
    assert project.run("run", job, "--data", "./").code == 0


def test_a_csv_changed_after_completion(project: Project) -> None:
    project.catalogue(3)
    job = project.job()
    assert project.run("run", job).code == 0
    files = project.tree("out/job")
    with open(project.root / "rows.csv", "a") as file:
        file.write("1000,Men,Fall,2010,Late\n")
    refused(project.run("run", job, "--json"), "CSV", *WAYS_ON)
    assert project.tree("out/job") == files
    assert project.run("status", "job", "--json").json["phase"] == "Complete"

    ran = project.run("run", job, "--replace", "--json")
    assert (ran.code, ran.json["rows"]["total"]) == (0, 4), ran
    assert project.run("run", job).code == 0


def test_a_csv_of_the_same_size_and_other_bytes(project: Project) -> None:
    project.catalogue(3)
    assert project.run("run", project.job()).code == 0
    path = project.root / "rows.csv"
    path.write_bytes(path.read_bytes().replace(b"Fall", b"Hall"))
    refused(project.run("run", "job.yaml", "--json"), "CSV", *WAYS_ON)


@pytest.mark.parametrize("gone", ["metadata.csv", "failures.csv", "manifest.json", "images", "."])
def test_outputs_gone_after_completion(project: Project, gone: str) -> None:
    project.catalogue(3)
    job = project.job()
    first = project.run("run", job, "--json")
    files = project.tree("out/job")
    (project.root / "out/job" / gone).rename(project.root / "moved")
    refused(project.run("run", job, "--json"), *WAYS_ON)

    ran = project.run("run", job, "--replace", "--json")
    assert ran.code == 0 and ran.json["uid"] != first.json["uid"], ran
    assert project.tree("out/job") == files


def test_replace_starts_anew(project: Project) -> None:
    project.catalogue(6)
    first = project.run("run", project.job(sharding={"batchRows": 2}), "--json")
    second = project.run("run", project.job(sharding={"batchRows": 3}, source={"where": {"gender": "Men"}}), "--replace", "--json")
    assert second.code == 0 and second.json["uid"] != first.json["uid"], second
    assert sorted(path.name for path in (project.root / "out/job/images").iterdir()) == ["000000000", "000000003"]
    assert [job["uid"] for job in project.run("list", "--json").json["jobs"]] == [second.json["uid"]]
    assert [path.name for path in (project.root / "out").iterdir()] == ["job"], "the replaced output is gone"

    fresh = project.run("run", project.job("new"), "--replace", "--json")
    assert fresh.code == 0, "nothing to replace is no error"


REPLACEMENTS = {
    "a column that is not there": ({"source": {"idColumn": "nope"}}, None, "InvalidSpec", "spec.source.idColumn"),
    "no such function": ({"functions": [{"name": "nope"}]}, None, "InvalidSpec", "spec.functions[0].name"),
    "an output in the input": ({"output": {"path": "img"}}, None, "InvalidSpec", "spec.output.path"),
    "an output in another job's": ({"output": {"path": "out/other/x"}}, None, "InvalidSpec", "spec.output.path"),
    "an output that is not ours": ({"output": {"path": "theirs"}}, None, "InvalidSpec", "spec.output.path"),
    "a quote never closed": ({"source": {"images": None}}, 'id,name\n1,"open\n', "InputInvalid", "line 2"),
    "no CSV": ({"source": {"csv": "nowhere.csv"}}, None, "InputNotFound", "nowhere.csv"),
}


@pytest.mark.parametrize(("change", "csv", "reason", "named"), REPLACEMENTS.values(), ids=REPLACEMENTS.keys())
def test_a_replacement_that_cannot_start_removes_nothing(
    project: Project, change: dict[str, object], csv: str | None, reason: str, named: str
) -> None:
    project.catalogue(3)
    assert project.run("run", project.job()).code == 0
    assert project.run("run", project.job("other")).code == 0
    project.write("mine\n", "theirs/notes.txt")
    files = project.tree("out/job")
    if csv is not None:
        project.write(csv)
    ran = project.run("run", project.job(**change), "--replace", "--json")  # type: ignore[arg-type]
    assert (ran.code, ran.json["reason"]) == (2 if reason == "InvalidSpec" else 1, reason), ran
    assert named in ran.json["message"], ran.json
    assert project.tree("out/job") == files, "the old results are gone"
    assert project.run("status", "job", "--json").json["phase"] == "Complete"


def test_deleted_and_run_again_keeps_the_old_output_aside(project: Project) -> None:
    project.catalogue(3)
    job = project.job()
    first = project.run("run", job, "--json")
    deleted = project.run("delete", "job", "--json")
    assert deleted.code == 0, deleted
    files = project.tree("out/job")
    assert "metadata.csv" in files

    second = project.run("run", job, "--json")
    assert (second.code, second.json["phase"]) == (0, "Complete"), second
    aside = f"out/job.{first.json['uid']}"
    assert project.tree(aside) == files
    assert project.tree("out/job") == files
    assert sorted(path.name for path in (project.root / "out").iterdir()) == sorted(["job", Path(aside).name])


def test_delete_with_output(project: Project) -> None:
    project.catalogue(3)
    job = project.job()
    project.run("run", job)
    ran = project.run("delete", "job", "--output", "--json")
    assert ran.code == 0, ran
    assert not (project.root / "out/job").exists()
    assert project.run("list", "--json").json == {"jobs": []}
    assert project.run("run", job, "--json").code == 0


def test_the_same_name_in_another_ledger(project: Project, bare_project: Project) -> None:
    """Another ledger does not know the job: its output is somebody else's."""
    project.catalogue(3)
    job = project.job()
    first = project.run("run", job, "--json")
    files = project.tree("out/job")
    project.environment.pop("PIPELINEJOB_DATABASE_URL")
    second = project.run("run", job, "--json")
    assert second.code in (0, 2), second
    kept = "out/job" if second.code == 2 else f"out/job.{first.json['uid']}"
    assert project.tree(kept) == files, "nothing of the first may be lost"


def test_jobs_of_two_namespaces(project: Project) -> None:
    project.catalogue(3)
    for namespace in ("one", "two"):
        job = project.job(file=f"{namespace}.yaml", output={})
        path = project.root / job
        path.write_text(path.read_text().replace("metadata:\n", f"metadata:\n  namespace: {namespace}\n"))
        ran = project.run("run", job, "--json")
        assert (ran.code, ran.json["namespace"]) == (0, namespace), ran
        assert (project.root / f"output/{namespace}/job/metadata.csv").exists()
    assert project.run("status", "job", "-n", "two", "--json").json["namespace"] == "two"
    assert project.run("status", "job", "--json").code == 2
    assert project.tree("output/one/job") == project.tree("output/two/job")


def slow(project: Project, rows: int = 100) -> str:
    project.catalogue(rows)
    project.write(SLOW, "fn.py")
    return project.job(functions=[{"name": "mark", "file": "fn.py"}], sharding={"batchRows": 2}, parallelism=2)


def until(project: Project, what: str, least: int = 1, seconds: float = 15) -> None:
    """Waits until there are so many files of that pattern."""
    end = time.monotonic() + seconds
    while len(list(project.root.glob(what))) < least:
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.02)


def test_a_second_run_names_the_process(project: Project) -> None:
    project.catalogue(20)
    gate = project.root / "go"  # the first run goes on only when it has been asked for in every way
    waits = f"row['id'] != '1000' and not os.path.exists({str(gate)!r})"
    project.write(f"import os, time\ndef mark(image, row):\n    while {waits}:\n        time.sleep(0.05)\n    return image\n", "fn.py")
    job = project.job(functions=[{"name": "mark", "file": "fn.py"}], sharding={"batchRows": 1}, parallelism=2)
    first = project.start("run", job, "--json")
    try:
        until(project, "out/job/images/*/*.jpg")
        refused(project.run("run", job, "--json"), f"process {first.pid}")
        refused(project.run("run", job, "--replace", "--json"), f"process {first.pid}")
        refused(project.run("delete", "job", "--output", "--json"), f"process {first.pid}")
        status = project.run("status", "job", "--json")
        assert status.code == 0 and status.json["phase"] == "Running" and str(first.pid) in status.json["message"], status
        assert str(first.pid) in project.run("list", "--json").json["jobs"][0]["message"]
    finally:
        gate.touch()
        out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert Ran(0, out, err).json["rows"]["succeeded"] == 20


def test_ctrl_c_and_on(project: Project) -> None:
    job = slow(project, 60)
    first = project.start("run", job, "--json")
    until(project, "out/job/images/*/*.jpg", 6)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=30)
    ran = Ran(first.returncode, out, err)
    assert ran.code == 130, ran
    assert 0 < ran.json["rows"]["pending"] < 60 and ran.json["name"] == "job" and ran.json["uid"], ran.json
    done = ran.json["rows"]["succeeded"]
    assert "run the same command" in ran.json["message"]

    status = project.run("status", "job")
    assert status.code == 0
    assert f"interrupted at row {done}" in status.out and "run the same command to go on" in status.out
    again = project.run("run", job, "--json")
    assert (again.code, again.json["phase"], again.json["uid"]) == (0, "Complete", ran.json["uid"]), again
    assert again.json["rows"]["succeeded"] == 60
    assert again.json["message"] is None, again.json


def test_a_csv_changed_between_two_runs_of_an_unfinished_job(project: Project) -> None:
    job = slow(project, 60)
    first = project.start("run", job, "--json")
    until(project, "out/job/images/*/*.jpg", 4)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    path = project.root / "rows.csv"
    old = path.read_bytes()
    path.write_bytes(old.replace(b"Shirt 59", b"Skirt 59"))
    ran = project.run("run", job, "--json")
    assert (ran.code, ran.json["phase"], ran.json["reason"]) == (1, "Failed", "InputChanged"), ran
    assert "--replace" in ran.json["message"]

    path.write_bytes(old)
    ran = project.run("run", job, "--json")
    assert (ran.code, ran.json["phase"], ran.json["reason"]) == (0, "Complete", None), ran


def test_a_symlinked_csv(project: Project) -> None:
    project.catalogue(2)
    path = project.root / "rows.csv"
    path.rename(project.root / "real.csv")
    path.symlink_to("real.csv")
    assert project.run("run", project.job("inside")).code == 0, "a link that stays inside"
    outside = project.root.parent / f"{project.root.name}-outside.csv"
    (project.root / "real.csv").rename(outside)
    path.unlink()
    path.symlink_to(outside)
    before = project.everything()
    job = project.job("outside")
    ran = project.run("run", job, "--json")
    refused(ran, "spec.source.csv", "outside the data root")
    assert project.everything() == before | {"outside.yaml": project.everything()["outside.yaml"]}


def test_a_symlinked_output_may_not_lead_outside(project: Project) -> None:
    project.catalogue(2)
    outside = project.root.parent / f"{project.root.name}-out"
    outside.mkdir()
    (project.root / "out").symlink_to(outside)
    refused(project.run("run", project.job(), "--json"), "spec.output.path", "outside")
    assert not list(outside.iterdir())
