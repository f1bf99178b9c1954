"""`pipelinejob plan --sample N`: the chain on a few rows, drawn before and after, and nothing of the job's written."""

from __future__ import annotations

from PIL import Image

from support.project import Project

CODE = """
def mark(image, row):
    if row["id"] == "1002":
        return None
    if row["id"] == "1004":
        raise ValueError("four is <bad>")
    return image.rotate(90, expand=True), {"twice": int(row["id"]) * 2}
"""


def test_a_sample_is_what_a_run_makes_of_these_rows(project: Project) -> None:
    project.catalogue(40)
    project.write(CODE, "fn.py")
    (project.root / "img/1005.jpg").unlink()
    job = project.job(functions=[{"name": "mark", "file": "fn.py"}], sharding={"batchRows": 4}, failurePolicy={"maxFailedRowsPercent": 50})
    before = sorted(project.root.rglob("*"))
    ran = project.run("plan", job, "--sample", "10", "--json")
    assert ran.code == 0, ran.err
    tried = ran.json["tried"]
    assert {row["id"]: row["status"] for row in tried["rows"]} == {
        str(1000 + row): {2: "skipped", 4: "failed", 5: "failed"}.get(row, "succeeded") for row in range(10)
    }
    said = {row["id"]: row for row in tried["rows"]}
    assert said["1003"]["columns"] == {"twice": 2006}
    assert said["1004"]["message"] == "FunctionError: mark: ValueError: four is <bad>"
    assert said["1005"]["message"].startswith("ImageNotFound: img/1005.jpg")
    assert tried["estimatedSeconds"] >= 0
    made = [path.name for path in sorted(project.root.rglob("*")) if path not in before and "__pycache__" not in str(path)]
    assert made == ["job-sample.html", "job-sample.png"], "nothing of the job's, no database"

    page = (project.root / "job-sample.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 9 + 7, "all but the missing one before; the succeeded after"
    assert "four is &lt;bad&gt;" in page and "twice = 2006" in page
    with Image.open(project.root / "job-sample.png") as sheet:
        assert sheet.size[1] > 4 * 192 and len(sheet.convert("RGB").getcolors(1 << 24) or []) > 100

    run = project.run("run", job, "--json")
    assert run.code == 0, run.err
    assert {row["id"]: row["twice"] for row in project.table("out/job/metadata.csv")}["1003"] == "2006"
    shown = project.run("plan", job, "--sample", "10")
    assert "7 succeeded, 1 skipped, 2 failed" in shown.out and "row 4: FunctionError" in shown.out


def test_where_and_batches_of_a_sample(project: Project) -> None:
    project.catalogue(30)
    job = project.job(
        sharding={"batchRows": 3}, source={"csv": "rows.csv", "images": "img/{id}.jpg", "where": {"id": {"gte": 1020}}}, functions=[]
    )
    tried = project.run("plan", job, "--sample", "5", "--json").json["tried"]
    assert [row["row"] for row in tried["rows"]] == [20, 21, 22, 23, 24]
    assert {row["status"] for row in tried["rows"]} == {"succeeded"}
    assert "tried" not in project.run("plan", job, "--json").json
