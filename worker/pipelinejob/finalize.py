"""The last stage: batch records → metadata.csv, failures.csv and manifest.json.

Every step can be repeated, and two processes that do it at once write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

from pipelinejob import faults, names
from pipelinejob.commit import OURS, OutputFolder
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.records import read_rows, read_urls, record_name
from pipelinejob.reuse import FOLDER as PREVIOUS
from pipelinejob.rows import csv_line
from pipelinejob.storage import naming
from pipelinejob.store import BatchRow, Job, Store

FAILURES_HEADER = ("row", "id", "reason", "function", "message", "attempts")


def finalize(store: Store, job: Job, output: OutputFolder) -> None:
    """Ends the rounds of a job and writes its three files; also for a job that failed or was cancelled.

    Those of a redrive are the files of the job whose rows it ran again.

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
    if job.root_uid is None:
        owner = job
        _collect_records(store, job, output)
    else:
        owner = store.get_job(job.root_uid)
        _settle_images(store, job, output)
        store.update_counts(job.uid)
    faults.point("collected")
    files = {
        "metadata.csv": _write(output.path / "metadata.csv", lambda: _metadata(store, owner, output)),
        "failures.csv": _write(output.path / "failures.csv", lambda: _failures(store, owner)),
    }
    faults.point("tables")
    _write(output.path / "manifest.json", lambda: _manifest(store, owner, files))
    output.clear_drafts()
    faults.point("manifest")
    if job.root_uid is None:
        shutil.rmtree(output.ours / PREVIOUS, ignore_errors=True)  # what was of use is linked from images/ now


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
        with suppress(FileNotFoundError):  # it is there already, or _records finds that it is nowhere, or all rows failed
            os.rename(output.published_record(batch.first_row), output.record_file(batch.first_row))
        if _own(batch):
            _records(output, batch)
        if batch.images or batch.redriven:
            with_images.add(names.folder(batch.first_row))
    output.check_owner()  # what this took until here may have been long
    for folder in output.images.iterdir():
        if folder.name not in with_images:
            with suppress(FileNotFoundError):  # another process does the same
                shutil.rmtree(folder)


def _settle_images(store: Store, job: Job, output: OutputFolder) -> None:
    """Deletes images of a redrive that no record names, as after a crash, and says what images its batches have now."""
    for shard in range(store.update_counts(job.uid)[1].total):
        changed = []
        for batch in store.touched(job.uid, shard):
            folder = output.images / names.folder(batch.first_row)
            urls = [url for _, url in read_urls(_records(output, batch)) if url]
            _keep_only(folder, {url.rpartition("/")[2] for url in urls})
            if any(number == job.redrive for number, _ in batch.redriven):
                changed.append({"first_row": batch.first_row, **_images(output, urls)})
        store.set_images(job.uid, changed)


def _keep_only(folder: Path, wanted: set[str]) -> None:
    if not folder.exists():
        return
    for item in folder.iterdir():
        if item.name not in wanted:
            item.unlink(missing_ok=True)
    if not wanted:
        with suppress(OSError):  # another process does the same
            folder.rmdir()


def _images(output: OutputFolder, urls: Sequence[str]) -> dict[str, object]:
    """What the manifest says of these images, as batch.py counts those that it writes."""
    digest, size = hashlib.sha256(), 0
    for url in urls:
        try:
            data = (output.path / url).read_bytes()
        except FileNotFoundError:
            raise JobError(JobReason.OUTPUT_CONFLICT, f"{output.path}: {url} is gone: the output was changed from outside") from None
        digest.update(f"{hashlib.sha256(data).hexdigest()}  {url.rpartition('/')[2]}\n".encode())
        size += len(data)
    return {"images": len(urls), "bytes": size, "images_sha256": digest.hexdigest()}


def _own(batch: BatchRow) -> int:
    """How many rows of a batch succeeded in no redrive."""
    return batch.succeeded - sum(succeeded for _, succeeded in batch.redriven)


def _records(output: OutputFolder, batch: BatchRow) -> list[Path]:
    """The records of a batch as the ledger knows them.

    Raises:
        JobError: OutputConflict, when one is gone.
    """
    wanted = [record_name(batch.first_row)] if _own(batch) else []
    wanted += [record_name(batch.first_row, number) for number, _ in batch.redriven]
    paths = [output.records / name for name in wanted]
    if not all(path.exists() for path in paths):
        raise _record_lost(output, batch.first_row)
    return paths


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
        for _, line, *rest in read_rows(_records(output, batch)):
            yield line + _returned_cells(rest[0] if rest else [], returned) if returned else line


def _returned_cells(values: Iterable[tuple[int, str, Mapping[str, object]]], returned: Sequence[tuple[int, str, str]]) -> str:
    """The cells of the function columns, as they follow the others on the line."""
    by_step = {(position, function): columns for position, function, columns in values}
    cells = [cell_text(by_step.get((position, function), {}).get(column)) for position, function, column in returned]
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
    counts = store.update_counts(job.uid)[0].model_dump(exclude={"reused"})  # a clean run would say the same
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
    if redrives := [_redrive(one) for one in store.redrives(job.uid) if one.input]:
        head["redrives"] = redrives
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


def _redrive(job: Job) -> dict[str, object]:
    functions = [{key: step[key] for key in ("name", "params", "digest")} for step in job.functions]
    told: dict[str, object] = {"n": job.redrive, "digest": job.digest, "functions": functions, "selection": job.selection}
    if job.input and "left" in job.input:  # rows of another file, found by their ids
        told["input"] = {"sha256": job.input["sha256"], "left": job.input["left"]}
    return {**told, "counts": job.rows.counts()}


def _write(path: Path, lines: Callable[[], Iterator[str]]) -> dict[str, object]:
    """Writes lines to a file that appears whole, and returns its {bytes, sha256}."""
    while True:
        digest, size = hashlib.sha256(), 0
        draft = path.parent / OURS / f"{path.name}.{uuid.uuid4().hex}.part"
        try:
            with naming(draft), open(draft, "wb", buffering=1 << 20) as file:
                for line in lines():
                    data = line.encode() + b"\n"
                    digest.update(data)
                    size += len(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            faults.point("draft")
            with suppress(FileNotFoundError):  # another process that does the same was first, and cleared it away: again
                os.replace(draft, path)
                return {"bytes": size, "sha256": digest.hexdigest()}
        except OSError:
            draft.unlink(missing_ok=True)  # on a full disk, another attempt needs the room
            raise
