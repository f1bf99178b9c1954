"""The bytes of a batch → its records, each a row of cells or the reason why it is malformed.

Python's csv module does the reading. A batch without oddities is read in one go; one that holds any (bytes that are
not valid in the encoding, NUL, a bare CR, an unparsable record) is read record by record, so that the odd one alone
is malformed.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAX_FIELD_BYTES = 1 << 20
_BARE_CR = re.compile(r"\r(?!\n|\Z)")
_STRAY_CR = "holds a carriage return outside quotes: quote the field, or end lines with LF or CRLF"

csv.field_size_limit(sys.maxsize)  # the limit on a field is ours, in bytes, and costs its row only


class Record(NamedTuple):
    """A row number with its cells, or with what is wrong with it (then `cells` is empty)."""

    row: int
    cells: list[str]
    problem: str | None


def records(data: bytes, first_row: int, columns: Sequence[str], delimiter: str, encoding: str) -> Iterator[Record]:
    """Yields the records in `data`, whole records of a CSV, numbered from `first_row`; empty lines are none.

    Args:
        data: bytes that start and end at record boundaries.
        first_row: the number of the first record.
        columns: the header's columns; a record must have as many fields.
        delimiter: one ASCII character.
        encoding: an encoding that extends ASCII.
    """
    rows = _rows_if_plain(data, delimiter, encoding)
    if rows is None:
        found = (_read_record(raw, columns, delimiter, encoding) for raw in (data[a:b] for a, b in record_spans(data, delimiter)))
    else:
        found = ((cells, _wrong_count(cells, columns)) for cells in rows)
    for row, (cells, problem) in enumerate(found, first_row):
        yield Record(row, [] if problem else cells, problem)


def csv_line(cells: Sequence[str]) -> str:
    """The cells as one line of CSV without its line end: comma, minimal quoting, the same under every Python.

    The writer's own line end is CR LF, since older versions quote a cell for the characters of their line end only.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()[:-2]


def _wrong_count(cells: Sequence[str], columns: Sequence[str]) -> str | None:
    if len(cells) == len(columns):
        return None
    return f"expected {len(columns)} fields, found {len(cells)}"


def _rows_if_plain(data: bytes, delimiter: str, encoding: str) -> list[list[str]] | None:
    """The rows of a batch in which nothing can be wrong but the number of fields, else None."""
    if len(data) > MAX_FIELD_BYTES or b"\0" in data:
        return None
    try:
        text = data.decode(encoding)
        if "\r" in text and _BARE_CR.search(text):
            return None
        return [cells for cells in csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter) if cells]
    except (UnicodeDecodeError, csv.Error):
        return None


def record_spans(data: bytes, delimiter: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of each record in `data`, whole records of a CSV; empty lines are none.

    The csv module itself finds them: in Latin-1 a byte is a character, and characters that would stop the reader are
    masked, which moves no boundary.
    """
    text = _BARE_CR.sub("x", data.decode("latin-1")).replace("\0", "x")
    consumed = 0

    def lines() -> Iterator[str]:
        nonlocal consumed
        for line in io.StringIO(text, newline="\n"):
            consumed += len(line)
            yield line

    start = 0
    for cells in csv.reader(lines(), delimiter=delimiter):
        if cells:
            yield start, consumed
        start = consumed


def _read_record(raw: bytes, columns: Sequence[str], delimiter: str, encoding: str) -> tuple[list[str], str | None]:
    """One record's cells and what is wrong with it, if anything."""
    if b"\0" in raw:
        return [], f"holds a NUL byte at byte {raw.index(0)} of the record"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        return [], _undecodable(raw, error, columns, delimiter, encoding)
    try:
        (cells,) = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter)
    except csv.Error:
        return [], _STRAY_CR
    if text.removesuffix("\n").removesuffix("\r").count("\r") != sum(cell.count("\r") for cell in cells):
        return [], _STRAY_CR  # one that csv took for part of the line end
    for index, cell in enumerate(cells):
        if len(cell) * 4 > MAX_FIELD_BYTES and len(cell.encode(encoding)) > MAX_FIELD_BYTES:
            return [], f"{_column(index, columns)} is over 1 MiB"
    return cells, _wrong_count(cells, columns)


def _undecodable(raw: bytes, error: UnicodeDecodeError, columns: Sequence[str], delimiter: str, encoding: str) -> str:
    """Names the column and the byte that are not valid in the encoding."""
    byte = raw[error.start]
    masked = _BARE_CR.sub("x", raw.decode("latin-1"))
    for cells in csv.reader(io.StringIO(masked, newline="\n"), delimiter=delimiter):
        for index, cell in enumerate(cells):
            try:
                cell.encode("latin-1").decode(encoding)
            except UnicodeDecodeError as inner:
                at = f"byte 0x{cell.encode('latin-1')[inner.start]:02x} at position {inner.start}"
                return f"{_column(index, columns)}: {at} is not valid {encoding}"
    return f"byte 0x{byte:02x} at position {error.start} of the record is not valid {encoding}"


def _column(index: int, columns: Sequence[str]) -> str:
    return f"column {columns[index]!r}" if index < len(columns) else f"field {index + 1}"
