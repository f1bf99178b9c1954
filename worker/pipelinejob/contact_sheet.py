"""A contact sheet: 20 of a job's images on one page, to see at a glance whether they are what was wanted."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

IMAGES, ACROSS, SIDE, CAPTION = 20, 5, 192, 18
LARGE = 480


def make(output: Path, url_column: str, sheet: Path) -> Path | None:
    """Draws images spread evenly over metadata.csv, each with its id; returns the sheet, or None without images."""
    urls = choose(output, url_column, IMAGES)
    if not urls:
        return None
    down = -(-len(urls) // ACROSS)
    page = Image.new("RGB", (ACROSS * SIDE, down * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(page)
    for index, url in enumerate(urls):
        left, top = index % ACROSS * SIDE, index // ACROSS * (SIDE + CAPTION)
        try:
            with Image.open(output / url) as image:
                _paste(page, image, left, top, SIDE)
        except OSError as error:  # it was moved or damaged since
            draw.text((left + 6, top + 6), type(error).__name__, fill="red")
        draw.text((left + 6, top + SIDE), Path(url).stem[:28], fill="black")
    sheet.parent.mkdir(parents=True, exist_ok=True)
    page.save(sheet)
    return sheet


def choose(output: Path, url_column: str, most: int) -> list[str]:
    """The urls of at most that many images, spread evenly over metadata.csv; none where there are none."""
    metadata = output / "metadata.csv"
    if not metadata.exists():
        return []
    count = sum(1 for _ in _urls(metadata, url_column))
    chosen = {round(i * (count - 1) / max(1, min(most, count) - 1)) for i in range(min(most, count))}
    return [url for index, url in enumerate(_urls(metadata, url_column)) if index in chosen]


def beside(before: Image.Image | None, after: Image.Image | None, sheet: Path) -> None:
    """Draws two pictures side by side, each as large as there is room; what there is none of stays white."""
    page = Image.new("RGB", (2 * LARGE, LARGE + CAPTION), "white")
    for index, (image, caption) in enumerate(((before, "before"), (after, "after"))):
        if image is not None:
            _paste(page, image, index * LARGE, 0, LARGE)
        what = f"{image.width} x {image.height} {image.mode}" if image is not None else "no image"
        ImageDraw.Draw(page).text((index * LARGE + 6, LARGE), f"{caption}: {what}", fill="black")
    page.save(sheet)


def pairs(rows: Sequence[tuple[str, Image.Image | None, Image.Image | None]], sheet: Path) -> None:
    """Draws (caption, before, after) of each row, two rows side by side."""
    across, width = 2, 2 * SIDE
    down = max(1, -(-len(rows) // across))
    page = Image.new("RGB", (across * (width + CAPTION), down * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(page)
    for index, (caption, *pair) in enumerate(rows):
        left, top = index % across * (width + CAPTION), index // across * (SIDE + CAPTION)
        for side, image in enumerate(pair):
            if image is not None:
                _paste(page, image, left + side * SIDE, top, SIDE)
        draw.text((left + 6, top + SIDE), caption[:56], fill="black")
    page.save(sheet)


def _paste(page: Image.Image, image: Image.Image, left: int, top: int, side: int) -> None:
    thumbnail = ImageOps.contain(image.convert("RGB"), (side - 8, side - 8))
    page.paste(thumbnail, (left + (side - thumbnail.width) // 2, top + 4))


def _urls(metadata: Path, url_column: str) -> Iterator[str]:
    with open(metadata, encoding="utf-8", newline="") as file:
        yield from (row[url_column] for row in csv.DictReader(file) if row[url_column])
