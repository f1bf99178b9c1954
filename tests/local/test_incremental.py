"""A job that is incremental of another one: what is unchanged is not run again, and the output is that of a clean run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.project import Project, Ran

ROWS = 40
# Each call leaves a line; a line is written at once, whatever process it comes from.
CODE = """
import os
def mark(image, row, *, strength: int = 1):
    with open(os.environ["CALLS"], "a") as file:
        file.write(row["id"] + "\\n")
    if row["id"] == "1005": return None
    if row["id"] == "1009" and os.path.exists(os.environ["CALLS"] + "-fails"): raise ValueError("nine")
    return image.rotate(90), {"strength": strength, "size": list(image.size)}
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.catalogue(ROWS)
    project.write(CODE, "fn.py")
    project.environment["CALLS"] = str(project.root / "calls")
    return project


def rows(project: Project) -> list[list[str]]:
    return [line.split(",") for line in (project.root / "rows.csv").read_text().splitlines()[1:]]


def run(project: Project, name: str, **spec: Any) -> tuple[Ran, list[str]]:
    """Runs a job; what it said, and the ids of the rows that the function was called for."""
    calls = project.root / "calls"
    calls.unlink(missing_ok=True)
    spec = {"functions": [{"name": "mark", "file": "fn.py"}], "sharding": {"batchRows": 8}, "output": {}, **spec}
    spec.setdefault("failurePolicy", {"maxFailedRowsPercent": 100})
    ran = project.run("run", project.job(name, **spec), "--json")
    return ran, sorted(calls.read_text().split()) if calls.exists() else []


def again(project: Project, name: str, of: str, **spec: Any) -> tuple[dict[str, int], list[str]]:
    ran, calls = run(project, name, incrementalOf=of, **spec)
    assert ran.code == 0, ran.err
    assert ran.json["output"].endswith("output/default/a")
    return ran.json["rows"], calls


def check_clean(project: Project, **spec: Any) -> None:
    """That the output is that of a job that never knew another, but for the name in its manifest."""
    ran, _ = run(project, "clean", output={"path": "out/clean"}, **spec)
    assert ran.code == 0, ran.err
    trees = [project.tree("output/default/a"), project.tree("out/clean")]
    manifests = [json.loads((project.root / f"{place}/manifest.json").read_text()) for place in ("output/default/a", "out/clean")]
    for tree, manifest in zip(trees, manifests, strict=True):
        del tree["manifest.json"], manifest["job"]
    assert trees[0] == trees[1] and manifests[0] == manifests[1]
    assert not (project.root / "output/default/a/.pipelinejob/previous").exists()
    project.run("delete", "clean", "--output")


def test_an_unchanged_job_calls_nothing(shop: Project) -> None:
    ran, calls = run(shop, "a")
    assert len(calls) == ROWS and "reused" not in ran.json["rows"]
    counts, calls = again(shop, "b", "a")
    assert calls == []
    assert counts == {"total": 40, "succeeded": 39, "filtered": 0, "skipped": 1, "failed": 0, "pending": 0, "reused": 39}
    check_clean(shop)
    ran, _ = run(shop, "b", incrementalOf="a")
    assert ran.code == 0 and ran.json["rows"]["reused"] == 39
    counts, calls = again(shop, "c", "b")
    assert calls == [] and counts["reused"] == 39
    assert shop.run("status", "c", "--json").json["rows"]["reused"] == 39


def _insert(shop: Project) -> list[str]:
    old = rows(shop)
    new = [[str(5000 + n), "Men", "Fall", "2010", f"New {n}"] for n in range(7)]
    for row in new:
        shop.image(f"img/{row[0]}.jpg", colour=(int(row[0]) % 256, 9, 90))
    shop.write_csv([*new[:3], *old[:20], *new[3:5], *old[20:], *new[5:]])
    return [row[0] for row in new]


def _remove(shop: Project) -> list[str]:
    shop.write_csv([row for row in rows(shop) if row[0] not in ("1000", "1017", "1039")])
    return []


def _one_image(shop: Project) -> list[str]:
    shop.image("img/1011.jpg", colour=(1, 2, 3))
    return ["1011"]


def _one_cell(shop: Project) -> list[str]:
    shop.write_csv([[*row[:4], "Another name"] if row[0] == "1020" else row for row in rows(shop)])
    return ["1020"]  # a function of one's own may look at it


def _the_names_of_columns(shop: Project) -> list[str]:
    path = shop.root / "rows.csv"
    path.write_text(path.read_text().replace("id,gender,season,year,name", "id,season,gender,year,name", 1))
    return [row[0] for row in rows(shop)]


def _the_code(shop: Project) -> list[str]:
    shop.write(CODE.replace("rotate(90)", "rotate(180)"), "fn.py")
    return [row[0] for row in rows(shop)]


@pytest.mark.parametrize("change", [_insert, _remove, _one_image, _one_cell, _the_names_of_columns, _the_code])
def test_what_was_changed_is_run_and_nothing_else(shop: Project, change: Callable[[Project], list[str]]) -> None:
    run(shop, "a")
    expected = change(shop)
    counts, calls = again(shop, "b", "a")
    assert calls == sorted(expected)
    assert counts["reused"] + len(expected) >= counts["succeeded"] and counts["total"] == len(rows(shop))
    check_clean(shop)


@pytest.mark.parametrize(
    "spec",
    [
        {"functions": [{"name": "mark", "file": "fn.py", "params": {"strength": 2}}]},
        {"output": {"quality": 90}},
        {"seed": 7},
        {"functions": [{"name": "grayscale"}, {"name": "mark", "file": "fn.py"}]},
    ],
    ids=["a param", "the quality", "the seed", "the chain"],
)
def test_another_chain_runs_all(shop: Project, spec: dict[str, Any]) -> None:
    run(shop, "a")
    counts, calls = again(shop, "b", "a", **spec)
    assert len(calls) == ROWS and counts["reused"] == 0


def test_other_cells_of_built_in_functions_need_no_run(shop: Project) -> None:
    chain = {"functions": [{"name": "random_crop"}, {"name": "resize", "params": {"width": 20, "height": 20}}]}
    run(shop, "a", **chain)
    shop.write_csv([[*row[:4], f"Renamed {row[0]}"] for row in rows(shop)])
    counts, _ = again(shop, "b", "a", **chain, sharding={"batchRows": 11})
    assert counts["reused"] == counts["succeeded"] == ROWS
    check_clean(shop, **chain, sharding={"batchRows": 11})


def test_failed_rows_run_again_and_those_of_a_redrive_do_not(shop: Project) -> None:
    (shop.root / "calls-fails").touch()
    ran, _ = run(shop, "a")
    assert ran.json["rows"]["failed"] == 1
    counts, calls = again(shop, "b", "a")
    assert calls == ["1009"] and counts["failed"] == 1
    (shop.root / "calls-fails").unlink()
    assert shop.run("redrive", "b").code == 0
    counts, calls = again(shop, "c", "b")
    assert calls == [] and counts["failed"] == 0
    check_clean(shop)


def test_a_csv_without_images(shop: Project) -> None:
    shop.write("def mark(image, row): return {'long': len(row['name'])}\n", "fn.py")
    source = {"csv": "rows.csv", "images": None}
    run(shop, "a", source=source)
    counts, _ = again(shop, "b", "a", source=source)
    assert counts["reused"] == ROWS
    check_clean(shop, source=source)


def test_it_goes_on_after_a_kill(shop: Project) -> None:
    run(shop, "a")
    _insert(shop)
    shop.write(CODE.replace("    return image", "    import time; time.sleep(0.2)\n    return image"), "fn.py")
    job = shop.job(
        "b", functions=[{"name": "mark", "file": "fn.py"}], sharding={"batchRows": 8}, output={}, incrementalOf="a", parallelism=1
    )
    for _ in range(3):
        process = shop.start("run", job)
        time.sleep(1.2)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    ran = shop.run("run", job, "--json")
    assert ran.code == 0, ran.err
    check_clean(shop)


@pytest.mark.parametrize("point", ["registered", "taken", "aside", "indexed", "planned"])
def test_it_goes_on_when_it_was_killed_while_it_took_over(shop: Project, point: str) -> None:
    run(shop, "a")
    job = shop.job("b", functions=[{"name": "mark", "file": "fn.py"}], sharding={"batchRows": 8}, output={}, incrementalOf="a")
    killed = shop.run("run", job, env={"PIPELINEJOB_FAULT": point})
    assert killed.code not in (0, 1, 2), killed.err
    counts, calls = again(shop, "b", "a")
    assert calls == [] and counts["reused"] == 39
    check_clean(shop)


def test_what_is_refused(shop: Project) -> None:
    run(shop, "a")
    cases = [
        ("nobody", {}, "spec.incrementalOf: there is no job 'nobody'"),
        ("b", {}, "spec.incrementalOf: there is no job 'b'"),
        ("a", {"output": {"path": "elsewhere"}}, "spec.output.path: must be that of 'a'"),
    ]
    before = shop.tree("output/default/a")
    for of, spec, told in cases:
        ran, _ = run(shop, "b", incrementalOf=of, **spec)
        assert ran.code == 2 and told in ran.err, ran.err
    assert shop.tree("output/default/a") == before
    again(shop, "b", "a")
    ran, _ = run(shop, "a")
    assert ran.code == 2 and "overlaps the output of the job 'b'" in ran.err
    ran, _ = run(shop, "c", incrementalOf="a")
    assert ran.code == 2 and "belongs to 'b' now" in ran.err
    tree = shop.tree("output/default/a")
    assert shop.run("delete", "a", "--output").code == 0
    assert shop.tree("output/default/a") == tree


def test_results_that_were_removed_are_made_again(shop: Project) -> None:
    run(shop, "a")
    shutil.rmtree(shop.root / "output/default/a/images/000000008")
    Path(shop.root / "output/default/a/images/000000000/1001.jpg").unlink()
    counts, calls = again(shop, "b", "a")
    assert len(calls) == 9 and counts["succeeded"] == 39
    check_clean(shop)
