"""The CSV, the pictures and the job of a chaos run: many rows over few pictures, and all that can be wrong with a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

NAME = "chaos"
COLUMNS = ("number", "id", "kind", "picture", "name")
BATCH_ROWS = 200
PICTURES = 60
SIZE = (60, 80)


def make(folder: Path, rows: int) -> None:
    """Writes rows.csv and img/; the same rows give the same bytes."""
    (folder / "img").mkdir(parents=True)
    for number in range(PICTURES):
        (folder / "img" / f"{number}.jpg").write_bytes(_picture(number))
    good = _picture(0)
    for name, data in (("cut", good[: len(good) // 2]), ("empty", b""), ("text", b"<html>no picture</html>\n")):
        (folder / "img" / f"{name}.jpg").write_bytes(data)
    with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(rows))


def job(**more: Any) -> dict[str, Any]:
    """The spec of the job, `more` laid over it. A SIGKILL of a pod counts as a failure of its shard: hence the many retries."""
    return {
        "source": {"csv": "rows.csv", "images": "img/{picture}.jpg", "where": {"kind": {"ne": "drop"}}},
        "functions": [
            {"name": "random_crop", "params": {"ratio": 0.8}},
            {"name": "resize", "params": {"width": 192, "height": 256}},
        ],
        "output": {"path": f"out/{NAME}"},
        "sharding": {"rowsPerShard": 5000, "batchRows": BATCH_ROWS},
        "parallelism": 2,
        "backoffLimitPerIndex": 20,
        "failurePolicy": {"maxFailedRowsPercent": 100},
        **more,
    }


def document(**more: Any) -> dict[str, Any]:
    """The job as a resource."""
    return {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineJob", "metadata": {"name": NAME}, "spec": job(**more)}


def _picture(number: int) -> bytes:
    random, data = Random(number), BytesIO()
    small = Image.frombytes("RGB", (6, 8), random.randbytes(6 * 8 * 3))
    small.resize(SIZE, Image.Resampling.BICUBIC).save(data, "JPEG", quality=85)
    return data.getvalue()


def _rows(count: int) -> Iterator[list[object]]:
    for number in range(count):
        row = [number, f"P{1_000_000 + number}", ("keep", "sell", "drop")[number % 7 % 3], number % PICTURES, f"Shirt {number}"]
        batch = number // BATCH_ROWS
        if number % 31 == 3:
            row[4] = f'Shirt, "{number}"\nof two lines, ünïcödé'
        if batch % 40 == 7:
            row[2] = "drop"  # a whole batch without a result
        elif batch % 40 == 9:
            row[3] = f"gone-{number}"  # a whole batch that fails
        elif number % 53 == 11:
            row[3] = f"gone-{number}"
        elif number % 211 == 17:
            row[3] = ("cut", "empty", "text")[number % 3]
        if number % 97 == 5 and number % BATCH_ROWS >= 7:
            row[1] = f"p{1_000_000 + number - 7}"  # the same name but for its case
        elif number % 1009 == 20:
            row[1] = f"up/{number}"
        if number % 499 == 250:
            row.append("one field too many")
        yield row
