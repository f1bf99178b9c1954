"""The header of a CSV: its columns, and everything that makes a file no CSV that could be run."""

from __future__ import annotations

import csv
import io
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from pipelinejob import boundaries
from pipelinejob.boundaries import CR, LEAD, Scanner
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.storage import is_transient, naming

MAX_HEADER_BYTES = 16 << 20

_BOM = b"\xef\xbb\xbf"


class Header(NamedTuple):
    """The columns, and the offset of the first byte after the header record."""

    columns: tuple[str, ...]
    byte_end: int


def read_header(path: Path, *, delimiter: str, encoding: str, label: str | None = None) -> Header:
    """The first record that is not an empty line; messages call the file `label`, or else its path.

    Raises:
        JobError: InputNotFound or InputInvalid.
    """
    name = label or str(path)
    with open_csv(path, name) as file:
        return find_header(file, delimiter, encoding, name)


@contextmanager
def open_csv(path: Path, name: str) -> Iterator[BufferedReader]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise JobError(JobReason.INPUT_NOT_FOUND, f"{name} is a folder or a device, not a file: name a CSV file")
        file = open(path, "rb")  # noqa: SIM115 - errors of its use are not errors of opening it
    except FileNotFoundError:
        raise JobError(JobReason.INPUT_NOT_FOUND, f"{name} does not exist: check the path") from None
    except OSError as error:
        if is_transient(error):
            raise
        message = f"{name} cannot be read ({error.strerror}): check the path and its permissions"
        raise JobError(JobReason.INPUT_NOT_FOUND, message) from None
    with file, naming(path):
        yield file


def skip_bom(file: BufferedReader, name: str) -> bytes:
    """Goes to the first byte of text and returns what stands before it."""
    file.seek(0)
    bom = file.read(len(_BOM))
    if bom.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _invalid(name, "is UTF-16: save the file as UTF-8")
    if bom == _BOM:
        return bom
    file.seek(0)
    return b""


def find_header(file: BufferedReader, delimiter: str, encoding: str, name: str) -> Header:
    start = len(skip_bom(file, name))
    while (line := file.readline(3)) in (b"\n", b"\r\n"):
        start += len(line)
    if line in (b"", b"\r"):
        raise _invalid(name, "is empty: its first line must name the columns")
    file.seek(start)
    raw, scanner = _first_record(file, delimiter)
    end = start + len(raw)
    for line_end in (b"\n", b"\r"):
        if raw.endswith(line_end):
            del raw[-1:]  # in place, since it may be large
    _refuse_nul(raw, name)
    if CR in raw and _holds_bare_cr(raw, delimiter):
        raise _invalid(name, "holds a carriage return in its header outside quotes: save it with LF or CRLF line ends")
    if end - start > MAX_HEADER_BYTES:
        problem = f"has a header over {MAX_HEADER_BYTES >> 20} MiB: put the column names on a line of their own"
        if scanner.inside:
            problem += f"; the quote that opens on line {_line(file, start + scanner.quote_at)} may lack its end"
        raise _invalid(name, problem)
    if scanner.inside:
        raise never_closed(file, start + scanner.quote_at, name)
    return Header(_columns(raw, delimiter, encoding, name), end)


def _first_record(file: BufferedReader, delimiter: str) -> tuple[bytearray, Scanner]:
    """The bytes up to the first record's end, or all that there are, or a little over what is allowed."""
    raw, scanner = bytearray(), Scanner(delimiter)
    while len(raw) <= MAX_HEADER_BYTES:
        chunk = file.read(boundaries.BLOCK_BYTES)
        ends = scanner.feed(bytearray(LEAD) + (chunk or b"\n"), len(chunk) or 1)
        raw += chunk
        if len(ends) or not chunk:
            if chunk:
                del raw[len(raw) - len(chunk) + int(ends[0]) - LEAD :]
                scanner.inside = False
            break
    return raw, scanner


def _refuse_nul(body: bytearray, name: str) -> None:
    """Refuses NUL in the header, and says UTF-16 where every other byte is mostly one."""
    if 0 in body:
        even, odd = body[::2].count(0), body[1::2].count(0)
        if not (even and odd) and 4 * (even + odd) >= len(body) - 1:
            raise _invalid(name, "is UTF-16: save the file as UTF-8")
        raise _invalid(name, "has a NUL byte in its header: save the file as UTF-8 text")


def _holds_bare_cr(body: bytearray, delimiter: str) -> bool:
    """Whether a CR stands outside quotes; up to the first one, LF as an ordinary byte moves no quote."""
    scanner = Scanner(delimiter, CR)
    blocks = (body[at : at + boundaries.BLOCK_BYTES] for at in range(0, len(body), boundaries.BLOCK_BYTES))
    return any(len(scanner.feed(bytearray(LEAD) + block, len(block))) for block in blocks)


def _columns(body: bytearray, delimiter: str, encoding: str, name: str) -> tuple[str, ...]:
    try:
        (cells,) = csv.reader(io.StringIO(body.decode(encoding), newline="\n"), delimiter=delimiter)
    except UnicodeDecodeError as error:
        at = f"byte 0x{body[error.start]:02x} at position {error.start} of the header is not valid {encoding}"
        raise _invalid(name, f"cannot be read: {at}: save the file as UTF-8, or give its encoding") from None
    except csv.Error as error:
        raise _invalid(name, f"has a header that cannot be read ({error}): shorten the column names") from None
    numbers: dict[str, int] = {}
    for number, column in enumerate(cells, 1):
        if column in numbers:
            both = f"columns {numbers[column]} and {number}"
            raise _invalid(name, f"has two columns of one name: {both} are called {column!r}: rename one of them")
        numbers[column] = number
    return tuple(cells)


def never_closed(file: BufferedReader, offset: int, name: str) -> JobError:
    return _invalid(name, f"has a quote that is never closed: it opens on line {_line(file, offset)}: close the quote")


def _line(file: BufferedReader, offset: int) -> int:
    """The number of the line, from 1, that holds the byte at `offset`."""
    file.seek(0)
    line = 1
    while offset > 0 and (chunk := file.read(min(offset, boundaries.BLOCK_BYTES))):
        line += chunk.count(b"\n")
        offset -= len(chunk)
    return line


def _invalid(name: str, problem: str) -> JobError:
    return JobError(JobReason.INPUT_INVALID, f"{name} {problem}")
