"""The laptop distributor: takes a job from its file to its results, with local processes in place of pods."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipelinejob import faults, plan, template
from pipelinejob.batch import Task
from pipelinejob.commit import OURS, OutputFolder, claim_output, read_owner
from pipelinejob.committer import Committer
from pipelinejob.finalize import finalize, record_published
from pipelinejob.lock import JobLock
from pipelinejob.model import MAX_SHARDS, MUTABLE, PipelineJob, Rows, Shards, Spec, budget_breach, job_digest
from pipelinejob.paths import csv_path, make_folder, output_path
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.store import Job, Store
from pipelinejob.store.ledger import batches_of
from pipelinejob.workers import MAX_BACKLOG, Workers

PATIENCE = 600.0  # seconds that a running job waits for a database that went away


class Reporter(Protocol):
    """What a run tells the person who started it."""

    def say(self, message: str) -> None:
        """A line of text."""

    def progress(self, done: int, total: int, failed: int) -> None:
        """Rows in a final state, of all, and how many of them failed; called several times a second."""


class Request(NamedTuple):
    """What to run, and where."""

    job: PipelineJob
    functions: list[dict[str, Any]]  # as run: name, params with defaults, timeoutSeconds, digest, path of a file
    data_root: Path
    output_root: Path
    home: Path
    limit: int | None = None
    replace: bool = False


class Result(NamedTuple):
    """How a job stands after a command."""

    job: Job
    rows: Rows
    shards: Shards
    note: str | None = None
    interrupted: int | None = None  # the signal that ended the run

    @property
    def output(self) -> Path:
        """The output folder."""
        return Path(self.job.output_root) / self.job.output


def inspect(request: Request) -> tuple[Path, plan.Header, Path]:
    """Checks a job against its data root before anything is made: (the CSV, its header, the output folder).

    Raises:
        JobError: InvalidSpec, InputNotFound or InputInvalid.
    """
    source = request.job.spec.source
    csv = csv_path(request.job, request.data_root)
    header = plan.read_header(csv, delimiter=source.delimiter, encoding=source.encoding, label=source.csv)
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


def run(request: Request, store: Store, reporter: Reporter) -> Result:
    """Runs a job to its end, or goes on with one that was interrupted.

    Raises:
        JobError: it cannot be started (InvalidSpec, Input...), or was given up (the ledger says so, too).
    """
    csv, _, output = inspect(request)
    meta = request.job.metadata
    existing = store.find_job(meta.namespace, meta.name)
    if existing is not None and request.replace:
        delete(existing, store, with_output=True)
        existing = None
    if existing is not None:
        _check_same(request, existing)
    lock = _take_output(request, output, store)
    try:
        existing = store.find_job(meta.namespace, meta.name)  # again: now nobody else can add it
        job = _register(request, csv, output, store) if existing is None else _take_over(request, csv, existing, store)
        return _LocalRun(job, csv, store, reporter, request.home, lock).run()
    finally:
        lock.release()


def _check_same(request: Request, job: Job) -> None:
    """A job keeps its immutable fields, its functions and its roots for life."""
    ours, theirs = request.job.spec.immutable(), {k: v for k, v in job.spec.items() if k not in MUTABLE}
    changed = [field for key in ours for field in _differences(f"spec.{key}", theirs.get(key), ours[key])]
    if not changed and [f["digest"] for f in request.functions] != [f["digest"] for f in job.functions]:
        changed.append("spec.functions (the code of a function)")
    if str(request.data_root) != job.data_root:
        changed.append(f"the data root (it was {job.data_root})")
    if str(request.output_root) != job.output_root:
        changed.append(f"the output root (it was {job.output_root})")
    if request.limit != job.row_limit:
        changed.append(f"--limit (it was {job.row_limit or 'not given'})")
    if changed:
        raise _not_the_same(job, f"exists with other values of {', '.join(changed)}")


def _differences(path: str, old: object, new: object) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [field for key in keys for field in _differences(f"{path}.{key}", old.get(key), new.get(key))]
    return [] if old == new else [path]


def _not_the_same(job: Job, what: str) -> JobError:
    return JobError(
        JobReason.INVALID_SPEC,
        f"the job {job.name!r} {what}: choose another metadata.name, start it anew with 'pipelinejob run --replace', "
        f"or remove it with 'pipelinejob delete {job.name}'",
    )


def _take_output(request: Request, output: Path, store: Store) -> JobLock:
    """Makes the output folder ours, or finds that it is, and takes the job's lock."""
    meta = request.job.metadata
    for other in store.jobs():
        theirs = Path(other.output_root) / other.output
        if (other.namespace, other.name) != (meta.namespace, meta.name) and (
            theirs == output or theirs in output.parents or output in theirs.parents
        ):
            raise JobError(
                JobReason.INVALID_SPEC,
                f"spec.output.path: {output} overlaps the output of the job {other.name!r} ({theirs}): "
                f"choose another folder, or remove that job with 'pipelinejob delete {other.name} --output'",
            )
    if not (output / OURS).exists() and output.is_dir() and any(output.iterdir()):
        raise JobError(
            JobReason.INVALID_SPEC,
            f"spec.output.path: the folder {output} is not empty and was not made by PipelineJob: choose another, or empty it",
        )
    make_folder(output, request.output_root)
    lock = _lock(output, meta.name)
    owner = read_owner(output)
    if owner and (owner["namespace"], owner["name"]) == (meta.namespace, meta.name):
        known = store.find_job(meta.namespace, meta.name)
        if known is None or known.uid != owner["uid"]:  # of a job that was deleted since: kept, under another name
            output.rename(output.with_name(f"{output.name}.{owner['uid']}"))
            lock.release()
            make_folder(output, request.output_root)
            return _lock(output, meta.name)
    return lock


def _lock(output: Path, name: str) -> JobLock:
    return JobLock(output / OURS / "lock", f"the job {name!r}")


def _register(request: Request, csv: Path, output: Path, store: Store) -> Job:
    """Plans a new job and enters it into the ledger, whole."""
    spec, meta = request.job.spec, request.job.metadata
    index = scan(request, csv)
    if index.rows:
        check_shard_count(spec, index.rows)
    uid = str(uuid.uuid4())
    try:
        claim_output(output, {"uid": uid, "namespace": meta.namespace, "name": meta.name})
    except JobError as error:
        raise JobError(JobReason.INVALID_SPEC, f"spec.output.path: {error.message}") from None
    faults.point("claimed")
    store.insert_job(
        uid=uid,
        namespace=meta.namespace,
        name=meta.name,
        phase=Phase.PLANNING,
        spec=spec.as_dict(),
        functions=request.functions,
        digest=job_digest(spec, [str(function["digest"]) for function in request.functions]),
        data_root=str(request.data_root),
        output=os.path.relpath(output, request.output_root),
        output_root=str(request.output_root),
        row_limit=request.limit,
    )
    faults.point("registered")
    return _save_plan(uid, spec, index, store)


def _save_plan(uid: str, spec: Spec, index: plan.CsvIndex, store: Store) -> Job:
    planned = {
        "columns": list(index.header.columns),
        "rows": index.total_rows,
        "bytes": index.bytes,
        "sha256": index.sha256,
        "mtime_ns": index.mtime_ns,
    }
    size = spec.rows_per_shard(index.rows)
    store.save_plan(uid, planned, index.rows, lambda: plan.shards(index, size))
    faults.point("planned")
    store.update_job(uid, phase=Phase.PENDING)
    return store.get_job(uid)


def scan(request: Request, csv: Path, progress: Callable[[int], None] | None = None) -> plan.CsvIndex:
    """The exact record boundaries of a job's CSV."""
    source = request.job.spec.source
    return plan.scan(
        csv,
        delimiter=source.delimiter,
        encoding=source.encoding,
        batch_rows=request.job.spec.sharding.batch_rows,
        limit=request.limit,
        label=source.csv,
        progress=progress,
    )


def check_shard_count(spec: Spec, rows: int) -> int:
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


def _take_over(request: Request, csv: Path, job: Job, store: Store) -> Job:
    """Goes on with a job: its mutable fields are those of the file, its input must be the planned one."""
    _check_same(request, job)
    changed = _input_changed(csv, job)
    if job.phase == Phase.COMPLETE:
        if changed:
            raise _not_the_same(job, f"is complete, and its CSV was changed since ({changed})")
        gone = [name for name in ("metadata.csv", "failures.csv", "manifest.json") if not _file(job, name).exists()]
        if gone:
            raise _not_the_same(job, f"is complete, but {', '.join(gone)} has gone from {_file(job, '')}")
    elif job.input is None:  # the process died between entering the job and its plan
        return _save_plan(job.uid, request.job.spec, scan(request, csv), store)
    elif changed:
        message = f"{job.spec['source']['csv']}: {changed} since the job was planned; put the old file back, or start anew with --replace"
        store.update_job(job.uid, phase=Phase.FAILED, reason=JobReason.INPUT_CHANGED, message=message)
        raise JobError(JobReason.INPUT_CHANGED, message)
    store.update_job(job.uid, spec=request.job.spec.as_dict())
    return store.get_job(job.uid)


def _file(job: Job, name: str) -> Path:
    return Path(job.output_root) / job.output / name


def _input_changed(csv: Path, job: Job) -> str | None:
    """What is different about a CSV; the same size and time are taken for the same file, else its digest decides."""
    if job.input is None:
        return None
    status = csv.stat()
    if (status.st_size, status.st_mtime_ns) == (job.input["bytes"], job.input["mtime_ns"]):
        return None
    with open(csv, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return None if digest == job.input["sha256"] else "it has another digest"


class _LocalRun:
    """One run of a job by this process and its children."""

    def __init__(self, job: Job, csv: Path, store: Store, reporter: Reporter, home: Path, lock: JobLock) -> None:
        self._job, self._csv, self._store, self._reporter = job, csv, store, reporter
        self._log = home / "logs" / f"{job.namespace}-{job.name}.log"
        self._lock = lock
        self._spec = Spec.model_validate(job.spec)
        self._output = OutputFolder(Path(job.output_root) / job.output, job.uid)
        self._done = job.rows.total - job.rows.pending
        self._failed = job.rows_failed
        self._signal: int | None = None

    def run(self) -> Result:
        job, store = self._job, self._store
        if job.phase == Phase.COMPLETE:
            return self._result(note="already complete")
        if job.phase == Phase.CANCELLED:
            return self._result(note="it was cancelled before")
        if self._spec.cancel:
            store.update_job(job.uid, stop="cancel")
        elif self._spec.suspend:
            store.update_job(job.uid, phase=Phase.SUSPENDED)
            return self._result(note="spec.suspend is true: set it to false and run again")
        store.be_patient(PATIENCE)
        try:
            if not self._spec.cancel and job.rows.pending:
                self._run_rows()
            if self._signal is not None:
                return self._interrupted()
            return self._end()
        except JobError as error:
            if error.reason is not JobReason.DATABASE_UNAVAILABLE:
                self._give_up(error)
            raise

    def _run_rows(self) -> None:
        store, job = self._store, self._job
        round_number = store.open_round(job.uid)
        job = self._job = store.get_job(job.uid)
        faults.point("round-opened")
        self._adopt(job)
        faults.point("adopted")
        folder = self._output.open_round(round_number)
        store.update_job(job.uid, phase=Phase.RUNNING, reason=None, message=None, finished_at=None)
        if job.started_at is None:
            store.update_job(job.uid, started_at=datetime.now(UTC))
        durable = self._spec.output.fsync == "always"
        committer = Committer(store, job.uid, round_number, self._output, durable=durable)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        workers = Workers(
            self._for_children(),
            folder,
            count=self._spec.parallelism,
            timeouts=[float(function["timeoutSeconds"]) for function in job.functions],
            log=self._log,
            lock=self._lock.descriptor,
            finished=lambda task, attempt, failed: self._finished(committer, task, attempt, failed),
            say=self._reporter.say,
        )
        with _signals(self._on_signal):
            try:
                workers.start()
                committer.start()
                workers.run(self._tasks(), lambda: self._check(committer))
            finally:
                workers.stop()
                committer.finish()

    def _adopt(self, job: Job) -> None:
        """Commits what processes that were killed had finished, and clears what they had not."""
        finished = [self._output.publish(attempt, durable=False) for attempt in self._output.finished_attempts()]
        shards = self._store.shards_of(job.uid, [summary["first_row"] for summary in finished])
        for summary in finished:
            self._store.record(job.uid, shards[summary["first_row"]], job.round, [summary])
        record_published(self._store, job, self._output)
        self._output.close_rounds()
        rows, _ = self._store.update_counts(job.uid)
        self._done, self._failed = rows.total - rows.pending, rows.failed

    def _for_children(self) -> dict[str, Any]:
        assert self._job.input is not None
        return {
            "csv": str(self._csv),
            "dataRoot": self._job.data_root,
            "columns": self._job.input["columns"],
            "spec": self._job.spec,
            "functions": self._job.functions,
        }

    def _tasks(self) -> Iterator[Task]:
        for shard in self._store.unfinished_shards(self._job.uid):
            for first_row, rows, start, end, crc in batches_of(shard, self._spec.sharding.batch_rows):
                yield Task(shard.index, first_row, rows, start, end, crc, {})

    def _finished(self, committer: Committer, task: Task, attempt: Path, failed: int) -> None:
        committer.put(task.shard, attempt)
        self._done += task.rows
        self._failed += failed

    def _check(self, committer: Committer) -> tuple[bool, bool]:
        """(may take new batches, must end now)."""
        self._reporter.progress(self._done, self._job.rows_total, self._failed)
        must_end = self._signal is not None or committer.stopping is not None or committer.error is not None
        return committer.backlog < MAX_BACKLOG, must_end

    def _on_signal(self, number: int, _: object) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt  # asked twice: at once, whatever is not committed runs again
        self._signal = number

    def _interrupted(self) -> Result:
        rows, _ = self._store.update_counts(self._job.uid)
        message = interrupted_message(rows)
        self._store.update_job(self._job.uid, message=message)
        return self._result(note=message, interrupted=self._signal)

    def _end(self) -> Result:
        """Writes the files and judges the job."""
        job, store = self._job, self._store
        rows, _ = store.update_counts(job.uid)
        cancelled = store.stop_reason(job.uid) is not None
        if rows.pending and not cancelled:
            raise JobError(JobReason.SHARDS_FAILED, f"{rows.pending} rows were not run: run the same command to go on")
        store.update_job(job.uid, phase=Phase.FINALIZING)
        finalize(store, job, self._output)
        rows, _ = store.update_counts(job.uid)
        phase, reason, message = _verdict(self._spec, rows, cancelled)
        if reason is JobReason.FAILURE_BUDGET_EXCEEDED:
            top = store.top_failures(job.uid, 1)[0]
            message = f"{message} (most often {top.reason}, {top.count} times; {top.example})"
        store.update_job(job.uid, phase=phase, reason=reason, message=message, finished_at=datetime.now(UTC))
        return self._result()

    def _give_up(self, error: JobError) -> None:
        """The job failed: what is done is finalized as well as it can be, and the ledger says why."""
        store, job = self._store, self._job
        try:
            finalize(store, job, self._output)
        except (OSError, JobError) as second:
            self._reporter.say(f"could not write the results of what is done: {second}")
        store.update_counts(job.uid)
        store.update_job(job.uid, phase=Phase.FAILED, reason=error.reason, message=error.message, finished_at=datetime.now(UTC))

    def _result(self, note: str | None = None, interrupted: int | None = None) -> Result:
        rows, shards = self._store.update_counts(self._job.uid)
        job = self._store.get_job(self._job.uid)
        status = {
            "phase": job.phase,
            "rows": rows.model_dump(),
            "shards": shards.model_dump(),
            "progress": f"{rows.total - rows.pending}/{rows.total}",
            "output": str(self._output.path),
            "inputDigest": job.input_digest,
            "topFailures": [top.model_dump() for top in self._store.top_failures(job.uid)],
        }
        self._store.update_job(job.uid, status=status)
        return Result(job, rows, shards, note, interrupted)


def _verdict(spec: Spec, rows: Rows, cancelled: bool) -> tuple[Phase, JobReason | None, str | None]:
    if cancelled:
        done = f"{rows.total - rows.pending} of {rows.total} rows were done"
        return Phase.CANCELLED, JobReason.CANCELLED, f"cancelled: {done}, their results are kept"
    breach = budget_breach(spec.failure_policy, rows)
    if breach:
        return Phase.FAILED, JobReason.FAILURE_BUDGET_EXCEEDED, breach
    return Phase.COMPLETE, None, None


def interrupted_message(rows: Rows) -> str:
    """What a person is told about a job that stopped before its end."""
    return f"interrupted at row {rows.total - rows.pending} of {rows.total}: run the same command to go on"


def cancel(job: Job, store: Store, *, is_running: bool) -> Job:
    """Cancels a job for good: a running one hears of it through the ledger, another is finalized here."""
    store.update_job(job.uid, stop="cancel")
    if not is_running and job.phase not in (Phase.COMPLETE, Phase.CANCELLED):
        output = OutputFolder(Path(job.output_root) / job.output, job.uid)
        if job.input is not None:
            finalize(store, job, output)
        rows, _ = store.update_counts(job.uid)
        phase, reason, message = _verdict(Spec.model_validate(job.spec), rows, True)
        store.update_job(job.uid, phase=phase, reason=reason, message=message, finished_at=datetime.now(UTC))
    return store.get_job(job.uid)


def delete(job: Job, store: Store, *, with_output: bool) -> None:
    """Removes a job from the ledger, and its output folder if asked to.

    Raises:
        JobError: InvalidSpec, when a process runs it.
    """
    output = Path(job.output_root) / job.output
    if (output / OURS).is_dir():
        lock = _lock(output, job.name)
        try:
            store.delete_job(job.uid)
            owner = read_owner(output)
            if with_output and (owner is None or owner["uid"] == job.uid):
                shutil.rmtree(output)
        finally:
            lock.release()
    else:
        store.delete_job(job.uid)


class _signals:
    """Takes over Ctrl-C and SIGTERM for the time of a run."""

    def __init__(self, handler: Callable[[int, object], None]) -> None:
        self._handler = handler

    def __enter__(self) -> None:
        self._old = {number: signal.signal(number, self._handler) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
