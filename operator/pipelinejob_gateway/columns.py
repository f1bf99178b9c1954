"""What the columns of metadata.csv hold, from a sample that is spread over the file: a look, not a count."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, NamedTuple

PLACES, ROWS_AT_EACH = 50, 200  # of the file, at which records are read
BINS = 20
VALUES = 8  # of a column of words
MOST_COLUMNS = 40
_NUMBERS = 0.9  # of the filled cells: then a column is one of numbers


@dataclass(frozen=True)
class Bar:
    """A value, or a range of numbers, and how many cells of the sample have it."""

    label: str
    count: int


class Column(NamedTuple):
    """A column of the sample."""

    name: str
    kind: str  # numbers, words, or distinct: most cells are others
    bars: list[Bar]
    others: int  # cells with other values than those shown
    empty: int
    distinct: int


class Sample(NamedTuple):
    """The columns, and of how many rows they speak."""

    columns: list[Column]
    rows: int
    whole: bool  # all rows were read


def sample(file: BinaryIO, size: int) -> Sample:
    """Reads up to 10,000 rows of a CSV, or all where there are no more.

    Args:
        file: the CSV, as we write it, at its start.
        size: its bytes.
    """
    header = next(csv.reader([_line(file)]), [])
    start = file.tell()
    rows = list(islice(_records(file, header), PLACES * ROWS_AT_EACH + 1))
    whole = len(rows) <= PLACES * ROWS_AT_EACH
    if not whole:
        rows = [row for place in range(PLACES) for row in _rows_at(file, header, start + place * (size - start) // PLACES, start)]
    return Sample([_column(name, [row[i] for row in rows]) for i, name in enumerate(header[:MOST_COLUMNS])], len(rows), whole)


def _rows_at(file: BinaryIO, header: Sequence[str], place: int, start: int) -> list[list[str]]:
    """Some records behind a place. One may begin in the middle of a cell with line ends: what does not have all columns is left out."""
    file.seek(place)
    if place > start:
        file.readline()
    return list(islice(_records(file, header), ROWS_AT_EACH))


def _records(file: BinaryIO, header: Sequence[str]) -> Iterator[list[str]]:
    lines = iter(lambda: _line(file), "")
    yield from (row for row in csv.reader(lines) if len(row) == len(header))


def _line(file: BinaryIO) -> str:
    return file.readline(1 << 22).decode("utf-8", "replace")


def _column(name: str, cells: list[str]) -> Column:
    filled = [cell for cell in cells if cell]
    counts = Counter(filled)
    empty = len(cells) - len(filled)
    numbers = [number for cell in filled if (number := _number(cell)) is not None]
    if len(counts) > VALUES and len(numbers) >= _NUMBERS * len(filled):
        return Column(name, "numbers", _bins(numbers), len(filled) - len(numbers), empty, len(counts))
    if len(counts) > max(VALUES, len(filled) // 2):
        return Column(name, "distinct", [], len(filled), empty, len(counts))
    common = counts.most_common(VALUES)
    return Column(name, "words", [Bar(*one) for one in common], len(filled) - sum(count for _, count in common), empty, len(counts))


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bins(numbers: Sequence[float]) -> list[Bar]:
    """Equal ranges from the least to the greatest number."""
    least, greatest = min(numbers), max(numbers)
    width = (greatest - least) / BINS
    if not 0 < width < math.inf:
        return [Bar(_written(least), len(numbers))]
    counts = [0] * BINS
    for number in numbers:
        counts[min(BINS - 1, int((number - least) / width))] += 1
    return [Bar(f"{_written(least + i * width)} to {_written(least + (i + 1) * width)}", count) for i, count in enumerate(counts)]


def _written(number: float) -> str:
    """With commas from five digits on: a number of four is often a year."""
    return f"{number:,.6g}" if abs(number) >= 10_000 else f"{number:.6g}"
