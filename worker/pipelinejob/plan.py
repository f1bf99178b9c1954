"""A CSV of any size → its batches and shards: one pass in constant memory that finds exact record boundaries.

Python's csv module (not strict) is the reference for where a record ends; numpy does the looking. Hashing and
reading run in a thread beside the scan. What the pass finds is kept as 12 bytes a batch, on disk once that is more
than a few MiB.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
import struct
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelinejob.reasons import JobError, JobReason

MAX_HEADER_BYTES = 16 << 20
BLOCK_BYTES = 1 << 19  # the arrays over one block must stay small when every byte of it is a quote or a line end
SPOOL_BYTES = 4 << 20
PROGRESS_BYTES = 64 << 20

_BLOCKS = 4  # how far hashing and reading may be apart from the scan
_LEAD = 2  # bytes in front of a block that hold what the scanner must still see of the block before
_BOM = b"\xef\xbb\xbf"
_QUOTE, _LF, _CR = b'"\n\r'
_ENTRY = struct.Struct("<QI")  # where a batch ends, and the CRC of its bytes

Positions = NDArray[np.intp]
Spool = tempfile.SpooledTemporaryFile[bytes]


class Header(NamedTuple):
    """The columns, and the offset of the first byte after the header record."""

    columns: tuple[str, ...]
    byte_end: int


class Shard(NamedTuple):
    """Whole batches that one worker takes: rows and bytes from the start, exclusive ends, a CRC-32 for each batch."""

    index: int  # type: ignore[assignment]  # a field named as Kubernetes names it hides tuple.index
    first_row: int
    rows: int
    byte_start: int
    byte_end: int
    batch_ends: tuple[int, ...]
    batch_crcs: tuple[int, ...]


@dataclass(frozen=True)
class CsvIndex:
    """What a pass found: `rows` to run, `total_rows` in the file, and of the whole file its size, SHA-256 and mtime."""

    rows: int
    total_rows: int
    bytes: int
    sha256: str
    mtime_ns: int
    header: Header
    batch_rows: int
    _spool: Spool = field(repr=False, compare=False)

    def batches(self) -> Iterator[tuple[int, int]]:
        """Yields (exclusive end as an absolute offset, CRC-32) of each batch; iterators do not disturb each other."""
        position = _ENTRY.size  # the first entry is the header's
        while True:
            self._spool.seek(position)
            entries = self._spool.read(4096 * _ENTRY.size)
            if not entries:
                return
            position += len(entries)
            yield from _ENTRY.iter_unpack(entries)

    def __del__(self) -> None:
        self._spool.close()


def read_header(path: Path, *, delimiter: str, encoding: str, label: str | None = None) -> Header:
    """The first record that is not an empty line; messages call the file `label`, or else its path.

    Raises:
        JobError: InputNotFound or InputInvalid.
    """
    name = label or str(path)
    with _open(path, name) as file:
        return _find_header(file, delimiter, encoding, name)


def scan(
    path: Path,
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
    batch_rows: int = 200,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
    label: str | None = None,
) -> CsvIndex:
    """Reads the whole file once and finds where each batch of rows ends.

    A batch starts where the one before ends (the first one after the header) and ends directly after its last row,
    so empty lines after the last row belong to no batch.

    Args:
        path: the CSV.
        delimiter: one ASCII character.
        encoding: an encoding that extends ASCII.
        batch_rows: rows in a batch; the last one may have fewer.
        limit: how many rows to plan; the counts and digests of the file cover all of it.
        progress: told the bytes done, about every 64 MiB.
        label: what messages call the file instead of its path.

    Raises:
        JobError: InputNotFound, InputInvalid, or InputChanged when the file changes meanwhile.
        OSError: the storage fails.
    """
    name = label or str(path)
    with _open(path, name) as file:
        before = os.fstat(file.fileno())
        header = _find_header(file, delimiter, encoding, name)
        head = _skip_bom(file, name)
        planner = _Planner(delimiter, batch_rows, limit, len(head))
        try:
            sha256 = _read_all(file, head, planner, progress)
            after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                message = f"{name} changed while it was read: wait until it is complete, then start the job again"
                raise JobError(JobReason.INPUT_CHANGED, message)
            if planner.scanner.inside:
                raise _never_closed(file, planner.start + planner.scanner.quote_at, name)
            return planner.index(header, sha256, after.st_mtime_ns)
        except BaseException:
            planner.spool.close()
            raise


def shards(index: CsvIndex, rows_per_shard: int) -> Iterator[Shard]:
    """Yields the shards in order, `rows_per_shard` rounded up to whole batches; none when there are no rows."""
    if rows_per_shard < 1:
        raise ValueError(f"rows_per_shard must be at least 1, got {rows_per_shard}")
    batches = index.batches()
    per_shard = -(-rows_per_shard // index.batch_rows)
    number, first_row, start = 0, 0, index.header.byte_end
    while part := tuple(islice(batches, per_shard)):
        ends, crcs = zip(*part, strict=True)
        rows = min(per_shard * index.batch_rows, index.rows - first_row)
        yield Shard(number, first_row, rows, start, ends[-1], ends, crcs)
        number, first_row, start = number + 1, first_row + rows, ends[-1]


class _Scanner:
    """Finds the line ends outside quotes, block by block.

    What a quote means depends on all before it, but a whole run of adjacent quotes can do only one of three things:
    an even run changes nothing (`""` is a literal quote, or an empty field, or two plain characters); an odd run at
    the start of a field or inside quotes after what looks like one swaps inside and outside; any other odd run ends
    outside (it closes the field, or is made of plain characters). So whether a run ends inside is the parity of the
    swaps since the last run of the third kind, which needs no loop.
    """

    def __init__(self, delimiter: str, newline: int = _LF) -> None:
        self.inside = False
        self.quote_at = 0  # while inside: which of the bytes fed so far opened the field
        self._delimiter = ord(delimiter)
        self._newline = newline
        self._fed = 0
        self._lead = bytes((self._delimiter, self._delimiter))
        self._masks = np.empty((2, BLOCK_BYTES + _LEAD), np.bool_)  # kept, since fresh pages cost more than the search

    def feed(self, block: bytearray, size: int) -> Positions:
        """The index after each line end outside quotes in block[_LEAD:_LEAD + size]; the lead is the scanner's own."""
        stop = _LEAD + size
        block[:_LEAD] = self._lead
        if block.find(_QUOTE, 1, stop) >= 0:
            ends = self._ends_among_quotes(block, stop)
        else:
            self._lead = self._lead_after(block[stop - 1])
            ends = self._find(np.frombuffer(block, np.uint8, stop), _LEAD, self._newline) + 1
            ends = ends[: 0 if self.inside else None]
        self._fed += size
        return ends

    def _ends_among_quotes(self, block: bytearray, stop: int) -> Positions:
        text = np.frombuffer(block, np.uint8, stop)
        marks = self._find(text, 1, self._newline, _QUOTE)
        before = text[marks - 1]
        quotes = text[marks] == _QUOTE
        firsts = np.flatnonzero(~(quotes & (before == _QUOTE)))  # line ends, and the first quotes of runs
        odd = (np.diff(firsts, append=len(marks)) & 1).astype(np.bool_)
        if block[stop - 1] != _QUOTE:
            self._lead = self._lead_after(block[stop - 1])
        else:  # the next block may go on with this run: leave it to that one, shortened to one quote or none
            self._lead = self._lead_after(int(before[firsts[-1]]), _QUOTE if odd[-1] else None)
            firsts, odd = firsts[:-1], odd[:-1]
        kept = firsts[np.flatnonzero(odd)]
        marks, before, quotes = marks[kept], before[kept], quotes[kept]
        swaps = quotes & ((before == self._delimiter) | (before == self._newline))
        count = np.cumsum(swaps)
        since = np.maximum.accumulate(np.where(quotes & ~swaps, count, -int(self.inside)))
        inside = ((count - since) & 1).astype(np.bool_)
        if len(inside):
            self.inside = bool(inside[-1])
            if self.inside and quotes.any():
                self.quote_at = self._fed - _LEAD + int(marks[np.flatnonzero(quotes)[-1]])
        ends: Positions = marks[np.flatnonzero(~(quotes | inside))] + 1
        return ends

    def _find(self, text: NDArray[np.uint8], start: int, *wanted: int) -> Positions:
        """The indices from `start` of the one or two wanted bytes."""
        masks = self._masks[:, : len(text) - start]
        for mask, byte in zip(masks, wanted, strict=False):
            np.equal(text[start:], byte, out=mask)
        if len(wanted) == 2:
            np.logical_or(masks[0], masks[1], out=masks[0])
        return np.flatnonzero(masks[0]) + start

    def _lead_after(self, last: int, quote: int | None = None) -> bytes:
        """The lead of the next block; a line end is given as a delimiter, which says as much and is no line end."""
        context = self._delimiter if last == self._newline else last
        return bytes((context, quote or context))


class _Planner:
    """Counts records and keeps where batches end; here the header counts as record 0, and as a batch of its own."""

    def __init__(self, delimiter: str, batch_rows: int, limit: int | None, start: int) -> None:
        self.start = start
        self.scanner = _Scanner(delimiter)
        self.spool = Spool(SPOOL_BYTES)
        self._batch_rows = batch_rows
        self._limit = limit
        self._records = 0
        self._record_start = _LEAD  # as an index into the next block
        self._done = start
        self._crc = 0
        self._last_row = (0, 0)  # where it ends, and the CRC of its batch up to there

    def take(self, block: bytearray, size: int) -> None:
        """Takes the next `size` bytes of the file, which stand in the block after its lead."""
        self._add(memoryview(block)[_LEAD : _LEAD + size], *self._cuts(block, size))

    def finish(self) -> None:
        """Ends the last record, where it has no line end by one that takes no room, and the last batch."""
        if self._record_start != _LEAD:
            cuts, last = self._cuts(bytearray(_LEAD) + b"\n", 1)
            self._add(b"", [0] * len(cuts), None if last is None else 0)
        if self._rows() % self._batch_rows:
            self.spool.write(_ENTRY.pack(*self._last_row))

    def index(self, header: Header, sha256: str, mtime_ns: int) -> CsvIndex:
        """What was found."""
        total = self._records - 1
        return CsvIndex(self._rows(), total, self._done, sha256, mtime_ns, header, self._batch_rows, self.spool)

    def _rows(self) -> int:
        total = self._records - 1
        return total if self._limit is None else min(self._limit, total)

    def _cuts(self, block: bytearray, size: int) -> tuple[list[int], int | None]:
        """Where batches end in the next bytes, and where the last row ends that ends in them, from their start."""
        ends = self.scanner.feed(block, size)
        start, self._record_start = self._record_start, (int(ends[-1]) if len(ends) else self._record_start) - size
        ends = ends[_are_records(ends, start, block)]
        wanted = ends if self._limit is None else ends[: max(0, self._limit + 1 - self._records)]
        cuts = wanted[-self._records % self._batch_rows :: self._batch_rows] - _LEAD
        self._records += len(ends)
        return cuts.tolist(), int(wanted[-1]) - _LEAD if len(wanted) else None

    def _add(self, data: memoryview | bytes, cuts: list[int], last: int | None) -> None:
        start = 0
        for cut in cuts:
            self.spool.write(_ENTRY.pack(self._done + cut, zlib.crc32(data[start:cut], self._crc)))
            start, self._crc = cut, 0
        if last is not None:
            self._crc = zlib.crc32(data[start:last], self._crc)
            self._last_row = (self._done + last, self._crc)
            start = last
        self._crc = zlib.crc32(data[start:], self._crc)
        self._done += len(data)


def _are_records(ends: Positions, start: int, block: bytearray) -> NDArray[np.bool_]:
    """Which of the line ends end a record and not an empty line; `start` is where the first record starts."""
    lengths = np.diff(ends, prepend=start)
    records = lengths > 2
    short = np.flatnonzero(~records)
    records[short] = (lengths[short] == 2) & (np.frombuffer(block, np.uint8)[ends[short] - 2] != _CR)
    return records


def _read_all(file: BufferedReader, head: bytes, planner: _Planner, progress: Callable[[int], None] | None) -> str:
    """Plans the rest of the file, which follows `head`, and returns the SHA-256 of both in hex.

    A thread beside the scan hashes each block that was scanned, and reads the next bytes into it.
    """
    sha256 = hashlib.sha256(head)
    done = len(head)

    def refill(block: bytearray, size: int) -> int:
        data = memoryview(block)[_LEAD:]
        sha256.update(data[:size])
        return file.readinto(data)

    with ThreadPoolExecutor(1) as thread:
        blocks = (bytearray(_LEAD + BLOCK_BYTES) for _ in range(_BLOCKS))
        filling = deque((block, thread.submit(refill, block, 0)) for block in blocks)
        while True:
            block, future = filling.popleft()
            size = future.result()
            if not size:
                break
            planner.take(block, size)
            filling.append((block, thread.submit(refill, block, size)))
            done += size
            if progress and done // PROGRESS_BYTES > (done - size) // PROGRESS_BYTES:
                progress(done)
        for _, future in filling:
            future.result()
    planner.finish()
    return sha256.hexdigest()


@contextmanager
def _open(path: Path, name: str) -> Iterator[BufferedReader]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise JobError(JobReason.INPUT_NOT_FOUND, f"{name} is a folder or a device, not a file: name a CSV file")
        file = open(path, "rb")  # noqa: SIM115 - errors of its use are not errors of opening it
    except FileNotFoundError:
        raise JobError(JobReason.INPUT_NOT_FOUND, f"{name} does not exist: check the path") from None
    except OSError as error:
        message = f"{name} cannot be read ({error.strerror}): check the path and its permissions"
        raise JobError(JobReason.INPUT_NOT_FOUND, message) from None
    with file:
        yield file


def _skip_bom(file: BufferedReader, name: str) -> bytes:
    """Goes to the first byte of text and returns what stands before it."""
    file.seek(0)
    bom = file.read(len(_BOM))
    if bom.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _invalid(name, "is UTF-16: save the file as UTF-8")
    if bom == _BOM:
        return bom
    file.seek(0)
    return b""


def _find_header(file: BufferedReader, delimiter: str, encoding: str, name: str) -> Header:
    start = len(_skip_bom(file, name))
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
    if _CR in raw and _holds_bare_cr(raw, delimiter):
        raise _invalid(name, "holds a carriage return in its header outside quotes: save it with LF or CRLF line ends")
    if end - start > MAX_HEADER_BYTES:
        problem = f"has a header over {MAX_HEADER_BYTES >> 20} MiB: put the column names on a line of their own"
        if scanner.inside:
            problem += f"; the quote that opens on line {_line(file, start + scanner.quote_at)} may lack its end"
        raise _invalid(name, problem)
    if scanner.inside:
        raise _never_closed(file, start + scanner.quote_at, name)
    return Header(_columns(raw, delimiter, encoding, name), end)


def _first_record(file: BufferedReader, delimiter: str) -> tuple[bytearray, _Scanner]:
    """The bytes up to the first record's end, or all that there are, or a little over what is allowed."""
    raw, scanner = bytearray(), _Scanner(delimiter)
    while len(raw) <= MAX_HEADER_BYTES:
        chunk = file.read(BLOCK_BYTES)
        ends = scanner.feed(bytearray(_LEAD) + (chunk or b"\n"), len(chunk) or 1)
        raw += chunk
        if len(ends) or not chunk:
            if chunk:
                del raw[len(raw) - len(chunk) + int(ends[0]) - _LEAD :]
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
    scanner = _Scanner(delimiter, _CR)
    blocks = (body[at : at + BLOCK_BYTES] for at in range(0, len(body), BLOCK_BYTES))
    return any(len(scanner.feed(bytearray(_LEAD) + block, len(block))) for block in blocks)


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


def _never_closed(file: BufferedReader, offset: int, name: str) -> JobError:
    return _invalid(name, f"has a quote that is never closed: it opens on line {_line(file, offset)}: close the quote")


def _line(file: BufferedReader, offset: int) -> int:
    """The number of the line, from 1, that holds the byte at `offset`."""
    file.seek(0)
    line = 1
    while offset > 0 and (chunk := file.read(min(offset, BLOCK_BYTES))):
        line += chunk.count(b"\n")
        offset -= len(chunk)
    return line


def _invalid(name: str, problem: str) -> JobError:
    return JobError(JobReason.INPUT_INVALID, f"{name} {problem}")
