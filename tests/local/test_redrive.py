"""Rows that failed run again: which, with what, into the same output, and what the job says afterwards."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from support.project import Project, Ran

BATCHES = {"batchRows": 5, "rowsPerShard": 20}


def counts(ran: Ran) -> dict[str, int]:
    return {key: count for key, count in ran.json["rows"].items() if count}


def attempts(project: Project) -> dict[int, int]:
    return {int(row["row"]): int(row["attempts"]) for row in project.table("out/job/failures.csv")}


def same_but_manifest(tree: dict[str, str], other: dict[str, str]) -> None:
    assert {**tree, "manifest.json": ""} == {**other, "manifest.json": ""}


def manifest(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.text("out/job/manifest.json"))
    return found


def clean(project: Project, file: str) -> dict[str, str]:
    """The files of a run in which every row succeeds, in another ledger; the output is put away."""
    ran = project.run("run", file, "--json", env={"PIPELINEJOB_HOME": str(project.root / "clean-home"), "PIPELINEJOB_DATABASE_URL": ""})
    assert ran.code == 0, ran.err
    tree = project.tree("out/job")
    (project.root / "out/job").rename(project.root / "out-clean")
    return tree


def test_images_that_arrive_later(project: Project) -> None:
    missing = [3, 4, 21, 59]
    project.catalogue(60)
    job = project.job(source={"where": {"year": {"gte": 2009}}}, sharding=BATCHES)
    expected = clean(project, job)
    for row in missing:
        (project.root / f"img/{1000 + row}.jpg").rename(project.root / f"late-{row}.jpg")
    assert counts(project.run("run", job, "--json")) == {"total": 60, "succeeded": 44, "filtered": 12, "failed": 4}

    (project.root / "late-3.jpg").rename(project.root / "img/1003.jpg")
    first = project.run("redrive", "job", "--json")
    assert first.code == 0, first.err
    assert (first.json["name"], first.json["phase"], counts(first)) == (
        "job-redrive-1",
        "Complete",
        {"total": 4, "succeeded": 1, "failed": 3},
    )
    assert first.json["output"] == str(project.root / "out/job")
    assert attempts(project) == {4: 2, 21: 2, 59: 2}
    status = project.run("status", "job", "--json")
    assert counts(status) == {"total": 60, "succeeded": 45, "filtered": 12, "failed": 3} and status.json["phase"] == "Complete"
    listed = project.run("failures", "job", "--json").json["failures"]
    assert [(row["row"], row["attempts"]) for row in listed] == [(4, 2), (21, 2), (59, 2)]
    again = project.run("failures", "job-redrive-1", "--json").json["failures"]
    assert [(row["row"], row["attempts"]) for row in again] == [(4, 2), (21, 2), (59, 2)]

    for row in missing[1:]:
        (project.root / f"late-{row}.jpg").rename(project.root / f"img/{1000 + row}.jpg")
    second = project.run("redrive", "job", "--json")
    assert (second.code, second.json["name"], counts(second)) == (0, "job-redrive-2", {"total": 3, "succeeded": 3}), second.err
    same_but_manifest(project.tree("out/job"), expected)
    files = project.tree("out/job")
    assert _images(manifest(project)) == _images(json.loads(project.text("out-clean/manifest.json")))
    assert manifest(project)["files"]["metadata.csv"]["sha256"] == files["metadata.csv"]
    assert [(one["n"], one["counts"]["total"]) for one in manifest(project)["redrives"]] == [(1, 4), (2, 3)]
    assert manifest(project)["counts"]["failed"] == 0

    nothing = project.run("redrive", "job", "--json")
    assert (nothing.code, nothing.json["rows"]["total"], nothing.json["phase"]) == (0, 0, "Complete")
    assert "nothing to run again" in nothing.json["message"]
    assert [one["name"] for one in project.run("list", "--json").json["jobs"]] == ["job-redrive-2", "job-redrive-1", "job"]
    assert project.run("run", job, "--json").code == 0  # it is complete, and all is there


def _images(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The batches but for the digest of the inputs, which is that of their first run."""
    return [{key: value for key, value in batch.items() if key != "inputsSha256"} for batch in manifest["batches"]]


FUNCTION = """
import os
def mark(image, row):
    with open(ROOT + "/ran.txt", "a") as file:
        file.write(row["id"] + "\\n")
    number = int(row["id"])
    if number % 10 in BROKEN:
        raise ValueError("no")
    return image, {"half": number // 2, NAME: "yes"}
"""


def marking(project: Project, broken: list[int], name: str = "ok", file: str = "fn.py") -> list[dict[str, Any]]:
    """A function that notes each call in ran.txt, raises for ids that end so, and returns two columns."""
    project.write(f"ROOT, BROKEN, NAME = {str(project.root)!r}, {broken!r}, {name!r}\n{FUNCTION}", file)
    return [{"name": "mark", "file": file}, {"name": "resize", "params": {"width": 8, "height": 8}}]


def test_a_function_since_fixed(project: Project) -> None:
    project.catalogue(30)
    expected = clean(project, project.job(functions=marking(project, []), sharding=BATCHES))
    job = project.job(functions=marking(project, [3, 7]), sharding=BATCHES)
    assert counts(project.run("run", job, "--json")) == {"total": 30, "succeeded": 24, "failed": 6}
    (project.root / "ran.txt").unlink()

    marking(project, [])
    refused = project.run("redrive", "job", "--json")
    assert (refused.code, refused.json["reason"]) == (2, "InvalidSpec")
    assert "fn.py was changed" in refused.json["message"] and "-f" in refused.json["message"]
    redriven = project.run("redrive", "job", "-f", job, "--json")
    assert (redriven.code, counts(redriven)) == (0, {"total": 6, "succeeded": 6}), redriven.err
    assert sorted(project.text("ran.txt").split()) == ["1003", "1007", "1013", "1017", "1023", "1027"], "other rows ran"
    same_but_manifest(project.tree("out/job"), expected)


def test_other_functions_give_those_rows_their_results(project: Project) -> None:
    project.catalogue(10)
    project.run("run", project.job(functions=marking(project, [3])), "--json")
    before = project.tree("out/job")
    functions = [*marking(project, [], "late", "fn2.py")[:1], {"name": "resize", "params": {"width": 4, "height": 4}}]
    redriven = project.run("redrive", "job", "-f", project.job(functions=functions), "--json")
    assert redriven.code == 0, redriven.err
    after = project.tree("out/job")
    assert {name for name in before if before[name] != after[name]} == {"metadata.csv", "failures.csv", "manifest.json"}
    rows = project.table("out/job/metadata.csv")
    assert list(rows[0])[-3:] == ["half", "late", "ok"]
    assert [(row["half"], row["late"], row["ok"]) for row in rows[2:5]] == [("501", "", "yes"), ("501", "yes", ""), ("502", "", "yes")]
    assert manifest(project)["redrives"][0]["functions"][1]["params"]["width"] == 4


def test_only_rows_of_a_reason(project: Project) -> None:
    project.catalogue(20, without=[3, 8], broken=[4])
    project.run("run", project.job(sharding=BATCHES))
    unknown = project.run("redrive", "job", "--reason", "Nonsense", "--json")
    assert (unknown.code, unknown.json["reason"]) == (2, "InvalidSpec") and "ImageNotFound" in unknown.json["message"]
    project.images(1003, 1004, 1008)
    one = project.run("redrive", "job", "--reason", "ImageInvalid", "--json")
    assert (one.code, counts(one)) == (0, {"total": 1, "succeeded": 1}), one.err
    assert attempts(project) == {3: 1, 8: 1}
    none = project.run("redrive", "job", "--reason", "ImageInvalid", "--reason", "FunctionError", "--json")
    assert (none.code, none.json["rows"]["total"]) == (0, 0)
    both = project.run("redrive", "job", "--reason", "ImageInvalid", "--reason", "ImageNotFound", "--json")
    assert counts(both) == {"total": 2, "succeeded": 2}
    assert project.run("failures", "job", "--json").json == {"failures": []}


def test_what_is_refused(project: Project) -> None:
    project.catalogue(10, without=[2])
    job = project.job()
    assert project.run("redrive", "job", "--json").code == 2, "there is no such job"
    project.run("run", job)
    before = project.everything("out")
    for change, field in (
        ({"seed": 1}, "spec.seed"),
        ({"output": {"path": "out/job", "quality": 90}}, "spec.output.quality"),
        ({"source": {"where": {"gender": "Men"}}}, "spec.source.where"),
    ):
        ran = project.run("redrive", "job", "-f", project.job(file="other.yaml", **change), "--json")
        assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec") and field in ran.json["message"], ran.err
    ran = project.run("redrive", "job", "-f", project.job("else", output={"path": "out/job"}), "--json")
    assert ran.code == 2 and "metadata.name" in ran.json["message"]
    assert project.everything("out") == before

    text = project.text("rows.csv")
    project.write(text.replace("Shirt 9", "Shirt 8"))
    changed = project.run("redrive", "job", "--json")
    assert (changed.code, changed.json["reason"]) == (1, "InputChanged"), changed.err
    assert project.everything("out") == before
    project.write(text)
    os.utime(project.root / "rows.csv", ns=(1, 1))
    same = project.run("redrive", "job", "--json")
    assert (same.code, counts(same)) == (0, {"total": 1, "failed": 1}), "the same bytes at another time are the same file"

    of = project.run("redrive", "job-redrive-1", "--json")
    assert of.code == 2 and "pipelinejob redrive job" in of.json["message"]
    part = project.run("delete", "job-redrive-1", "--json")
    assert part.code == 2 and "pipelinejob delete job" in part.json["message"]
    assert project.run("delete", "job", "--output", "--json").code == 0
    assert project.run("list", "--json").json == {"jobs": []} and not (project.root / "out/job").exists()


def test_a_job_that_runs_and_two_redrives_at_once(project: Project) -> None:
    project.catalogue(10, without=[2])
    slow = [{"name": "slow", "file": "slow.py"}]
    project.write(
        "import os, time\ndef slow(image, row):\n    time.sleep(float(os.environ.get('SLOW', '0')))\n    return image\n", "slow.py"
    )
    job = project.job(functions=slow)

    def while_it_runs(*arguments: str) -> Ran:
        running = project.start(*arguments, "--json", env={"SLOW": "3"})
        try:
            _wait(lambda: [one["phase"] for one in project.run("list", "--json").json["jobs"]][:1] == ["Running"])
            return project.run("redrive", "job", "--json")
        finally:
            running.send_signal(signal.SIGKILL)
            running.communicate()

    ran = while_it_runs("run", job)
    assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec") and "has not ended" in ran.json["message"], ran.err
    assert project.run("redrive", "job", "--json").code == 2, "nor has one that was killed"
    assert project.run("run", job).code == 0
    project.images(1002)
    ran = while_it_runs("redrive", "job")
    assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec") and "is being run by process" in ran.json["message"], ran.err

    blocked = project.run("run", job, "--json")
    assert blocked.code == 2 and "job-redrive-1" in blocked.json["message"]
    other = project.run("redrive", "job", "--reason", "ImageNotFound", "--json")
    assert other.code == 2 and "pipelinejob cancel job-redrive-1" in other.json["message"], other.err
    ended = project.run("redrive", "job", "--json")
    assert (ended.code, ended.json["name"], counts(ended)) == (0, "job-redrive-1", {"total": 1, "succeeded": 1}), ended.err


def test_an_interrupted_redrive_can_be_cancelled(project: Project) -> None:
    project.catalogue(20, without=[2, 8, 14])
    project.run("run", project.job(sharding=BATCHES))
    project.images(1002, 1008, 1014)
    project.run("redrive", "job", env={"PIPELINEJOB_FAULT": "moved:2"})
    cancelled = project.run("cancel", "job-redrive-1", "--json")
    assert cancelled.json["phase"] == "Cancelled"
    failed = {row["row"] for row in project.run("failures", "job", "--json").json["failures"]}
    urls = {row["url"] for row in project.table("out/job/metadata.csv")}
    assert urls == {name for name in project.tree("out/job") if name.startswith("images/")}, "an image that no row names"
    assert len(urls) == 20 - len(failed) and failed
    rest = project.run("redrive", "job", "--json")
    assert (rest.json["name"], counts(rest)) == ("job-redrive-2", {"total": len(failed), "succeeded": len(failed)})


def test_a_suspended_redrive_goes_on_by_the_same_command(project: Project) -> None:
    project.catalogue(20, without=[2, 8, 14])
    project.run("run", project.job(sharding=BATCHES))
    project.images(1002, 1008, 1014)
    project.run("redrive", "job", env={"PIPELINEJOB_FAULT": "published:1"})
    assert project.run("suspend", "job-redrive-1", "--json").json["phase"] == "Suspended"
    resumed = project.run("resume", "job-redrive-1", "--json")
    assert resumed.code == 2 and "pipelinejob redrive job" in resumed.json["message"]
    ran = project.run("redrive", "job", "--json")
    assert (ran.code, ran.json["name"], counts(ran)) == (0, "job-redrive-1", {"total": 3, "succeeded": 3}), ran.err


def _wait(what: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_the_budget_is_judged_anew(project: Project) -> None:
    project.catalogue(10, without=[2, 4])
    job = project.job(failurePolicy={"maxFailedRowsPercent": 10})
    assert project.run("run", job, "--json").json["reason"] == "FailureBudgetExceeded"
    still = project.run("redrive", "job", "--json")
    assert (still.code, still.json["phase"], counts(still)) == (0, "Complete", {"total": 2, "failed": 2}), "a redrive has no budget"
    assert project.run("status", "job", "--json").json["reason"] == "FailureBudgetExceeded"
    project.images(1002)
    project.run("redrive", "job")
    status = project.run("status", "job", "--json").json
    assert (status["phase"], status["reason"], status["message"], status["rows"]["failed"]) == ("Complete", None, None, 1)

    strict = project.job(failurePolicy={"maxFailedRows": 0})
    project.run("redrive", "job", "-f", strict)
    assert project.run("status", "job", "--json").json["phase"] == "Failed"
    raised = project.job(failurePolicy={"maxFailedRows": 1, "maxFailedRowsPercent": 100})
    project.run("redrive", "job", "-f", raised)
    assert project.run("status", "job", "--json").json["phase"] == "Complete"


def test_a_redrive_that_mends_too_little_is_told_with_its_counts(project: Project) -> None:
    project.catalogue(80, without=range(40))
    big, small = ({"name": "resize", "params": {"width": side, "height": side}} for side in (4000, 16))
    options = {"sharding": {"batchRows": 5}, "parallelism": 1, "functions": [big, small]}  # rows that take longer than a look at the budget
    ran = project.run("run", project.job(**options, failurePolicy={"maxFailedRows": 4}), "--json")
    failed, pending = ran.json["rows"]["failed"], ran.json["rows"]["pending"]
    assert failed > 5 and pending > 0
    project.images(1000)
    project.run("redrive", "job")
    status = project.run("status", "job", "--json").json
    assert status["rows"]["failed"] == failed - 1
    assert status["message"].startswith(f"{failed - 1} of {80 - pending} rows failed") and f"{failed - 1} times" in status["message"]

    killed = project.run("redrive", "job", "--pending", env={"PIPELINEJOB_FAULT": "registered"})
    assert killed.code < 0
    stricter = project.job(**options, failurePolicy={"maxFailedRows": 7})
    assert project.run("redrive", "job", "--pending", "-f", stricter, "--json").code == 0
    status = project.run("status", "job", "--json").json
    assert (status["phase"], status["rows"]["pending"]) == ("Failed", 0) and "maxFailedRows 7" in status["message"]


def test_names_stay_with_those_who_have_them(project: Project) -> None:
    project.images("a", "b")
    project.write_csv([("a", "none"), ("a", "a"), ("b", "b"), ("A", "none")], ("id", "image"))
    project.run("run", project.job(source={"images": "img/{image}.jpg"}))
    assert {row: reason for row, (reason, _) in project.failed().items()} == {0: "ImageNotFound", 1: "DuplicateId", 3: "DuplicateId"}
    project.image("img/none.jpg")
    ran = project.run("redrive", "job", "--json")
    assert counts(ran) == {"total": 3, "succeeded": 1, "failed": 2}, ran.err
    assert [row["url"] for row in project.table("out/job/metadata.csv")] == ["images/000000000/a.jpg", "images/000000000/b.jpg"]
    assert "row 0 " in project.failed()[1][1]


DRAWING = """
from PIL import Image
def draw(image, row):
    if row["n"] in BROKEN:
        raise ValueError("no")
    return Image.new("RGB", (8, 8), row["colour"])
"""


def test_names_of_images_that_functions_make(project: Project) -> None:
    def drawing(broken: str) -> list[dict[str, Any]]:
        project.write(f"BROKEN = {broken!r}\n{DRAWING}", "draw.py")
        return [{"name": "draw", "file": "draw.py"}]

    project.write_csv([("a", 0, "red"), ("a", 1, "lime"), ("b", 2, "blue"), ("c", 3, "gray")], ("id", "n", "colour"))
    project.run("run", project.job(source={"images": None}, functions=drawing("02")))
    green = project.tree("out/job")["images/000000000/a.jpg"]
    job = project.job(source={"images": None}, functions=drawing(""))
    ran = project.run("redrive", "job", "-f", job, "--json")
    assert counts(ran) == {"total": 2, "succeeded": 1, "failed": 1}, ran.err
    assert project.failed() == {0: ("DuplicateId", "row 1 of the same batch has this id already")}
    assert project.tree("out/job")["images/000000000/a.jpg"] == green
    assert [row["n"] for row in project.table("out/job/metadata.csv")] == ["1", "2", "3"]


def test_rows_that_were_never_reached(project: Project) -> None:
    project.catalogue(60)
    job = project.job(sharding=BATCHES)
    expected = clean(project, job)
    (project.root / "img/1003.jpg").rename(project.root / "late.jpg")
    project.run("run", job, "--workers", "1", env={"PIPELINEJOB_FAULT": "published:4"})  # one after the other, from the first
    assert project.run("cancel", "job", "--json").json["phase"] == "Cancelled"
    before = project.run("status", "job", "--json").json["rows"]
    assert before["pending"] and before["failed"] == 1, before
    (project.root / "late.jpg").rename(project.root / "img/1003.jpg")

    failed = project.run("redrive", "job", "--json")
    assert counts(failed) == {"total": 1, "succeeded": 1}, failed.err
    assert project.run("status", "job", "--json").json["phase"] == "Cancelled"
    rest = project.run("redrive", "job", "--pending", "--json")
    assert counts(rest) == {"total": before["pending"], "succeeded": before["pending"]}, rest.err
    status = project.run("status", "job", "--json")
    assert (status.json["phase"], counts(status)) == ("Complete", {"total": 60, "succeeded": 60})
    same_but_manifest(project.tree("out/job"), expected)
    assert "pending" not in manifest(project)
    assert _images(manifest(project)) == _images(json.loads(project.text("out-clean/manifest.json")))


def test_the_work_grows_with_the_failures(project: Project) -> None:
    """50 of 100,000: no other batch of the CSV is read, which shows by the others' bytes, of which none need be there."""
    rows = [(number, "x" if number % 2000 else "bad", "y" * 20) for number in range(100_000)]
    project.write_csv(rows, ("id", "kind", "text"))
    fn = "def mark(image, row):\n    if row['kind'] == 'bad':\n        raise ValueError('no')\n    return {}\n"
    project.write(fn, "fn.py")
    spec: dict[str, Any] = {"source": {"images": None}, "functions": [{"name": "mark", "file": "fn.py"}]}
    assert counts(project.run("run", project.job(**spec), "--json")) == {"total": 100_000, "succeeded": 99_950, "failed": 50}
    path = project.root / "rows.csv"
    when, data = path.stat().st_mtime_ns, path.read_bytes()
    cut = data.index(b"\n1000,")  # from within a batch without failures, up to the next with one
    end = data.index(b"\n1200,")
    path.write_bytes(data[:cut] + b"?" * (end - cut) + data[end:])
    os.utime(path, ns=(when, when))
    project.write("def mark(image, row):\n    return {}\n", "fn.py")
    began = time.monotonic()
    ran = project.run("redrive", "job", "-f", "job.yaml", "--json")
    assert counts(ran) == {"total": 50, "succeeded": 50}, ran.err
    assert time.monotonic() - began < 15
    assert [row["id"] for row in project.table("out/job/metadata.csv")] == [str(number) for number in range(100_000)]


STEPS = [
    "registered",
    "planned",
    "round-opened",
    "adopted",
    "durable:1",
    "durable:3",
    "moved:1",
    "moved:3",
    "published:1",
    "published:3",
    "record",
    "recorded",
    "closed",
    "closed-ledger",
    "collected",
    "tables",
    "manifest",
    "judged",
]
CHILD_STEPS = ["rows-done:2", "summary-written:2", "batch-done:2"]
LATE = [3, 4, 21, 22, 37, 59]


def _failed_job(project: Project) -> str:
    project.catalogue(60, without=[*LATE, 41])
    job = project.job(source={"where": {"year": {"gte": 2009}}}, sharding=BATCHES)
    assert project.run("run", job).code == 0
    for row in LATE:
        project.image(f"img/{1000 + row}.jpg", colour=(row * 7 % 256, row * 13 % 256, row * 29 % 256))
    return job


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, server: str) -> dict[str, str]:
    """The files of a run after the images have come, but for the one that never does."""
    project = Project(tmp_path_factory.mktemp("undisturbed"), None)
    project.catalogue(60, without=[41])
    assert project.run("run", project.job(source={"where": {"year": {"gte": 2009}}}, sharding=BATCHES)).code == 0
    tree = project.tree("out/job")
    failures = project.root / "out/job/failures.csv"
    assert failures.read_text().endswith(",1\n")
    return tree


def _check(project: Project, undisturbed: dict[str, str], ran: Ran) -> None:
    assert ran.code == 0, ran.err
    assert (ran.json["name"], counts(ran)) == ("job-redrive-1", {"total": 7, "succeeded": 6, "failed": 1})
    same_but_manifest({**project.tree("out/job"), "failures.csv": ""}, {**undisturbed, "failures.csv": ""})
    assert attempts(project) == {41: 2}
    status = project.run("status", "job", "--json")
    assert (status.json["phase"], counts(status)) == ("Complete", {"total": 60, "succeeded": 47, "filtered": 12, "failed": 1})
    files = project.tree("out/job")
    assert manifest(project)["files"]["failures.csv"]["sha256"] == files["failures.csv"]
    assert sum(batch["images"] for batch in manifest(project)["batches"]) == 47
    assert not list((project.root / "out/job/.pipelinejob").glob("*/*/*"))  # no attempt is left behind
    records = Path(project.root / "out/job/.pipelinejob/records").glob("*.1.jsonl")
    assert len(list(records)) == 4


@pytest.mark.parametrize("step", STEPS)
def test_the_parent_dies(project: Project, undisturbed: dict[str, str], step: str) -> None:
    _failed_job(project)
    killed = project.run("redrive", "job", env={"PIPELINEJOB_FAULT": step})
    assert killed.code == -signal.SIGKILL, f"{step} was never reached: {killed.err}"
    _check(project, undisturbed, project.run("redrive", "job", "--json"))


@pytest.mark.parametrize("step", CHILD_STEPS)
def test_every_child_dies_at_its_second_batch(project: Project, undisturbed: dict[str, str], step: str) -> None:
    _failed_job(project)
    first = project.run("redrive", "job", "--json", "--workers", "1", env={"PIPELINEJOB_FAULT": step})
    assert "a worker process died" in first.err, f"{step} was never reached"
    _check(project, undisturbed, first if first.code == 0 else project.run("redrive", "job", "--json"))


def test_killed_again_and_again(project: Project, undisturbed: dict[str, str]) -> None:
    _failed_job(project)
    for step in ("planned", "moved:2", "durable:1", "recorded", "collected", "tables"):
        ran = project.run("redrive", "job", "--json", env={"PIPELINEJOB_FAULT": step})
        if ran.code == 0:  # what the children of the one before had finished was all that was left, and nothing was recorded anew
            break
    else:
        ran = project.run("redrive", "job", "--json")
    _check(project, undisturbed, ran)


def test_an_image_that_goes_again_leaves_nothing(project: Project) -> None:
    """Killed between the image's rename and the commit; then its source is gone, and the row fails."""
    project.catalogue(10, without=[3])
    project.run("run", project.job())
    before = project.tree("out/job")
    project.images(1003)
    project.run("redrive", "job", env={"PIPELINEJOB_FAULT": "moved:1"})
    assert (project.root / "out/job/images/000000000/1003.jpg").exists()
    for attempt in (project.root / "out/job/.pipelinejob").glob("*/open-*/*/*/.batch.jsonl"):
        attempt.unlink()  # as when the attempt went with its machine
    (project.root / "img/1003.jpg").unlink()
    ran = project.run("redrive", "job", "--json")
    assert counts(ran) == {"total": 1, "failed": 1}, ran.err
    assert {**project.tree("out/job"), "failures.csv": "", "manifest.json": ""} == {**before, "failures.csv": "", "manifest.json": ""}
    assert attempts(project) == {3: 2}
