"""Draw a fashion catalogue in the layout of Kaggle's "fashion product images (small)": styles.csv and images/<id>.jpg.

Every choice comes from the seed and the row's number, so the same options give the same bytes with the same Pillow.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Final

from pen import GRID
from PIL import Image
from shop import TAILS, cells_for, product_for, render

COLUMNS: Final = (
    "id",
    "gender",
    "masterCategory",
    "subCategory",
    "articleType",
    "baseColour",
    "season",
    "year",
    "usage",
    "productDisplayName",
)
FIRST_ID: Final = 1163


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    out: Path
    rows: int
    seed: int
    size: tuple[int, int]
    corrupt: int
    missing: int
    malformed: int
    distinct: int
    expected: bool


def is_prime(number: int) -> bool:
    """Trial division."""
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def identities(rows: int, seed: int) -> Iterator[int]:
    """Unique ids with gaps, in no order: modulo a prime that is 2 modulo 3, no two numbers have the same cube."""
    prime = max(58_000, rows * 4 // 3)
    while prime % 3 != 2 or not is_prime(prime):
        prime += 1
    rng = Random(f"{seed}/ids")
    step, start = rng.randrange(1, prime), rng.randrange(prime)
    for row in range(rows):
        yield FIRST_ID + pow(start + step * row, 3, prime)


def decodes(data: bytes) -> bool:
    """Whether Pillow makes an image of this."""
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def truncated(data: bytes) -> bytes:
    """The first part of a file, as an interrupted copy leaves it."""
    return data[: len(data) * 2 // 3]


def emptied(data: bytes) -> bytes:
    """Nothing."""
    return b""


def replaced_by_text(data: bytes) -> bytes:
    """An error page, as a failed download leaves it."""
    return b"<html><body><h1>404 Not Found</h1></body></html>\n"


def flipped(data: bytes) -> bytes:
    """The file with the bits of its first bytes flipped."""
    return bytes(byte ^ 0xFF for byte in data[:32]) + data[32:]


DAMAGES: Final = {"truncated": truncated, "empty": emptied, "text": replaced_by_text, "header": flipped}


def damaged(data: bytes, how: str) -> bytes:
    """Corrupt an image so that it certainly cannot be decoded."""
    data = DAMAGES[how](data)
    while decodes(data):
        data = data[: len(data) // 2]
    return data


def troubles(options: Options) -> dict[int, str]:
    """Choose the bad rows; a corrupt row maps to the kind of damage."""
    counts = options.corrupt, options.missing, options.malformed
    chosen = Random(f"{options.seed}/bad").sample(range(options.rows), sum(counts))
    kinds = list(DAMAGES)
    labels = [kinds[index % len(kinds)] for index in range(options.corrupt)]
    labels += ["missing"] * options.missing + ["malformed"] * options.malformed
    return dict(zip(chosen, labels, strict=True))


class Images:
    """Writes the image files, drawing each distinct image once and linking further rows to it."""

    def __init__(self, options: Options) -> None:
        self.folder = options.out / "images"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.count = 0
        self._first: dict[int, str] = {}

    def write(self, identity: int, number: int, how: str | None) -> None:
        """Give a row its image, damaged when `how` says so."""
        path = f"{self.folder}/{identity}.jpg"
        self.count += 1
        if how is not None:
            Path(path).write_bytes(damaged(self._drawn(number), how))
        elif number not in self._first or not self._linked(self._first[number], path):
            first = self._first.get(number)
            Path(path).write_bytes(self._drawn(number) if first is None else Path(first).read_bytes())
            if self.options.distinct < self.options.rows:
                self._first[number] = path

    def _drawn(self, number: int) -> bytes:
        return render(product_for(self.options.seed, number), self.options.seed, number, self.options.size)

    @staticmethod
    def _linked(first: str, path: str) -> bool:
        try:
            os.link(first, path)
        except OSError:  # no hard links here, or too many to this file: the copy takes its place
            return False
        return True


def generate(options: Options) -> int:
    """Write the catalogue row by row; return the number of image files."""
    bad = troubles(options)
    found: dict[str, list[dict[str, int | str]]] = {"corrupt": [], "missing": [], "malformed": []}
    images = Images(options)
    with (options.out / "styles.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, identity in enumerate(identities(options.rows, options.seed)):
            number, trouble = row % options.distinct, bad.get(row)
            rng = Random(f"{options.seed}/record/{row}")
            cells = cells_for(product_for(options.seed, number), rng, identity)
            if trouble == "malformed":
                cells += rng.choice(TAILS).split(",")[1:]  # one cell too many, as an unquoted comma gives
            writer.writerow(cells)
            if trouble != "missing":
                images.write(identity, number, trouble if trouble in DAMAGES else None)
            if trouble is not None:
                note: dict[str, int | str] = {"row": row, "id": identity}
                found["corrupt" if trouble in DAMAGES else trouble].append(note | {"how": trouble} if trouble in DAMAGES else note)
    if options.expected:
        write_expected(options, found, images.count)
    return images.count


def write_expected(options: Options, found: dict[str, list[dict[str, int | str]]], images: int) -> None:
    """Say which rows are bad, for tests to compare with."""
    totals = {"rows": options.rows, "images": images} | {kind: len(rows) for kind, rows in found.items()}
    totals["good"] = options.rows - sum(len(rows) for rows in found.values())
    text = json.dumps({"seed": options.seed, "totals": totals, **found}, indent=1)
    (options.out / "expected.json").write_text(text + "\n", encoding="utf-8")


# --- Command line ------------------------------------------------------------------------------------------------------


def parse_size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 8000 and 16 <= int(height) <= 8000):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, each from 16 to 8000, as 60x80")
    return int(width), int(height)


def parse_whole(text: str) -> int:
    """Read a number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 0 or more")
    return int(text)


def parse_count(text: str) -> str:
    """Check a count, or a percentage of the rows."""
    number = text.removesuffix("%")
    whole, _, decimals = number.partition(".") if text.endswith("%") else (number, "", "0")
    if not whole.isdecimal() or not (decimals or "0").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a count as 20 or a share as 1%")
    return text


def counted(text: str, rows: int) -> int:
    """A count, or a percentage of the rows, rounded down."""
    if not text.endswith("%"):
        return int(text)
    whole, _, decimals = text[:-1].partition(".")
    divisor: int = 100 * 10 ** len(decimals)
    return rows * int(whole + decimals) // divisor


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    result.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must be empty or new")
    result.add_argument("--rows", type=parse_whole, required=True, metavar="N", help="rows of styles.csv")
    result.add_argument("--seed", type=parse_whole, default=0, metavar="N", help="another seed, another catalogue (default 0)")
    result.add_argument("--size", type=parse_size, default=GRID, metavar="WxH", help="pixels of every image (default 60x80)")
    result.add_argument("--corrupt", type=parse_count, default="0", metavar="N", help="rows whose image cannot be decoded: a count or 1%%")
    result.add_argument("--missing", type=parse_count, default="0", metavar="N", help="rows without an image file: a count or 1%%")
    result.add_argument("--malformed", type=parse_count, default="0", metavar="N", help="rows with 11 fields: a count or 1%%")
    result.add_argument("--distinct", type=parse_whole, metavar="K", help="draw only K images and hard-link the rest to them")
    result.add_argument("--expected", action="store_true", help="write expected.json, which lists the bad rows")
    result.add_argument("--force", action="store_true", help="replace an earlier catalogue in DIR")
    return result


def checked(arguments: Sequence[str] | None) -> tuple[Options, bool]:
    """Read the command line; every mistake ends with exit code 2 and a sentence."""
    command = parser()
    given = command.parse_args(arguments)
    counts: dict[str, int] = {}
    for kind in ("corrupt", "missing", "malformed"):
        counts[kind] = counted(getattr(given, kind), given.rows)
        if counts[kind] > given.rows:
            command.error(f"--{kind} {getattr(given, kind)}: more than the {given.rows} rows")
    if sum(counts.values()) > given.rows:
        asked = " + ".join(f"--{kind} {getattr(given, kind)}" for kind, count in counts.items() if count)
        command.error(f"{asked}: together more than the {given.rows} rows")
    if given.distinct is not None and given.distinct == 0:
        command.error("--distinct 0: at least one image must be drawn")
    if given.out.exists() and not given.out.is_dir():
        command.error(f"--out {given.out}: is a file")
    if given.out.is_dir() and any(given.out.iterdir()) and not given.force:
        command.error(f"--out {given.out}: is not empty; --force replaces the catalogue in it")
    distinct = min(given.distinct or given.rows, given.rows)
    return Options(given.out, given.rows, given.seed, given.size, **counts, distinct=distinct, expected=given.expected), given.force


def clear(out: Path) -> None:
    """Remove an earlier catalogue, and nothing else: a file of its images would not be missing any more."""
    for name in ("styles.csv", "expected.json"):
        (out / name).unlink(missing_ok=True)
    if (out / "images").is_dir():
        with os.scandir(out / "images") as entries:
            for entry in entries:
                if entry.name.endswith(".jpg"):
                    os.unlink(entry.path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options, force = checked(arguments)
    if force:
        clear(options.out)
    images = generate(options)
    print(f"{options.out}: {options.rows} rows, {images} images of {options.size[0]}x{options.size[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
