"""How fast the planner reads a CSV, beside a bare loop that only counts line ends and quotes, and what memory it takes.

python tests/bench/planner.py speed FILE --repeat N         both in turn, in one process
python tests/bench/planner.py memory FILE [--scan]          a process's peak, with and without the scan
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
HEADER = b"id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName\n"
NAMES = {
    "plain": "Turtle Check Men Navy Blue Shirt {}",
    "quoted": '"Turtle ""Check"" Men, Navy Blue Shirt {}"',
    "stray": 'Turtle 5" Check Men 7" Shirt {}',
}


def measure(*, quick: bool, repeat: int, say: Any) -> dict[str, Any]:
    """Speed and memory for three kinds of CSV."""
    from common import medians, run

    megabytes, found = (20 if quick else 200), {}
    for kind in NAMES:
        path = str(_csv(kind, megabytes))
        program = [sys.executable, __file__]
        speed = run([*program, "speed", path, "--repeat", str(repeat)], "planner").json
        pairs = []
        for _ in range(repeat):
            base, peak = (run([*program, "memory", path, *more], "planner").json for more in ([], ["--scan"]))
            pairs.append({"base": base["peak"], "peak": peak["peak"]})
        memory = medians(pairs)
        found[kind] = {**speed, "base": memory["base"], "added": memory["peak"] - memory["base"]}
        ratios = ", ".join(f"{ratio:.2f}" for ratio in speed["ratios"])
        say(f"planner, {kind}: {ratios} of the bare loop, {found[kind]['added'] / 2**20:.1f} MiB added")
    return {"megabytes": megabytes, "kinds": found}


def _csv(kind: str, megabytes: int) -> Path:
    """A CSV of that size, made once: a block of different rows, over and over."""
    from common import CACHE

    path = CACHE / "csv" / f"{kind}-{megabytes}.csv"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        cells = "Men,Apparel,Topwear,Shirts,Navy Blue,Fall"
        lines = (f"{10_000 + row},{cells},{2008 + row % 10},Casual,{NAMES[kind].format(row)}\n" for row in range(10_000))
        block = "".join(lines).encode()
        draft = path.with_suffix(".part")
        with open(draft, "wb") as file:
            file.write(HEADER)
            for _ in range(megabytes * 1_000_000 // len(block)):
                file.write(block)
        draft.rename(path)
    return path


def speed(path: Path, repeat: int) -> dict[str, Any]:
    """The two in turn, after one reading that brings the file into memory."""
    from pipelinejob.plan import scan

    _bare_loop(path)
    bare, ours = [], []
    for _ in range(repeat):
        bare.append(_seconds(lambda: _bare_loop(path)))
        ours.append(_seconds(lambda: scan(path)))
    size = path.stat().st_size / 1e6
    return {
        "bare": [size / seconds for seconds in bare],
        "ours": [size / seconds for seconds in ours],
        "ratios": [theirs / mine for theirs, mine in zip(bare, ours, strict=True)],
    }


def _bare_loop(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            block.count(b"\n")
            block.count(b'"')


def _seconds(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory(path: Path, *, scan: bool) -> dict[str, int]:
    """This process's peak, imports included."""
    from pipelinejob import plan

    if scan:
        plan.scan(path)
    return {"peak": _peak()}


def _peak() -> int:
    """Peak resident bytes of this process; getrusage would count its parent's as well, from before the exec."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    """Runs one measurement of one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scan", action="store_true")
    given = parser.parse_args()
    print(json.dumps(speed(given.path, given.repeat) if given.what == "speed" else memory(given.path, scan=given.scan)))


if __name__ == "__main__":
    main()
