"""What became of every row, and why: the order of the checks, the counts, failures.csv and the failure budget."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from support.project import Project

PICKY = """
import time
def mark(image, row):
    if row["do"] == "raise":
        raise ValueError("no")
    if row["do"] == "hang":
        time.sleep(60)
    if row["do"] == "skip":
        return None
    if row["do"] == "huge":
        return image.resize((66000, 1))
    return image
"""
CHAIN = [{"name": "mark", "file": "fn.py", "timeoutSeconds": 1}]
COLUMNS = ("id", "keep", "image", "do")


def jpeg(size: tuple[int, int] = (30, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, "JPEG")
    return out.getvalue()


def files(project: Project) -> None:
    """One image for each thing that can be wrong with one."""
    project.write(PICKY, "fn.py")
    project.file("img/ok.jpg", jpeg())
    project.file("img/wide.jpg", jpeg((101, 100)))
    project.file("img/just.jpg", jpeg((100, 100)))
    project.file("img/heavy.jpg", jpeg() + b"\0" * 5000)
    project.file("img/heavy-and-broken.jpg", b"x" * 5000)
    project.file("img/text.jpg", b"no image")
    project.file("img/empty.jpg", b"")
    project.file("img/cut.jpg", jpeg((90, 90))[:-300])
    (project.root / "img/folder.jpg").mkdir()
    os.mkfifo(project.root / "img/pipe.jpg")
    outside = project.root.parent / f"{project.root.name}-outside.jpg"
    outside.write_bytes(jpeg())
    (project.root / "img/escape.jpg").symlink_to(outside)
    (project.root / "img/link.jpg").symlink_to("ok.jpg")
    (project.root / "img/dangling.jpg").symlink_to("nowhere.jpg")
    (project.root / "img/loop.jpg").symlink_to("loop.jpg")


def source(**more: object) -> dict[str, object]:
    return {"images": "img/{image}.jpg", "maxPixels": 10_000, "maxBytes": 4000, **more}


def test_each_reason_by_an_example(project: Project) -> None:
    files(project)
    rows: list[tuple[str, str, str, str, str, str]] = [  # id, keep, image, do, outcome, message
        ("1", "in", "ok", "", "", ""),
        ("2", "out", "ok", "", "filtered", ""),
        ("3", "in", "ok", "skip", "skipped", ""),
        ("", "in", "ok", "", "InvalidOutputName", "empty"),
        ("a/b", "in", "ok", "", "InvalidOutputName", "slash"),
        ("a\\b", "in", "ok", "", "InvalidOutputName", "backslash"),
        ("a\tb", "in", "ok", "", "InvalidOutputName", "control character"),
        ("a\x7fb", "in", "ok", "", "InvalidOutputName", "control character"),
        ("a\x85b", "in", "ok", "", "InvalidOutputName", "control character"),
        (".hidden", "in", "ok", "", "InvalidOutputName", "dot"),
        ("x" * 252, "in", "ok", "", "InvalidOutputName", "256"),
        ("é" * 126, "in", "ok", "", "InvalidOutputName", "256"),
        ("x" * 251, "in", "ok", "", "", ""),
        ("1", "in", "ok", "", "DuplicateId", "row 0"),
        ("Straße", "in", "ok", "", "", ""),
        ("STRASSE", "in", "ok", "", "DuplicateId", "row 14"),
        ("caf\u00e9", "in", "ok", "", "", ""),
        ("CAFE\u0301", "in", "ok", "", "DuplicateId", "row 16"),
        ("20", "in", "nowhere", "", "ImageNotFound", "img/nowhere.jpg"),
        ("21", "in", "folder", "", "ImageNotFound", "img/folder.jpg: is a folder"),
        ("22", "in", "", "", "ImageNotFound", "'image' is empty"),
        ("23", "in", "../x", "", "ImageNotFound", "no such file"),
        ("24", "in", "../../x", "", "ImageNotFound", "outside the data root"),
        ("25", "in", "escape", "", "ImageNotFound", "outside the data root"),
        ("26", "in", "pipe", "", "ImageNotFound", "not a regular file"),
        ("27", "in", "dangling", "", "ImageNotFound", "no such file"),
        ("28", "in", "loop", "", "ImageNotFound", "symbolic links"),
        ("29", "in", "link", "", "", ""),
        ("30", "in", "n" * 300, "", "ImageNotFound", "too long"),
        ("31", "in", "ok.jpg/x", "", "ImageNotFound", "no such file"),
        ("40", "in", "wide", "", "ImageTooLarge", "101x100 = 10100 pixels"),
        ("41", "in", "just", "", "", ""),
        ("42", "in", "heavy", "", "ImageTooLarge", "source.maxBytes 4000"),
        ("43", "in", "heavy-and-broken", "", "ImageTooLarge", "source.maxBytes 4000"),
        ("50", "in", "text", "", "ImageInvalid", "not an image"),
        ("51", "in", "empty", "", "ImageInvalid", "empty"),
        ("52", "in", "cut", "", "ImageInvalid", "truncated"),
        ("60", "in", "ok", "raise", "FunctionError", "ValueError: no"),
        ("61", "in", "ok", "hang", "FunctionTimeout", "1 s"),
        ("70", "in", "ok", "huge", "OutputError", "66000x1"),
        ("80", "in", "ok", "", "", ""),
    ]
    project.write_csv([row[:4] for row in rows], COLUMNS)
    ran = project.run("run", project.job(source=source(where={"keep": "in"}), functions=CHAIN), "--json")

    assert ran.code == 0, ran.err
    expected = {number: (row[4], row[5]) for number, row in enumerate(rows) if row[4] not in ("", "filtered", "skipped")}
    found = project.failed()
    assert {row: reason for row, (reason, _) in found.items()} == {row: reason for row, (reason, _) in expected.items()}
    for row, (_, part) in expected.items():
        assert part in found[row][1], (rows[row], found[row])
        assert str(project.root) not in found[row][1]
    assert [item["id"] for item in project.table("out/job/failures.csv")] == [rows[row][0] for row in expected]
    assert [item["id"] for item in project.table("out/job/metadata.csv")] == [row[0] for row in rows if row[4] == ""]
    succeeded = sum(row[4] == "" for row in rows)
    assert ran.json["rows"] == {
        "total": len(rows), "succeeded": succeeded, "filtered": 1, "skipped": 1, "failed": len(expected), "pending": 0,
    }  # fmt: skip
    functions = {item["row"]: item["function"] for item in project.table("out/job/failures.csv") if item["function"]}
    assert sorted(functions) == ["37", "38"] and set(functions.values()) == {"mark"}

    listed = project.run("failures", "job", "--json").json["failures"]
    assert [(item["row"], item["reason"]) for item in listed] == [(row, reason) for row, (reason, _) in expected.items()]
    only = project.run("failures", "job", "--reason", "DuplicateId", "--json").json["failures"]
    assert [item["row"] for item in only] == [row for row, (reason, _) in expected.items() if reason == "DuplicateId"]
    status = project.run("status", "job")
    for reason, count in Counter(reason for reason, _ in expected.values()).most_common(3):
        assert reason in status.out and str(count) in status.out


def test_the_first_check_that_applies_decides(project: Project) -> None:
    """Rows to which several checks apply: everything after the first is wrong with them, too."""
    files(project)
    project.write(
        "id,keep,image,do\n"
        "1,in,ok,\n"  # 0 owns the name 1
        ".x,out,nowhere,raise,too many\n"  # 1 malformed, though where would have dropped it
        ".x,out,nowhere,raise\n"  # 2 filtered, though its name is bad
        "1,out,ok,\n"  # 3 filtered, though a duplicate
        ".x,in,nowhere,raise\n"  # 4 name, though the image is missing
        ".x,in,nowhere,raise\n"  # 5 name again: a bad name is nobody's
        "1,in,nowhere,raise\n"  # 6 duplicate, though the image is missing
        "2,in,nowhere,raise\n"  # 7 image missing; it owns the name 2
        "2,in,ok,\n"  # 8 duplicate of a row that failed later
        "3,in,heavy-and-broken,raise\n"  # 9 too many bytes, though no image
        "4,in,text,raise\n"  # 10 no image, though the function would raise
        "5,in,ok,skip\n"  # 11 skipped; it owns the name 5
        "5,in,ok,\n"  # 12 duplicate
        "6,out,ok,\n"  # 13 filtered: it owns nothing
        "6,in,ok,\n"  # 14 ok
        "7,in,ok,huge,x\n"  # 15 malformed
    )
    ran = project.run("run", project.job(source=source(where={"keep": "in"}), functions=CHAIN), "--json")
    assert ran.code == 0, ran.err
    assert {row: reason for row, (reason, _) in project.failed().items()} == {
        1: "MalformedRow", 4: "InvalidOutputName", 5: "InvalidOutputName", 6: "DuplicateId", 7: "ImageNotFound", 8: "DuplicateId",
        9: "ImageTooLarge", 10: "ImageInvalid", 12: "DuplicateId", 15: "MalformedRow",
    }  # fmt: skip
    assert "row 7" in project.failed()[8][1] and "row 11" in project.failed()[12][1]
    assert ran.json["rows"] == {"total": 16, "succeeded": 2, "filtered": 3, "skipped": 1, "failed": 10, "pending": 0}


def test_the_same_id_in_another_batch_is_no_duplicate(project: Project) -> None:
    project.images("a")
    project.write_csv([("a", 1), ("a", 2), ("a", 3), ("a", 4)], ("id", "n"))
    ran = project.run("run", project.job(sharding={"batchRows": 2}), "--json")
    assert ran.json["rows"] | {"succeeded": 2, "failed": 2} == ran.json["rows"]
    assert project.failed() == {
        1: ("DuplicateId", "row 0 of the same batch has this id already"),
        3: ("DuplicateId", "row 2 of the same batch has this id already"),
    }


WHERE = [
    ({"v": 10}, "10|10.0| 10 |1e1|+10|1_0"),
    ({"v": [10, "x"]}, "10|10.0| 10 |1e1|+10|1_0|x"),
    ({"v": "10"}, "10"),
    ({"v": " 10 "}, " 10 "),
    ({"v": ""}, ""),
    ({"v": "x"}, "x"),
    ({"v": {"ne": 10}}, "|x|X|9|11|nan|inf|abc|10abc"),
    ({"v": {"ne": "10"}}, "10.0| 10 |1e1|+10|1_0||x|X|9|11|nan|inf|abc|10abc"),
    ({"v": {"notIn": [10, "x", ""]}}, "X|9|11|nan|inf|abc|10abc"),
    ({"v": {"in": ["x", 9.0]}}, "x|9"),
    ({"v": {"gte": 10}}, "10|10.0| 10 |1e1|+10|1_0|11"),
    ({"v": {"gt": 10}}, "11"),
    ({"v": {"lt": 10}}, "9"),
    ({"v": {"gt": 9, "lt": 11}}, "10|10.0| 10 |1e1|+10|1_0"),
    ({"v": {"gte": "x"}}, "x"),
    ({"v": {"lt": "10"}}, "| 10 |+10"),
    ({"v": {"contains": "bc"}}, "abc|10abc"),
    ({"v": {"contains": ""}}, "10|10.0| 10 |1e1|+10|1_0||x|X|9|11|nan|inf|abc|10abc"),
    ({"v": {"in": []}}, None),
    ({"v": 10, "id": {"lt": 2}}, "10|10.0"),
]
VALUES = ("10", "10.0", " 10 ", "1e1", "+10", "1_0", "", "x", "X", "9", "11", "nan", "inf", "abc", "10abc")


@pytest.mark.parametrize(("where", "matching"), WHERE, ids=[json.dumps(where) for where, _ in WHERE])
def test_where(project: Project, where: dict[str, object], matching: str | None) -> None:
    project.write_csv(enumerate(VALUES), ("id", "v"))
    ran = project.run("plan", project.job(source={"images": None, "where": where}, functions=[]), "--count", "--json")
    assert ran.code == 0, ran.err
    expected = [] if matching is None else matching.split("|")
    assert (ran.json["rows"]["pending"], ran.json["rows"]["filtered"]) == (len(expected), len(VALUES) - len(expected))


def test_where_decides_which_rows_run(project: Project) -> None:
    project.write_csv(enumerate(VALUES), ("id", "v"))
    ran = project.run("run", project.job(source={"images": None, "where": {"v": {"gte": 10, "ne": 11}}}, functions=[]), "--json")
    assert ran.code == 0, ran.err
    assert [row["v"] for row in project.table("out/job/metadata.csv")] == ["10", "10.0", " 10 ", "1e1", "+10", "1_0"]
    assert project.failed() == {}


@pytest.mark.parametrize(
    ("where", "path", "named"),
    [
        ({"v": True}, "spec.source.where.v", "quote it"),
        ({"v": None}, "spec.source.where.v", "quote it"),
        ({"v": ["a", False]}, "spec.source.where.v[1]", "quote it"),
        ({"v": {"ne": None}}, "spec.source.where.v.ne", "quote it"),
        ({"v": {"gtee": 1}}, "spec.source.where.v.gtee", "gte"),
        ({"v": {"in": "a"}}, "spec.source.where.v.in", "list"),
        ({"v": {"gte": ["a"]}}, "spec.source.where.v.gte", "['a']"),
        ({"v": {}}, "spec.source.where.v", "at least one"),
        ({"v": {"contains": 1}}, "spec.source.where.v.contains", "quote it"),
    ],
)
def test_a_where_that_is_none_is_refused(project: Project, where: dict[str, object], path: str, named: str) -> None:
    project.write_csv([(1, 2)], ("id", "v"))
    ran = project.run("run", project.job(source={"images": None, "where": where}, functions=[]), "--json")
    assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec"), ran.err
    assert path in ran.json["message"] and named in ran.json["message"]


COUNTING = """
import os
def mark(image, row):
    with open(ROOT + "/ran.txt", "a") as file:
        file.write(row["id"] + "\\n")
    if row["id"] in SKIP:
        return None
    return {}
"""


def counting(project: Project, skip: str = "") -> list[dict[str, object]]:
    """A function that notes each call in ran.txt."""
    project.write(f"ROOT = {str(project.root)!r}\nSKIP = {skip.split()!r}\n{COUNTING}", "fn.py")
    return [{"name": "mark", "file": "fn.py"}]


def test_a_budget_is_broken_above_its_percentage_not_at_it(project: Project) -> None:
    project.catalogue(20, without=[3])  # 10 filtered, 1 of 10 failed: 10%
    functions, where = counting(project, skip="1001 1005"), {"where": {"gender": "Women"}}
    at = project.run("run", project.job("at", functions=functions, source=where, failurePolicy={"maxFailedRowsPercent": 10}), "--json")
    assert (at.code, at.json["phase"], at.json["reason"], at.json["message"]) == (0, "Complete", None, None), at.err
    assert at.json["rows"] == {"total": 20, "succeeded": 7, "filtered": 10, "skipped": 2, "failed": 1, "pending": 0}

    above = project.run("run", project.job(functions=functions, source=where, failurePolicy={"maxFailedRowsPercent": 9.99}), "--json")
    assert (above.code, above.json["phase"], above.json["reason"]) == (1, "Failed", "FailureBudgetExceeded"), above.err
    assert "spec.failurePolicy.maxFailedRowsPercent" in above.json["message"]
    assert above.json["rows"] == at.json["rows"]
    assert project.tree("out/job").keys() == project.tree("out/at").keys()  # what is done is there, too
    assert list(project.failed()) == [3]
    calls = project.text("ran.txt")

    raised = project.run("run", project.job(functions=functions, source=where, failurePolicy={"maxFailedRowsPercent": 10}), "--json")
    assert (raised.code, raised.json["phase"], raised.json["reason"], raised.json["message"]) == (0, "Complete", None, None)
    assert raised.json["uid"] == above.json["uid"]
    assert project.text("ran.txt") == calls, "rows ran again"
    assert project.tree("out/job") == project.tree("out/at") | {"manifest.json": project.tree("out/job")["manifest.json"]}
    assert project.run("status", "job", "--json").json["phase"] == "Complete"


def test_a_budget_of_rows(project: Project) -> None:
    project.catalogue(10, without=[2, 4], broken=[5])
    policy = {"maxFailedRowsPercent": 100, "maxFailedRows": 2}
    ran = project.run("run", project.job(failurePolicy=policy), "--json")
    assert (ran.code, ran.json["reason"]) == (1, "FailureBudgetExceeded"), ran.err
    assert "spec.failurePolicy.maxFailedRows 2" in ran.json["message"]
    again = project.run("run", "job.yaml", "--json")
    assert (again.code, again.json["reason"]) == (1, "FailureBudgetExceeded"), "nothing was raised"

    ran = project.run("run", project.job(failurePolicy={**policy, "maxFailedRows": 3}), "--json")
    assert (ran.code, ran.json["phase"]) == (0, "Complete"), ran.err


def test_a_broken_budget_stops_the_job_long_before_its_end_and_a_raised_one_goes_on_with_it(project: Project) -> None:
    project.catalogue(3000, without=range(0, 3000, 10))
    slow = "import time\ndef mark(image, row):\n    time.sleep(0.008)\n    return image\n"
    project.write(slow, "fn.py")
    options = {"functions": [{"name": "mark", "file": "fn.py"}], "sharding": {"batchRows": 50}}
    ran = project.run("run", project.job(**options, failurePolicy={"maxFailedRowsPercent": 5}), "--json", timeout=120)
    assert (ran.code, ran.json["phase"], ran.json["reason"]) == (1, "Failed", "FailureBudgetExceeded"), ran.err
    rows = ran.json["rows"]
    assert 1000 <= rows["succeeded"] + rows["failed"] < 2500 and rows["pending"] == 3000 - rows["succeeded"] - rows["failed"], rows
    assert "ImageNotFound" in ran.json["message"] and "maxFailedRowsPercent" in ran.json["message"]
    assert len(project.table("out/job/metadata.csv")) == rows["succeeded"] and len(project.failed()) == rows["failed"]

    again = project.run("run", "job.yaml", "--json")
    assert (again.code, again.json["rows"]) == (1, rows), "nothing was raised"

    raised = project.run("run", project.job(**options, failurePolicy={"maxFailedRowsPercent": 10}), "--json", timeout=200)
    assert (raised.code, raised.json["phase"], raised.json["uid"]) == (0, "Complete", ran.json["uid"]), raised.err
    assert raised.json["rows"] == {"total": 3000, "succeeded": 2700, "filtered": 0, "skipped": 0, "failed": 300, "pending": 0}


def test_a_number_of_failed_rows_stops_the_job_at_once(project: Project) -> None:
    project.catalogue(4000, without=range(4000))
    ran = project.run("run", project.job(sharding={"batchRows": 10}, failurePolicy={"maxFailedRows": 60}), "--json")
    assert (ran.code, ran.json["reason"]) == (1, "FailureBudgetExceeded"), ran.err
    assert 60 < ran.json["rows"]["failed"] < 1000, "it used to look every two seconds only"


def test_a_budget_of_nothing_and_the_default(project: Project) -> None:
    project.catalogue(20, without=[2])
    ran = project.run("run", project.job("strict", failurePolicy={"maxFailedRows": 0}), "--json")
    assert (ran.code, ran.json["reason"]) == (1, "FailureBudgetExceeded")
    ran = project.run("run", project.job("default", failurePolicy={}), "--json")
    assert (ran.code, ran.json["reason"]) == (0, None), "1 of 20 is 5%, which is the default"
    project.catalogue(19, without=[2])
    ran = project.run("run", project.job("default-19", failurePolicy={}), "--json")
    assert (ran.code, ran.json["reason"]) == (1, "FailureBudgetExceeded")
    assert "maxFailedRowsPercent 5" in ran.json["message"] and "ImageNotFound" in ran.json["message"]


def test_a_job_in_which_every_row_is_filtered_is_complete(project: Project) -> None:
    project.catalogue(5)
    ran = project.run("run", project.job(source={"where": {"gender": "None"}}, failurePolicy={"maxFailedRowsPercent": 0}), "--json")
    assert (ran.code, ran.json["rows"]["filtered"]) == (0, 5), ran.err
    assert project.table("out/job/metadata.csv") == []
    assert [path.name for path in Path(project.root / "out/job").iterdir() if path.name.startswith("images")] in (["images"], [])
