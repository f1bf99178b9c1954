"""Incremental jobs beside a full run: nothing changed, new rows, one image, a param. The counts must be exact."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from common import CACHE, COMMAND, catalogue, forget, job_file, on_disk, run, run_command, settle
from report import Grid, Sections, Target

NAME = "bench-inc"


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds, and rows that were run, of each step; every job is incremental of the one before."""
    rows, distinct, new = (5_000, 200, 50) if quick else (100_000, 2_000, 1_000)
    source = catalogue("60x80", rows + new, distinct)
    data = CACHE / "data/incremental"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    shutil.copytree(source / "images", data / "images", copy_function=_link)
    with open(source / "styles.csv", newline="", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    later = lines[:: (rows + new) // new][:new]
    chosen = {line[0] for line in later}
    first = [line for line in lines if line[0] not in chosen]
    for job in run([COMMAND, "list", "--json"], "list").json["jobs"]:  # of a measurement that was cut off
        if job["name"].startswith(NAME):
            forget(job["name"], on_disk())
    shutil.rmtree(on_disk() / NAME, ignore_errors=True)
    steps: list[dict[str, Any]] = []

    def step(what: str, expected: int, **spec: Any) -> None:
        number = len(steps)
        name = f"{NAME}-{number}"
        command = run_command(name, data, 200, on_disk())
        path = job_file(name, 200)
        document = yaml.safe_load(path.read_text())
        document["spec"] = {**document["spec"], **spec, "output": {**document["spec"]["output"], "path": NAME}}
        if number:
            document["spec"]["incrementalOf"] = f"{NAME}-{number - 1}"
        path.write_text(yaml.safe_dump(document))
        settle()
        ran = run(command, name)
        counts = ran.json["rows"]
        called = counts["succeeded"] - counts.get("reused", 0)
        say(f"incremental, {what}: {ran.seconds:.1f} s, {called:,} rows were run")
        steps.append({"what": what, "seconds": ran.seconds, "run": called, "total": counts["total"], "exact": called == expected})

    _write(data, head, first)
    step("all rows", len(first))
    step("nothing changed", 0)
    _write(data, head, lines)
    step(f"{len(later):,} new rows, all over the file", len(later))
    image = data / f"images/{lines[0][0]}.jpg"
    other = (data / f"images/{lines[1][0]}.jpg").read_bytes()
    image.unlink()
    image.write_bytes(other)
    step("one image changed", 1)
    resize = {"name": "resize", "params": {"width": 256, "height": 256}}
    step("a param changed", len(lines), functions=[{"name": "random_crop", "params": {"ratio": 0.7}}, resize])
    for number in reversed(range(len(steps))):
        forget(f"{NAME}-{number}", on_disk())
    shutil.rmtree(on_disk() / NAME, ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)
    return {"rows": len(first), "steps": steps}


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _write(data: Path, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    with open(data / "styles.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)


def targets(sections: Sections) -> Iterator[Target]:
    """What was asked for."""
    if "incremental" in sections:
        steps = sections["incremental"]["data"]["steps"]
        wrong = [step["what"] for step in steps if not step["exact"]]
        yield Target(
            "incremental jobs run exactly what changed", "0, 1,000, 1, all", "as wanted" if not wrong else f"not {wrong}", not wrong
        )


def grid(data: Mapping[str, Any]) -> Grid:
    """A line for each step."""
    whole = data["steps"][0]["seconds"]
    rows = [
        [
            step["what"],
            f"{step['total']:,}",
            f"{step['run']:,}{'' if step['exact'] else ' (not as expected)'}",
            f"{step['seconds']:.1f}",
            f"{step['seconds'] / whole:.2f} ×",
        ]
        for step in data["steps"]
    ]
    return Grid(("step", "rows", "run", "seconds", "to the first"), rows, 1)
