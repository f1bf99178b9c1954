"""The reference chain (random crop, resize to 256 × 256, JPEG) on two processes: ours beside pools and engines.

In each repeat all contenders run one after the other, so that a slow minute of the machine meets all of them; ratios
are taken within a repeat.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from common import HERE, ROOT, BenchError, catalogue, forget, in_memory, run, run_command, settle

PEERS_PYTHON = ROOT / ".venv-bench/bin/python"
SIZES = {"60x80": (20_000, 2_000), "1080x1440": (2_000, 100)}  # rows, distinct images
QUICK = {"60x80": (2_000, 200), "1080x1440": (100, 20)}
BATCH = 200
NOISE = 0.25


class Setting(NamedTuple):
    """What is to be run."""

    size: str
    data: Path
    rows: int
    batch: int


Result = dict[str, Any]  # {"whole": rows/s, "inside": rows/s (unless too noisy), "note"} or {"absent": why}


def measure(size: str, *, quick: bool, repeat: int, contenders: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the contenders `repeat` times in turn."""
    rows, distinct = (QUICK if quick else SIZES)[size]
    say(f"{size}: making {rows} rows" if not quick else f"{size}: {rows} rows only")
    setting = Setting(size, catalogue(size, rows, distinct), rows, min(BATCH, rows // 10))
    runs = []
    for number in range(repeat):
        runs.append({})
        for name in contenders:
            settle()
            result = _run(name, setting)
            runs[-1][name] = result
            say(f"{size}, repeat {number + 1} of {repeat}, {LABELS[name]}: {_shown(result)}")
    return {"size": size, "rows": rows, "distinct": distinct, "batch": setting.batch, "runs": runs}


def _run(name: str, setting: Setting) -> Result:
    try:
        return CONTENDERS[name](setting)
    except (BenchError, subprocess.TimeoutExpired) as error:
        print(f"{LABELS[name]}: {error}", file=sys.stderr)
        return {"absent": "failed"}  # the reason is in its log: it may name folders of this machine


def _shown(result: Result) -> str:
    if "absent" in result:
        return str(result["absent"])
    inside = f"{result['inside']:.0f}" if "inside" in result else "too noisy to say"
    return f"{result['whole']:.0f} rows/s, {inside} after its start-up"


def ours(setting: Setting) -> Result:
    """The whole command on all rows, and before and after that on a fifth: the difference is what rows cost once it runs.

    Where the two runs on a fifth are further apart than a quarter of the difference, there is no telling: no "inside".
    """
    few = setting.rows // 5
    before, whole, after = (_ours_once(setting, rows) for rows in (few, setting.rows, few))
    difference = whole - (before + after) / 2
    result = {"whole": setting.rows / whole, "note": "ledger and database on", "seconds": [before, whole, after]}
    if abs(before - after) <= NOISE * difference:
        result["inside"] = (setting.rows - few) / difference
    return result


def _ours_once(setting: Setting, rows: int) -> float:
    name = f"bench-{setting.size}-{uuid.uuid4().hex[:8]}"
    limit = rows if rows < setting.rows else None
    settle()
    done = run(run_command(name, setting.data, setting.batch, in_memory(), limit), f"ours-{setting.size}")
    if done.json["rows"]["succeeded"] != rows:
        raise BenchError(f"{done.json['rows']} rows in place of {rows}")
    forget(name, in_memory())
    return done.seconds


def pool(name: str, setting: Setting) -> Result:
    """A pool of pools.py; what it did to get warm is no work."""
    command = [sys.executable, str(HERE / "pools.py"), name, "--data", str(setting.data), "--batch", str(setting.batch)]
    found, seconds = _into_fresh_folder(command, f"{name}-{setting.size}", "warm*", setting.rows)
    whole = seconds - found["warm_seconds"]
    note = {"bare": "our own image code, no ledger", "pillow": "open, convert, crop, resize, save"}[name]
    return {"whole": setting.rows / whole, "inside": setting.rows / found["seconds"], "note": note}


def peer(name: str, setting: Setting) -> Result:
    """An engine of peers.py."""
    if ENGINE_PACKAGE[name] not in installed_peers():
        return {"absent": "not installed"}
    command = [str(PEERS_PYTHON), str(HERE / "peers.py"), name, "--data", str(setting.data), "--rows", str(setting.rows)]
    found, seconds = _into_fresh_folder(command, f"{name}-{setting.size}", "_tmp", setting.rows)
    return {"whole": setting.rows / seconds, "inside": setting.rows / found["seconds"], "note": found["note"]}


def _into_fresh_folder(command: list[str], label: str, ignored: str, rows: int) -> tuple[Any, float]:
    """Runs a contender into a folder that is then counted and removed: (what it printed, seconds)."""
    out = in_memory() / f"{label}-{uuid.uuid4().hex[:8]}"
    try:
        done = run([*command, "--out", str(out)], label, timeout=1800)
        kept = (path for path in out.rglob("*") if path.is_file() and not path.relative_to(out).match(f"{ignored}/*"))
        written = sum(path.suffix in ("", ".jpg", ".jpeg") for path in kept)
        if written != rows:
            raise BenchError(f"wrote {written} images in place of {rows}")
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return done.json, done.seconds


def installed_peers() -> dict[str, str]:
    """The engines in .venv-bench with their versions; none without it."""
    if not PEERS_PYTHON.exists():
        return {}
    done = subprocess.run([PEERS_PYTHON, HERE / "peers.py", "versions"], stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


ENGINE_PACKAGE = {"daft": "daft", "ray": "ray", "ray_images": "ray", "img2dataset": "img2dataset"}
CONTENDERS: dict[str, Callable[[Setting], Result]] = {
    "ours": ours,
    "bare": partial(pool, "bare"),
    "pillow": partial(pool, "pillow"),
    **{name: partial(peer, name) for name in ENGINE_PACKAGE},
}
LABELS = {
    "ours": "PipelineJob",
    "bare": "bare pool",
    "pillow": "plain Pillow pool",
    "daft": "Daft",
    "ray": "Ray Data (one map)",
    "ray_images": "Ray Data (read_images)",
    "img2dataset": "img2dataset",
}


def ratios(runs: Sequence[dict[str, Result]], other: str, key: str) -> list[float]:
    """Ours to another's rows/s, pair by pair."""
    pairs = [(run.get("ours", {}), run.get(other, {})) for run in runs]
    return [ours[key] / theirs[key] for ours, theirs in pairs if key in ours and key in theirs]


def rates(runs: Sequence[dict[str, Result]], name: str, key: str) -> list[float]:
    """The rows/s of one contender."""
    return [run[name][key] for run in runs if key in run.get(name, {})]


def noisy(runs: Sequence[dict[str, Result]], key: str) -> int:
    """In how many repeats ours could not be told: leaving only these out would flatter it."""
    return sum("whole" in run.get("ours", {}) and key not in run["ours"] for run in runs)


def note(runs: Sequence[dict[str, Result]], name: str) -> str:
    """What is to be said of one contender: how it differs, or why it has no numbers, or not in all repeats."""
    found = [run[name] for run in runs if name in run]
    notes = list(dict.fromkeys(result["note"] for result in found if "note" in result))
    absent = [result["absent"] for result in found if "absent" in result]
    if notes and absent:
        notes.append(f"{absent[0]} in {len(absent)} of {len(found)} repeats")
    if name == "ours" and noisy(runs, "inside"):
        notes.append(f"start-up excluded: too noisy to say in {noisy(runs, 'inside')} of {len(runs)} repeats")
    return "; ".join(notes or absent[:1] or ["not run"])
