"""Makes one step true, in the cluster or in the ledger; each can be done again."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
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
    Enter,
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
        self._defaults = manifests.Defaults(
            pull_policy=settings.pull_policy,
            resources=settings.resources,
            fs_group=settings.fs_group,
            job_ttl=settings.job_ttl,
        )

    async def insert(self, uid: str, accepted: PipelineJob, generation: int) -> tuple[Job, str | None]:
        """Enters a new job into the ledger: (its row, the uid of a deleted job of its name that was still open there).

        Raises:
            JobError: InvalidSpec, when a job that was run outside the cluster has its name.
        """
        return await self._ledger(lambda store: insert_job(store, uid, accepted, generation, self._settings.worker_image))

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
        """What manifests are made of; a login role for the job's pods, and the Secret with its URL, are there then."""
        password = await self._ledger.on_database(lambda database: roles.create_job_role(database, job.uid))
        queue = body["metadata"].get("labels", {}).get(manifests.QUEUE_LABEL)
        image = job.image or self._settings.worker_image
        url = self._settings.worker_url(roles.role_name(job.uid), password)
        target = manifests.Target(namespace=job.namespace, name=job.name, uid=job.uid, spec=job.spec, image=image, queue=queue, url=url)
        await self._kube.create_secret(target.namespace, manifests.secret(target))
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
        await self._ledger(lambda store: store.update_job(uid, **fields))


def insert_job(store: Store, uid: str, accepted: PipelineJob, generation: int, image: str) -> tuple[Job, str | None]:
    """(a new row, the uid of a job of that name that was deleted while nobody looked).

    Raises:
        JobError: InvalidSpec, when the ledger cannot take it.
    """
    namespace, name, spec = accepted.metadata.namespace, accepted.metadata.name, accepted.spec
    old = store.find_job(namespace, name)
    if old is not None and old.generation is None:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"metadata.name: the ledger has a job {name!r} of the namespace {namespace!r} that was run outside the cluster: "
            "choose another name",
        )
    place: dict[str, object] = {"output": posixpath.normpath(accepted.output_path)}
    if spec.source.failed_rows_of is not None:
        place = _redrive_of(store, accepted, spec.source.failed_rows_of)
    if old is not None:
        store.mark_deleted(old.uid)
    job = store.insert_job(
        uid=uid,
        namespace=namespace,
        name=name,
        phase=Phase.PLANNING,
        spec=spec.as_dict(),
        functions=[],
        digest="",
        data_root=DATA,
        output_root=DATA,
        generation=generation,
        image=(spec.worker.image if spec.worker else None) or image,
        **place,
    )
    return job, old.uid if old is not None else None


def _redrive_of(store: Store, accepted: PipelineJob, wanted: FailedRowsOf) -> dict[str, object]:
    """What a redrive's row has of the job whose rows it runs.

    Raises:
        JobError: InvalidSpec, when that job is not there, has not ended, or is another kind of job.
    """
    root = store.find_job(accepted.metadata.namespace, wanted.name)
    if root is None or root.generation is None:
        raise _no_redrive(f"there is no PipelineJob {wanted.name!r} in this namespace")
    if root.root_uid is not None:
        raise _no_redrive(f"{wanted.name!r} is a redrive itself: name the job whose rows it runs")
    if root.phase not in TERMINAL or root.input is None or root.spec["mode"] == "plan":
        raise _no_redrive(f"{wanted.name!r} has run no rows, or has not ended (it is {root.phase}): apply this again when it has")
    if (other := store.unfinished_redrive(root.uid)) is not None:
        raise _no_redrive(f"{other.name!r} runs rows of {wanted.name!r} now: apply this again when it has ended")
    if changed := redrive_differences(root.spec, accepted.spec):
        raise _no_redrive(f"{wanted.name!r} has other values of {', '.join(changed)}: a redrive may change functions and worker alone")
    number = max((one.redrive or 0 for one in store.redrives(root.uid)), default=0) + 1
    selection = {"reasons": sorted(set(wanted.reasons)) or None, "pending": False}
    return {"output": root.output, "root_uid": root.uid, "redrive": number, "selection": selection}


def _no_redrive(message: str) -> JobError:
    return JobError(JobReason.INVALID_SPEC, f"spec.source.failedRowsOf.name: {message}")


def _open_round(store: Store, job: Job) -> None:
    store.open_round(job.uid)
    started = {} if job.started_at else {"started_at": datetime.now(UTC)}
    store.update_job(job.uid, phase=Phase.RUNNING, reason=None, message=None, **started)
