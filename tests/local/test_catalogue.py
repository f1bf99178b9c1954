"""44,000 rows with 1% corrupt, 1% missing and 20 malformed: exact counts, and exactly those rows in failures.csv."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.project import Project

REPOSITORY = Path(__file__).parents[2]
ROWS = 44_000


@pytest.mark.timeout(400)
def test_44000_rows(bare_project: Project) -> None:
    folder = bare_project.root / "fashion"
    bad = ["--corrupt", "1%", "--missing", "1%", "--malformed", "20"]
    options = ["--rows", str(ROWS), "--distinct", "1000", "--seed", "3", "--expected", *bad]
    subprocess.run([sys.executable, str(REPOSITORY / "data/generate.py"), "--out", str(folder), *options], check=True)
    expected = json.loads((folder / "expected.json").read_text())

    ran = bare_project.run("run", str(REPOSITORY / "manifests/examples/fashion.yaml"), "--json", timeout=300)

    assert ran.code == 0, ran.err
    counts = ran.json["rows"]
    assert counts == {"total": ROWS, "succeeded": 43_100, "filtered": 0, "skipped": 0, "failed": 900, "pending": 0}
    assert "died" not in ran.err
    reasons = {(int(row["row"]), row["reason"]) for row in bare_project.table("out/fashion/failures.csv")}
    assert reasons == (
        {(item["row"], "ImageInvalid") for item in expected["corrupt"]}
        | {(item["row"], "ImageNotFound") for item in expected["missing"]}
        | {(item["row"], "MalformedRow") for item in expected["malformed"]}
    )
    failed = {row for row, _ in reasons}
    with open(folder / "styles.csv", newline="", encoding="utf-8") as file:
        source = [cells for row, cells in enumerate(list(csv.reader(file))[1:]) if row not in failed]
    with open(bare_project.root / "out/fashion/metadata.csv", newline="", encoding="utf-8") as file:
        assert [cells[:-1] for cells in list(csv.reader(file))[1:]] == source
