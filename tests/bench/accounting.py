"""Jobs that must account for every row: 44,000 with known bad ones, and a million with the memory watched."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from chain import BATCH
from common import CACHE, BenchError, catalogue, environment, forget, on_disk, run, run_command, settle

EVERY = 2.0  # seconds between looks at the memory
MARKS = (1, 10, 25, 50, 75, 100)  # percent of the rows


def ledger(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """1% corrupt, 1% missing and 20 malformed rows: the counts, and failures.csv against the generator's list."""
    rows = 2_000 if quick else 44_000
    data = catalogue("60x80", rows, 2_000, "--corrupt", "1%", "--missing", "1%", "--malformed", "20", "--expected")
    expected = json.loads((data / "expected.json").read_text())
    forget("bench-ledger", on_disk())
    done = run(run_command("bench-ledger", data, BATCH, on_disk()), "ledger")
    reasons = {"corrupt": "ImageInvalid", "missing": "ImageNotFound", "malformed": "MalformedRow"}
    wanted = {(bad["row"], reasons[kind]) for kind in reasons for bad in expected[kind]}
    with open(on_disk() / "bench-ledger/failures.csv", newline="", encoding="utf-8") as file:
        found = [(int(row["row"]), row["reason"]) for row in csv.DictReader(file)]
    counts = done.json["rows"]
    forget("bench-ledger", on_disk())
    exact = len(found) == len(wanted) and set(found) == wanted and counts["failed"] == len(wanted)
    adds_up = sum(counts[key] for key in ("succeeded", "filtered", "skipped", "failed", "pending")) == counts["total"] == rows
    say(f"ledger: {counts}, failures {'exact' if exact else 'NOT exact'}, {done.seconds:.1f} s")
    return {"rows": counts, "exact": exact, "adds_up": adds_up, "phase": done.json["phase"], "seconds": done.seconds}


def million(rows: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One run over hard links of 2,000 images."""
    say(f"million: making {rows} rows (once; about two minutes a million)")
    data = catalogue("60x80", rows, min(rows, 2_000))
    forget("bench-million", on_disk())
    settle()
    output = on_disk() / "bench-million"
    with open(CACHE / "logs/million.log", "wb") as log:
        command = run_command("bench-million", data, BATCH, on_disk())
        process = subprocess.Popen(command, cwd=CACHE, env=environment(), stdout=subprocess.PIPE, stderr=log)
        try:
            seconds, samples = _watch(process, output / "images", rows, say)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    assert process.stdout is not None
    result = json.loads(process.stdout.read().decode().splitlines()[-1] or "{}")
    if process.returncode:
        raise BenchError(f"exit code {process.returncode}: {result.get('reason')}")
    images_done = next(sample["at"] for sample in samples if sample["rows"] >= rows)
    disk = _disk_use(output)
    say("million: removing the output")
    forget("bench-million", on_disk())
    return {
        "rows": rows,
        "counts": result["rows"],
        "phase": result["phase"],
        "seconds": seconds,
        "finalize_seconds": seconds - images_done,
        "disk": disk,
        "samples": samples,
    }


def _watch(process: subprocess.Popen[bytes], images: Path, rows: int, say: Callable[[str], None]) -> tuple[float, list[dict[str, float]]]:
    """Samples (seconds, rows published, bytes by kind of process) until the run ends."""
    began, samples, told = time.monotonic(), [], 0.0
    while True:
        try:
            process.wait(0.1 if not samples else EVERY if samples[-1]["rows"] < 0.99 * rows else 0.5)
            ended = time.monotonic() - began
            samples.append({**samples[-1], "at": min(samples[-1]["at"] + EVERY, ended), "rows": rows})  # in case it ended between two looks
            return ended, samples
        except subprocess.TimeoutExpired:
            at = time.monotonic() - began
        done = min(rows, BATCH * (len(os.listdir(images)) if images.exists() else 0))
        samples.append({"at": at, "rows": done, **_memory_of_run(process.pid)})
        if at - told >= 30:
            told = at
            say(f"million: {done} rows after {at:.0f} s, {_total(samples[-1]) / 2**20:.0f} MiB")


def _memory_of_run(pid: int) -> dict[str, float]:
    """Resident bytes of the parent, its children and the database, shared pages counted once."""
    kinds = {"parent": [pid], "children": [child.pid for child in _descendants(pid)], "postgres": list(_postgres())}
    return {kind: float(sum(_proportional(each) for each in pids)) for kind, pids in kinds.items()}


def _descendants(pid: int) -> list[psutil.Process]:
    """All below a process, but for a database server that it happens to be the parent of."""
    try:
        found = psutil.Process(pid).children(recursive=True)
        servers = set(_postgres())
        return [each for each in found if each.pid not in servers]
    except psutil.Error:
        return []


def _postgres() -> Iterator[int]:
    """The embedded server's processes."""
    try:
        server = int((CACHE / "home/postgres/postmaster.pid").read_text().splitlines()[0])
        yield server
        for each in psutil.Process(server).children(recursive=True):
            yield each.pid
    except (OSError, ValueError, IndexError, psutil.Error):
        return


def _proportional(pid: int) -> int:
    """A process's share of memory: PSS where the system tells it, else its resident size."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0


def _total(sample: dict[str, float]) -> float:
    return sample["parent"] + sample["children"] + sample["postgres"]


def _disk_use(folder: Path) -> int:
    """Bytes on disk below a folder."""
    found = 0
    for base, _, names in os.walk(folder):
        found += sum(os.lstat(os.path.join(base, name)).st_blocks * 512 for name in [".", *names])
    return found


def curve(data: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """The memory when 1, 10, ... % of the rows were published, last with children, and at most while the files were written."""
    rows, samples = data["rows"], data["samples"]
    running = [sample for sample in samples if sample["children"]]
    points = []
    for percent in MARKS[:-1]:
        reached = next((sample for sample in samples if sample["rows"] >= rows * percent / 100), running[-1])
        points.append((f"{percent}%", reached))
    points.append(("100%, at the children's end", running[-1]))
    after = [sample for sample in samples if sample["at"] > running[-1]["at"]]
    return [*points, ("finalize, at most", max(after, key=_total))] if after else points


def growth(data: dict[str, Any], *kinds: str) -> float:
    """The most memory of these kinds of process together after 1% of the rows, to what it was then."""
    first = next(sample for sample in data["samples"] if sample["rows"] >= data["rows"] / 100)
    later = [sum(sample[kind] for kind in kinds) for sample in data["samples"] if sample["at"] >= first["at"]]
    return max(later) / later[0]
