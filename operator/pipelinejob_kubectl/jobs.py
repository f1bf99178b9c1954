"""The PipelineJobs of a cluster: asked for, changed, and told as the objects of `--json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from pipelinejob import objects
from pipelinejob.model import API_VERSION, MUTABLE, Rows, Shards, TopFailure
from pipelinejob.reasons import ENDS, Phase, RowReason
from pipelinejob.specs import redrive_of
from pipelinejob_kubectl.errors import ApiError, PluginError
from pipelinejob_kubectl.kube import MERGE_PATCH, Kube, Object

MOST_REDRIVES = 1_000
QUIET = {*Phase}  # reasons of Complete=False that only say that it runs


def find(kube: Kube, name: str) -> Object:
    """A job of the namespace.

    Raises:
        PluginError: there is none of that name; the message has names that are like it.
    """
    try:
        return kube.call("GET", kube.ours(name))
    except ApiError as error:
        if error.status != 404 or error.word == "NoCRD":
            raise
    known = [job["metadata"]["name"] for job in kube.items(kube.ours())]
    close = get_close_matches(name, known, 3) or known[:5]
    told = f" ({'did you mean' if get_close_matches(name, known, 1) else 'it has'} {', '.join(close)}?)" if close else ""
    advice = "'kubectl pipelinejob list -A' shows all namespaces"
    raise PluginError("InvalidSpec", f"no PipelineJob {name!r} in the namespace {kube.namespace!r}{told}; {advice}")


def listed(kube: Kube, everywhere: bool) -> list[Object]:
    """The jobs of the namespace, or of all."""
    return kube.items(f"/apis/{API_VERSION}/pipelinejobs" if everywhere else kube.ours())


def patch(kube: Kube, name: str, spec: Mapping[str, Any]) -> Object:
    """Changes fields of a job's spec."""
    return kube.call("PATCH", kube.ours(name), body={"spec": dict(spec)}, content_type=MERGE_PATCH)


def change(kube: Kube, name: str, spec: Mapping[str, Any], verb: str) -> Object:
    """The same, for a job that has not ended.

    Raises:
        PluginError: it has.
    """
    phase = phase_of(find(kube, name))
    if phase in ENDS:
        raise PluginError("InvalidSpec", f"the job {name!r} has ended ({phase}): there is nothing to {verb}")
    return patch(kube, name, spec)


def redrive(kube: Kube, name: str, reasons: Sequence[str]) -> Object | None:
    """Makes a PipelineJob NAME-redrive-N that runs failed rows of a job again; None: none failed so.

    Raises:
        PluginError: it has not ended, or is a redrive itself.
    """
    for reason in reasons:
        if reason not in list(RowReason):
            raise PluginError("InvalidSpec", f"--reason: {reason!r} is none: expected one of {', '.join(RowReason)}")
    root = find(kube, name)
    if of := root["spec"]["source"].get("failedRowsOf"):
        raise PluginError("InvalidSpec", f"{name!r} is a redrive itself: 'kubectl pipelinejob redrive {of['name']}' runs what still fails")
    if phase_of(root) not in ENDS:
        raise PluginError("InvalidSpec", f"{name!r} has not ended ({phase_of(root)}): wait for its end, or cancel it")
    if not rows_of(root).failed:
        return None
    for number in range(1, MOST_REDRIVES):
        try:
            return kube.call("POST", kube.ours(), body=redrive_of(root, reasons, number))
        except ApiError as error:
            if error.word != "AlreadyExists":
                raise
    raise PluginError("InvalidSpec", f"{name!r} has {MOST_REDRIVES} redrives: delete old ones")


def submit(kube: Kube, document: Object) -> Object:
    """Makes a job, or takes over the mutable fields of one that is there and differs in nothing else.

    Raises:
        PluginError: InvalidSpec, when it differs in more.
    """
    from pipelinejob import model, specs  # noqa: PLC0415 - only this verb needs them

    namespace, name = document["metadata"].get("namespace") or kube.namespace, document["metadata"]["name"]
    try:
        return kube.call("POST", kube.ours(namespace=namespace), body=document)
    except ApiError as error:
        if error.word != "AlreadyExists":
            raise
    there = kube.call("GET", kube.ours(name, namespace=namespace))
    new = model.parse(document).spec.as_dict()
    old = model.parse({**document, "spec": there["spec"]}).spec.as_dict()
    fixed = specs.differences("spec", *({key: value for key, value in one.items() if key not in MUTABLE} for one in (old, new)))
    if fixed:
        advice = f"give the job another name, or 'kubectl pipelinejob delete {name}'"
        raise PluginError("InvalidSpec", f"there is a PipelineJob {name!r} with other values of {', '.join(fixed)}: {advice}")
    wanted = {key: document["spec"].get(key) for key in MUTABLE if old.get(key) != new.get(key) and not (key == "cancel" and old[key])}
    if not wanted:
        return there
    return kube.call("PATCH", kube.ours(name, namespace=namespace), body={"spec": wanted}, content_type=MERGE_PATCH)


# ---- what a job says


def phase_of(job: Object) -> str:
    """Its phase; Pending before the operator has seen it."""
    return str((job.get("status") or {}).get("phase") or Phase.PENDING)


def rows_of(job: Object) -> Rows:
    """Its counts, those that are known here."""
    told = (job.get("status") or {}).get("rows") or {}
    return Rows(**{key: value for key, value in told.items() if key in Rows.model_fields})


def shards_of(job: Object) -> Shards:
    """How its shards stand."""
    told = (job.get("status") or {}).get("shards") or {}
    return Shards(**{key: value for key, value in told.items() if key in Shards.model_fields})


def top_of(job: Object) -> list[TopFailure]:
    """Its commonest failures."""
    known = [reason.value for reason in RowReason]
    told = (job.get("status") or {}).get("topFailures") or []
    return [TopFailure(**{key: one[key] for key in TopFailure.model_fields}) for one in told if one["reason"] in known]


def condition(job: Object, kind: str) -> Object:
    """One of its conditions; {} when it has none of that type."""
    return next((one for one in (job.get("status") or {}).get("conditions") or [] if one["type"] == kind), {})


def standing(job: Object) -> tuple[str | None, str | None]:
    """(reason, message): why it failed, or what keeps it; None for neither."""
    failed, complete = condition(job, "Failed"), condition(job, "Complete")
    if failed.get("status") == "True":
        return failed["reason"], failed["message"]
    if complete.get("status") == "False" and complete["reason"] not in QUIET:
        return None, f"{complete['reason']}: {complete['message']}"
    return None, None


def only_planned(job: Object) -> bool:
    """Whether it is a job of mode plan that is planned, and so goes no further by itself."""
    return condition(job, "Complete").get("reason") == "PlanOnly"


def has_ended(job: Object) -> bool:
    """Whether it has ended, and the operator has seen the latest change of its spec."""
    seen = (job.get("status") or {}).get("observedGeneration", 0) >= job["metadata"].get("generation", 0)
    return seen and (phase_of(job) in ENDS or only_planned(job))


def seconds_of(job: Object, now: datetime | None = None) -> float:
    """How long it ran, so far or in all."""
    status = job.get("status") or {}
    if "startTime" not in status:
        return 0.0
    end = datetime.fromisoformat(status["completionTime"]) if "completionTime" in status else now or datetime.now(UTC)
    return max(0.0, (end - datetime.fromisoformat(status["startTime"])).total_seconds())


def summary(job: Object, message: str | None = None) -> dict[str, Any]:
    """The object of `--json`; `output` is relative to the root of the claim."""
    meta, (reason, said) = job["metadata"], standing(job)
    made = objects.summary(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        phase=phase_of(job),
        rows=rows_of(job),
        shards=shards_of(job),
        seconds=seconds_of(job),
        reason=reason,
        message=message or said,
    )
    return {**made, "output": (job.get("status") or {}).get("output") or None}
