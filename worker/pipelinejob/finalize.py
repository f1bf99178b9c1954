"""The last stage: batch records → metadata.csv, failures.csv and manifest.json.

Every step can be repeated, and two processes that do it at once write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from pipelinejob import faults, names
from pipelinejob.batch import SUMMARY
from pipelinejob.commit import OutputFolder
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.rows import csv_line
from pipelinejob.store import Job, Store

FAILURES_HEADER = ("row", "id", "reason", "function", "message", "attempts")


def finalize(store: Store, job: Job, output: OutputFolder) -> None:
    """Ends the rounds of a job and writes its three files; also for a job that failed or was cancelled.

    Raises:
        JobError: OutputConflict, when the output folder is no longer this job's, or the record of a batch has gone from it.
    """
    output.check_owner()
    record_published(store, job, output)
    output.close_rounds()
    record_published(store, job, output)  # what was published while the fence came down
    store.close_round(job.uid, job.round)
    faults.point("closed-ledger")
    output.close_rounds()  # again: a worker that starts makes the round's folder first, then asks the ledger
    _collect_records(store, job, output)
    faults.point("collected")
    files = {
        "metadata.csv": _write(output.path / "metadata.csv", _metadata(store, job, output)),
        "failures.csv": _write(output.path / "failures.csv", _failures(store, job)),
    }
    faults.point("tables")
    _write(output.path / "manifest.json", _manifest(store, job, files))
    faults.point("manifest")


def record_published(store: Store, job: Job, output: OutputFolder) -> int:
    """Records the batches that were published and never recorded, as after a crash; returns how many."""
    published = list(output.published())
    missing = sorted(set(published) - store.recorded(job.uid, published))
    shards = store.shards_of(job.uid, missing)
    for first_row, shard in shards.items():
        store.record(job.uid, shard, job.round, [output.summary_of(first_row)])
    return len(shards)


def _collect_records(store: Store, job: Job, output: OutputFolder) -> None:
    """Moves the records out of images/, which then holds images only, and deletes what no record names."""
    output.records.mkdir(exist_ok=True)
    output.images.mkdir(exist_ok=True)
    with_images = set()
    for batch in store.batches(job.uid):
        if batch.succeeded:
            try:
                os.rename(output.images / names.folder(batch.first_row) / SUMMARY, output.record_file(batch.first_row))
            except FileNotFoundError:
                if not output.record_file(batch.first_row).exists():
                    raise _record_lost(output, batch.first_row) from None
        if batch.images:
            with_images.add(names.folder(batch.first_row))
    output.check_owner()  # what this took until here may have been long
    for folder in output.images.iterdir():
        if folder.name not in with_images:
            shutil.rmtree(folder, ignore_errors=True)


def _record_lost(output: OutputFolder, first_row: int) -> JobError:
    return JobError(
        JobReason.OUTPUT_CONFLICT,
        f"{output.path}: the record of the batch at row {first_row} is gone: the output was changed from outside; "
        "make it anew with a new job",
    )


def _metadata(store: Store, job: Job, output: OutputFolder) -> Iterator[str]:
    """The lines of metadata.csv: source columns, url, then what functions returned."""
    assert job.input is not None
    url_column = job.spec["output"]["urlColumn"]
    returned = store.function_columns(job.uid)
    yield csv_line([*job.input["columns"], url_column, *column_names([*job.input["columns"], url_column], returned)])
    for batch in store.batches(job.uid):
        if not batch.succeeded:
            continue
        with open(output.record_file(batch.first_row), encoding="utf-8") as record:
            next(record)  # the summary
            for line in record:
                row = json.loads(line)
                yield row[0] + _returned_cells(row[1] if len(row) > 1 else [], returned) if returned else row[0]


def _returned_cells(values: Sequence[Sequence[Any]], returned: Sequence[tuple[int, str, str]]) -> str:
    """The cells of the function columns, as they follow the others on the line."""
    by_position: Mapping[int, Mapping[str, object]] = dict(values)  # type: ignore[arg-type]
    cells = [cell_text(by_position.get(position, {}).get(column)) for position, _, column in returned]
    return csv_line(["", *cells])


def column_names(taken: Iterable[str], returned: Sequence[tuple[int, str, str]]) -> list[str]:
    """Names for the function columns: as returned, with the function's name before it where that is taken."""
    used = set(taken)
    result = []
    for position, function, column in returned:
        places = (f"{function}.{'.'.join([str(position)] * times)}" for times in count(1))
        candidates = chain([column, f"{function}.{column}"], (f"{place}.{column}" for place in places))
        name = next(candidate for candidate in candidates if candidate not in used)
        used.add(name)
        result.append(name)
    return result


def cell_text(value: object) -> str:
    """A returned value as a cell: str as is, numbers by repr, true/false, None empty, else JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def _failures(store: Store, job: Job) -> Iterator[str]:
    yield csv_line(FAILURES_HEADER)
    for failure in store.failures(job.uid):
        yield csv_line([str(cell) for cell in failure])


def _manifest(store: Store, job: Job, files: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """manifest.json, a batch a line, so that it can be large and still be read."""
    planned = job.input
    assert planned is not None
    counts = store.update_counts(job.uid)[0].model_dump()
    pending = store.pending_ranges(job.uid, job.spec["sharding"]["batchRows"])
    head: dict[str, object] = {
        "job": {"name": job.name, "digest": job.digest},
        "input": {"csv": job.spec["source"]["csv"], **{key: planned[key] for key in ("rows", "bytes", "sha256")}},
        "functions": [{key: step[key] for key in ("name", "params", "digest")} for step in job.functions],
        "seed": job.spec["seed"],
        "counts": counts,
        "files": files,
    }
    if pending:
        head["pending"] = pending
    yield "{"
    for key, value in head.items():
        yield f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, sort_keys=key == 'functions')},"
    yield '  "batches": ['
    before = ""
    for batch in store.batches(job.uid):
        entry = {
            "first": batch.first_row,
            "images": batch.images,
            "bytes": batch.bytes,
            "imagesSha256": batch.images_sha256,
            "inputsSha256": batch.inputs_sha256,
        }
        if before:
            yield before + ","
        before = f"    {json.dumps(entry)}"
    if before:
        yield before
    yield "  ]"
    yield "}"


def _write(path: Path, lines: Iterator[str]) -> dict[str, object]:
    """Writes lines to a file that appears whole, and returns its {bytes, sha256}."""
    digest, size = hashlib.sha256(), 0
    draft = path.parent / ".pipelinejob" / f"{path.name}.{uuid.uuid4().hex}.part"
    with open(draft, "wb", buffering=1 << 20) as file:
        for line in lines:
            data = line.encode() + b"\n"
            digest.update(data)
            size += len(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    return {"bytes": size, "sha256": digest.hexdigest()}
