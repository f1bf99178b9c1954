"""predict with pictures in batches and one by one: rows/s of the function itself, on one thread.

Both take turns on the same pictures, decoded before; ratios are taken within a turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from common import ROOT, Spread, catalogue
from PIL import Image
from report import Grid, Sections, Target

from pipelinejob.functions import BUILTINS

BATCHES = (1, 8, 32, 128)
AIM = 1.2


def measure(*, quick: bool, repeat: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Rows/s by the number of pictures in a call."""
    paths = sorted((catalogue("60x80", 2_000, 200) / "images").iterdir())[: 256 if quick else None]
    images = [Image.open(path).convert("RGB") for path in paths]
    os.environ["PIPELINEJOB_DATA"] = str(ROOT / "data")
    function = BUILTINS["predict"].bind({"model": "models/garments.onnx", "threads": 1})
    runs = []
    for number in range(-1, repeat):  # the first turn is for warming up
        rates = {str(batch): len(images) / _seconds(function, images, batch) for batch in BATCHES}
        if number >= 0:
            runs.append(rates)
            say(f"predict, repeat {number + 1} of {repeat}: {', '.join(f'{rate:,.0f} rows/s by {batch}' for batch, rate in rates.items())}")
    return {"rows": len(images), "onnxruntime": version("onnxruntime"), "runs": runs}


def _seconds(function: Callable[..., list[Any]], images: Sequence[Image.Image], batch: int) -> float:
    rows: list[dict[str, str]] = [{}] * batch
    began = time.perf_counter()
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        function(some, rows[: len(some)])
    return time.perf_counter() - began


def targets(sections: Sections) -> Iterator[Target]:
    """What was asked for."""
    if "predict" in sections:
        spread = _ratios(sections["predict"]["data"], "32")
        measured = f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f}) ×"
        yield Target("predict by 32 to one by one, one thread", f"≥ {AIM:g} ×", measured, spread.median >= AIM)


def grid(data: Mapping[str, Any]) -> Grid:
    """Rates and ratios."""
    rows = []
    for batch in map(str, BATCHES):
        spread = _ratios(data, batch)
        rate = Spread.of([run[batch] for run in data["runs"]]).median
        rows.append([batch, f"{rate:,.0f}", f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})" if batch != "1" else "–"])
    return Grid(("pictures in a call", "rows/s", "to one by one"), rows, 0)


def _ratios(data: Mapping[str, Any], batch: str) -> Spread:
    return Spread.of([run[batch] / run["1"] for run in data["runs"]])
