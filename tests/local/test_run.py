"""A job from its file to its results, as a user runs it."""

from __future__ import annotations

import hashlib
import json

from support.project import Project


def test_every_row_is_accounted_for(project: Project) -> None:
    project.catalogue(50, without=[3, 4], broken=[8])
    with open(project.root / "rows.csv", "a") as file:
        file.write("1050,Men,Fall,2010,Shirt, with a comma\n")
    job = project.job(source={"where": {"gender": "Men"}})

    ran = project.run("run", job, "--json")

    assert ran.code == 0, ran.err
    assert ran.json["rows"] == {"total": 51, "succeeded": 23, "filtered": 25, "skipped": 0, "failed": 3, "pending": 0}
    failed = [(row["row"], row["id"], row["reason"]) for row in project.table("out/job/failures.csv")]
    assert failed == [("4", "1004", "ImageNotFound"), ("8", "1008", "ImageInvalid"), ("50", "", "MalformedRow")]


def test_the_manifest_describes_the_files(project: Project) -> None:
    project.catalogue(45)
    ran = project.run("run", project.job(sharding={"batchRows": 20, "rowsPerShard": 20}), "--json")
    assert ran.code == 0, ran.err

    manifest = json.loads((project.root / "out/job/manifest.json").read_text())
    files = project.tree("out/job")
    assert manifest["files"]["metadata.csv"]["sha256"] == files["metadata.csv"]
    assert manifest["files"]["failures.csv"]["sha256"] == files["failures.csv"]
    assert manifest["input"]["sha256"] == hashlib.sha256((project.root / "rows.csv").read_bytes()).hexdigest()
    assert [(batch["first"], batch["images"]) for batch in manifest["batches"]] == [(0, 20), (20, 20), (40, 5)]
    for batch in manifest["batches"]:
        lines = "".join(
            f"{files[url]}  {url.rpartition('/')[2]}\n"
            for url in (row["url"] for row in project.table("out/job/metadata.csv"))
            if url.startswith(f"images/{batch['first']:09d}/")
        )
        assert hashlib.sha256(lines.encode()).hexdigest() == batch["imagesSha256"]
