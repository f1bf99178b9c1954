"""The failed rows of a large job run again: what a redrive takes beside the run that it mends.

A catalogue in which some images are missing runs whole; then the images arrive, and the failed rows run again. The redrive is
timed as a command, its start-up included; so is the run.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain import BATCH
from common import COMMAND, BenchError, catalogue, forget, on_disk, run, run_command, settle

MISSING = 100
NAME = "bench-redrive"


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """One run and one redrive of its failed rows."""
    rows, distinct = (20_000, 200) if quick else (1_000_000, 2_000)
    say(f"redrive: making {rows:,} rows (once; about two minutes a million)")
    data = catalogue("60x80", rows, distinct, "--missing", str(MISSING), "--expected")
    arriving = [data / f"images/{bad['id']}.jpg" for bad in json.loads((data / "expected.json").read_text())["missing"]]
    for path in arriving:
        path.unlink(missing_ok=True)  # of a measurement before
    forget(NAME, on_disk())
    settle()
    whole = run(run_command(NAME, data, BATCH, on_disk()), "redrive-whole")
    say(f"redrive: the whole run took {whole.seconds:.0f} s, {whole.json['rows']}")
    if whole.json["rows"]["failed"] != MISSING:
        raise BenchError(f"{whole.json['rows']['failed']} rows failed, and not {MISSING}")
    first = next(path for path in (data / "images").iterdir() if path not in arriving)
    for path in arriving:
        shutil.copyfile(first, path)
    settle()
    again = run([COMMAND, "redrive", NAME, "--workers", "2", "--json"], "redrive-again")
    counts = run([COMMAND, "status", NAME, "--json"], "redrive-status").json["rows"]
    say(f"redrive: {again.seconds:.1f} s, {again.json['rows']}; the job now: {counts}")
    with open(on_disk() / NAME / "metadata.csv", newline="", encoding="utf-8") as file:
        written = sum(1 for _ in csv.reader(file)) - 1
    exact = again.json["rows"]["succeeded"] == MISSING and counts["succeeded"] == written == rows and counts["failed"] == 0
    size = os.path.getsize(on_disk() / NAME / "metadata.csv")
    batches = len({Path(path).name for path in _folders(data, arriving)})
    forget(NAME, on_disk())
    return {
        "rows": rows,
        "failed": MISSING,
        "exact": exact,
        "whole": whole.seconds,
        "again": again.seconds,
        "read": batches * BATCH,
        "run": again.json["rows"]["total"],
        "metadata": size,
    }


def _folders(data: Path, arriving: list[Path]) -> set[str]:
    """The batches that hold the failed rows, by their first row; each is read once."""
    identities = {path.stem for path in arriving}
    with open(data / "styles.csv", newline="", encoding="utf-8") as file:
        return {str(row // BATCH * BATCH) for row, cells in enumerate(csv.DictReader(file)) if cells["id"] in identities}
