"""A CSV of any size → its batches and shards: one pass in constant memory that finds exact record boundaries.

Python's csv module (not strict) is the reference for where a record ends; numpy does the looking. Hashing and
reading run in a thread beside the scan. What the pass finds is kept as 16 bytes a batch, on disk once that is more
than a few MiB.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelinejob import boundaries
from pipelinejob.boundaries import CR, LEAD, Positions, Scanner
from pipelinejob.checksum import Checksum
from pipelinejob.header import Header, find_header, never_closed, open_csv, skip_bom
from pipelinejob.reasons import JobError, JobReason

SPOOL_BYTES = 4 << 20
PROGRESS_BYTES = 64 << 20

_BLOCKS = 4  # how far hashing and reading may be apart from the scan
_ENTRY = struct.Struct("<QQ")  # where a batch ends, and the checksum of its bytes

Spool = tempfile.SpooledTemporaryFile[bytes]


class Shard(NamedTuple):
    """Whole batches that one worker takes: rows and bytes from the start, exclusive ends, a checksum for each batch."""

    index: int  # type: ignore[assignment]  # a field named as Kubernetes names it hides tuple.index
    first_row: int
    rows: int
    byte_start: int
    byte_end: int
    batch_ends: tuple[int, ...]
    batch_checksums: tuple[int, ...]


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
        """Yields (exclusive end as an absolute offset, checksum) of each batch; iterators do not disturb each other."""
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
    with open_csv(path, name) as file:
        before = os.fstat(file.fileno())
        header = find_header(file, delimiter, encoding, name)
        head = skip_bom(file, name)
        planner = _Planner(delimiter, batch_rows, limit, len(head))
        try:
            sha256 = _read_all(file, head, planner, progress)
            after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                message = f"{name} changed while it was read: wait until it is complete, then start the job again"
                raise JobError(JobReason.INPUT_CHANGED, message)
            if planner.scanner.inside:
                raise never_closed(file, planner.start + planner.scanner.quote_at, name)
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
        ends, checksums = zip(*part, strict=True)
        rows = min(per_shard * index.batch_rows, index.rows - first_row)
        yield Shard(number, first_row, rows, start, ends[-1], ends, checksums)
        number, first_row, start = number + 1, first_row + rows, ends[-1]


class _Planner:
    """Counts records and keeps where batches end; here the header counts as record 0, and as a batch of its own."""

    def __init__(self, delimiter: str, batch_rows: int, limit: int | None, start: int) -> None:
        self.start = start
        self.scanner = Scanner(delimiter)
        self.spool = Spool(SPOOL_BYTES)
        self._batch_rows = batch_rows
        self._limit = limit
        self._records = 0
        self._record_start = LEAD  # as an index into the next block
        self._done = start
        self._sum = Checksum()
        self._last_row = (0, 0)  # where it ends, and the checksum of its batch up to there

    def take(self, block: bytearray, size: int) -> None:
        """Takes the next `size` bytes of the file, which stand in the block after its lead."""
        self._add(memoryview(block)[LEAD : LEAD + size], *self._cuts(block, size))

    def finish(self) -> None:
        """Ends the last record, where it has no line end by one that takes no room, and the last batch."""
        if self._record_start != LEAD:
            cuts, last = self._cuts(bytearray(LEAD) + b"\n", 1)
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
        cuts = wanted[-self._records % self._batch_rows :: self._batch_rows] - LEAD
        self._records += len(ends)
        return cuts.tolist(), int(wanted[-1]) - LEAD if len(wanted) else None

    def _add(self, data: memoryview | bytes, cuts: list[int], last: int | None) -> None:
        start = 0
        for cut in cuts:
            self._sum.update(data[start:cut])
            self.spool.write(_ENTRY.pack(self._done + cut, self._sum.value()))
            self._sum.reset()
            start = cut
        if last is not None:
            self._sum.update(data[start:last])
            self._last_row = (self._done + last, self._sum.value())
            start = last
        self._sum.update(data[start:])
        self._done += len(data)


def _are_records(ends: Positions, start: int, block: bytearray) -> NDArray[np.bool_]:
    """Which of the line ends end a record and not an empty line; `start` is where the first record starts."""
    lengths = np.diff(ends, prepend=start)
    records = lengths > 2
    short = np.flatnonzero(~records)
    records[short] = (lengths[short] == 2) & (np.frombuffer(block, np.uint8)[ends[short] - 2] != CR)
    return records


def _read_all(file: BufferedReader, head: bytes, planner: _Planner, progress: Callable[[int], None] | None) -> str:
    """Plans the rest of the file, which follows `head`, and returns the SHA-256 of both in hex.

    A thread beside the scan hashes each block that was scanned, and reads the next bytes into it.
    """
    sha256 = hashlib.sha256(head)
    done = len(head)

    def refill(block: bytearray, size: int) -> int:
        data = memoryview(block)[LEAD:]
        sha256.update(data[:size])
        return file.readinto(data)

    with ThreadPoolExecutor(1) as thread:
        blocks = (bytearray(LEAD + boundaries.BLOCK_BYTES) for _ in range(_BLOCKS))
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
