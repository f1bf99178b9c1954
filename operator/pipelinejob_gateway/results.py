"""Results, read from an output folder alone: pages of metadata.csv, the whole of it in three formats, one image, a zip.

Everything is read piece by piece. Nothing outside the folder is: each step of a path is opened without following links.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from pipelinejob.resources import Output
from pipelinejob_gateway.problems import Refused

CHUNK = 1 << 18
ROWS_AT_ONCE = 10_000  # of a Parquet file's group
MAX_ZIPPED = 200_000  # images of one zip: its directory is held until its end, half a KiB of each
FILES = {"metadata.csv": "text/csv", "failures.csv": "text/csv", "manifest.json": "application/json"}
IMAGE_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_FOLDER_ONLY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = re.compile(r"[0-9]{9,}")

csv.field_size_limit(1 << 30)  # a cell may have a MiB


class RowPage(NamedTuple):
    """Some rows of metadata.csv, and where the next page begins."""

    rows: list[dict[str, str]]
    after: str | None


def open_below(output: Output, *parts: str) -> BinaryIO:
    """Opens a regular file below an output folder, following no link on the way.

    Raises:
        Refused: 404, when there is none.
    """
    folder = _open_folder(output, *parts[:-1])
    try:
        if not _is_name(parts[-1]):
            raise OSError
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        raise Refused(404, f"there is no file {'/'.join(parts)!r} in the results (yet)", "NotFound") from None
    finally:
        if folder >= 0:
            os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Refused(404, f"there is no file {'/'.join(parts)!r} in the results", "NotFound")
    return os.fdopen(file, "rb")


def _open_folder(output: Output, *parts: str) -> int:
    """A descriptor of a folder below an output folder, or -1; a link may stand in the output's own path, if it stays below the root."""
    root = os.path.realpath(output.root)
    path = os.path.relpath(os.path.realpath(os.path.join(root, output.path)), root)
    steps = [*path.split("/"), *parts]
    if not all(map(_is_name, steps)):
        return -1
    descriptor = -1
    try:
        descriptor = os.open(root, _FOLDER_ONLY)
        for step in steps:
            inner = os.open(step, _FOLDER_ONLY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return -1
    return descriptor


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and "/" not in part and "\x00" not in part


def row_page(output: Output, after: str | None, limit: int) -> RowPage:
    """At most `limit` rows of metadata.csv, each {column: cell}.

    Args:
        output: where the results are.
        after: of the page before; None: the first page.
        limit: how many at most.

    Raises:
        Refused: 404 before the job's end; 410 when the file was written anew since the page before; 422 for an `after` of nobody.
    """
    with open_below(output, "metadata.csv") as file:
        version = _version(file)
        columns = _columns(file)
        start = file.tell()
        if after is not None:
            match = re.fullmatch(r"([0-9a-f]{1,64})-([0-9]{1,18})", after)
            if match is None or int(match[2]) < start:
                raise Refused(422, "after: is not what a page before this one gave", "Invalid")
            if match[1] != version:
                raise Refused(410, "the results were written anew since the page before: start at the first page again", "Expired")
            start = int(match[2])
        file.seek(start)
        lines = _Lines(file)
        rows = [dict(zip(columns, cells, strict=False)) for cells in islice(csv.reader(lines), limit)]
        more = bool(file.read(1))
        return RowPage(rows, f"{version}-{start + lines.read}" if more else None)


def whole(output: Output, name: str) -> tuple[int, Iterator[bytes]]:
    """(bytes, pieces) of one of the three files of the results."""
    file = open_below(output, name)
    return os.fstat(file.fileno()).st_size, _pieces(file)


def metadata_json(output: Output) -> Iterator[bytes]:
    """metadata.csv as a JSON array of {column: cell}."""
    file = open_below(output, "metadata.csv")

    def pieces() -> Iterator[bytes]:
        with file:
            columns = _columns(file)
            before = "["
            for rows in _batches(file):
                yield (before + ",\n".join(json.dumps(dict(zip(columns, cells, strict=False))) for cells in rows)).encode()
                before = ",\n"
            yield b"]\n" if before != "[" else b"[]\n"

    return pieces()


def metadata_parquet(output: Output) -> Iterator[bytes]:
    """metadata.csv as a Parquet file; its columns are strings, as the cells of a CSV are."""
    import pyarrow as arrow  # noqa: PLC0415 - slow to load, and seldom asked for
    from pyarrow import parquet  # noqa: PLC0415

    file = open_below(output, "metadata.csv")

    def pieces() -> Iterator[bytes]:
        with file:
            columns = _columns(file)
            schema = arrow.schema([(column, arrow.string()) for column in columns])
            sink = _Sink()
            with parquet.ParquetWriter(arrow.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
                for rows in _batches(file):
                    cells = [arrow.array(column, arrow.string()) for column in zip(*rows, strict=True)]
                    writer.write_table(arrow.Table.from_arrays(cells, schema=schema))
                    yield sink.take()
            yield sink.take()

    return pieces()


def image(output: Output, folder: str, name: str) -> tuple[str, bytes]:
    """(media type, bytes) of one image.

    Raises:
        Refused: 404, when there is none.
    """
    if not _FOLDER.fullmatch(folder):
        raise Refused(404, f"there is no image {folder}/{name!r} in the results", "NotFound")
    with open_below(output, "images", folder, name) as file:
        return IMAGE_TYPES.get(name.rpartition(".")[2], "application/octet-stream"), file.read()


def images_zip(output: Output, first: int, rows: int) -> Iterator[bytes]:
    """The images of rows `first` to `first + rows` (whole batches that begin there), uncompressed, since images are already.

    Raises:
        Refused: 404 when there are none; 413 when there are more than a zip of ours takes.
    """
    names = (name for name in _names(output, "images") if _FOLDER.fullmatch(name))
    folders = sorted((int(name), name) for name in names if first <= int(name) < first + rows)
    if not folders:
        raise Refused(404, "there are no images of these rows in the results (yet)", "NotFound")
    found = 0
    for _, folder in folders:
        found += len(_names(output, "images", folder))
        if found > MAX_ZIPPED:
            raise Refused(413, f"these are more than {MAX_ZIPPED} images: ask for them in parts, with ?first=0&rows=100000", "TooLarge")

    def pieces() -> Iterator[bytes]:
        sink = _Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for _, folder in folders:
                for name in sorted(_names(output, "images", folder)):
                    try:
                        with open_below(output, "images", folder, name) as file:
                            archive.writestr(zipfile.ZipInfo(f"images/{folder}/{name}"), file.read())
                    except Refused:  # gone since: a redrive moved it, or the job was deleted
                        continue
                    yield sink.take()
        yield sink.take()

    return pieces()


class _Lines:
    """The lines of a file as text, counting their bytes: csv reads as far as the end of a record, and no further."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.read += len(line)
        return line.decode("utf-8")


class _Sink(io.RawIOBase):
    """What is written to it is taken from it, piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        """What was written since it was last asked."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _columns(file: BinaryIO) -> list[str]:
    return next(csv.reader(_Lines(file)))


def _batches(file: BinaryIO) -> Iterator[list[list[str]]]:
    rows = csv.reader(_Lines(file))
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        yield batch


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with closing(file):
        while piece := file.read(CHUNK):
            yield piece


def _version(file: BinaryIO) -> str:
    status = os.fstat(file.fileno())
    return f"{status.st_ino:x}{status.st_mtime_ns:x}"


def _names(output: Output, *parts: str) -> list[str]:
    """What is in a folder below an output folder; nothing when there is none."""
    folder = _open_folder(output, *parts)
    if folder < 0:
        return []
    try:
        return os.listdir(folder)
    finally:
        os.close(folder)
