"""The three stages of a job as its pods run them: plan, shard, finalize.

Each can be cut off anywhere and run again, also while another process is still at it. What a pod knows: the job's uid,
its environment, the claim mounted at /data, and what its database role lets it ask of the ledger.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelinejob import faults, reuse, sandbox, traces
from pipelinejob.batch import Task
from pipelinejob.commit import OURS, OutputFolder, RoundClosedError, claim_output, move_away, read_owner, take_over
from pipelinejob.committer import Committer
from pipelinejob.finalize import finalize
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.redriven import output_folder
from pipelinejob.stopping import Stop
from pipelinejob.storage import Storage, is_file
from pipelinejob.store import GoneError, Job, ShardRow, Store
from pipelinejob.store.ledger import batches_of
from pipelinejob.workers import MAX_BACKLOG, Workers

if TYPE_CHECKING:
    from pipelinejob.model import PipelineJob
    from pipelinejob.plan import CsvIndex
    from pipelinejob.planning import Request

Say = Callable[[str], None]

LOOK_EVERY = 30.0  # seconds between looks whether to stop; each record is answered with the same
TELL_EVERY = 30.0  # seconds between lines in the log
LINGER = 5.0  # seconds before a pod ends that has nothing to do: Kubernetes replaces it at once, until the Job is gone
MODULE_TIMEOUT = 300.0  # seconds for importing the modules of users' functions


class StoppedError(Exception):
    """There is nothing to do now, through no fault of this pod: the job is stopped, or its round is over."""


def plan(store: Store, uid: str, stop: Stop, say: Say, storage: Storage) -> None:
    """Checks the job against its data, takes the output folder, and stores the plan.

    Raises:
        JobError: the job cannot be done.
    """
    job = _job(store, uid)
    if job.input is not None:
        say("planned already")
        return
    with traces.span(job, "plan") as span:
        planned = _plan(store, job, say)
        span.set(rows=planned.rows_total)


def _plan(store: Store, job: Job, say: Say) -> Job:
    from pipelinejob import planning  # noqa: PLC0415 - numpy and pydantic: the other stages start faster without

    request = _request(job, _data_root())
    if job.root_uid is not None:
        return _plan_redrive(store, job, request, say)
    csv, _, output = planning.inspect(request)
    moved = None
    if request.job.spec.mode == "run":
        moved = _take_output(store, job, output)
        faults.point("claimed")
    store.close()  # not needed for as long as the CSV takes
    index = planning.scan(request, csv)
    report = _report(job, request, csv, index) if request.job.spec.mode == "plan" else None
    planning.save_plan(store, job.uid, request.job.spec, index, functions=request.functions, moved=moved, report=report)
    planned = store.get_job(job.uid)
    say(f"planned job {job.name}: {index.rows} rows, {planned.input_digest}")
    return planned


def _report(job: Job, request: Request, csv: Path, index: CsvIndex) -> dict[str, Any]:
    """What is to be expected of a job that is only planned: counts by a look at its first rows, the time by running a few of them."""
    from pipelinejob import preview, sample  # noqa: PLC0415 - see _plan()
    from pipelinejob.model import PlanReport  # noqa: PLC0415

    seen = preview.look(csv, request.job, index, whole=False)
    wanted = {"job": _document(job), "functions": request.functions, "dataRoot": str(request.data_root)}
    rows, estimate = 0, None
    with suppress(subprocess.SubprocessError, ValueError):  # a function that ends its process: the run will tell
        ran = _without_credentials("from pipelinejob.sample import main; main()", json.dumps(wanted), request.data_root, sample.PATIENCE)
        rows, seconds = json.loads(ran)
        processes = request.job.spec.parallelism * int(os.environ.get("PIPELINEJOB_CHILDREN", "1"))
        estimate = round(seen.share * index.rows * seconds / processes, 1)
    return PlanReport(
        rows=seen.rows,
        matching=seen.matching,
        filtered=seen.filtered,
        malformed=seen.malformed,
        exact=seen.exact,
        sampled=rows,
        estimated_seconds=estimate,
    ).model_dump(by_alias=True)


def _plan_redrive(store: Store, job: Job, request: Request, say: Say) -> Job:
    """The ledger has the plan of the job whose rows run again; the CSV must be the one that it is of."""
    from pipelinejob.model import job_digest  # noqa: PLC0415 - see _plan()
    from pipelinejob.paths import csv_path  # noqa: PLC0415
    from pipelinejob.planning import input_changed  # noqa: PLC0415

    assert job.root_uid is not None
    root, spec = store.get_job(job.root_uid), request.job.spec
    if changed := input_changed(csv_path(request.job, request.data_root, request.claim), root):
        raise JobError(JobReason.INPUT_CHANGED, f"spec.source.csv: {changed} than when {root.name!r} was planned: put the old file back")
    if OutputFolder(_data_root() / root.output, root.uid).is_open():
        raise JobError(JobReason.OUTPUT_CONFLICT, f"the results of {root.name!r} were never written to the end: run it anew")
    digest = job_digest(spec, [str(function["digest"]) for function in request.functions])
    rows = store.plan_redrive(job.uid, spec.rows_per_shard(0), request.functions, digest)
    say(f"planned job {job.name}: {rows} rows of {root.name}")
    return store.get_job(job.uid)


def _request(job: Job, root: Path) -> Request:
    from pipelinejob import model  # noqa: PLC0415 - see _plan()
    from pipelinejob.planning import Request  # noqa: PLC0415

    document = model.parse(_document(job))
    functions = _resolve(document, job.functions, root)
    return Request(document, functions, root, root, home=root, claim=_claim_of(job.spec))


def _document(job: Job) -> dict[str, Any]:
    from pipelinejob import model  # noqa: PLC0415 - see _plan()

    metadata = {"name": job.name, "namespace": job.namespace}
    return {"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": job.spec}


def _without_credentials(code: str, given: str, root: Path, patience: float) -> bytes:
    """What a process of users' code prints that gets `given` on its standard input."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        input=given.encode(),
        stdout=subprocess.PIPE,
        env={**sandbox.environment(), "PIPELINEJOB_DATA": str(root)},
        timeout=patience,
        check=True,
    ).stdout


def _resolve(job: PipelineJob, entered: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """The functions as they will run; the code of users is loaded by a process that has no credentials.

    Args:
        job: what is to run.
        entered: its functions as it was accepted with them: those of PipelineFunctions as they were then.
        root: the data root, where what they require is installed.
    """
    from pipelinejob import packages  # noqa: PLC0415 - see _plan()

    entries = entered or [function.model_dump(by_alias=True) for function in job.spec.functions]
    for index, entry in enumerate(entries):
        if entry.get("requirements"):
            try:
                entry["packages"] = str(packages.install(entry["requirements"], root / packages.FOLDER))
            except (ValueError, OSError) as error:
                raise JobError(JobReason.INVALID_SPEC, f"spec.functions[{index}]: {error}") from None
    problems = [
        (f"functions[{index}].file", f"{entry['file']!r} is not in the pods' image: make it a PipelineFunction, or name its 'module' there")
        for index, entry in enumerate(entries)
        if entry["file"]
    ]
    if not problems:
        try:
            ran = _without_credentials("from pipelinejob.functions.resolve import main; main()", json.dumps(entries), root, MODULE_TIMEOUT)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            raise JobError(JobReason.INVALID_SPEC, f"spec.functions: their modules could not be imported: {error}") from None
        resolved, problems = json.loads(ran)
    if problems:
        raise JobError(JobReason.INVALID_SPEC, "\n".join(f"spec.{field}: {message}" for field, message in problems))
    functions: list[dict[str, Any]] = resolved
    return functions


def claim_late(store: Store, job: Job) -> None:
    """Makes the output folder that of a job which was only planned, and is to run now; any pod may be the first.

    Raises:
        JobError: OutputConflict.
    """
    if (job.input or {}).get("unclaimed"):
        _take_output(store, job, _data_root() / job.output)


def _take_output(store: Store, job: Job, output: Path) -> str | None:
    """Makes the output folder this job's; returns where the output of a deleted job of its name was moved to, if any."""
    from pipelinejob.paths import make_folder  # noqa: PLC0415 - see _plan()
    from pipelinejob.planning import check_empty  # noqa: PLC0415

    other = store.overlapping_output(job.uid)
    if other:
        raise JobError(
            JobReason.OUTPUT_CONFLICT,
            f"spec.output.path: {job.output} overlaps the output of the job {other[0]!r} ({other[1]}): choose another folder",
        )
    check_empty(output)
    root, claim = _data_root(), _claim_of(job.spec)
    make_folder(output, root, claim)
    if (before := job.spec.get("incrementalOf")) is not None:
        _take_results(job, output, before)
        return None
    moved, owner = None, read_owner(output)
    if owner and _is_predecessor(store, job, owner):
        moved = move_away(output, owner["uid"])
        make_folder(output, root, claim)
    claim_output(output, {"uid": job.uid, "namespace": job.namespace, "name": job.name})
    return str(moved.relative_to(root)) if moved else None


def _claim_of(spec: Mapping[str, Any]) -> str:
    """What people call the data root."""
    name = ((spec.get("data") or {}).get("persistentVolumeClaim") or {}).get("claimName")
    return f"the claim {name!r}" if name else "the claim"


def _take_results(job: Job, output: Path, before: str) -> None:
    """Makes the output of the job before an incremental one its own, with what is in it put aside."""
    found = read_owner(output)
    ours = {"uid": job.uid, "namespace": job.namespace, "name": job.name}
    if found is None or (found["namespace"], found["name"]) not in ((job.namespace, before), (job.namespace, job.name)):
        whose = f"belongs to {found['name']!r}" if found else "is gone"
        raise JobError(JobReason.OUTPUT_CONFLICT, f"spec.incrementalOf: the output of {before!r}, {job.output}, {whose}: name that one")
    if found["name"] == before and OutputFolder(output, found["uid"]).is_open():
        raise JobError(
            JobReason.OUTPUT_CONFLICT, f"spec.incrementalOf: the results of {before!r} were never written to the end: run it anew"
        )
    if not take_over(output, ours, found["uid"] if found["name"] == before else job.uid):
        raise JobError(JobReason.OUTPUT_CONFLICT, f"spec.incrementalOf: the output of {before!r} is not its own any more")
    faults.point("taken")
    reuse.put_aside(output, output / OURS / reuse.FOLDER)


def _is_predecessor(store: Store, job: Job, owner: Mapping[str, str]) -> bool:
    same_name = (owner["namespace"], owner["name"]) == (job.namespace, job.name)
    return same_name and owner["uid"] != job.uid and store.is_predecessor(job.uid, owner["uid"])


def shard(store: Store, uid: str, stop: Stop, say: Say, storage: Storage) -> None:
    """Runs what is left of one shard; returns when the ledger has every row of it.

    Raises:
        StoppedError: it has not, and this pod is to end.
        JobError: it cannot.
    """
    job = _job(store, uid)
    round_number = int(os.environ["PIPELINEJOB_ROUND"])
    output = output_folder(job, _data_root())
    claim_late(store, job)
    output.check_owner()
    folder = output.open_round(round_number)  # before the question, so that who closes the round closes this, too
    found = store.shard_at(uid, round_number, int(os.environ["JOB_COMPLETION_INDEX"]))
    if found is None or job.stop is not None:
        if found is None:
            with suppress(OSError):  # others may still be at it
                folder.rmdir()
                folder.parent.rmdir()
        stop.asked.wait(LINGER)
        raise StoppedError(f"round {round_number} is over" if found is None else job.stop)
    with traces.span(job, "shard", shard=found.index, first_row=found.first_row, rows=found.rows, round=round_number) as span:
        run = _ShardRun(store, job, round_number, found, output, stop, say, storage, span)
        try:
            why = run.run(folder)
        except RoundClosedError:
            why = "closed"
        finally:
            stop.at_once = True
        span.set(stopped=why)
    if store.shard_finished(uid, found.index):
        return
    if why is None:
        raise RuntimeError(f"shard {found.index} has rows that are not recorded")
    raise StoppedError(why)


class _ShardRun:
    """One attempt of a shard by this process and its children."""

    def __init__(
        self,
        store: Store,
        job: Job,
        round_number: int,
        row: ShardRow,
        output: OutputFolder,
        stop: Stop,
        say: Say,
        storage: Storage,
        span: traces.Span,
    ) -> None:
        self._store, self._job, self._round, self._shard = store, job, round_number, row
        self._output, self._stop, self._say, self._storage, self._span = output, stop, say, storage, span
        self._durable = job.spec["output"]["fsync"] != "never"  # auto: in a cluster the death of a node is survived
        self._left = list(batches_of(row, job.spec["sharding"]["batchRows"]))
        self._done = row.rows - sum(batch.to_run for batch in self._left)
        self._failed = 0
        self._told_at = time.monotonic()

    def run(self, folder: Path) -> str | None:
        """Runs the batches that are not recorded; returns why it stopped early, if it did."""
        self._tell("begins")
        answer = self._record_published()
        if answer != "go":
            return answer
        committer = Committer(
            self._store,
            self._job.uid,
            self._round,
            self._output,
            durable=self._durable,
            look=lambda: self._store.stop_reason(self._job.uid),
            look_every=LOOK_EVERY,
            stored=self._storage.works,
        )
        workers = Workers(
            self._for_children(),
            folder,
            self._output.open_marks(self._shard.index),
            whole="pod",
            count=max(1, min(int(os.environ.get("PIPELINEJOB_CHILDREN", "1")), len(self._left))),
            timeouts=[float(function["timeoutSeconds"]) for function in self._job.functions],
            log=None,
            lock=None,
            finished=lambda task, attempt, done: self._finished(committer, task, attempt, done),
            say=self._say,
        )
        self._stop.at_once = False  # from here on what is finished is committed first
        committer.start()
        try:
            if self._left:
                workers.start()
            workers.run(self._tasks, lambda: self._check(committer))
        finally:
            workers.stop()
            try:
                committer.finish()
            finally:
                workers.clear()
        self._tell("ends")
        return "told to end" if self._stop.asked.is_set() else committer.stopping

    def _record_published(self) -> str:
        """Records what an earlier attempt published and could not record, and runs nothing for it; answers as the ledger."""
        published = [batch.first_row for batch in self._left if self._output.is_published(batch.first_row)]
        if not published:
            return "go"
        summaries = [self._output.summary_of(first) for first in published]
        answer = self._store.record(self._job.uid, self._shard.index, self._round, summaries)
        self._left = [batch for batch in self._left if batch.first_row not in published]
        self._done += sum(summary["rows"] for summary in summaries)
        self._failed += sum(summary["failed"] for summary in summaries)
        faults.point("adopted")
        return answer

    def _for_children(self) -> dict[str, Any]:
        assert self._job.input is not None
        root, source = _data_root(), self._job.spec["source"]
        if not is_file(root / source["csv"]):
            raise JobError(
                JobReason.INPUT_NOT_FOUND,
                f"spec.source.csv: {source['csv']!r} has gone since the job was planned: put it back, and make a new job",
            )
        return {
            "csv": str(root / source["csv"]),
            "dataRoot": str(root),
            "columns": self._job.input["columns"],
            "spec": self._job.spec,
            "functions": self._job.functions,
            "records": str(self._output.records),
            "previous": reuse.folder_for(self._job, self._output),
        }

    def _tasks(self) -> Iterator[Task]:
        for batch in self._left:
            yield Task.of(self._shard.index, batch)

    def _finished(self, committer: Committer, task: Task, attempt: Path, done: Mapping[str, Any]) -> None:
        committer.put(task.shard, attempt)
        self._span.batch(done)
        self._done += task.to_run
        self._failed += done["failed"]

    def _check(self, committer: Committer) -> tuple[bool, bool]:
        """(may take new batches, must end now)."""
        if time.monotonic() - self._told_at >= TELL_EVERY:
            self._tell()
        must_end = self._stop.asked.is_set() or committer.stopping is not None or committer.error is not None
        return committer.backlog < MAX_BACKLOG, must_end

    def _tell(self, what: str = "") -> None:
        row = self._shard
        where = f"shard {row.index} of job {self._job.name}, rows {row.first_row}-{row.end_row - 1}"
        self._say(f"{where}{' ' + what if what else ''}: {self._done} done, {self._failed} failed")
        self._told_at = time.monotonic()


def finish(store: Store, uid: str, stop: Stop, say: Say, storage: Storage) -> None:
    """Writes the job's files from what is recorded, whether it was all done or not.

    A redrive that was deleted is finalized like any other: the files are those of the job whose rows it ran.

    Raises:
        JobError: OutputConflict.
    """
    job = _job(store, uid, also_deleted_redrive=True)
    if job.input is None:
        say(f"job {job.name} was never planned: there is nothing to write")
        return
    if (mine := int(os.environ.get("PIPELINEJOB_ROUND", job.round))) != job.round:
        raise StoppedError(f"round {mine} is over")  # a process that outlived its node must not close a later round
    claim_late(store, job)
    with traces.span(job, "finalize", round=job.round):
        finalize(store, job, output_folder(job, _data_root()))
    say(f"wrote the results of job {job.name}")


STAGES: dict[str, Callable[[Store, str, Stop, Say, Storage], None]] = {"plan": plan, "shard": shard, "finalize": finish}


def _job(store: Store, uid: str, *, also_deleted_redrive: bool = False) -> Job:
    try:
        job = store.get_job(uid)
    except GoneError:
        raise StoppedError("the job was deleted") from None
    if job.deleted_at is not None and not (also_deleted_redrive and job.root_uid is not None):
        raise StoppedError("the job was deleted")
    return job


def _data_root() -> Path:
    """Where the claim is mounted."""
    return Path(os.path.realpath(os.environ.get("PIPELINEJOB_DATA", "/data")))
