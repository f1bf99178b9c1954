"""From a request to a job in the ledger that is ours to run: checked, its output and its lock taken, planned."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from pipelinejob import faults, names, plan, reuse, traces
from pipelinejob.commit import OURS, claim_output, move_away, read_owner, take_over
from pipelinejob.lock import JobLock, is_held
from pipelinejob.model import MUTABLE, Spec, job_digest
from pipelinejob.paths import make_folder
from pipelinejob.planning import Request, check_empty, input_changed, inspect, save_plan, scan
from pipelinejob.reasons import ENDS, JobError, JobReason, Phase
from pipelinejob.specs import differences
from pipelinejob.store import Job, Store


class JobExistsError(JobError):
    """There is a job of that name."""


class Admitted(NamedTuple):
    """A job that is ours to run as long as we hold its lock."""

    job: Job
    csv: Path
    lock: JobLock
    began: float | None = None  # when it was first looked at, where that was before it was entered


def admit(request: Request, store: Store) -> Admitted:
    """Enters a new job into the ledger, or takes over the one of that name; nobody else can run it meanwhile.

    Raises:
        JobError: InvalidSpec, Input...: nothing was changed.
    """
    began = time.time()
    request = _with_previous(request, store)
    csv, _, output = inspect(request)
    meta = request.job.metadata
    existing = store.find_job(meta.namespace, meta.name)
    if existing is not None and not request.replace:
        _check_same(request, existing)
    index = scan(request, csv) if existing is None or request.replace else None
    _check_output(request, output, store)
    if existing is not None and request.replace:  # all that can be refused was asked for before anything is removed
        delete(existing, store, with_output=True)
    try:
        lock = _take_output(request, output, store)
    except JobError as error:
        if existing is not None and not request.replace and is_held(output / OURS / "lock"):
            raise _tell(request, existing, store, error) from None
        raise
    try:
        existing = store.find_job(meta.namespace, meta.name)  # again: from here on nobody else can add it
        if existing is not None:
            job = _take_over(request, csv, existing, store)
        else:
            index = index or scan(request, csv)
            job = _register(request, output, store, Phase.PLANNING)
            _take_results(job, store, output)
            job = _planned(job.uid, request.job.spec, index, store)
            traces.past(job, "plan", began, rows=job.rows_total)
    except BaseException:
        lock.release()
        raise
    return Admitted(job, csv, lock, began)


def enter(request: Request, store: Store) -> Job:
    """Enters a new job that another process is to plan and run; its phase is Pending, and it has no `input` until then.

    Raises:
        JobExistsError: the name is taken.
        JobError: InvalidSpec, Input...: nothing was changed.
    """
    request = _with_previous(request, store)
    _, _, output = inspect(request)
    _check_free(request, store)
    _check_output(request, output, store)
    lock = _take_output(request, output, store)
    try:
        _check_free(request, store)  # again: from here on nobody else can add it
        return _register(request, output, store, Phase.PENDING)
    finally:
        lock.release()


def _check_free(request: Request, store: Store) -> None:
    meta = request.job.metadata
    if store.find_job(meta.namespace, meta.name) is not None:
        message = (
            f"metadata.name: there is a job {meta.name!r} in the namespace {meta.namespace!r}: choose another name, or delete that job"
        )
        raise JobExistsError(JobReason.INVALID_SPEC, message)


def _tell(request: Request, job: Job, store: Store, error: JobError) -> JobError:
    """A process runs the job: what may change in mid-run reaches it by the ledger."""
    spec = request.job.spec.as_dict()
    changed = {key: spec[key] for key in ("parallelism", "failurePolicy") if spec[key] != job.spec[key]}
    if not changed:
        return error
    store.update_job(job.uid, spec={**job.spec, **changed})
    return JobError(error.reason, f"{error.message}; it goes on with {' and '.join(f'spec.{key}' for key in changed)} of this file")


def _check_same(request: Request, job: Job) -> None:
    """A job keeps its immutable fields, its functions and its roots for life."""
    if job.root_uid is not None:
        raise _not_the_same(job, "is a redrive, which 'pipelinejob redrive' alone runs")
    ours, theirs = request.job.spec.immutable(), {k: v for k, v in job.spec.items() if k not in MUTABLE}
    changed = [field for key in ours for field in differences(f"spec.{key}", theirs.get(key), ours[key])]
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


def _not_the_same(job: Job, what: str) -> JobError:
    return JobError(
        JobReason.INVALID_SPEC,
        f"the job {job.name!r} {what}: choose another metadata.name, start it anew with 'pipelinejob run --replace', "
        f"or remove it with 'pipelinejob delete {job.name}'",
    )


def _check_output(request: Request, output: Path, store: Store) -> None:
    """Refuses a folder that overlaps another job's output, or that holds files that are not ours."""
    meta = request.job.metadata
    for other in store.jobs():
        theirs = Path(other.output_root) / other.output
        shares = other.root_uid is not None  # its root's, which is looked at itself
        if request.job.spec.incremental_of is not None and theirs == output:  # with the job whose output it takes over, and those before
            shares |= request.job.spec.incremental_of == other.name or (read_owner(output) or {}).get("uid") != other.uid
        if (
            not shares
            and (other.namespace, other.name) != (meta.namespace, meta.name)
            and (theirs == output or theirs in output.parents or output in theirs.parents)
        ):
            raise JobError(
                JobReason.INVALID_SPEC,
                f"spec.output.path: {output} overlaps the output of the job {other.name!r} ({theirs}): "
                f"choose another folder, or remove that job with 'pipelinejob delete {other.name} --output'",
            )
    check_empty(output)


def _take_output(request: Request, output: Path, store: Store) -> JobLock:
    """Makes the output folder ours, or finds that it is, and takes the job's lock."""
    meta = request.job.metadata
    make_folder(output, request.output_root)
    lock = output_lock(output, meta.name)
    try:
        owner = read_owner(output)
        if not owner or (owner["namespace"], owner["name"]) != (meta.namespace, meta.name):
            return lock
        known = store.find_job(meta.namespace, meta.name)
        if known is not None and known.uid == owner["uid"]:
            return lock
        kept = move_away(output, owner["uid"])  # of a job that was deleted since: kept, under another name
        if kept and not any(item.name != OURS for item in kept.iterdir()):
            shutil.rmtree(kept)  # it came to nothing
    except BaseException:
        lock.release()
        raise
    lock.release()
    make_folder(output, request.output_root)
    return output_lock(output, meta.name)


def output_lock(output: Path, name: str) -> JobLock:
    """Takes the lock of an output folder.

    Raises:
        JobError: InvalidSpec, naming the process that has it.
    """
    return JobLock(output / OURS / "lock", f"the job {name!r}")


def _register(request: Request, output: Path, store: Store, phase: Phase) -> Job:
    """Makes the output a new job's and enters it into the ledger."""
    spec, meta = request.job.spec, request.job.metadata
    uid = str(uuid.uuid4())
    if spec.incremental_of is None:  # else it is another job's until this one is in the ledger
        try:
            claim_output(output, {"uid": uid, "namespace": meta.namespace, "name": meta.name})
        except JobError as error:
            raise JobError(JobReason.INVALID_SPEC, f"spec.output.path: {error.message}") from None
    faults.point("claimed")
    job = store.insert_job(
        uid=uid,
        namespace=meta.namespace,
        name=meta.name,
        phase=phase,
        spec=spec.as_dict(),
        functions=request.functions,
        digest=job_digest(spec, [str(function["digest"]) for function in request.functions]),
        data_root=str(request.data_root),
        output=os.path.relpath(output, request.output_root),
        output_root=str(request.output_root),
        row_limit=request.limit,
    )
    faults.point("registered")
    return job


def _with_previous(request: Request, store: Store) -> Request:
    """The request of an incremental job with the output of the job before it.

    Raises:
        JobError: InvalidSpec, when that job is not there, has not ended, or no longer has its output.
    """
    spec, meta = request.job.spec, request.job.metadata
    if spec.incremental_of is None:
        return request
    field = "spec.incrementalOf"
    before = store.find_job(meta.namespace, spec.incremental_of)
    if before is None:
        raise JobError(JobReason.INVALID_SPEC, f"{field}: there is no job {spec.incremental_of!r} in the namespace {meta.namespace!r}")
    if before.name == meta.name or before.root_uid is not None:
        raise JobError(
            JobReason.INVALID_SPEC, f"{field}: {before.name!r} is {'this job itself' if before.name == meta.name else 'a redrive'}"
        )
    if spec.output.path is not None and os.path.normpath(spec.output.path) != before.output:
        raise JobError(JobReason.INVALID_SPEC, f"spec.output.path: must be that of {before.name!r}, {before.output!r}, or left out")
    if str(request.output_root) != before.output_root or str(request.data_root) != before.data_root:
        raise JobError(JobReason.INVALID_SPEC, f"{field}: {before.name!r} has another data root ({before.data_root})")
    spec = spec.model_copy(update={"output": spec.output.model_copy(update={"path": before.output})})
    request = request._replace(job=request.job.model_copy(update={"spec": spec}))
    existing = store.find_job(meta.namespace, meta.name)
    if existing is None or request.replace:
        _check_previous(before, store, field)
    return request


def _check_previous(before: Job, store: Store, field: str) -> None:
    owner = read_owner(Path(before.output_root) / before.output)
    if before.phase not in ENDS or before.input is None:
        raise JobError(JobReason.INVALID_SPEC, f"{field}: {before.name!r} has not ended ({before.phase}): wait for its end, or cancel it")
    if owner is None or owner["uid"] != before.uid:
        whose = f"belongs to {owner['name']!r} now: name that one" if owner else "is gone"
        raise JobError(JobReason.INVALID_SPEC, f"{field}: the output of {before.name!r} {whose}")
    check_no_redrive(before, store)


def _take_results(job: Job, store: Store, output: Path) -> None:
    """Makes the output of the job before an incremental one its own, with what is in it put aside."""
    name = job.spec.get("incrementalOf")
    if name is None:
        return
    before = store.find_job(job.namespace, name)
    owner = {"uid": job.uid, "namespace": job.namespace, "name": job.name}
    if before is None or not take_over(output, owner, before.uid):
        raise JobError(
            JobReason.OUTPUT_CONFLICT, f"{output}: is not the output of {name!r} any more: delete this job, and look whose it is"
        )
    faults.point("taken")
    reuse.put_aside(output, output / OURS / reuse.FOLDER)


def _planned(uid: str, spec: Spec, index: plan.CsvIndex, store: Store) -> Job:
    save_plan(store, uid, spec, index)
    store.update_job(uid, phase=Phase.PENDING)
    return store.get_job(uid)


def _take_over(request: Request, csv: Path, job: Job, store: Store) -> Job:
    """Goes on with a job: its mutable fields are those of the file, its input must be the planned one."""
    _check_same(request, job)
    output = Path(job.output_root) / job.output
    owner = read_owner(output)
    if job.input is not None and owner is not None and owner["uid"] != job.uid:
        raise _not_the_same(job, f"has given its output to the job {owner['name']!r}, which is incremental of it")
    check_no_redrive(job, store)
    changed = input_changed(csv, job)
    if job.phase == Phase.COMPLETE:
        if changed:
            raise _not_the_same(job, f"is complete, and its CSV was changed since ({changed})")
        files = ["metadata.csv", "failures.csv", "manifest.json"]
        folders = [f"images/{names.folder(batch.first_row)}" for batch in store.batches(job.uid) if batch.images]
        gone = [name for name in (*files, *folders) if not _file(job, name).exists()][:3]
        if gone:
            raise _not_the_same(job, f"is complete, but {', '.join(gone)} has gone from {_file(job, '')}")
    elif job.input is None:  # the process died between entering the job and its plan
        _take_results(job, store, output)
        return _planned(job.uid, request.job.spec, scan(request, csv), store)
    elif changed:
        message = f"{job.spec['source']['csv']}: {changed} since the job was planned; put the old file back, or start anew with --replace"
        store.update_job(job.uid, phase=Phase.FAILED, reason=JobReason.INPUT_CHANGED, message=message)
        raise JobError(JobReason.INPUT_CHANGED, message)
    store.update_job(job.uid, spec=request.job.spec.as_dict())
    return store.get_job(job.uid)


def check_no_redrive(job: Job, store: Store) -> None:
    """Refuses to touch a job whose redrive was interrupted: images may be in its output that no record names yet.

    Raises:
        JobError: InvalidSpec.
    """
    redrive = store.unfinished_redrive(job.uid)
    if redrive is not None:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"{redrive.name!r} was interrupted: go on with it first ('pipelinejob redrive {job.name}'), "
            f"or end it ('pipelinejob cancel {redrive.name}')",
        )


def _file(job: Job, name: str) -> Path:
    return Path(job.output_root) / job.output / name


def delete(job: Job, store: Store, *, with_output: bool) -> None:
    """Removes a job with its redrives from the ledger, and its output folder if asked to.

    Raises:
        JobError: InvalidSpec, when a process runs it, or when it is a redrive itself: the records in the output are partly its own.
    """
    if job.root_uid is not None:
        root = store.get_job(job.root_uid).name
        raise JobError(JobReason.INVALID_SPEC, f"{job.name!r} is part of the results of {root!r}: 'pipelinejob delete {root}' removes both")
    output = Path(job.output_root) / job.output
    if (output / OURS).is_dir():
        lock = output_lock(output, job.name)
        try:
            store.delete_job(job.uid)
            owner = read_owner(output)
            if with_output and (owner is None or owner["uid"] == job.uid):
                shutil.rmtree(output)
        finally:
            lock.release()
    else:
        store.delete_job(job.uid)
