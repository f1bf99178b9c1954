"""How long a worker process takes from its start to its first row, and what memory it holds after a batch."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain import QUICK, SIZES
from common import CACHE, catalogue, job_file

from pipelinejob import jobfile, plan
from pipelinejob.batch import Task
from pipelinejob.workers import Child


def measure(*, quick: bool, repeat: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Starts in turn with a bare Python that imports Pillow; memory after one batch of each size."""
    sizes = {size: catalogue(size, *shape) for size, shape in (QUICK if quick else SIZES).items()}
    small = sizes["60x80"]
    _one_batch(small, 1), _bare_python()  # what they load is then in the page cache
    bare, ours = [], []
    for _ in range(3 * repeat):
        bare.append(_bare_python())
        ours.append(_one_batch(small, 1)["seconds"])
    memory = {size: _one_batch(data, 200) for size, data in sizes.items()}
    held = ", ".join(f"{found['peak'] / 2**20:.0f} MiB at most on {size}" for size, found in memory.items())
    say(f"start: first row after {min(ours):.2f}-{max(ours):.2f} s, bare Python with Pillow {min(bare):.2f}-{max(bare):.2f} s; {held}")
    return {"bare": bare, "ours": ours, "memory": memory}


def _bare_python() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import PIL.Image"], check=True)
    return time.perf_counter() - began


def _one_batch(data: Path, rows: int) -> dict[str, float]:
    """Starts a worker as a run does, gives it one batch: seconds until that is done, and the memory it then holds."""
    folder = CACHE / "out" / "start"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job, task = _job(data), _first_batch(data, rows)
    with open(CACHE / "logs" / "child.log", "ab") as log:
        began = time.perf_counter()
        child = Child(job, folder, log, log.fileno())
        try:
            child.give(task)
            _wait(child)
            seconds = time.perf_counter() - began
            return {"seconds": seconds, "rows": task.rows, **_memory(child.process.pid)}
        finally:
            child.end()
            shutil.rmtree(folder)


def _job(data: Path) -> dict[str, Any]:
    """What a run tells its workers of the job."""
    job, functions = jobfile.load(job_file("start", 200))
    csv = data / "styles.csv"
    columns = plan.scan(csv, limit=1).header.columns
    paths = {"csv": str(csv), "dataRoot": str(data), "records": str(CACHE / "out/start/records")}
    return {**paths, "columns": list(columns), "spec": job.spec.as_dict(), "functions": functions}


def _first_batch(data: Path, rows: int) -> Task:
    index = plan.scan(data / "styles.csv", batch_rows=rows, limit=rows)
    ((end, crc),) = index.batches()
    return Task(0, 0, index.rows, index.header.byte_end, end, crc, {})


def _wait(child: Child) -> None:
    """Until its batch is done."""
    while True:
        select.select([child.output], [], [], 60)
        answers, ended = child.answers()
        if any("done" in answer and answer["succeeded"] and not answer["failed"] for answer in answers):
            return
        if ended or any("ready" not in answer for answer in answers):
            raise RuntimeError(f"the worker did not finish its batch: {answers}")


def _memory(pid: int) -> dict[str, float]:
    """Resident bytes now and at most; nothing where there is no /proc."""
    status = Path(f"/proc/{pid}/status")
    if not os.path.exists(status):
        return {}
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: int(fields[key].split()[0]) * 1024 for name, key in (("resident", "VmRSS"), ("peak", "VmHWM"))}
