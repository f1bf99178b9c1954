"""The chain on a few rows, before a job runs: what it makes of them, and how long it takes."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from html import escape
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from pipelinejob import contact_sheet, model, names, plan, planning, template
from pipelinejob.batch import BatchRunner, Task
from pipelinejob.images import decode
from pipelinejob.inputs import ImageReader
from pipelinejob.plan import CsvIndex
from pipelinejob.reasons import RowFailure
from pipelinejob.records import SUMMARY, read_rows, read_summary
from pipelinejob.rows import Record, records
from pipelinejob.where import compile_where

TIMED, TIMED_AMONG = 20, 10_000  # rows that are run to take the time, and of how many the first that match
PATIENCE = 300.0  # seconds for that
SIDE = 240  # pixels of a picture on the page
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { margin: 2rem }
td, th { padding: .4rem .8rem; border-bottom: 1px solid #8884; vertical-align: top; text-align: left }
.failed { color: #c33 }
"""


class SampledRow(NamedTuple):
    """What became of a row; `message` is empty but for a row that failed."""

    row: int
    id: str
    status: str  # succeeded, skipped or failed
    message: str
    columns: dict[str, object]
    before: Image.Image | None
    after: Image.Image | None


class Sample(NamedTuple):
    """Some rows, and the seconds that one took on average, by one process."""

    rows: list[SampledRow]
    seconds_a_row: float


def take_time(wanted: Mapping[str, Any]) -> tuple[int, float]:
    """(rows, seconds a row of one process) of a few rows of a job.

    Args:
        wanted: {job, functions, dataRoot}: the resource, its functions as they run, and the data root.
    """
    root = Path(wanted["dataRoot"])
    job = model.parse(wanted["job"])
    request = planning.Request(job, wanted["functions"], root, root, root, limit=TIMED_AMONG)
    path, _, _ = planning.inspect(request)
    found = run(request, path, planning.scan(request, path), TIMED)
    return len(found.rows), found.seconds_a_row


def main() -> None:
    """The same in a process of its own, without credentials: what to run on standard input, the answer on standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # users' code may print
    json.dump(take_time(json.load(sys.stdin)), answers)
    answers.close()


def run(request: planning.Request, path: Path, index: CsvIndex, count: int) -> Sample:
    """Runs the chain over the first rows that match, in this process, with the very code of a run; nothing of the job's is written.

    Args:
        request: the job, and where its data is.
        path: the CSV.
        index: its batches.
        count: how many rows at most.

    Raises:
        ValueError: a function's class cannot be made.
    """
    spec = request.job.spec
    found: list[SampledRow] = []
    seconds = 0.0
    with TemporaryDirectory(prefix="pipelinejob-sample-") as name:
        folder = Path(name)
        job = {
            "csv": str(path), "dataRoot": str(request.data_root), "columns": list(index.header.columns), "spec": spec.as_dict(),
            "functions": request.functions, "attempt": "sample", "records": str(folder / "records"),
        }  # fmt: skip
        runner = BatchRunner(job, folder, lambda row, position: None)
        for task, chosen in _tasks(request, path, index, count):
            began = time.monotonic()
            runner.run(task)
            seconds += time.monotonic() - began
            found += _outcomes(folder / names.folder(task.first_row), chosen, request, index)
    return Sample(found, seconds / max(1, len(found)))


def _tasks(request: planning.Request, path: Path, index: CsvIndex, count: int) -> Iterator[tuple[Task, list[Record]]]:
    """Batches with the rows of them that are to run, until there are enough."""
    source = request.job.spec.source
    matches: Callable[[list[str]], bool] = compile_where(source.where, index.header.columns)
    with open(path, "rb") as file:
        for shard in plan.shards(index, index.batch_rows):  # a batch each
            if count <= 0:
                return
            file.seek(shard.byte_start)
            data = file.read(shard.byte_end - shard.byte_start)
            found = records(data, shard.first_row, index.header.columns, source.delimiter, source.encoding)
            chosen = list(islice((record for record in found if not record.problem and matches(record.cells)), count))
            count -= len(chosen)
            if chosen:
                picked = [record.row for record in chosen]
                place = (shard.first_row, shard.rows, shard.byte_start, shard.byte_end, shard.batch_checksums[0])
                yield Task(0, *place, {}, picked), chosen


def _outcomes(folder: Path, chosen: list[Record], request: planning.Request, index: CsvIndex) -> Iterator[SampledRow]:
    spec = request.job.spec
    images = template.parse(spec.source.images) if spec.source.images else None
    reader = ImageReader(request.data_root, spec.source.max_bytes)
    failed = {failure["row"]: failure for failure in read_summary(folder / SUMMARY)["failures"]}
    succeeded: dict[int, tuple[str, list[Any]]] = {}
    for row, line, *rest in read_rows([folder / SUMMARY]):
        (cells,) = csv.reader(io.StringIO(line, newline="\n"))
        succeeded[row] = cells[-1], rest[0] if rest else []
    for record in chosen:
        cells_of = dict(zip(index.header.columns, record.cells, strict=True))
        before = _before(reader, images.fill(cells_of), spec.source.max_pixels) if images else None
        id = cells_of[spec.source.id_column]
        if record.row in failed:
            failure = failed[record.row]
            where = f"{failure['function']}: " if failure["function"] else ""
            yield SampledRow(record.row, id, "failed", f"{failure['reason']}: {where}{failure['message']}", {}, before, None)
        elif record.row in succeeded:
            url, columns = succeeded[record.row]
            after = _loaded(folder / url.rpartition("/")[2]) if url else None
            values = {name: value for _, _, found in columns for name, value in found.items()}
            yield SampledRow(record.row, id, "succeeded", "", values, before, after)
        else:
            yield SampledRow(record.row, id, "skipped", "", {}, before, None)


def _before(reader: ImageReader, path: str, max_pixels: int) -> Image.Image | None:
    try:
        image = decode(reader.read(path), max_pixels=max_pixels)
    except RowFailure:  # which the row's own message tells
        return None
    return ImageOps.contain(image, (2 * SIDE, 2 * SIDE)) if max(image.size) > 2 * SIDE else image


def _loaded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return ImageOps.contain(image, (2 * SIDE, 2 * SIDE)) if max(image.size) > 2 * SIDE else image.copy()


def draw(sample: Sample, name: str, folder: Path) -> tuple[Path, Path]:
    """Writes NAME-sample.png and NAME-sample.html into a folder, before beside after; returns their paths."""
    sheet, page = folder / f"{name}-sample.png", folder / f"{name}-sample.html"
    contact_sheet.pairs([(f"{row.id}  {row.status}", row.before, row.after) for row in sample.rows], sheet)
    lines = "".join(_line(row) for row in sample.rows)
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(name)}: a sample</title><style>{_STYLE}</style>'
        f"<h1>{escape(name)}: {len(sample.rows)} rows</h1>"
        f"<table><tr><th>Row<th>Before<th>After<th>What came of it</tr>{lines}</table></html>\n",
        encoding="utf-8",
    )
    return sheet, page


def _line(row: SampledRow) -> str:
    said = escape(row.message) or "<br>".join(f"{escape(name)} = {escape(str(value))}" for name, value in row.columns.items())
    return (
        f"<tr><td>{row.row}<br>{escape(row.id)}<td>{_img(row.before)}<td>{_img(row.after)}"
        f'<td><span class="{row.status}">{row.status}</span><br>{said}</tr>\n'
    )


def _img(image: Image.Image | None) -> str:
    if image is None:
        return ""
    data = BytesIO()
    ImageOps.contain(image.convert("RGB"), (SIDE, SIDE)).save(data, "JPEG", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"><br>{image.width} × {image.height}'
