"""Which PipelineJobs are taken on: what the CRD's rules cannot see is checked here, before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelinejob import jobfile
from pipelinejob.model import GROUP, MUTABLE, PipelineJob, Spec, Worker, parse
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.specs import as_redrive
from pipelinejob.store import Job
from pipelinejob_operator.manifests import largest

APPROVE = f"{GROUP}/approve"  # the annotation by which a job with mode plan is run
_NONE: Mapping[str, jobfile.Entry] = {}


def accept(
    body: Mapping[str, Any], others: Iterable[Mapping[str, Any]], functions: Mapping[str, jobfile.Entry] = _NONE
) -> tuple[PipelineJob, list[dict[str, Any]]]:
    """Checks a PipelineJob as the API server has it; returns it, and its functions with the code of those that are PipelineFunctions.

    Args:
        body: the resource.
        others: the PipelineJobs of its namespace.
        functions: the PipelineFunctions that it names, with `limits` {timeoutSeconds, resources}.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    job = jobfile.for_cluster({key: body[key] for key in ("apiVersion", "kind", "metadata", "spec") if key in body}, functions)
    job = _within_limits(job, functions)
    entries = [{key: value for key, value in entry.items() if key != "limits"} for entry in jobfile.entries_of(job, functions)]
    if job.spec.source.failed_rows_of is not None:  # into the output of the job whose rows it runs
        return job.model_copy(update={"spec": as_redrive(job.spec)}), entries
    _check_output(job, body, others)
    return job, entries


def _within_limits(job: PipelineJob, functions: Mapping[str, jobfile.Entry]) -> PipelineJob:
    """The job with what its PipelineFunctions say of time and resources."""
    if not functions:
        return job
    limits = {name: entry["limits"] for name, entry in functions.items()}
    calls = [
        each.model_copy(update={"timeout_seconds": min(each.timeout_seconds, limits[each.name]["timeoutSeconds"])})
        if each.name in limits and jobfile.is_named(each.model_dump())
        else each
        for each in job.spec.functions
    ]
    worker = job.spec.worker or Worker()
    wanted = largest(each["resources"] for each in limits.values() if each["resources"])
    if wanted and not worker.resources:
        worker = worker.model_copy(update={"resources": wanted})
    spec = job.spec.model_copy(update={"functions": calls, "worker": worker if job.spec.worker or wanted else None})
    return job.model_copy(update={"spec": spec})


def _check_output(job: PipelineJob, body: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> None:
    """Outputs on one claim must not be equal to, inside or above each other; the older job keeps its place."""
    if job.spec.mode == "plan" or job.spec.incremental_of is not None:  # it writes nothing, or where another job has written
        return
    ours = _parts(job.output_path)
    for other in others:
        theirs = _parts(_output_of(other))
        shared = min(len(ours), len(theirs))
        if ours[:shared] == theirs[:shared] and _age(other) < _age(body) and _claim(other) == _claim(body) and _holds_output(other):
            raise JobError(
                JobReason.INVALID_SPEC,
                f"spec.output.path: {job.output_path!r} overlaps the output {'/'.join(theirs)!r} of the PipelineJob "
                f"{other['metadata']['name']!r} on the same claim: choose another path, or delete both and apply this one again",
            )


def _holds_output(body: Mapping[str, Any]) -> bool:
    conditions = body.get("status", {}).get("conditions", [])
    shares = body["spec"]["source"].get("failedRowsOf") is not None
    return not shares and not _only_plans(body) and not any(one["type"] == "Accepted" and one["status"] == "False" for one in conditions)


def _age(body: Mapping[str, Any]) -> tuple[str, str]:
    return body["metadata"]["creationTimestamp"], body["metadata"]["uid"]


def _claim(body: Mapping[str, Any]) -> object:
    return (body["spec"].get("data") or {}).get("persistentVolumeClaim", {}).get("claimName")


def _output_of(body: Mapping[str, Any]) -> str:
    path = (body["spec"].get("output") or {}).get("path")
    return path or f"output/{body['metadata']['namespace']}/{body['metadata']['name']}"


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def current_spec(job: Job, body: Mapping[str, Any]) -> Spec:
    """The spec as it was accepted, with the mutable fields as the resource has them now.

    Raises:
        JobError: InvalidSpec, when a mutable field holds what the CRD could not refuse.
    """
    live = {key: body["spec"][key] for key in MUTABLE if key in body["spec"]}
    kept = {key: value for key, value in job.spec.items() if key not in MUTABLE and value is not None}
    if is_approved(body):
        kept["mode"] = "run"
    document = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": body["metadata"], "spec": {**kept, **live}}
    spec = parse(document).spec
    return spec if spec.source.failed_rows_of is None else as_redrive(spec)


def is_approved(body: Mapping[str, Any]) -> bool:
    """Whether a job with mode plan is to run as it was planned."""
    return bool((body["metadata"].get("annotations") or {}).get(APPROVE) == "true")


def _only_plans(body: Mapping[str, Any]) -> bool:
    return body["spec"].get("mode") == "plan" and not is_approved(body)


def is_answered(body: Mapping[str, Any]) -> bool:
    """Whether a PipelineJob has ended or rests, and its newest spec is answered: only time can bring something to do."""
    status, metadata = body.get("status") or {}, body["metadata"]
    planned = any(one["reason"] == "PlanOnly" for one in status.get("conditions", [])) and not is_approved(body)
    return (
        (planned or status.get("phase") in (Phase.COMPLETE, Phase.FAILED, Phase.CANCELLED, Phase.SUSPENDED))
        and status.get("observedGeneration") == metadata.get("generation")
        and "deletionTimestamp" not in metadata
    )


def is_settled(body: Mapping[str, Any]) -> bool:
    """Whether nothing is left to do for a PipelineJob: it is answered, and has no time to live."""
    return is_answered(body) and (body.get("spec") or {}).get("ttlSecondsAfterFinished") is None
