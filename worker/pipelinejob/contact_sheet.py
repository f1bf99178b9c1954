"""A contact sheet: 20 of a job's images on one page, to see at a glance whether they are what was wanted."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

IMAGES, ACROSS, SIDE, CAPTION = 20, 5, 192, 18


def make(output: Path, sheet: Path) -> Path | None:
    """Draws images spread evenly over metadata.csv, each with its id; returns the sheet, or None without images."""
    metadata = output / "metadata.csv"
    if not metadata.exists():
        return None
    count = sum(1 for _ in _urls(metadata))
    if not count:
        return None
    chosen = {round(i * (count - 1) / max(1, min(IMAGES, count) - 1)) for i in range(min(IMAGES, count))}
    urls = [url for index, url in enumerate(_urls(metadata)) if index in chosen]
    down = -(-len(urls) // ACROSS)
    page = Image.new("RGB", (ACROSS * SIDE, down * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(page)
    for index, url in enumerate(urls):
        left, top = index % ACROSS * SIDE, index // ACROSS * (SIDE + CAPTION)
        with Image.open(output / url) as image:
            thumbnail = ImageOps.contain(image.convert("RGB"), (SIDE - 8, SIDE - 8))
        page.paste(thumbnail, (left + (SIDE - thumbnail.width) // 2, top + 4))
        draw.text((left + 6, top + SIDE), Path(url).stem[:28], fill="black")
    sheet.parent.mkdir(parents=True, exist_ok=True)
    page.save(sheet)
    return sheet


def _urls(metadata: Path) -> Iterator[str]:
    with open(metadata, encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    with open(metadata, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            url = next((row[name] for name in header if str(row[name]).startswith("images/")), "")
            if url:
                yield url
