"""Two process pools over the reference chain, with no ledger; run as a command of its own, so that its start counts.

    python tests/bench/pools.py bare --data DIR --out DIR --batch N     our own image code, in chunks of N rows
    python tests/bench/pools.py pillow --data DIR --out DIR             what one writes with Pillow alone

The last line of output is JSON: how many seconds the work took in a pool that was warm, and how many the warming took.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

PROCESSES = 2
FUNCTIONS = [
    {"name": "random_crop", "params": {"ratio": 0.8}},
    {"name": "resize", "params": {"width": 256, "height": 256}},
]
RATIO, SIZE, QUALITY = 0.8, (256, 256), 75
WARM_ROWS = 4  # rows that each process runs before the clock starts

# --- Our own image code, as pipelinejob/batch.py calls it --------------------------------------------------------------

_bare: dict[str, Any] = {}


def start_bare(data: str) -> None:
    """What a process of the bare pool does once."""
    from pipelinejob import images, planes
    from pipelinejob.functions import Chain, resolve_functions

    entries = [{"file": None, "module": None, "timeoutSeconds": 300, **entry} for entry in FUNCTIONS]
    functions, problems = resolve_functions(entries, Path())
    assert not problems, problems
    _bare.update(images=images, planes=planes, chain=Chain(functions, seed=0), data=data)


def run_bare(task: tuple[str, list[dict[str, str]]]) -> int:
    """One chunk of rows into a folder of its own, as a batch is."""
    folder, rows = task
    images, planes, chain, data = _bare["images"], _bare["planes"], _bare["chain"], _bare["data"]
    os.mkdir(folder)
    for row in rows:
        id = row["id"]
        with open(f"{data}/images/{id}.jpg", "rb", buffering=0) as file:
            source = file.read()
        final_resample = partial(chain.final_resample, id=id)
        encoded = planes.jpeg_to_jpeg(source, final_resample, max_pixels=100_000_000, quality=QUALITY)
        if encoded is None:
            picture = images.decode(source, max_pixels=100_000_000, scale_for=lambda size, id=id: chain.scale(size, id))
            outcome = chain.run(picture, row, id)
            encoded = images.encode(outcome.image, format="jpeg", quality=QUALITY, background="white")
        with open(f"{folder}/{id}.jpg", "wb", buffering=0) as file:
            file.write(encoded)
    return len(rows)


def bare_pool(data: Path, out: Path, batch: int) -> dict[str, float]:
    """A pool over chunks of rows."""
    with multiprocessing.Pool(PROCESSES, start_bare, (str(data),)) as pool:
        began = time.monotonic()
        first = list(islice(rows_of(data), WARM_ROWS))
        pool.map(run_bare, [(f"{out}/warm-{number}", first) for number in range(2 * PROCESSES)], chunksize=1)
        warm = time.monotonic()
        rows = sum(pool.imap_unordered(run_bare, chunks(data, out, batch)))
        return {"rows": rows, "seconds": time.monotonic() - warm, "warm_seconds": warm - began}


def chunks(data: Path, out: Path, batch: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The rows in pieces, each with the folder it goes to."""
    rows, first = rows_of(data), 0
    while piece := list(islice(rows, batch)):
        yield f"{out}/{first:09d}", piece
        first += len(piece)


# --- Pillow alone ------------------------------------------------------------------------------------------------------


def run_pillow(task: tuple[str, str]) -> int:
    """One row."""
    source, target = task
    image = Image.open(source).convert("RGB")
    width, height = int(image.width * RATIO), int(image.height * RATIO)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    box = (left, top, left + width, top + height)
    image.crop(box).resize(SIZE, Image.Resampling.BILINEAR).save(target, quality=QUALITY)
    return 1


def pillow_pool(data: Path, out: Path) -> dict[str, float]:
    """A pool over rows."""
    os.mkdir(out / "warm")
    with multiprocessing.Pool(PROCESSES) as pool:
        began = time.monotonic()
        first = [f"{data}/images/{row['id']}.jpg" for row in islice(rows_of(data), WARM_ROWS)] * (2 * PROCESSES)
        pool.map(run_pillow, [(path, f"{out}/warm/{number}.jpg") for number, path in enumerate(first)], chunksize=WARM_ROWS)
        warm = time.monotonic()
        tasks = ((f"{data}/images/{row['id']}.jpg", f"{out}/{row['id']}.jpg") for row in rows_of(data))
        rows = sum(pool.imap_unordered(run_pillow, tasks, chunksize=64))
        return {"rows": rows, "seconds": time.monotonic() - warm, "warm_seconds": warm - began}


def rows_of(data: Path) -> Iterator[dict[str, str]]:
    """The rows of the catalogue."""
    with open(data / "styles.csv", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def main() -> None:
    """Runs one pool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pool", choices=["bare", "pillow"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=200)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    found = bare_pool(given.data, given.out, given.batch) if given.pool == "bare" else pillow_pool(given.data, given.out)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
