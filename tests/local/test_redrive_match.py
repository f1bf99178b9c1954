"""Failed rows of a CSV that was changed since, found again by their ids."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.project import COLUMNS, Project, Ran

BATCHES = {"batchRows": 5, "rowsPerShard": 20}
WHERE = {"year": {"gte": 2009}}
ROWS = 60
LATE = [3, 4, 21, 22, 37, 59]


def counts(ran: Ran) -> dict[str, int]:
    return {key: count for key, count in ran.json["rows"].items() if count}


def lines(project: Project) -> list[str]:
    return (project.root / "rows.csv").read_text().splitlines()


def rewrite(project: Project, change: Callable[[list[str]], list[str]]) -> None:
    """Changes the lines behind the header."""
    header, *rest = lines(project)
    (project.root / "rows.csv").write_text("\n".join([header, *change(rest)]))  # the last line has no end


def failed_job(project: Project, missing: list[int]) -> str:
    project.catalogue(ROWS, without=missing)
    job = project.job(source={"where": WHERE}, sharding=BATCHES)
    assert project.run("run", job).code == 0
    return job


def arrive(project: Project, rows: list[int]) -> None:
    for row in rows:
        project.image(f"img/{1000 + row}.jpg", colour=(row * 7 % 256, row * 13 % 256, row * 29 % 256))


def moved_about(rest: list[str]) -> list[str]:
    """A new line at the front, the others turned round, with an empty line among them."""
    return ["2000,Men,Fall,2012,New", *reversed(rest[30:]), "", *rest[:30]]


def test_rows_that_moved(project: Project, tmp_path: Path) -> None:
    failed_job(project, LATE)
    rewrite(project, moved_about)
    arrive(project, LATE)
    refused = project.run("redrive", "job", "--json")
    assert (refused.code, refused.json["reason"]) == (1, "InputChanged") and "--match-by-id" in refused.json["message"]

    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert (ran.code, ran.json["name"], counts(ran)) == (0, "job-redrive-1", {"total": 6, "succeeded": 6}), ran.err
    assert "stay failed" not in ran.err
    other = Project(tmp_path / "clean", None)
    other.root.mkdir()
    other.catalogue(ROWS)
    assert other.run("run", other.job(source={"where": WHERE}, sharding=BATCHES)).code == 0
    assert {**project.tree("out/job"), "manifest.json": ""} == {**other.tree("out/job"), "manifest.json": ""}, (
        "as a clean run of the old file"
    )
    told = json.loads(project.text("out/job/manifest.json"))["redrives"][0]
    assert told["selection"] == {"matchById": True, "pending": False, "reasons": None}
    assert told["input"]["sha256"] == hashlib.sha256((project.root / "rows.csv").read_bytes()).hexdigest() and not any(
        told["input"]["left"].values()
    )
    assert not list((project.root / "out/job/.pipelinejob").glob("*/matched.csv"))
    again = project.run("redrive", "job", "--match-by-id", "--json")
    assert (again.code, counts(again)) == (0, {})


def test_rows_that_were_mended(project: Project) -> None:
    """The cells are the new file's, whatever `where` says of them by now."""
    failed_job(project, [3, 21])
    rewrite(project, lambda rest: [*rest[:3], '1003,Women,Fall,1999,"Skirt, 3"', *rest[4:]])
    arrive(project, [3, 21])
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert counts(ran) == {"total": 2, "succeeded": 2}, ran.err
    (row,) = [row for row in project.table("out/job/metadata.csv") if row["id"] == "1003"]
    assert (row["name"], row["year"], row["url"]) == ("Skirt, 3", "1999", "images/000000000/1003.jpg")


def test_what_stays_failed_is_told(project: Project) -> None:
    rows: list[tuple[Any, ...]] = [(f"r{row}", "Men", "Fall", 2010, f"Shirt {row}") for row in range(20)]
    rows[7] = ("r6", "Men", "Fall", 2010, "the same id in the same batch")
    rows[15] = ("r2", "Men", "Fall", 2010, "the same id in another batch")
    rows[9] = ("", "Men", "Fall", 2010, "no id")
    project.write_csv(rows, COLUMNS)
    with open(project.root / "rows.csv", "a") as file:
        file.write("malformed\n")
    assert project.run("run", project.job(sharding=BATCHES)).code == 0
    before = project.failed()
    assert (before[7][0], before[9][0], before[20][0]) == ("DuplicateId", "InvalidOutputName", "MalformedRow") and len(before) == 21

    def change(rest: list[str]) -> list[str]:
        kept = [line for line in rest if not line.startswith(("r3,", "r4,"))]  # two are gone
        return [*kept, "r5,Men,Fall,2010,once more", "r8,too,few"] if "r8" else kept

    rewrite(project, lambda rest: [line if not line.startswith("r8,") else "r8,broken" for line in change(rest)])
    for row in range(20):
        project.image(f"img/r{row}.jpg")
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    healed = {0, 1, 10, 11, 12, 13, 14, 16, 17, 18, 19}
    assert counts(ran) == {"total": len(healed), "succeeded": len(healed)}, ran.err
    assert set(project.failed()) == set(before) - healed
    for told in ("10 failed rows stay failed", "3 without an id", "2 of an id that several", "3 not there", "2 there more than once"):
        assert told in ran.err, (told, ran.err)
    left = json.loads(project.text("out/job/manifest.json"))["redrives"][0]["input"]["left"]
    assert sum(left.values()) == 10
    status = project.run("status", "job", "--json").json
    assert (status["rows"]["succeeded"], status["rows"]["failed"]) == (len(healed), 10)


def test_some_reasons_only(project: Project) -> None:
    project.catalogue(20, without=[3], broken=[5])
    project.run("run", project.job(sharding=BATCHES))
    rewrite(project, lambda rest: rest[::-1])
    arrive(project, [3, 5])
    ran = project.run("redrive", "job", "--match-by-id", "--reason", "ImageInvalid", "--json")
    assert counts(ran) == {"total": 1, "succeeded": 1}, ran.err
    assert set(project.failed()) == {3}


def test_rows_that_fail_again(project: Project) -> None:
    failed_job(project, LATE)
    rewrite(project, moved_about)
    arrive(project, LATE[:2])
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert counts(ran) == {"total": 6, "succeeded": 2, "failed": 4}, ran.err
    assert {int(row["row"]): int(row["attempts"]) for row in project.table("out/job/failures.csv")} == {row: 2 for row in LATE[2:]}
    arrive(project, LATE)
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert (ran.json["name"], counts(ran)) == ("job-redrive-2", {"total": 4, "succeeded": 4}), ran.err


def test_a_file_that_was_not_changed(project: Project) -> None:
    failed_job(project, [3])
    arrive(project, [3])
    assert counts(project.run("redrive", "job", "--match-by-id", "--json")) == {"total": 1, "succeeded": 1}


def test_functions_that_name_images_without_any_in_the_source(project: Project) -> None:
    """Names that earlier rows made are theirs: a matched row cannot take one."""
    project.write(
        "from PIL import Image\ndef draw(image, row):\n    assert row['name'] != 'bad'\n    return Image.new('RGB', (4, 4))\n", "fn.py"
    )
    project.write_csv([("a", "m", "f", 1, "good"), ("A", "m", "f", 1, "bad"), ("b", "m", "f", 1, "bad")], COLUMNS)
    functions = [{"name": "draw", "file": "fn.py"}]
    assert project.run("run", project.job(source={"images": None}, functions=functions)).code == 0
    assert {reason for reason, _ in project.failed().values()} == {"FunctionError"}
    project.write_csv([("b", "m", "f", 1, "good"), ("A", "m", "f", 1, "good")], COLUMNS)
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert counts(ran) == {"total": 2, "succeeded": 1, "failed": 1}, ran.err
    assert project.failed()[1][0] == "DuplicateId"


def test_refusals(project: Project) -> None:
    failed_job(project, [3])
    files = project.tree("out")
    ran = project.run("redrive", "job", "--match-by-id", "--pending", "--json")
    assert ran.code == 2 and "--pending" in ran.json["message"]
    old = (project.root / "rows.csv").read_bytes()
    for text, code, named in (
        (old.replace(b"id,gender", b"key,gender"), 2, "columns"),
        (old.replace(b"id,gender", b"id,other"), 2, "columns"),
        (b"", 1, "rows.csv"),
        (old + b'"never closed', 1, "line 62"),
    ):
        (project.root / "rows.csv").write_bytes(text)
        ran = project.run("redrive", "job", "--match-by-id", "--json")
        assert ran.code == code and named in ran.json["message"], ran
    (project.root / "rows.csv").write_bytes(old.replace(b"1003,", b"9003,"))
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert (ran.code, counts(ran)) == (0, {}) and "1 not there" in ran.err
    assert project.run("list", "--json").json["jobs"][0]["name"] == "job", "no job was made for nothing"
    assert project.tree("out") == files


STEPS = [
    "registered",
    "matched",
    "planned",
    "round-opened",
    "moved:2",
    "published:2",
    "recorded",
    "closed",
    "collected",
    "tables",
    "judged",
]


@pytest.mark.parametrize("step", STEPS)
def test_killed_and_gone_on_with(project: Project, step: str) -> None:
    """Once it is planned, the CSV may change again, or go."""
    failed_job(project, LATE)
    rewrite(project, moved_about)
    arrive(project, LATE)
    killed = project.run("redrive", "job", "--match-by-id", env={"PIPELINEJOB_FAULT": step})
    assert killed.code == -signal.SIGKILL, f"{step} was never reached: {killed.err}"
    other = project.run("redrive", "job", "--reason", "ImageNotFound", "--match-by-id", "--json")
    assert other.code == 2 and "--match-by-id" in other.json["message"]
    if step not in ("registered", "matched"):
        (project.root / "rows.csv").unlink()
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert (ran.code, ran.json["name"], counts(ran)) == (0, "job-redrive-1", {"total": 6, "succeeded": 6}), ran.err
    assert project.failed() == {}
    assert len(project.table("out/job/metadata.csv")) == ROWS - ROWS // 5  # `where` filters each fifth
    assert {item.name for item in (project.root / "out/job/.pipelinejob").iterdir()} == {"owner.json", "lock", "records"}


def test_cancelled_before_its_plan(project: Project) -> None:
    failed_job(project, LATE)
    rewrite(project, moved_about)
    project.run("redrive", "job", "--match-by-id", env={"PIPELINEJOB_FAULT": "matched"})
    assert project.run("redrive", "job", "--json").code == 1, "the CSV is another one"
    assert project.run("cancel", "job-redrive-1").code == 0
    assert not list((project.root / "out/job/.pipelinejob").glob("*/matched.csv"))
    arrive(project, LATE)
    ran = project.run("redrive", "job", "--match-by-id", "--json")
    assert (ran.json["name"], counts(ran)) == ("job-redrive-2", {"total": 6, "succeeded": 6})


def test_a_plain_one_while_a_matched_one_is_under_way(project: Project) -> None:
    failed_job(project, LATE)
    old = (project.root / "rows.csv").read_bytes()
    rewrite(project, moved_about)
    project.run("redrive", "job", "--match-by-id", env={"PIPELINEJOB_FAULT": "planned"})
    (project.root / "rows.csv").write_bytes(old)
    ran = project.run("redrive", "job", "--json")
    assert ran.code == 2 and "--match-by-id" in ran.json["message"] and "cancel job-redrive-1" in ran.json["message"]
