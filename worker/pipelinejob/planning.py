"""What planning a job takes, on a laptop and in a pod: its checks against the data, the pass over the CSV, the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pipelinejob import faults, plan, template
from pipelinejob.commit import holds_other_files
from pipelinejob.header import Header, read_header
from pipelinejob.model import MAX_SHARDS, PipelineJob, Spec, job_digest
from pipelinejob.paths import csv_path, output_path
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.store import Job, Store


class Request(NamedTuple):
    """What to run, and where."""

    job: PipelineJob
    functions: list[dict[str, Any]]  # as run: name, params with defaults, timeoutSeconds, digest, path of a file
    data_root: Path
    output_root: Path
    home: Path
    workers: int | None = None  # processes; None: spec.parallelism, at most one a core
    limit: int | None = None
    replace: bool = False
    claim: str | None = None  # what people call both roots in a cluster; None: folders of this machine


def inspect(request: Request) -> tuple[Path, Header, Path]:
    """Checks a job against its data root before anything is made: (the CSV, its header, the output folder).

    Raises:
        JobError: InvalidSpec, InputNotFound or InputInvalid.
    """
    source = request.job.spec.source
    csv = csv_path(request.job, request.data_root, request.claim)
    header = read_header(csv, delimiter=source.delimiter, encoding=source.encoding, label=source.csv)
    _check_columns(request.job.spec, header.columns)
    return csv, header, output_path(request.job, request.data_root, request.output_root)


def _check_columns(spec: Spec, columns: tuple[str, ...]) -> None:
    named = [("spec.source.idColumn", spec.source.id_column)]
    named += [("spec.source.images", name) for name in template.parse(spec.source.images or "").columns]
    named += [(f"spec.source.where.{name}", name) for name in spec.source.where]
    lines = [f"{field}: no column {name!r} in {spec.source.csv}" for field, name in named if name not in columns]
    if spec.output.url_column in columns:
        lines.append(
            f"spec.output.urlColumn: {spec.source.csv} has a column {spec.output.url_column!r} already: choose another name for ours"
        )
    if lines:
        raise JobError(JobReason.INVALID_SPEC, "\n".join([*lines, f"its columns are {', '.join(columns)}"]))


def check_empty(output: Path) -> None:
    """Refuses a folder that holds files that are not ours.

    Raises:
        JobError: InvalidSpec.
    """
    if output.is_dir() and holds_other_files(output):
        raise JobError(
            JobReason.INVALID_SPEC,
            f"spec.output.path: the folder {output} is not empty and was not made by PipelineJob: choose another, or empty it",
        )


def scan(request: Request, csv: Path, progress: Callable[[int], None] | None = None) -> plan.CsvIndex:
    """The exact record boundaries of a job's CSV.

    Raises:
        JobError: Input..., or InvalidSpec for a job of too many shards.
    """
    source = request.job.spec.source
    index = plan.scan(
        csv,
        delimiter=source.delimiter,
        encoding=source.encoding,
        batch_rows=request.job.spec.sharding.batch_rows,
        limit=request.limit,
        label=source.csv,
        progress=progress,
    )
    shard_count(request.job.spec, index.rows)
    return index


def input_changed(csv: Path, job: Job) -> str | None:
    """What is different about a CSV; the same size and time are taken for the same file, else its digest decides."""
    if job.input is None:
        return None
    status = csv.stat()
    if (status.st_size, status.st_mtime_ns) == (job.input["bytes"], job.input["mtime_ns"]):
        return None
    with open(csv, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == job.input["sha256"] else "it has another digest"


def shard_count(spec: Spec, rows: int) -> int:
    """How many shards a job has.

    Raises:
        JobError: InvalidSpec, when there are more than 50,000, with the smallest rowsPerShard that fits.
    """
    batch = spec.sharding.batch_rows
    size = -(-spec.rows_per_shard(rows) // batch) * batch
    count = -(-rows // size)
    if count > MAX_SHARDS:
        smallest = -(-rows // MAX_SHARDS)
        raise JobError(
            JobReason.INVALID_SPEC,
            f"spec.sharding.rowsPerShard: {size} makes {count} shards of {rows} rows, more than {MAX_SHARDS}: "
            f"at least {-(-smallest // batch) * batch} fits",
        )
    return count


def save_plan(
    store: Store,
    uid: str,
    spec: Spec,
    index: plan.CsvIndex,
    *,
    functions: list[dict[str, Any]] | None = None,
    moved: str | None = None,
    report: dict[str, Any] | None = None,
) -> None:
    """Stores what a pass over the CSV found.

    Args:
        store: the ledger.
        uid: the job.
        spec: its spec.
        index: what the pass found.
        functions: as they will run; None: the ledger has them.
        report: of a job that is only planned: what is to be expected (model.PlanReport); its output is nobody's yet.
        moved: where the output of a deleted job of the same name was moved to, for people to know.
    """
    planned = {
        "columns": list(index.header.columns),
        "rows": index.total_rows,
        "bytes": index.bytes,
        "sha256": index.sha256,
        "mtime_ns": index.mtime_ns,
    }
    size = spec.rows_per_shard(index.rows)
    digest = None if functions is None else job_digest(spec, [str(function["digest"]) for function in functions])
    if moved:
        planned["moved"] = moved
    if report is not None:
        planned |= {"report": report, "unclaimed": True}
    store.save_plan(uid, planned, index.rows, lambda: plan.shards(index, size), functions, digest)
    faults.point("planned")
