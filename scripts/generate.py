"""Writes what is made from the model: the CRD, its copy in the chart, and docs/reference.md.

Usage: .venv/bin/python scripts/generate.py [FOLDER]     FOLDER stands for the project's root, for scripts/check-generated.sh.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "worker"), str(ROOT / "operator")]

from pipelinejob.functions import BUILTINS, Param  # noqa: E402 - the project's own, also where it is not installed
from pipelinejob.model import MAX_NAME, MUTABLE  # noqa: E402
from pipelinejob.reasons import JobReason, Phase, RowReason  # noqa: E402
from pipelinejob_operator.crd import FIXED, crd, function_crd  # noqa: E402

CONDITIONS = {
    "Accepted": "The spec is valid. False: the message names the fields that are not; no row was run.",
    "Planned": "The CSV was read; rows and shards are known.",
    "Complete": "Every row is accounted for and the results are written. False: the reason says what the job is at, or what it waits for.",
    "Failed": "The job ended without being complete. False: it had, and goes on.",
    "Suspended": "`spec.suspend` is true and no pod runs. False: it was, and goes on.",
}
PHASES = {
    Phase.PENDING: "It waits to be taken on, or for what its conditions say.",
    Phase.PLANNING: "The CSV is read.",
    Phase.RUNNING: "Shards run.",
    Phase.FINALIZING: "metadata.csv, failures.csv and manifest.json are written.",
    Phase.COMPLETE: "Done; failed rows are within the budget.",
    Phase.FAILED: "Ended; the condition Failed says why.",
    Phase.SUSPENDED: "Stopped by `spec.suspend`; nothing recorded is lost.",
    Phase.CANCELLED: "Stopped for good by `spec.cancel`; results of what was done are written.",
}
JOB_REASONS = {
    JobReason.INVALID_SPEC: "The spec does not fit; the message names each field, what was expected and what was found.",
    JobReason.INPUT_NOT_FOUND: "The CSV is not below the data root.",
    JobReason.INPUT_INVALID: "The CSV cannot be read as one; the message names the line.",
    JobReason.INPUT_CHANGED: "The CSV was edited after it was planned: rows of two files are never mixed.",
    JobReason.FAILURE_BUDGET_EXCEEDED: "More rows failed than `spec.failurePolicy` allows; raise the field that is named to go on.",
    JobReason.OUTPUT_CONFLICT: "The output folder belongs to another job, or was changed from outside.",
    JobReason.DATABASE_UNAVAILABLE: "The database cannot be reached; in a cluster the job waits and nothing is lost.",
    JobReason.SHARDS_FAILED: "Shards failed as often as `spec.backoffLimitPerIndex` allows, or results could not be written.",
    JobReason.CANCELLED: "`spec.cancel` was set.",
}
WAITING_REASONS = {
    "ApiRefused": "The API server refuses an object that the operator has to make; the message has its words.",
    "NameTaken": "A Job of somebody else has the name that one of its Jobs needs.",
    "RedriveDeleted": "Another redrive of the same job was deleted before its end: its pods end, and what it had done is written.",
    "PlanLost": "The ledger has no plan though the plan Job completed: its database was replaced.",
    "ImagePullBackOff": "A node cannot get the worker image.",
    "Unschedulable": "No node has room for a pod, or none fits.",
    "VolumeNotBound": "The claim is missing, unbound or cannot be mounted.",
    "QuotaExceeded": "A quota of the namespace admits no more pods.",
    "PodsForbidden": "The API server refuses the pods: pod security, a limit range, a priority class.",
    "OOMKilled": "A pod used more memory than its limit and was ended.",
    "NodeLost": "A node went away with a pod on it; another pod takes over.",
    "ContainerCannotRun": "A container cannot be started.",
    "PodFailed": "A pod ended with the exit code that the message names; its shard is tried again.",
    "DatabaseUnavailable": JOB_REASONS[JobReason.DATABASE_UNAVAILABLE],
    "DatabaseConnections": "All database connections that workers may have are taken.",
    "PlanOnly": '`spec.mode` is plan: nothing is run until the annotation `pipelinejob.dev/approve: "true"` says so.',
}
ROW_REASONS = {
    RowReason.MALFORMED_ROW: "Too many or too few fields, a bare CR, bytes that are not valid in the encoding, NUL, or a field over 1 MiB.",
    RowReason.INVALID_OUTPUT_NAME: "The id is no file name: empty, too long, with a dot first, or with `/`, `\\` or a control character.",
    RowReason.DUPLICATE_ID: "An earlier row of the same batch has the id.",
    RowReason.IMAGE_NOT_FOUND: "There is no such file, it is a folder, it may not be read, or it is outside the data root.",
    RowReason.IMAGE_TOO_LARGE: "More bytes than `source.maxBytes`, more pixels than `source.maxPixels`, or more than memory holds.",
    RowReason.IMAGE_INVALID: "No image in a known format, or one that cannot be decoded whole.",
    RowReason.FUNCTION_ERROR: "A function raised, returned what it may not, or ended its process.",
    RowReason.FUNCTION_TIMEOUT: "A function took longer than its `timeoutSeconds`.",
    RowReason.OUTPUT_ERROR: "The result cannot be written in the output format.",
}
WAY = "worker/pipelinejob/model.py by scripts/generate.py: do not edit"


def main() -> None:
    """Writes every file below the folder given, or in the project."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for name, text in files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """What is made, by its path in the project."""
    jobs, functions = (
        f"# Made from {WAY}.\n" + yaml.safe_dump(one, sort_keys=False, allow_unicode=True, width=120) for one in (crd(), function_crd())
    )
    return {
        "manifests/crd.yaml": f"{jobs}---\n{functions}",
        "helm/pipelinejob/files/pipelinejobs.yaml": jobs,  # a chart cannot read beyond its own folder
        "helm/pipelinejob/files/pipelinefunctions.yaml": functions,
        "docs/reference.md": "\n".join(reference()) + "\n",
    }


def reference() -> Iterator[str]:
    """The lines of docs/reference.md."""
    manifest = crd()
    spec = manifest["spec"]["versions"][0]
    root = spec["schema"]["openAPIV3Schema"]
    yield f"<!-- Made from {WAY}. -->"
    yield "# Reference of PipelineJob"
    yield ""
    yield f"`apiVersion: {manifest['spec']['group']}/{spec['name']}`, `kind: PipelineJob`; in kubectl `pipelinejobs`, or `plj`."
    yield f"`metadata.name` is a DNS label of at most {MAX_NAME} characters. `kubectl explain pipelinejob.spec` says the same as this page;"
    yield "the [guide](guide.md) shows the fields at work, and the [runbook](runbook.md) says what to do about each reason."
    yield ""
    yield "## spec"
    yield ""
    yield f"Only {_listing(MUTABLE)} can be changed after"
    yield "creation. An unknown field is an error."
    yield ""
    yield from _table(
        ("Field", "Type", "Default", "Can change", "What it says"),
        (
            (f"`{path}`", _type(node), _default(node, required), _mutable(path), _cell(node["description"]))
            for path, node, required in _fields(root, "spec")
        ),
    )
    yield "### What is checked besides"
    yield ""
    yield "The API server refuses these before a job is made. What it cannot see, such as an unknown function or a param that does not fit,"
    yield "ends as the condition `Accepted` with status False."
    yield ""
    yield from _table(("Field", "Check"), ((f"`{path}`", _cell(message)) for path, message in _checks(root)))
    yield "## status"
    yield ""
    yield from _table(
        ("Field", "Type", "What it says"),
        ((f"`{path}`", _type(node), _cell(node["description"])) for path, node, _ in _fields(root, "status")),
    )
    for title, what, sentences in (
        ("## Conditions", "Condition", CONDITIONS),
        ("## Phases", "Phase", {phase: PHASES[phase] for phase in Phase}),
        ("## Why a job failed or was refused", "Reason", {reason: JOB_REASONS[reason] for reason in JobReason}),
        ("## What a job waits for", "Reason", WAITING_REASONS),
        ("## Why a row failed, in the order of the checks", "Reason", {reason: ROW_REASONS[reason] for reason in RowReason}),
    ):
        yield title
        yield ""
        yield from _table((what, "What it says"), sentences.items())
    yield "## Built-in functions"
    yield ""
    yield "As `pipelinejob functions` lists them. A version rises when the function's pixels change; it is part of the job's digest."
    yield ""
    yield from _table(
        ("Function", "Version", "Params", "What it does"),
        ((f"`{one.name}`", one.version, "<br>".join(_param(param) for param in one.params), _cell(one.doc)) for one in BUILTINS.values()),
    )
    yield from _function_reference()
    yield "## What kubectl get prints"
    yield ""
    columns = [("NAME", "`.metadata.name`", "")]
    columns += [
        (one["name"].upper(), f"`{one['jsonPath']}`", "with `-o wide`" if one.get("priority") else "")
        for one in spec["additionalPrinterColumns"]
    ]
    *table, _ = _table(("Column", "Field", ""), columns)
    yield from table


def _function_reference() -> Iterator[str]:
    """The lines about PipelineFunctions."""
    root = function_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    yield "## PipelineFunction"
    yield ""
    yield "`kind: PipelineFunction`; in kubectl `pipelinefunctions`, or `plf`. [functions.md](functions.md) shows one."
    yield "It can be changed: a job keeps the code that was there when it was accepted."
    yield ""
    yield from _table(
        ("Field", "Type", "Default", "What it says"),
        (
            (f"`spec.{path}`", _type(node), _default(node, required), _cell(node["description"]))
            for path, node, required in _fields(root, "spec")
        ),
    )
    yield from _table(
        ("Field", "Type", "What it says"),
        ((f"`status.{path}`", _type(node), _cell(node["description"])) for path, node, _ in _fields(root, "status") if "type" in node),
    )


def _fields(root: Mapping[str, Any], part: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """(path below `part`, schema, whether it is required) of every field, depth first."""

    def below(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
        if node.get("type") == "array":
            node, path = node["items"], f"{path}[]"
        for name, field in node.get("properties", {}).items():
            inner = f"{path}.{name}" if path else name
            yield inner, field, name in node.get("required", ())
            yield from below(field, inner)

    yield from below(root["properties"][part], "")


def _checks(root: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, what the rules say) of every field with rules, but for the rule that it cannot be changed."""
    nodes = [("", root), ("spec", root["properties"]["spec"]), *((f"spec.{path}", node) for path, node, _ in _fields(root, "spec"))]
    found: dict[str, list[str]] = {}
    for path, node in nodes:
        for rule in node.get("x-kubernetes-validations", ()):
            if rule["message"] != FIXED:
                field = path + rule.get("fieldPath", "") or "metadata.name"
                found.setdefault(field, []).append(rule["message"])
    yield from ((path, "; ".join(messages)) for path, messages in found.items())


def _type(node: Mapping[str, Any]) -> str:
    kind: str = node["type"]
    if "enum" in node:
        return "one of " + ", ".join(f"`{value}`" for value in node["enum"])
    if kind == "array":
        inner = node["items"]["type"]
        return f"list of {inner}s" + (f", at most {node['maxItems']}" if "maxItems" in node else "")
    if kind == "object" and "additionalProperties" in node:
        return "map of strings" if node["additionalProperties"].get("type") == "string" else "map"
    if kind == "string":
        limit = f", at most {node['maxLength']} characters" if "maxLength" in node else ""
        return ("time" if node.get("format") == "date-time" else "string") + (", not empty" if node.get("minLength") else "") + limit
    if "minimum" in node and "maximum" in node:
        return f"{kind}, {node['minimum']:,} to {node['maximum']:,}"
    return kind + (f", at least {node['minimum']:,}" if "minimum" in node else "")


def _default(node: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    if "default" not in node or "properties" in node:
        return ""
    value = node["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _mutable(path: str) -> str:
    return "yes" if path.split(".", maxsplit=1)[0] in MUTABLE else "no"


def _param(param: Param) -> str:
    default = "required" if param.required else f"by default `{json.dumps(param.default)}`"
    return f"`{param.name}`: {_cell(param.expected)}; {default}"


def _listing(names: Iterable[str]) -> str:
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} and {last}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(heads: tuple[str, ...], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


if __name__ == "__main__":
    main()
