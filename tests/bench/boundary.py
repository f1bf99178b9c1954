"""What a user's function costs beside a built-in one that does the same: whole jobs, in turns.

The reference chain of built-in functions takes short cuts that no function of one's own can (the planes of a JPEG, decoding at a
smaller scale); with a sharpening before, neither does, and what is left is the boundary: lists of rows, copies of cells, checks of what
is returned.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml
from common import CACHE, Spread, catalogue, forget, in_memory, job_file, run, run_command, settle
from pools import FUNCTIONS
from report import Grid, Sections, Target

AIM = 1.15
SHARPEN = {"name": "sharpen"}
CODE = """
from PIL import Image as Pillow, ImageFilter

def own(images: list[Image], rows: list[Row], *, sharpen: bool = False) -> list:
    made = []
    for image, row in zip(images, rows):
        if sharpen:
            image = image.filter(ImageFilter.UnsharpMask())
        width, height = int(image.width * 0.8), int(image.height * 0.8)
        left, top = int(row["id"]) % (image.width - width + 1), int(row["id"]) % (image.height - height + 1)
        box = (left, top, left + width, top + height)
        made.append(image.resize((256, 256), Pillow.Resampling.BILINEAR, box=box))
    return made
"""
CHAINS: dict[str, list[dict[str, Any]]] = {
    "reference, built in": FUNCTIONS,
    "reference, own": [{"name": "own", "file": "own.py"}],
    "sharpened, built in": [SHARPEN, *FUNCTIONS],
    "sharpened, own": [{"name": "own", "file": "own.py", "params": {"sharpen": True}}],
}


def measure(*, quick: bool, repeat: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Rows/s of each chain, start-up included."""
    rows, distinct = (2_000, 200) if quick else (20_000, 2_000)
    data = catalogue("60x80", rows, distinct)
    (CACHE / "jobs").mkdir(exist_ok=True)
    (CACHE / "jobs/own.py").write_text(CODE)
    runs = []
    for number in range(repeat):
        rates = {}
        for label, functions in CHAINS.items():
            name = "bench-boundary"
            forget(name, in_memory())
            command = run_command(name, data, 200, in_memory())
            path = job_file(name, 200)
            document = yaml.safe_load(path.read_text())
            document["spec"]["functions"] = functions
            path.write_text(yaml.safe_dump(document))
            settle()
            rates[label] = rows / run(command, name).seconds
        forget(name, in_memory())
        shutil.rmtree(in_memory() / name, ignore_errors=True)
        runs.append(rates)
        say(f"boundary, repeat {number + 1} of {repeat}: {', '.join(f'{label} {rate:,.0f}' for label, rate in rates.items())} rows/s")
    return {"rows": rows, "runs": runs}


def _ratio(data: Mapping[str, Any], kind: str) -> Spread:
    return Spread.of([run[f"{kind}, built in"] / run[f"{kind}, own"] for run in data["runs"]])


def targets(sections: Sections) -> Iterator[Target]:
    """What was asked for."""
    if "boundary" in sections:
        spread = _ratio(sections["boundary"]["data"], "sharpened")
        measured = f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f}) ×"
        yield Target(
            "time of a function of one's own, in lists, to built-in ones that do the same", f"≤ {AIM} ×", measured, spread.median <= AIM
        )


def grid(data: Mapping[str, Any]) -> Grid:
    """Rates and ratios."""
    rows = []
    for label in CHAINS:
        kind, _, whose = label.partition(", ")
        rate = Spread.of([run[label] for run in data["runs"]]).median
        spread = _ratio(data, kind)
        rows.append([label, f"{rate:,.0f}", f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})" if whose == "own" else "–"])
    return Grid(("chain", "rows/s", "time to built in"), rows, 1)
