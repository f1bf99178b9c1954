"""The reference chain in other engines, each as its own documentation recommends; run by .venv-bench's Python.

    python tests/bench/peers.py daft --data DIR --out DIR --rows N      one engine; its last line of output is JSON
    python tests/bench/peers.py versions                                what is installed

DIR is a catalogue of data/generate.py, for img2dataset with a file urls.csv beside styles.csv. The JSON says how many
seconds the work took without the start of Python, the imports and the start of the engine, and what differs from our
chain.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PROCESSES = 2
RATIO, SIZE, QUALITY = 0.8, (256, 256), 75
DAFT_BATCH = 16  # of 16, 64, 256 and the default the least CPU time on photographs, and no more on thumbnails

Work = Callable[[], object]
Engine = Callable[[Path, Path, int], tuple[str, Work]]  # (data, out, rows) → what differs from our chain, and the work


def daft(data: Path, out: Path, rows: int) -> tuple[str, Work]:
    """Daft: expressions all the way (download, decode, crop, resize, encode, upload); a UDF draws the boxes."""
    import daft
    from daft import DataType, functions

    daft.set_runner_native(num_threads=PROCESSES)

    @daft.func.batch(return_dtype=DataType.fixed_size_list(DataType.uint64(), 4))
    def box(widths: daft.Series, heights: daft.Series) -> list[list[int]]:
        boxes = []
        for full_width, full_height in zip(widths.to_pylist(), heights.to_pylist(), strict=True):
            width, height = int(full_width * RATIO), int(full_height * RATIO)
            boxes.append([random.randint(0, full_width - width), random.randint(0, full_height - height), width, height])
        return boxes

    # Small batches: with the default size, photographs cost up to twice the CPU time, most of it in the kernel.
    frame = daft.read_csv(str(data / "styles.csv")).select("id").into_batches(DAFT_BATCH)
    paths = daft.lit(f"file://{data}/images/") + daft.col("id").cast(DataType.string()) + daft.lit(".jpg")
    frame = frame.with_column("image", functions.decode_image(functions.download(paths), mode="RGB"))
    frame = frame.with_column("box", box(functions.image_width(daft.col("image")), functions.image_height(daft.col("image"))))
    small = functions.resize(functions.crop(daft.col("image"), daft.col("box")), *SIZE)
    frame = frame.select(functions.upload(functions.encode_image(small, "jpeg"), f"file://{out}"))
    return "native runner, 2 threads, batches of 16 rows; Daft's own JPEG quality", frame.collect


def ray(data: Path, out: Path, rows: int) -> tuple[str, Work]:
    """Ray Data: the CSV, then one map over its rows that does all with Pillow."""
    dataset = _ray().read_csv(str(data / "styles.csv"))

    def work(row: dict[str, Any]) -> dict[str, Any]:
        from PIL import Image

        image = Image.open(f"{data}/images/{row['id']}.jpg").convert("RGB")
        _random_crop(image).resize(SIZE, Image.Resampling.BILINEAR).save(f"{out}/{row['id']}.jpg", quality=QUALITY)
        return {"id": row["id"]}

    # One block would be one task: a row count per block makes work for both processes.
    return "read_csv, then one map with Pillow", dataset.repartition(_blocks(rows)).map(work).materialize


def ray_images(data: Path, out: Path, rows: int) -> tuple[str, Work]:
    """Ray Data: read_images, map, write_images, as in its guide to images."""
    with open(data / "styles.csv", newline="", encoding="utf-8") as file:
        paths = [f"{data}/images/{row['id']}.jpg" for row in csv.DictReader(file)]
    dataset = _ray().read_images(paths, mode="RGB", override_num_blocks=_blocks(rows))

    def work(row: dict[str, Any]) -> dict[str, Any]:
        import numpy as np
        from PIL import Image

        image = _random_crop(Image.fromarray(row["image"]))
        return {"image": np.asarray(image.resize(SIZE, Image.Resampling.BILINEAR))}

    return "read_images, map, write_images", lambda: dataset.map(work).write_images(str(out), column="image", file_format="jpeg")


def img2dataset(data: Path, out: Path, rows: int) -> tuple[str, Work]:
    """img2dataset: file:// addresses; it has no random crop, so it resizes and crops the centre."""
    from img2dataset import download

    work = partial(
        download,
        url_list=str(data / "urls.csv"),
        input_format="csv",
        url_col="url",
        output_folder=str(out / "files"),
        output_format="files",
        processes_count=PROCESSES,
        thread_count=16,
        number_sample_per_shard=max(1, rows // _blocks(rows)),
        image_size=SIZE[0],
        resize_mode="center_crop",
        upscale_interpolation="bilinear",
        encode_quality=QUALITY,
        extract_exif=False,
        compute_hash=None,
        disallowed_header_directives=[],
    )
    return "file:// addresses; resize on, centre crop in place of the random one", work


def _ray() -> Any:
    """Ray Data on as many processes as everybody has, without a dashboard and without progress bars."""
    import ray

    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray.data


def _random_crop(image: Any) -> Any:
    """A part of the image with each side times RATIO, anywhere in it."""
    width, height = int(image.width * RATIO), int(image.height * RATIO)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _blocks(rows: int) -> int:
    """Pieces of work: enough that both processes have some to the end, few enough that each is worth its overhead."""
    return max(PROCESSES, min(16, rows // 50))


ENGINES: dict[str, tuple[str, Engine]] = {
    "daft": ("daft", daft),
    "ray": ("ray", ray),
    "ray_images": ("ray", ray_images),
    "img2dataset": ("img2dataset", img2dataset),
}


def versions() -> dict[str, str]:
    """The installed engines, by the name of the package."""
    found = {}
    for package in sorted({package for package, _ in ENGINES.values()}):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Runs one engine, or tells the versions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=[*ENGINES, "versions"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=0)
    given = parser.parse_args()
    if given.engine == "versions":
        print(json.dumps(versions()))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    note, work = ENGINES[given.engine][1](given.data.resolve(), given.out.resolve(), given.rows)
    began = time.monotonic()
    work()
    print(json.dumps({"seconds": time.monotonic() - began, "note": note}), flush=True)
    if given.engine == "daft":
        os._exit(0)  # Daft 0.7.26 now and then aborts when Python ends, after all is done


if __name__ == "__main__":
    main()
