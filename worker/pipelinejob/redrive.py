"""Running the failed rows of a job again: which they are, with which functions, and as a job of its own."""

from __future__ import annotations

import sys
import uuid
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from pipelinejob import faults, jobfile, model, traces
from pipelinejob.admission import Admitted, output_lock
from pipelinejob.commit import OutputFolder, read_owner
from pipelinejob.finalize import finalize
from pipelinejob.functions.loading import load
from pipelinejob.local import LocalRun, Reporter, Result
from pipelinejob.lock import JobLock
from pipelinejob.matching import Matches, copy, match, plan_shards
from pipelinejob.model import PipelineJob, Rows, Shards, Spec, job_digest
from pipelinejob.paths import csv_path, data_root
from pipelinejob.planning import Request, input_changed
from pipelinejob.reasons import ENDS, JobError, JobReason, Phase, RowReason
from pipelinejob.specs import as_redrive, redrive_differences
from pipelinejob.store import Job, Store
from pipelinejob.verdict import judge_again


class Wanted(NamedTuple):
    """Which rows to run again, and how."""

    reasons: tuple[str, ...]  # of the failed rows; none: all of them
    pending: bool  # rows that were never run, too
    match_by_id: bool  # the CSV may have changed: rows are looked up in it by id
    file: Path | None  # a job file with other functions, or another failure budget
    data: str | None  # another data root
    home: Path
    workers: int | None


def redrive(root: Job, wanted: Wanted, store: Store, reporter: Reporter) -> Result:
    """Runs rows of a job again, into its output, or goes on with the redrive that was interrupted.

    Raises:
        JobError: it cannot be started (InvalidSpec, InputChanged...: nothing was changed), or was given up.
    """
    if unknown := [reason for reason in wanted.reasons if reason not in list(RowReason)]:
        raise JobError(JobReason.INVALID_SPEC, f"--reason: {unknown[0]!r} is none: expected one of {', '.join(RowReason)}")
    if root.root_uid is not None:
        name = store.get_job(root.root_uid).name
        raise JobError(
            JobReason.INVALID_SPEC, f"{root.name!r} is a redrive of {name!r}: 'pipelinejob redrive {name}' runs what still fails"
        )
    if wanted.match_by_id and wanted.pending:
        raise JobError(JobReason.INVALID_SPEC, "--pending: rows that never ran have no id to be matched by: leave it out, or --match-by-id")
    request = _request(root, wanted)
    if not wanted.match_by_id:
        _check_unchanged(root, csv_path(request.job, request.data_root))
    lock = _take(root, store)
    try:
        root = store.get_job(root.uid)
        job = _unfinished(root, request, wanted, store)
        if wanted.file is not None:
            store.update_job(root.uid, spec={**root.spec, "failurePolicy": request.job.spec.as_dict()["failurePolicy"]})
        planned = job is not None and job.input is not None
        matches = None if planned or not wanted.match_by_id else _match(root, request, wanted, store, reporter)
        if job is None and (matches is None or matches.found):
            job = _register(root, request, wanted, store)
        if job is None:
            if wanted.file is not None:  # with another budget
                judge_again(store, store.get_job(root.uid))
            return _nothing(root, wanted)
        with traces.span(job, "plan"):
            csv = _plan(root, job, request, matches, store)
        return LocalRun(request, Admitted(store.get_job(job.uid), csv, lock), store, reporter).run()
    finally:
        lock.release()


def _check_unchanged(root: Job, csv: Path) -> None:
    if changed := input_changed(csv, root):
        raise JobError(
            JobReason.INPUT_CHANGED,
            f"{root.spec['source']['csv']}: {changed} than when {root.name!r} was planned: put the old file back, "
            "find its rows in the new one by their ids with --match-by-id, or run the new one as a job of another name",
        )


def _match(root: Job, request: Request, wanted: Wanted, store: Store, reporter: Reporter) -> Matches:
    """The failed rows in the CSV as it is now."""
    csv = csv_path(request.job, request.data_root)
    failures = (row for row in store.failures(root.uid) if not wanted.reasons or row.reason in wanted.reasons)
    matches = match(root, csv, failures)
    if told := matches.told(root.spec["source"]["csv"]):
        reporter.say(told)
    return matches


def _plan(root: Job, job: Job, request: Request, matches: Matches | None, store: Store) -> Path:
    """Plans a redrive that has no plan yet; returns the file that its rows are read from."""
    by_id = bool((job.selection or {}).get("matchById"))
    csv = OutputFolder(Path(root.output_root) / root.output, job.uid).own_file("matched.csv") if by_id else None
    if job.input is not None:
        if csv is not None and not csv.exists() and job.rows.pending:
            raise JobError(
                JobReason.OUTPUT_CONFLICT,
                f"{csv} is gone, which the rows of {job.name!r} are read from: end it with 'pipelinejob cancel {job.name}', then redrive",
            )
        return csv or csv_path(request.job, request.data_root)
    if csv is None:
        store.plan_redrive(job.uid, request.job.spec.rows_per_shard(0))
        csv = csv_path(request.job, request.data_root)
    elif matches is not None:
        csv.parent.mkdir(exist_ok=True)
        copied = copy(root, csv_path(request.job, request.data_root), matches.found, csv)
        store.plan_matched(job.uid, matches.planned(), plan_shards(copied, request.job.spec.rows_per_shard(0)))
    store.update_job(job.uid, phase=Phase.PENDING)
    faults.point("planned")
    return csv


def _request(root: Job, wanted: Wanted) -> Request:
    """What to run: the root's spec as the ledger has it, or that of a file which may have other functions."""
    data = data_root(root.data_root if wanted.data is None else wanted.data)
    if wanted.file is None:
        metadata = {"name": root.name, "namespace": root.namespace}
        job = model.parse({"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": root.spec})
        functions = _unchanged(root, data)
    else:
        job, functions = jobfile.load(wanted.file, data)
        _check_same(root, job, wanted.file)
    return Request(job, functions, data, Path(root.output_root), wanted.home, wanted.workers)


def _unchanged(root: Job, data: Path) -> list[dict[str, Any]]:
    """The root's functions, which must still be what they were."""
    for index, entry in enumerate(root.functions):
        if not entry.get("file") and not entry.get("module") and "+" not in entry["digest"]:
            continue
        try:
            with redirect_stdout(sys.stderr):  # users' code may print when it is loaded
                same = load(entry).digest_with(entry["params"], data) == entry["digest"]
            what = entry.get("file") or entry.get("module") or f"the model of {entry['name']}"
            problem = f"{what} was changed since {root.name!r} ran"
        except ValueError as error:
            same, problem = False, str(error)
        if not same:
            raise JobError(
                JobReason.INVALID_SPEC,
                f"spec.functions[{index}]: {problem}: pass the job file with -f to run its rows with it as it is now",
            )
    return root.functions


def _check_same(root: Job, job: PipelineJob, file: Path) -> None:
    changed = redrive_differences(root.spec, job.spec)
    changed += [f"metadata.{key}" for key in ("name", "namespace") if getattr(job.metadata, key) != getattr(root, key)]
    if changed:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"{file}: has other values of {', '.join(changed)} than {root.name!r}: a redrive may change its functions, "
            "parallelism and failurePolicy; for all else run a job of another name",
        )


def _take(root: Job, store: Store) -> JobLock:
    """The lock of the root's output folder, when it has ended and is as finalize leaves it."""
    _check_ended(root)
    output = OutputFolder(Path(root.output_root) / root.output, root.uid)
    owner = read_owner(output.path)
    if owner is None or owner["uid"] != root.uid:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"the output of {root.name!r} has gone from {output.path}, or is another job's: make it anew with 'pipelinejob run --replace'",
        )
    lock = output_lock(output.path, root.name)
    try:
        _check_ended(store.get_job(root.uid))  # again: from here on nobody else can run it
        if output.is_open():  # as when the disk was full at its end
            finalize(store, root, output)
    except BaseException:
        lock.release()
        raise
    return lock


def _check_ended(root: Job) -> None:
    if root.input is None or root.phase not in ENDS:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"{root.name!r} has not ended (it is {root.phase}): wait for it, or run its job file again to go on with it",
        )


def _unfinished(root: Job, request: Request, wanted: Wanted, store: Store) -> Job | None:
    """The redrive to go on with, if one was interrupted; it keeps its rows and its functions."""
    job = store.unfinished_redrive(root.uid)
    if job is None:
        return None
    changed = []
    if job.selection != _selection(wanted):
        changed.append("--reason, --pending or --match-by-id")
    if job.digest != _digest(request):
        changed.append("-f (other functions)")
    if job.data_root != str(request.data_root):
        changed.append("--data")
    if changed:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"{job.name!r} was interrupted, and was started with another {' and '.join(changed)}: go on with it by the same command, "
            f"or end it with 'pipelinejob cancel {job.name}'",
        )
    store.update_job(job.uid, spec={**job.spec, "suspend": False})  # as somebody may have asked for meanwhile
    return job


def _register(root: Job, request: Request, wanted: Wanted, store: Store) -> Job | None:
    """Enters a redrive into the ledger; None when there is nothing to run."""
    pending = root.rows.pending if wanted.pending else 0
    if not pending and not store.failed_count(root.uid, list(wanted.reasons) or None):
        return None
    number = max((one.redrive or 0 for one in store.redrives(root.uid)), default=0) + 1
    while store.find_job(root.namespace, _name(root, number)) is not None:  # somebody's job is called so
        number += 1
    job = store.insert_job(
        uid=str(uuid.uuid4()),
        namespace=root.namespace,
        name=_name(root, number),
        phase=Phase.PLANNING,
        spec={**as_redrive(request.job.spec).as_dict(), "suspend": False, "cancel": False},
        functions=request.functions,
        digest=_digest(request),
        data_root=str(request.data_root),
        output=root.output,
        output_root=root.output_root,
        root_uid=root.uid,
        redrive=number,
        selection=_selection(wanted),
    )
    faults.point("registered")
    return job


def _name(root: Job, number: int) -> str:
    return f"{root.name}-redrive-{number}"


def _selection(wanted: Wanted) -> dict[str, Any]:
    asked = {"reasons": sorted(set(wanted.reasons)) or None, "pending": wanted.pending}
    return {**asked, "matchById": True} if wanted.match_by_id else asked


def _digest(request: Request) -> str:
    spec: Spec = request.job.spec
    return job_digest(spec, [str(function["digest"]) for function in request.functions])


def _nothing(root: Job, wanted: Wanted) -> Result:
    which = f" for {' or '.join(sorted(set(wanted.reasons)))}" if wanted.reasons else ""
    unrun = " and every row was run" if wanted.pending else ""
    message = f"nothing to run again: no row of {root.name!r} is failed{which}{unrun}"
    return Result(root._replace(phase=Phase.COMPLETE, reason=None, message=message), Rows(), Shards())
