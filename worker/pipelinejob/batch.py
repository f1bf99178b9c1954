"""One batch: its rows through the functions, into an attempt folder, with a summary of what became of every row.

The folder holds the images and, written last, `.batch.jsonl`: a first line with the summary (what the ledger records)
and a line for each succeeded row (what metadata.csv is made of, see records.py). Nothing here knows a database or a cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelinejob import faults, images, names, sandbox, template
from pipelinejob.checksum import checksum
from pipelinejob.functions import Chain, Going, Outcome, check_files
from pipelinejob.inputs import ImageReader
from pipelinejob.reasons import RowFailure, RowReason
from pipelinejob.records import SUMMARY, read_urls, record_files
from pipelinejob.reuse import Found, Keys, Previous
from pipelinejob.rows import Record, csv_line, records
from pipelinejob.storage import naming
from pipelinejob.timings import PLANES, READ, WRITE, Stopwatch
from pipelinejob.where import compile_where

if TYPE_CHECKING:
    from pipelinejob.store import Batch

DECODE, ENCODE = READ, WRITE  # the positions of the two steps that are no functions
SEVERAL = 1 << 32  # added to the position where the call is for several rows, of which the first is told
MAX_MESSAGE = 500
MAX_WAITING = 1 << 24  # pixels of the rows that wait for a call together
At = Callable[[int, int], None]


class InputChangedError(Exception):
    """The bytes of a batch are not those that were planned."""


class Task(NamedTuple):
    """A batch to run: where its rows are, and rows that are known to kill the process that runs them."""

    shard: int
    first_row: int
    rows: int
    byte_start: int
    byte_end: int
    checksum: int
    doomed: dict[str, list[str]]  # row → [reason, function, message]
    picked: list[int] | None = None  # the rows to run; None: all
    matched: bool = False  # the file holds the picked rows alone, in their order
    singly: bool = False  # each row by itself, also where functions take many: a process died, and the row is to be found

    @classmethod
    def of(cls, shard: int, batch: Batch, *, matched: bool = False) -> Task:
        """The task of a planned batch."""
        return cls(shard, batch.first_row, batch.rows, batch.byte_start, batch.byte_end, batch.checksum, {}, batch.picked, matched)

    @property
    def to_run(self) -> int:
        """How many rows are to run."""
        return self.rows if self.picked is None else len(self.picked)


class _Waiting(NamedTuple):
    """A row on its way to a function that takes many."""

    record: Record
    name: str | None
    going: Going
    key: str


class BatchRunner:
    """Runs batches of one job.

    Args:
        job: {csv, dataRoot, columns, spec, functions, attempt, records, previous?, memory?}: paths absolute, `spec` as the resource
            spells it; `records` is the folder of earlier records of the same batches, `previous` of the results of the job that this
            one is incremental of; memory in bytes, where this process may use no more.
        folder: the attempt folder of this process; batches become folders in it.
        at: told (row, position of the function) before each step; SEVERAL is added to the position where others run with the row.
    """

    def __init__(self, job: Mapping[str, Any], folder: Path, at: At) -> None:
        source, self._output = job["spec"]["source"], job["spec"]["output"]
        self._attempt: str = job["attempt"]
        self._folder = folder
        self._records = Path(job["records"])
        self._columns: list[str] = job["columns"]
        self._delimiter, self._encoding = source["delimiter"], source["encoding"]
        self._where = compile_where(source["where"], self._columns)
        self._id = self._columns.index(source["idColumn"])
        self._template = template.parse(source["images"]) if source["images"] else None
        pieces = self._template.pieces if self._template else ()
        self._path_cells = [self._columns.index(text) if is_column else -1 for is_column, text in pieces]
        self._max_pixels = source["maxPixels"]
        self._memory: int | None = job.get("memory")
        self._reader = ImageReader(Path(job["dataRoot"]), source["maxBytes"])
        self._copies = not job["functions"]
        self._keys, self._previous = Keys(job["spec"], job["functions"], self._columns), Previous.open(job.get("previous"))
        check_files(job["functions"], Path(job["dataRoot"]))
        self._chain = Chain(job["functions"], seed=job["spec"]["seed"])
        self._jpeg_to_jpeg: Callable[..., bytes | None] | None = None
        if self._template and self._chain.is_geometry and self._output["format"] == "jpeg":
            from pipelinejob.planes import jpeg_to_jpeg  # noqa: PLC0415 - importing numpy takes 60 ms

            self._jpeg_to_jpeg = jpeg_to_jpeg
        self._extension = names.EXTENSIONS[self._output["format"]]
        self._at = at
        self._csv_path: str = job["csv"]
        self._csv = os.open(self._csv_path, os.O_RDONLY | os.O_CLOEXEC)

    def run(self, task: Task) -> dict[str, Any]:
        """Runs a batch and returns its summary, which is also in the batch's folder, complete.

        Raises:
            InputChangedError: the CSV is not the planned one.
            OSError: the storage fails, or is full.
        """
        data = self._bytes(task)
        if checksum(data) != task.checksum:
            raise InputChangedError(f"rows {task.first_row} to {task.first_row + task.rows - 1} are not those planned")
        folder = self._folder / names.folder(task.first_row)
        folder.mkdir()  # never makedirs: the round's folder may be gone, and then nothing may be written any more
        batch = _Batch(folder, f"images/{folder.name}", 1 if task.singly else self._chain.rows_at_once)
        picked = None if task.picked is None else frozenset(task.picked)
        if picked is not None and (self._template is None or task.matched):
            self._take_names(task.first_row, picked, batch.taken)
        found = records(data, task.first_row, self._columns, self._delimiter, self._encoding)
        if task.matched and task.picked is not None:
            found = (record._replace(row=row) for row, record in zip(task.picked, found, strict=True))
        for record in found:
            mine = picked is None or record.row in picked
            try:
                self._run_row(record, batch, task.doomed.get(str(record.row)), mine=mine, chosen=task.matched)
            except RowFailure as failure:
                if mine:
                    _look_at_memory(failure)
                    batch.fail(record, "" if record.problem else record.cells[self._id], failure)
            batch.watch.rest()
        self._run_waiting(batch)
        faults.point("rows-done")
        summary = batch.summary(task, self._attempt)
        _write(folder / (SUMMARY + ".part"), "\n".join([json.dumps(summary), *batch.lines, ""]).encode())
        faults.point("summary-written")
        os.rename(folder / (SUMMARY + ".part"), folder / SUMMARY)
        faults.point("batch-done")
        return summary

    def _bytes(self, task: Task) -> bytes:
        """The batch's part of the CSV; a file server may give it in pieces."""
        pieces, at = [], task.byte_start
        with naming(self._csv_path):
            while at < task.byte_end and (piece := os.pread(self._csv, task.byte_end - at, at)):
                pieces.append(piece)
                at += len(piece)
        return b"".join(pieces)

    def _step(self, batch: _Batch, row: int, position: int, timed: int | None = None) -> None:
        """A step begins, and the one before has ended; `timed` is what its time is counted as."""
        self._at(row, position)
        batch.watch.step(position if timed is None else timed)

    def _take_names(self, first_row: int, picked: frozenset[int], taken: dict[str, int]) -> None:
        """Where functions make the images, a name is its row's once it is made: those of earlier runs stay theirs."""
        for row, url in read_urls(record_files(self._records, first_row)):
            if url and row not in picked:
                names.claim(url.rpartition("/")[2].removesuffix(f".{self._extension}"), self._extension, taken, row)

    def _run_row(self, record: Record, batch: _Batch, doom: list[str] | None, *, mine: bool, chosen: bool) -> None:
        """Takes one row through the checks and functions in the order of the contract; one that is not to run, as far as
        to the name that it owns, and one that was chosen by its id whatever `where` says."""
        if record.problem:
            raise RowFailure(RowReason.MALFORMED_ROW, record.problem)
        if not chosen and not self._where(record.cells):
            batch.filtered += mine
            return
        id = record.cells[self._id]
        name = names.claim(id, self._extension, batch.taken, record.row) if self._template else None
        if not mine:
            return
        if doom:
            raise RowFailure(RowReason(doom[0]), doom[2], doom[1])
        self._step(batch, record.row, DECODE)
        data, digest = self._read_image(record.cells, batch) if self._template else (None, "")
        key = self._keys.of(id, digest, record.cells)
        if self._previous is not None and (found := self._previous.find(key)) is not None:
            self._run_waiting(batch)  # so that results keep their order
            self._reuse(record, name, key, found, batch)
            return
        if data is not None and self._copies:
            images.verify(data, max_pixels=self._max_pixels, memory=self._memory)
            batch.succeed(record, name, data, (), key)
            return
        if data is not None and self._jpeg_to_jpeg:
            self._step(batch, record.row, self._chain.last, PLANES)
            final_resample, quality = partial(self._chain.final_resample, id=id), self._output["quality"]
            encoded = self._jpeg_to_jpeg(data, final_resample, max_pixels=self._max_pixels, quality=quality)
            if encoded is not None:
                batch.succeed(record, name, encoded, (), key)
                return
            self._at(record.row, DECODE)
            batch.watch.resume()
        image = None
        if data is not None:
            limits = {"max_pixels": self._max_pixels, "memory": self._memory}
            image = images.decode(data, scale_for=lambda size: self._chain.scale(size, id), **limits)
        row = dict(zip(self._columns, record.cells, strict=True))
        batch.waiting.append(_Waiting(record, name, Going(image, row, id), key))
        batch.pixels += image.width * image.height if image is not None else 0
        if len(batch.waiting) >= batch.at_once or batch.pixels > MAX_WAITING:
            self._run_waiting(batch)

    def _run_waiting(self, batch: _Batch) -> None:
        """Takes the rows that wait through the functions."""
        waiting, batch.waiting, batch.pixels = batch.waiting, [], 0

        def at(first: int, count: int, position: int) -> None:
            self._step(batch, waiting[first].record.row, position if count == 1 else position + SEVERAL, position)

        for (record, name, going, key), outcome in zip(waiting, self._chain.run_all([each.going for each in waiting], at), strict=True):
            try:
                self._keep(record, name, going.id, key, outcome, batch)
            except RowFailure as failure:
                _look_at_memory(failure)
                batch.fail(record, going.id, failure)
        batch.watch.rest()

    def _reuse(self, record: Record, name: str | None, key: str, found: Found, batch: _Batch) -> None:
        """Takes what came of the row before."""
        if found.skipped:
            batch.skip(key)
            return
        if found.image is None:
            batch.succeed(record, name, None, found.columns, key)
        else:
            name = name or names.claim(record.cells[self._id], self._extension, batch.taken, record.row)
            with naming(found.image):
                batch.succeed(record, name, found.image.read_bytes(), found.columns, key, found.image)
        batch.reused += 1

    def _keep(self, record: Record, name: str | None, id: str, key: str, outcome: Outcome | RowFailure, batch: _Batch) -> None:
        """Writes what came of a row."""
        if isinstance(outcome, RowFailure):
            raise outcome
        if outcome.skipped:
            batch.skip(key)
            return
        encoded = None
        if outcome.image is not None:
            self._step(batch, record.row, ENCODE)
            name = name or names.claim(id, self._extension, batch.taken, record.row)
            output = self._output
            encoded = images.encode(outcome.image, format=output["format"], quality=output["quality"], background=output["background"])
        batch.succeed(record, name, encoded, outcome.columns, key)

    def _read_image(self, cells: list[str], batch: _Batch) -> tuple[bytes, str]:
        """A row's image file and its sha256."""
        assert self._template is not None
        for index in self._path_cells:
            if index >= 0 and not cells[index]:
                raise RowFailure(RowReason.IMAGE_NOT_FOUND, f"the column {self._columns[index]!r} is empty")
        path = self._template.fill_cells(self._path_cells, cells)
        data = self._reader.read(path)
        digest = hashlib.sha256(data).hexdigest()
        batch.inputs.update(f"{digest}  {path}\n".encode())
        return data, digest


class _Batch:
    """What has become of the rows of a batch so far."""

    def __init__(self, folder: Path, url: str, at_once: int) -> None:
        self.folder, self.url, self.at_once = str(folder), url, at_once
        self.watch = Stopwatch()
        self.waiting: list[_Waiting] = []  # at_once rows at most
        self.pixels = 0  # of those
        self.taken: dict[str, int] = {}
        self.filtered = self.skipped = self.reused = self.images = self.bytes = 0
        self.skipped_keys: list[str] = []
        self.inputs, self.outputs = hashlib.sha256(), hashlib.sha256()
        self.failures: list[dict[str, object]] = []
        self.columns: dict[tuple[int, str, str], None] = {}
        self.lines: list[str] = []

    def fail(self, record: Record, id: str, failure: RowFailure) -> None:
        self.failures.append(
            {
                "row": record.row,
                "id": id,
                "reason": failure.reason.value,
                "function": failure.function,
                "message": one_line(failure.message),
            }
        )

    def skip(self, key: str) -> None:
        self.skipped += 1
        self.skipped_keys.append(key)

    def succeed(
        self,
        record: Record,
        name: str | None,
        data: bytes | None,
        columns: tuple[tuple[int, str, dict[str, object]], ...],
        key: str,
        file: Path | None = None,
    ) -> None:
        """Keeps a row's result; `file` has the very bytes of `data`, where there is one."""
        url = ""
        if data is not None:
            assert name is not None
            if file is None or not _link(file, f"{self.folder}/{name}"):
                _write(f"{self.folder}/{name}", data)
            self.outputs.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode())
            self.images += 1
            self.bytes += len(data)
            url = f"{self.url}/{name}"
        for position, function, values in columns:
            self.columns.update(dict.fromkeys((position, function, column) for column in values))
        self.lines.append(json.dumps([record.row, csv_line([*record.cells, url]), columns, key]))

    def summary(self, task: Task, attempt: str) -> dict[str, Any]:
        return {
            "first_row": task.first_row,
            "attempt": attempt,
            "rows": task.to_run,
            "succeeded": len(self.lines),
            "filtered": self.filtered,
            "skipped": self.skipped,
            "failed": len(self.failures),
            "images": self.images,
            "bytes": self.bytes,
            "images_sha256": self.outputs.hexdigest(),
            "inputs_sha256": self.inputs.hexdigest(),
            "columns": sorted(self.columns),
            "byte_start": task.byte_start,
            "byte_end": task.byte_end,
            "failures": sorted(self.failures, key=itemgetter("row")),
            "timings": self.watch.stop(),
            **({"reused": self.reused} if self.reused else {}),
            **({"skipped_keys": self.skipped_keys} if self.skipped_keys else {}),
        }


def one_line(message: str) -> str:
    """A message for the ledger: one line of at most 500 characters, control characters replaced, addresses masked."""
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", " ".join(message.split()))
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _look_at_memory(failure: RowFailure) -> None:
    """Where memory was refused, it may be what earlier rows have left: then this process ends, and no row is to blame."""
    if isinstance(failure.__cause__ or failure.__context__, MemoryError):
        failure.__cause__ = failure.__context__ = None  # its frames would hold what was too much
        sandbox.end_if_full()


def _link(file: Path, path: str) -> bool:
    """Whether a file could be given a second name."""
    try:
        os.link(file, path)
    except OSError:  # another file system, or one without links
        return False
    return True


def _write(path: str | Path, data: bytes) -> None:
    """Writes a new file whole; a full disk is an OSError for the whole batch, never a row's fault."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with naming(path):
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)  # where a file server says that it has no room
