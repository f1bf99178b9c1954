"""What all measurements share: folders, catalogues, the `pipelinejob` command, and the numbers of a series."""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pools import FUNCTIONS, QUALITY

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("PIPELINEJOB_BENCH_CACHE") or ROOT / ".bench").resolve()
HERE = Path(__file__).resolve().parent
COMMAND = str(Path(sys.executable).with_name("pipelinejob"))
PROCESSES = 2


class BenchError(Exception):
    """A command of a measurement failed; its log is in the cache folder."""


class Ran(NamedTuple):
    """How long a command took from its start to its end, and what it printed."""

    seconds: float
    out: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of its output that is an object; engines may say good-bye after it."""
        lines = [line for line in self.out.splitlines() if line.startswith("{")]
        if not lines:
            raise BenchError("printed no result")
        value: dict[str, Any] = json.loads(lines[-1])
        return value


class Spread(NamedTuple):
    """The median of a series, with its ends."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def prepare_cache() -> None:
    """Makes the cache folder, which git ignores, and an embedded server in it: initdb is no part of a measurement."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    run([COMMAND, "list", "--json"], "prepare")


def environment() -> dict[str, str]:
    """Ours on a server of the benchmark's own; the others without telemetry and look-ups of newer versions."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PIPELINEJOB_")}
    quiet = {"DO_NOT_TRACK": "1", "DAFT_ANALYTICS_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "NO_ALBUMENTATIONS_UPDATE": "1"}
    return {**kept, **quiet, "PIPELINEJOB_HOME": str(CACHE / "home")}


def run(command: Sequence[str], label: str, timeout: float = 3600) -> Ran:
    """Runs a command to its end; what it says on standard error goes to a log of that label."""
    log = CACHE / "logs" / f"{label}.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as errors:
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=CACHE, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, timeout=timeout
        )
        seconds = time.monotonic() - began
    if done.returncode:
        raise BenchError(f"exit code {done.returncode}, see {log}")
    return Ran(seconds, done.stdout.decode(errors="replace"))


def catalogue(size: str, rows: int, distinct: int, *more: str) -> Path:
    """A catalogue of data/generate.py, made once: styles.csv, images/, and urls.csv for img2dataset."""
    folder = CACHE / "data" / "-".join([size, str(rows), str(distinct), *(word.strip("-").replace("%", "pc") for word in more)])
    if not folder.exists():
        draft = folder.with_name(folder.name + ".part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(parents=True, exist_ok=True)
        options = ["--rows", str(rows), "--distinct", str(distinct), "--size", size, "--seed", "1", *more]
        run([sys.executable, str(ROOT / "data/generate.py"), "--out", str(draft), *options], f"generate-{folder.name}")
        with open(draft / "styles.csv", newline="", encoding="utf-8") as source, open(draft / "urls.csv", "w", encoding="utf-8") as urls:
            urls.write("url\n")
            urls.writelines(f"file://{folder}/images/{row['id']}.jpg\n" for row in csv.DictReader(source))
        draft.rename(folder)
    return folder


def job_file(name: str, batch: int) -> Path:
    """A job file with the reference chain."""
    spec = {
        "source": {"csv": "styles.csv", "images": "images/{id}.jpg"},
        "functions": FUNCTIONS,
        "output": {"path": name, "quality": QUALITY},
        "sharding": {"batchRows": batch},
    }
    path = CACHE / "jobs" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    document = {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineJob", "metadata": {"name": name}, "spec": spec}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def run_command(name: str, data: Path, batch: int, outputs: Path, limit: int | None = None) -> list[str]:
    """The command that runs a job of ours, ledger and database on."""
    command = [COMMAND, "run", str(job_file(name, batch)), "--data", str(data), "--output-root", str(outputs)]
    return [*command, "--workers", str(PROCESSES), "--json", *(["--limit", str(limit)] if limit else [])]


def forget(name: str, outputs: Path) -> None:
    """Removes a job and its output, if they are there, also what a killed measurement left."""
    known = run([COMMAND, "list", "--json"], "list").json["jobs"]
    if any(job["name"] == name for job in known):
        run([COMMAND, "delete", name, "--output", "--json"], "delete")
    shutil.rmtree(outputs / name, ignore_errors=True)


def on_disk() -> Path:
    """Where the outputs of large jobs go."""
    folder = CACHE / "out"
    folder.mkdir(exist_ok=True)
    return folder


def in_memory() -> Path:
    """Where the outputs of all contenders go: a file system in memory where there is one.

    On disk, how fast files are made depends more on what was deleted there before than on who makes them.
    """
    if not os.access("/dev/shm", os.W_OK) or shutil.disk_usage("/dev/shm").free < 4 << 30:
        return on_disk()
    folder = Path("/dev/shm/pipelinejob-bench")
    folder.mkdir(exist_ok=True)
    return folder


def settle() -> None:
    """Lets the disk finish what one contender wrote, so that the next does not wait for it."""
    os.sync()


def medians(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each key over several measurements."""
    return {key: statistics.median(value[key] for value in values) for key in values[0]}
