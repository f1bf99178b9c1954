"""Two specs side by side: what keeps them from being of one job, what a redrive may have of its own, and a redrive as a resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelinejob.model import API_VERSION, KIND, MAX_NAME, MUTABLE, FailurePolicy, Spec

NO_BUDGET = FailurePolicy.model_validate({"maxFailedRowsPercent": 100})


def differences(path: str, old: object, new: object) -> list[str]:
    """The fields, below this path, that have other values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [field for key in keys for field in differences(f"{path}.{key}", old.get(key), new.get(key))]
    return [] if old == new else [path]


def redrive_differences(root: Mapping[str, Any], spec: Spec) -> list[str]:
    """The fields that a redrive must have as the job whose rows it runs, and has not; its output is that of the job."""
    ours, theirs = spec.as_dict(), dict(root)
    for one in (ours, theirs):
        one["source"] = {key: value for key, value in one["source"].items() if key != "failedRowsOf"}
        for field in (*MUTABLE, "functions", "worker"):
            one.pop(field, None)
    if spec.source.failed_rows_of is not None and spec.output.path is None:
        ours["output"] = {**ours["output"], "path": theirs["output"]["path"]}
    return differences("spec", theirs, ours)


def as_redrive(spec: Spec) -> Spec:
    """The spec with a failure budget that nothing breaks: its rows are those that failed, and their job's own budget judges that."""
    return spec.model_copy(update={"failure_policy": NO_BUDGET})


def redrive_of(root: Mapping[str, Any], reasons: Sequence[str], number: int) -> dict[str, Any]:
    """A redrive of a PipelineJob, as a resource: the same spec, but for the output, which is the job's."""
    spec = {key: value for key, value in root["spec"].items() if key not in ("suspend", "cancel")}
    spec["source"] = {**spec["source"], "failedRowsOf": {"name": root["metadata"]["name"], "reasons": list(reasons)}}
    spec["output"] = {key: value for key, value in (spec.get("output") or {}).items() if key != "path"}
    metadata = {"name": redrive_name(root["metadata"]["name"], number)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def redrive_name(name: str, number: int) -> str:
    """NAME-redrive-<n>, cut to what a name may have."""
    ending = f"-redrive-{number}"
    return name[: MAX_NAME - len(ending)].rstrip("-") + ending
