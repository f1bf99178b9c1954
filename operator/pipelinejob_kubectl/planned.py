"""`plan FILE`: a PipelineJob of mode plan that lives for as long as it takes to look at its status."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelinejob import jobfile, model
from pipelinejob.reasons import JobError
from pipelinejob_kubectl.errors import ApiError, PluginError
from pipelinejob_kubectl.kube import Kube, Object


def document(kube: Kube, file: Path) -> Object:
    """The PipelineJob of a file, checked as the operator would, with its namespace.

    Raises:
        JobError: InvalidSpec, naming the file and the fields.
        PluginError: the namespace is not that of -n.
    """
    found: Any = jobfile.read(file)
    metadata: Any = found.get("metadata") if isinstance(found, dict) else None
    given = metadata.get("namespace") if isinstance(metadata, dict) else None
    if given and kube.options.namespace and given != kube.options.namespace:
        raise PluginError("InvalidSpec", f"{file}: metadata.namespace is {given!r}, and -n says {kube.options.namespace!r}: leave one out")
    if isinstance(metadata, dict):
        found = {**found, "metadata": {**metadata, "namespace": given or kube.namespace}}
    try:
        job = model.parse(found)
        names = {entry.name for entry in job.spec.functions if jobfile.is_named(entry.model_dump())}
        jobfile.for_cluster(found, {name for name in names if _has_function(kube, job.metadata.namespace, name)})
    except JobError as error:
        raise JobError(error.reason, "\n".join(f"{file}: {line}" for line in error.message.splitlines())) from None
    checked: Object = found
    return checked


def _has_function(kube: Kube, namespace: str, name: str) -> bool:
    try:
        kube.call("GET", kube.ours(name, "pipelinefunctions", namespace))
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def plan_of(found: Object, suffix: str) -> Object:
    """The same job, only to be planned, under a name of its own."""
    name = found["metadata"]["name"]
    ending = f"-plan-{suffix}"
    spec = {key: value for key, value in found["spec"].items() if key not in ("suspend", "cancel", "ttlSecondsAfterFinished")}
    metadata = {**found["metadata"], "name": name[: model.MAX_NAME - len(ending)].rstrip("-") + ending}
    return {**found, "metadata": metadata, "spec": {**spec, "mode": "plan"}}


@contextmanager
def made(kube: Kube, found: Object, tell: Callable[[str], None]) -> Iterator[Object]:
    """The job of mode plan, which is deleted afterwards; the API server has looked at the job itself, too."""
    path = kube.ours(namespace=found["metadata"]["namespace"])
    try:
        kube.call("POST", path, query=[("dryRun", "All")], body=found)
    except ApiError as error:
        if error.word != "AlreadyExists":  # planned anew after it was applied: not an error
            raise
    job = kube.call("POST", path, body=plan_of(found, secrets.token_hex(3)))
    name = job["metadata"]["name"]
    tell(f"planning in the cluster, as {name}")
    try:
        yield job
    finally:
        with suppress(PluginError):
            kube.call("DELETE", f"{path}/{name}")
