"""Which PipelineJobs are taken on: what the CRD's rules cannot see is checked here, before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelinejob.functions.resolve import resolve_functions
from pipelinejob.model import MUTABLE, PipelineJob, Spec, parse
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.store import Job


def accept(body: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> PipelineJob:
    """Checks a PipelineJob as the API server has it.

    Args:
        body: the resource.
        others: the PipelineJobs of its namespace.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    job = parse({key: body[key] for key in ("apiVersion", "kind", "metadata", "spec") if key in body})
    lines = list(_problems(job))
    if lines:
        raise JobError(JobReason.INVALID_SPEC, "\n".join(lines))
    _check_output(job, body, others)
    return job


def _problems(job: PipelineJob) -> Iterable[str]:
    if job.spec.data is None:
        yield "spec.data.persistentVolumeClaim.claimName: is required in a cluster: it names the claim with the CSV and the images"
    here = []
    for index, function in enumerate(job.spec.functions):
        if function.file is not None:
            yield (
                f"spec.functions[{index}].file: {function.file!r} is a file beside a job file, which a cluster does not have: "
                "put the code into the worker image and name it with 'module'"
            )
        elif function.module is None:  # a module is in the worker's image, and is checked there
            here.append((index, function))
    entries = [function.model_dump(mode="json", by_alias=True) for _, function in here]
    _, problems = resolve_functions(entries, Path("/nonexistent"))
    for field, message in problems:
        position, _, rest = field.removeprefix("functions[").partition("]")
        yield f"spec.functions[{here[int(position)][0]}]{rest}: {message}"


def _check_output(job: PipelineJob, body: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> None:
    """Outputs on one claim must not be equal to, inside or above each other; the older job keeps its place."""
    if job.spec.mode == "plan":  # writes nothing
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
    return body["spec"].get("mode") != "plan" and not any(one["type"] == "Accepted" and one["status"] == "False" for one in conditions)


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
    document = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": body["metadata"], "spec": {**kept, **live}}
    return parse(document).spec


def is_answered(body: Mapping[str, Any]) -> bool:
    """Whether a PipelineJob has ended or rests, and its newest spec is answered: only time can bring something to do."""
    status, metadata = body.get("status") or {}, body["metadata"]
    planned = any(one["reason"] == "PlanOnly" for one in status.get("conditions", []))
    return (
        (planned or status.get("phase") in (Phase.COMPLETE, Phase.FAILED, Phase.CANCELLED, Phase.SUSPENDED))
        and status.get("observedGeneration") == metadata.get("generation")
        and "deletionTimestamp" not in metadata
    )


def is_settled(body: Mapping[str, Any]) -> bool:
    """Whether nothing is left to do for a PipelineJob: it is answered, and has no time to live."""
    return is_answered(body) and (body.get("spec") or {}).get("ttlSecondsAfterFinished") is None
