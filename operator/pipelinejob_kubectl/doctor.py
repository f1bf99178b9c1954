"""What `doctor` concludes from what it found: pure functions, each a finding or several with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from pipelinejob import __version__, report
from pipelinejob.model import VERSION
from pipelinejob.reasons import ENDS, JobReason
from pipelinejob_kubectl.jobs import condition, phase_of, standing
from pipelinejob_kubectl.kube import Object
from pipelinejob_kubectl.reading import why_not_running

Level = Literal["ok", "warning", "problem"]
OLDEST = (1, 33)  # Kubernetes
_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}
_IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable")
MOST = 5  # of one kind that are told one by one

# (group, resource, verbs), as the chart's rules have them; a test compares.
OPERATOR_RIGHTS = (
    ("pipelinejob.dev", "pipelinejobs", "get list watch delete"),
    ("pipelinejob.dev", "pipelinejobs/status", "patch"),
    ("pipelinejob.dev", "pipelinejobs/finalizers", "update"),
    ("pipelinejob.dev", "pipelinefunctions", "get list watch"),
    ("pipelinejob.dev", "pipelinefunctions/status", "patch"),
    ("pipelinejob.dev", "pipelinefunctions/finalizers", "update"),
    ("", "configmaps", "get"),
    ("batch", "jobs", "get list watch create patch delete"),
    ("", "pods", "get list watch"),
    ("", "pods/status", "patch"),
    ("", "events", "get list watch create"),
    ("", "secrets", "create"),
    ("networking.k8s.io", "networkpolicies", "create"),
)
# What a person needs, by what for; without the first nothing works.
OWN_RIGHTS = {
    "see jobs": (("pipelinejob.dev", "pipelinejobs", "get list watch"),),
    "run and change jobs": (("pipelinejob.dev", "pipelinejobs", "create patch delete"),),
    "read logs": (("", "pods", "get list"), ("", "pods/log", "get")),
    "copy results and failures": (("", "pods", "get list create delete"), ("", "pods/exec", "create"), ("batch", "jobs", "list")),
    "list functions": (("pipelinejob.dev", "pipelinefunctions", "get list"),),
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Args:
        level: how it stands.
        what: was looked at.
        message: what was found.
        advice: what to do; "" when all is well.
    """

    level: Level
    what: str
    message: str
    advice: str = ""


def ok(what: str, message: str) -> Finding:
    """All is well."""
    return Finding("ok", what, message)


def unseen(what: str, why: str) -> Finding:
    """You may not look."""
    return Finding("warning", what, f"cannot be looked at ({why})", "ask somebody with more rights to run this")


def cluster(version: Mapping[str, str], host: str) -> Finding:
    """How old Kubernetes is."""
    numbers = tuple(int(re.sub(r"\D.*", "", version.get(key, "")) or 0) for key in ("major", "minor"))
    told = f"Kubernetes {version.get('gitVersion', '?')} at {host}"
    if numbers < OLDEST:
        return Finding("problem", "cluster", told, f"PipelineJob needs {OLDEST[0]}.{OLDEST[1]} or newer: upgrade the cluster")
    return ok("cluster", told)


def crd(name: str, found: Object | None, expected: Object) -> Finding:
    """Whether a CRD is there, served, and of the fields that this command knows.

    Args:
        name: of the CRD.
        found: as the cluster has it; None: it has none.
        expected: as this version would make it.
    """
    if found is None:
        return Finding(
            "problem",
            "CRD",
            f"{name} is not there",
            "helm install pipelinejob (docs/install.md), or kubectl apply --server-side -f manifests/crd.yaml",
        )
    served = {one["name"]: one for one in found["spec"]["versions"] if one.get("served")}
    if VERSION not in served:
        return Finding(
            "problem", "CRD", f"{name} does not serve {VERSION}, but {', '.join(served) or 'nothing'}", "upgrade the chart, or this command"
        )
    established = any(
        one["type"] == "Established" and one["status"] == "True" for one in (found.get("status") or {}).get("conditions") or []
    )
    if not established:
        return Finding("problem", "CRD", f"{name} is not established", f"kubectl describe crd {name}")
    here, there = fields_of(expected["spec"]["versions"][0]), fields_of(served[VERSION])
    if missing := sorted(here - there):
        return Finding("warning", "CRD", f"{name} lacks {', '.join(missing[:MOST])}", "it is older than this command: helm upgrade")
    if more := sorted(there - here):
        return Finding("warning", "CRD", f"{name} has {', '.join(more[:MOST])}", "it is newer than this command: upgrade this")
    return ok("CRD", f"{name} {VERSION}, with the fields of this version")


def fields_of(version: Mapping[str, Any]) -> set[str]:
    """The fields of a CRD's spec, two levels deep."""
    schema = version["schema"]["openAPIV3Schema"]["properties"].get("spec", {})
    return {
        path
        for name, one in (schema.get("properties") or {}).items()
        for path in (f"spec.{name}", *(f"spec.{name}.{inner}" for inner in one.get("properties") or {}))
    }


def operator(deployments: Sequence[Object], log: Sequence[str], namespace: str) -> Iterator[Finding]:
    """Whether an operator runs and looks at this namespace.

    Args:
        deployments: those of operators.
        log: the last lines of one that is not ready.
        namespace: of which is spoken.
    """
    if not deployments:
        yield Finding("problem", "operator", "there is none in this cluster", "helm install pipelinejob (docs/install.md)")
        return
    watching = [one for one in deployments if namespace in (watched(one) or [namespace])]
    for one in deployments:
        meta, status = one["metadata"], one.get("status") or {}
        name, wanted, ready = f"{meta['namespace']}/{meta['name']}", one["spec"].get("replicas", 1), status.get("readyReplicas", 0)
        if not ready:
            told = f": {' / '.join(log)}" if log else ""
            advice = f"kubectl -n {meta['namespace']} describe deployment {meta['name']}, and its pods"
            yield Finding("problem", "operator", f"{name}: none of {wanted} is ready{told}", advice)
        else:
            version = (meta.get("labels") or {}).get("app.kubernetes.io/version", "")
            told = f"{name}: {ready} of {wanted} ready, version {version or 'unknown'}"
            if version and version != __version__:
                yield Finding("warning", "operator", told, f"this command is {__version__}: bring both to one version")
            else:
                yield ok("operator", told)
    if not watching:
        names = ", ".join(sorted({name for one in deployments for name in watched(one)}))
        advice = f"add {namespace} to watchNamespaces of the chart, or use another namespace (-n)"
        yield Finding("problem", "operator", f"it looks at the namespaces {names} alone, not at {namespace}", advice)


def watched(deployment: Object) -> list[str]:
    """The namespaces that an operator looks at; [] for all."""
    named = environment_of(deployment).get("PIPELINEJOB_WATCH_NAMESPACES", "")
    return [name for name in named.split(",") if name]


def environment_of(deployment: Object) -> dict[str, str]:
    """The variables of a Deployment's first container that have a value of their own."""
    return {one["name"]: one.get("value", "") for one in deployment["spec"]["template"]["spec"]["containers"][0].get("env", [])}


def operator_rights(account: str, missing: Sequence[str]) -> Finding:
    """Whether the operator may do what it must."""
    if not missing:
        return ok("operator's rights", f"{account} may do all that it must")
    more = f" and {len(missing) - MOST} more" if len(missing) > MOST else ""
    return Finding(
        "problem",
        "operator's rights",
        f"{account} may not {', '.join(missing[:MOST])}{more}",
        "helm upgrade with rbac.create=true, or add the chart's rules",
    )


def own_rights(missing: Mapping[str, Sequence[str]], namespace: str) -> Iterator[Finding]:
    """What the caller may do: {what for: what they may not}."""
    for purpose, verbs in missing.items():
        if verbs:
            level: Level = "problem" if purpose == "see jobs" else "warning"
            advice = f"ask for the role 'edit' in {namespace} ('view' to look on)"
            yield Finding(level, "your rights", f"you cannot {purpose} in {namespace}: not {', '.join(verbs)}", advice)
    if not any(missing.values()):
        yield ok("your rights", f"you can {', '.join(missing)} in {namespace}")


def database(stateful_sets: Sequence[Object], jobs: Sequence[Object]) -> Iterator[Finding]:
    """The chart's own Postgres, and what jobs say of the database."""
    waiting = [
        job for job in jobs if phase_of(job) not in ENDS and condition(job, "Complete").get("reason") == JobReason.DATABASE_UNAVAILABLE
    ]
    for job in waiting[:MOST]:
        advice = "look at the database and the operator's log; where only pods cannot reach it, at network policies and database.workerUrl"
        yield Finding("problem", "database", f"{_name(job)}: {condition(job, 'Complete')['message']}", advice)
    for one in stateful_sets:
        meta, ready = one["metadata"], (one.get("status") or {}).get("readyReplicas", 0)
        name = f"{meta['namespace']}/{meta['name']}"
        if not ready:
            advice = f"kubectl -n {meta['namespace']} describe statefulset {meta['name']}, its pod and its claim"
            yield Finding("problem", "database", f"{name} is not ready", advice)
        elif not waiting:
            yield ok("database", f"{name} is ready, and no job waits for it")
    if not stateful_sets and not waiting:
        yield ok("database", "one outside of this release, and no job waits for it")


def storage(claims: Sequence[Object], jobs: Sequence[Object], classes: Sequence[Object] | None, namespace: str) -> Iterator[Finding]:
    """The claims of jobs, and what a new one would become."""
    known = {claim["metadata"]["name"]: (claim.get("status") or {}).get("phase", "Pending") for claim in claims}
    mine = [job for job in jobs if job["metadata"]["namespace"] == namespace and phase_of(job) not in ENDS]
    wanted = {job["spec"]["data"]["persistentVolumeClaim"]["claimName"] for job in mine if job["spec"].get("data")}
    for name in sorted(wanted or list(known)[:MOST]):
        phase = known.get(name)
        if phase == "Bound":
            yield ok("storage", f"the claim {name} is bound")
        elif phase is None:
            yield Finding(
                "problem",
                "storage",
                f"jobs want the claim {name!r}, which {namespace} has not",
                "make it, with the CSV and the images in it",
            )
        else:
            level: Level = "problem" if name in wanted else "warning"
            yield Finding(level, "storage", f"the claim {name} is {phase}", f"kubectl -n {namespace} describe pvc {name} says why")
    if classes is None:
        return
    default = [one["metadata"]["name"] for one in classes if _is_default(one)]
    if default:
        yield ok("storage", f"the default StorageClass is {default[0]}")
    elif not known:
        advice = "name a class in your claim (kubectl get storageclass), or have one made the default"
        yield Finding("warning", "storage", f"{namespace} has no claim, and the cluster no default StorageClass", advice)


def _is_default(storage_class: Object) -> bool:
    return (storage_class["metadata"].get("annotations") or {}).get("storageclass.kubernetes.io/is-default-class") == "true"


def images(pods: Sequence[Object]) -> Iterator[Finding]:
    """Pods of ours whose image does not come."""
    stuck = [(pod, why) for pod in pods if (why := why_not_running(pod)[0]).startswith(_IMAGE) and pod["status"].get("phase") == "Pending"]
    for pod, why in stuck[:MOST]:
        image = pod["spec"]["containers"][0]["image"]
        advice = "check the image's name, and imagePullSecrets (spec.worker's, or the chart's); kind and minikube want it loaded"
        yield Finding("problem", "images", f"{_name(pod)} cannot get {image!r} ({why[:200]})", advice)
    if not stuck:
        yield ok("images", f"no pod waits for its image ({len(pods)} looked at)")


def waiting(jobs: Sequence[Object]) -> Iterator[Finding]:
    """Jobs that something keeps, in the operator's own words, which say what to do."""
    kept = [
        job for job in jobs if phase_of(job) not in ENDS and standing(job)[1] and condition(job, "Complete").get("reason") != "PlanOnly"
    ]
    silent = [job for job in jobs if not (job.get("status") or {}).get("conditions")]
    for job in kept[:MOST]:
        yield Finding("warning", "jobs", f"{_name(job)} waits", str(standing(job)[1]))
    for job in silent[:MOST]:
        yield Finding(
            "warning", "jobs", f"{_name(job)} has no status yet", "if that lasts for more than seconds, the operator does not see it"
        )
    if not kept and not silent:
        yield ok("jobs", f"none of {len(jobs)} is kept by anything")


def _name(found: Object) -> str:
    return f"{found['metadata']['namespace']}/{found['metadata']['name']}"


def show(findings: Sequence[Finding], *, json: bool) -> None:
    """A line for each, with what to do below it."""
    counts = {level: sum(one.level == level for one in findings) for level in ("ok", "warning", "problem")}
    if json:
        report.print_json({"ok": not counts["problem"], "counts": counts, "checks": [asdict(one) for one in findings]})
        return
    console = Console()
    for one in findings:
        head = Text.assemble((f"{one.level:8}", _STYLES[one.level]), f"{one.what}: {one.message}")
        console.print(head, soft_wrap=True)
        if one.advice:
            console.print(Text(f"{'':8}→ {one.advice}"), soft_wrap=True)
    console.print(f"{counts['problem']} problems, {counts['warning']} warnings", highlight=False)
