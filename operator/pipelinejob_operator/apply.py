"""Makes one step true, in the cluster or in the ledger; each can be done again."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelinejob.model import FailedRowsOf, PipelineJob
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.specs import redrive_differences
from pipelinejob.store import Job, Store, roles
from pipelinejob_operator import manifests
from pipelinejob_operator.decide import (
    TERMINAL,
    CreateFinalJob,
    CreatePlanJob,
    CreateRunJob,
    Delete,
    EndRedrive,
    Enter,
    FinalizeRedrive,
    Observed,
    OpenRound,
    Scale,
    Step,
    Stop,
    is_over,
)
from pipelinejob_operator.kube import Kube
from pipelinejob_operator.ledger import Ledger
from pipelinejob_operator.settings import Settings

DATA = "/data"


class Applier:
    """Applies steps.

    Args:
        settings: what the chart says.
        kube: the cluster.
        ledger: the ledger.
    """

    def __init__(self, settings: Settings, kube: Kube, ledger: Ledger) -> None:
        self._settings, self._kube, self._ledger = settings, kube, ledger
        self._defaults = settings.defaults()

    async def insert(self, uid: str, accepted: PipelineJob, functions: list[dict[str, Any]], generation: int) -> Job:
        """Enters a new job into the ledger with the code of its PipelineFunctions, and returns its row.

        Raises:
            JobError: InvalidSpec, when the ledger cannot take it.
            NotYet: it has to wait for the end of a redrive that was deleted.
        """
        return await self._ledger(lambda store: insert_job(store, uid, accepted, generation, self._settings.worker_image, functions))

    async def apply(self, step: Step, seen: Observed, body: Mapping[str, Any]) -> Job:
        """Makes one change, and returns the job's row after it."""
        job, namespace = seen.job, seen.job.namespace
        match step:
            case CreatePlanJob():
                target = await self._target(job, body)
                await self._kube.create_job(namespace, manifests.plan_job(target, self._defaults))
            case OpenRound():
                await self._ledger(lambda store: _open_round(store, job))
            case CreateRunJob():
                await self._create_run_job(await self._target(job, body), seen)
            case CreateFinalJob():
                target = await self._target(job, body)
                await self._kube.create_job(namespace, manifests.final_job(target, job.round, self._defaults))
            case Scale():
                name = manifests.run_job_name(job.name, job.uid, job.round)
                await self._kube.set_parallelism(namespace, name, step.parallelism)
            case Delete():
                child = seen.child(step.name)
                assert child is not None
                await self._kube.delete_job(namespace, step.name, child["metadata"]["uid"])
            case Stop():
                await self._ledger(lambda store: store.update_job(job.uid, stop=step.why))
            case FinalizeRedrive():
                assert seen.redrive is not None
                target = await self._target(seen.redrive, body)
                await self._kube.create_job(namespace, manifests.final_job(target, seen.redrive.round, self._defaults))
            case EndRedrive():
                await self._end_redrive(step, seen, body)
            case Enter():
                await self._enter(step, seen, body)
        after = await self._ledger(lambda store: store.get_job(job.uid))
        if is_over(after):
            await self.end_access(job.uid)
        return after

    async def end_access(self, uid: str) -> None:
        """Takes the job's role away; its pods are done."""
        await self._ledger.on_database(lambda database: roles.drop_job_role(database, uid))

    async def _target(self, job: Job, body: Mapping[str, Any]) -> manifests.Target:
        """What manifests are made of; a login role for the job's pods, and the Secret with its URL, are there then.

        `body` is what they belong to: the PipelineJob of the job, or of the one whose rows it ran, when its own is deleted.
        """
        password = await self._ledger.on_database(lambda database: roles.create_job_role(database, job.uid))
        queue = body["metadata"].get("labels", {}).get(manifests.QUEUE_LABEL)
        image = job.image or self._settings.worker_image
        url = self._settings.worker_url(roles.role_name(job.uid), password)
        name, owner = body["metadata"]["name"], body["metadata"]["uid"]
        namespace = job.namespace
        target = manifests.Target(namespace, name, job.uid, spec=job.spec, image=image, queue=queue, url=url, owner=owner)
        await self._kube.create_secret(target.namespace, manifests.secret(target))
        if self._defaults.network is not None:
            await self._kube.create_network_policy(namespace, manifests.network_policy(target, self._defaults.network))
            if any(function.get("requirements") for function in job.functions):
                await self._kube.create_network_policy(namespace, manifests.installing_policy(target))
        return target

    async def _create_run_job(self, target: manifests.Target, seen: Observed) -> None:
        shards = await self._ledger(lambda store: store.unfinished_count(target.uid))
        parallelism = max(1, min(seen.allowance, shards))
        queued = target.queue is not None
        run = manifests.run_job(target, seen.job.round, shards, parallelism, self._defaults, suspend=queued)
        await self._kube.create_job(target.namespace, run)

    async def _enter(self, step: Enter, seen: Observed, body: Mapping[str, Any]) -> None:
        uid, ends = seen.job.uid, step.phase in TERMINAL
        fields: dict[str, object] = {"phase": step.phase, "reason": step.reason, "message": step.message}
        if step.clear_stop or step.phase == Phase.PENDING:
            fields |= {"stop": None, "finished_at": None}
        if ends or (step.phase == Phase.PENDING and seen.spec.mode == "plan"):
            fields["finished_at"] = seen.job.finished_at or datetime.now(UTC)
        if step.reason is JobReason.FAILURE_BUDGET_EXCEEDED and ends:
            top = await self._ledger(lambda store: store.top_failures(uid, 1))
            fields["message"] = f"{step.message} (most often {top[0].reason}, {top[0].count} times; {top[0].example})"
        if step.phase == Phase.PENDING and seen.job.phase == Phase.PLANNING and (moved := (seen.job.input or {}).get("moved")):
            message = f"the output folder held what a deleted job of this name had made: it was renamed to {moved}"
            await self._kube.emit_event(body, "Normal", "OutputMoved", message)
        goes_on = seen.job.phase in TERMINAL and not ends  # unless a redrive was entered in the same moment
        await self._ledger(lambda store: store.reopen(uid, **fields) if goes_on else store.update_job(uid, **fields))

    async def _end_redrive(self, step: EndRedrive, seen: Observed, body: Mapping[str, Any]) -> None:
        redrive = seen.redrive
        assert redrive is not None
        fields = {"phase": step.phase, "reason": step.reason, "message": step.message, "finished_at": datetime.now(UTC)}
        await self._ledger(lambda store: store.update_job(redrive.uid, **fields))
        await self.end_access(redrive.uid)
        kind = "Normal" if step.phase == Phase.CANCELLED else "Warning"
        await self._kube.emit_event(body, kind, "RedriveDeleted", f"the redrive {redrive.name!r} was {step.message}")


class NotYet(Exception):
    """It cannot be done before something else has ended, which needs nobody's help."""


def insert_job(store: Store, uid: str, accepted: PipelineJob, generation: int, image: str, functions: Sequence[dict[str, Any]] = ()) -> Job:
    """Adds a job to the ledger.

    Raises:
        JobError: InvalidSpec, when the ledger cannot take it.
        NotYet: it has to wait for the end of a redrive that was deleted.
    """
    namespace, name, spec = accepted.metadata.namespace, accepted.metadata.name, accepted.spec
    old = store.find_job(namespace, name)
    if old is not None and old.generation is None:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"metadata.name: the ledger has a job {name!r} of the namespace {namespace!r} that was run outside the cluster: "
            "choose another name",
        )
    row: dict[str, object] = {
        "uid": uid,
        "namespace": namespace,
        "name": name,
        "phase": Phase.PLANNING,
        "spec": spec.as_dict(),
        "functions": list(functions),
        "digest": "",
        "data_root": DATA,
        "output_root": DATA,
        "generation": generation,
        "image": (spec.worker.image if spec.worker else None) or image,
    }
    wanted = spec.source.failed_rows_of
    if spec.incremental_of is not None:
        output = _output_before(store, accepted)
        spec = spec.model_copy(update={"output": spec.output.model_copy(update={"path": output})})
        return store.insert_job(**{**row, "spec": spec.as_dict()}, output=output)
    if wanted is None:
        return store.insert_job(**row, output=posixpath.normpath(accepted.output_path))
    selection = {"reasons": sorted(set(wanted.reasons)) or None, "pending": False}
    while True:
        root = _root_of(store, accepted, wanted)
        job = store.insert_redrive(root.uid, **row, output=root.output, selection=selection)
        if job is not None:  # else the job went on, or another redrive was entered, since it was looked at
            return job


def _output_before(store: Store, accepted: PipelineJob) -> str:
    """The output of the job that an incremental one goes on from.

    Raises:
        JobError: InvalidSpec, when that job is not there, has not ended, or is another kind of job.
    """
    name, field, spec = str(accepted.spec.incremental_of), "spec.incrementalOf", accepted.spec
    before = store.find_job(accepted.metadata.namespace, name)
    if before is None or before.generation is None or name == accepted.metadata.name:
        raise JobError(JobReason.INVALID_SPEC, f"{field}: there is no other PipelineJob {name!r} in this namespace")
    if before.root_uid is not None:
        raise JobError(JobReason.INVALID_SPEC, f"{field}: {name!r} is a redrive: name the job whose rows it ran")
    if before.phase not in TERMINAL or before.input is None or store.unfinished_redrive(before.uid) is not None:
        raise JobError(JobReason.INVALID_SPEC, f"{field}: {name!r} has not ended, or one of its redrives: apply this again when it has")
    if spec.output.path is not None and posixpath.normpath(spec.output.path) != before.output:
        raise JobError(JobReason.INVALID_SPEC, f"spec.output.path: must be that of {name!r}, {before.output!r}, or left out")
    if before.spec["data"] != spec.as_dict()["data"]:
        raise JobError(JobReason.INVALID_SPEC, f"spec.data: must be that of {name!r}")
    return before.output


def _root_of(store: Store, accepted: PipelineJob, wanted: FailedRowsOf) -> Job:
    """The job whose rows a redrive runs.

    Raises:
        JobError: InvalidSpec, when that job is not there, has not ended, or is another kind of job.
        NotYet: a redrive of it was deleted and has not ended.
    """
    root = store.find_job(accepted.metadata.namespace, wanted.name)
    if root is None or root.generation is None:
        raise _no_redrive(f"there is no PipelineJob {wanted.name!r} in this namespace")
    if root.root_uid is not None:
        raise _no_redrive(f"{wanted.name!r} is a redrive itself: name the job whose rows it runs")
    if root.phase not in TERMINAL or root.input is None or root.spec["mode"] == "plan":
        raise _no_redrive(f"{wanted.name!r} has run no rows, or has not ended (it is {root.phase}): apply this again when it has")
    if (other := store.unfinished_redrive(root.uid)) is not None:
        if other.deleted_at is not None:
            raise NotYet(f"the redrive {other.name!r} was deleted: its pods end, and what it had done is written into the results")
        raise _no_redrive(f"{other.name!r} runs rows of {wanted.name!r} now: apply this again when it has ended")
    if changed := redrive_differences(root.spec, accepted.spec):
        raise _no_redrive(f"{wanted.name!r} has other values of {', '.join(changed)}: a redrive may change functions and worker alone")
    return root


def _no_redrive(message: str) -> JobError:
    return JobError(JobReason.INVALID_SPEC, f"spec.source.failedRowsOf.name: {message}")


def _open_round(store: Store, job: Job) -> None:
    store.open_round(job.uid)
    started = {} if job.started_at else {"started_at": datetime.now(UTC)}
    store.update_job(job.uid, phase=Phase.RUNNING, reason=None, message=None, **started)
