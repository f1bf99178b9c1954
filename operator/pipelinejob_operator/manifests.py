"""What a PipelineJob becomes in the cluster, its three kinds of Job and its Secret: pure functions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kubernetes.utils.quantity import parse_quantity

from pipelinejob import check, logs
from pipelinejob.model import API_VERSION, GROUP, KIND, MAX_NAME, NAME_PATTERN

Manifest = dict[str, Any]

JOB_LABEL, STAGE_LABEL, UID_LABEL, FUNCTION_LABEL = f"{GROUP}/job", f"{GROUP}/stage", f"{GROUP}/uid", f"{GROUP}/function"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
CONTAINER = "worker"
URL_KEY = "url"  # of the Secret
FAIL_INDEX, FAIL_JOB, STOPPED = 42, 43, 75  # a worker's exit codes
RETRIES = 3  # of plan and finalize
GRACE = 25  # seconds that a pod has to finish its row
POSTGRES_PORT = 5432  # where the URL names none
READY_PORT = 8079  # which a worker opens while it reaches its database
CHECK_TIMEOUT = 900  # seconds for loading a function, with what it requires
NODE_LOST = 60  # seconds until a pod on a silent node is given up; Kubernetes' own default is 300
_CONFINED = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@dataclass(frozen=True)
class Network:
    """What worker pods may reach, beside names of hosts.

    Args:
        database: where the pods of the database are, {namespace, labels}; None: it is no pod of ours, and its port is reached anywhere.
        egress: rules of a NetworkPolicy for what else they need.
    """

    database: Mapping[str, Any] | None
    egress: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Defaults:
    """What the chart says of worker pods.

    Args:
        pull_policy: imagePullPolicy.
        resources: for jobs that name none.
        fs_group: the group that the claim's files belong to, where it has to be set.
        job_ttl: seconds for which a finished Job is kept.
        pip: variables by which pip finds what functions require.
        network: what they may reach; None: anything.
        log_format: text or json.
        collector: the variable, with its value, that says where their traces go; None: there are none.
    """

    pull_policy: str
    resources: dict[str, Any]
    fs_group: int | None
    job_ttl: int
    pip: tuple[tuple[str, str], ...] = ()
    network: Network | None = None
    log_format: str = "text"
    collector: tuple[str, str] | None = None


@dataclass(frozen=True)
class Target:
    """The PipelineJob that the manifests are for.

    Args:
        name: its name; for a redrive that was deleted, that of the PipelineJob whose rows it ran.
        uid: as the ledger knows the job.
        spec: as the resource spells it, defaults filled in.
        image: of all its stages and rounds.
        queue: the Kueue queue for its run Jobs, where it names one.
        url: of the database, as its pods log in.
        owner: the uid of the PipelineJob of that name, where it is another one.
    """

    namespace: str
    name: str
    uid: str
    spec: dict[str, Any]
    image: str
    queue: str | None
    url: str
    owner: str | None = None

    @property
    def owner_uid(self) -> str:
        """The uid of the PipelineJob that everything belongs to, and is collected with."""
        return self.owner or self.uid


def plan_job_name(name: str, uid: str) -> str:
    """The Job that cuts the CSV into shards."""
    return f"{name}-{uid[:5]}-plan"


def run_job_name(name: str, uid: str, number: int) -> str:
    """The Indexed Job of that round."""
    return f"{name}-{uid[:5]}-run-{number}"


def final_job_name(name: str, uid: str, number: int) -> str:
    """The Job that writes the final files after that round."""
    return f"{name}-{uid[:5]}-final-{number}"


def secret_name(target: Target) -> str:
    """The Secret with the URL of the database; another URL, as after an upgrade, makes another Secret: the operator may change none."""
    return f"{target.name}-{target.uid[:5]}-database-{hashlib.sha256(target.url.encode()).hexdigest()[:6]}"


def labels(target: Target, stage: str | None = None) -> dict[str, str]:
    """The labels of all that belongs to a PipelineJob, or to one of its stages."""
    marks = {
        "app.kubernetes.io/name": "pipelinejob",
        "app.kubernetes.io/managed-by": "pipelinejob",
        JOB_LABEL: target.name,
        UID_LABEL: target.owner_uid,
    }
    return marks if stage is None else {**marks, STAGE_LABEL: stage}


def plan_job(target: Target, defaults: Defaults) -> Manifest:
    """Stage 1: one pod reads the CSV."""
    processes = {"PIPELINEJOB_CHILDREN": str(_children(_resources(target, defaults)))} if target.spec["mode"] == "plan" else {}
    return _job(target, plan_job_name(target.name, target.uid), "plan", processes, _once(), defaults)


def final_job(target: Target, number: int, defaults: Defaults) -> Manifest:
    """Stage 3: one pod writes the final files, after round `number`."""
    environment = {"PIPELINEJOB_ROUND": str(number)}
    return _job(target, final_job_name(target.name, target.uid, number), "finalize", environment, _once(), defaults)


def run_job(target: Target, number: int, shards: int, parallelism: int, defaults: Defaults, *, suspend: bool) -> Manifest:
    """Stage 2: a pod for each unfinished shard.

    Args:
        target: the PipelineJob.
        number: of the round.
        shards: how many are unfinished; their positions in the round are the Job's indexes.
        parallelism: pods at once.
        defaults: the chart's.
        suspend: created suspended, for Kueue to start it.
    """
    environment = {"PIPELINEJOB_ROUND": str(number), "PIPELINEJOB_CHILDREN": str(_children(_resources(target, defaults)))}
    fields: Manifest = {
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": parallelism,
        "backoffLimitPerIndex": target.spec["backoffLimitPerIndex"],
        "podFailurePolicy": {"rules": [_on_exit(FAIL_INDEX, "FailIndex"), *_failure_rules()]},
    }
    if suspend:
        fields["suspend"] = True
    job = _job(target, run_job_name(target.name, target.uid, number), "shard", environment, fields, defaults)
    if target.queue is not None:
        job["metadata"]["labels"][QUEUE_LABEL] = target.queue  # not on the pods: Kueue would queue each of them as well
    return job


def check_job(function: Mapping[str, Any], name: str, entry: dict[str, Any], image: str, defaults: Defaults) -> Manifest:
    """One pod loads a PipelineFunction; it has no volume but /tmp, no Secret, and nothing to log in with.

    Args:
        function: the resource.
        name: of the Job.
        entry: {name, source | module, entrypoint, requirements}.
        image: the worker's.
        defaults: the chart's.
    """
    metadata = function["metadata"]
    marks = {"app.kubernetes.io/name": "pipelinejob", "app.kubernetes.io/managed-by": "pipelinejob", FUNCTION_LABEL: metadata["name"]}
    owner = {
        "apiVersion": API_VERSION,
        "kind": function["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": metadata["namespace"], "labels": marks, "ownerReferences": [owner]},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": CHECK_TIMEOUT,
            "ttlSecondsAfterFinished": defaults.job_ttl,
            "template": {
                "metadata": {"labels": marks},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [
                        {
                            "name": CONTAINER,
                            "image": image,
                            "imagePullPolicy": defaults.pull_policy,
                            "command": ["python", "-m", "pipelinejob"],
                            "args": ["check"],
                            "env": [{"name": check.VARIABLE, "value": check.encode(entry)}, *_pip(defaults)],
                            "resources": function["spec"].get("resources") or defaults.resources,
                            "securityContext": _CONFINED,
                            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                        }
                    ],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


def is_name(text: str) -> bool:
    """Whether an object can have that name."""
    return re.fullmatch(NAME_PATTERN, text) is not None and len(text) <= MAX_NAME


def largest(resources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Requests and limits that are enough for each: of every quantity the largest."""
    found: dict[str, dict[str, Any]] = {}
    for each in resources:
        for kind in ("requests", "limits"):
            for name, quantity in (each.get(kind) or {}).items():
                place = found.setdefault(kind, {})
                if name not in place or parse_quantity(quantity) > parse_quantity(place[name]):  # type: ignore[no-untyped-call]
                    place[name] = quantity
    return found


def secret(target: Target) -> Manifest:
    """The database's URL, for the parent process of each pod alone."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(target, secret_name(target), labels(target)),
        "type": "Opaque",
        "immutable": True,
        "stringData": {URL_KEY: target.url},
    }


def network_policy(target: Target, network: Network) -> Manifest:
    """Lets the pods of a PipelineJob reach the database, and nobody reach them; other rules, as after an upgrade, make another one."""
    selected = {"matchLabels": {UID_LABEL: target.owner_uid}}
    names = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
    database: Manifest = {"ports": [{"protocol": "TCP", "port": urlsplit(target.url).port or POSTGRES_PORT}]}
    if network.database is not None:
        namespace = {"matchLabels": {"kubernetes.io/metadata.name": network.database["namespace"]}}
        database["to"] = [{"namespaceSelector": namespace, "podSelector": {"matchLabels": network.database["labels"]}}]
    spec: Manifest = {
        "podSelector": selected,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [names, database, *network.egress],
    }
    return _policy(target, "workers", spec)


def egress_to(url: str) -> Manifest:
    """A rule of a NetworkPolicy for what answers at a URL: its port, in the namespace that a Service's name ends with, else anywhere.

    Raises:
        ValueError: it has a port that is none.
    """
    address = urlsplit(url)
    rule: Manifest = {"ports": [{"protocol": "TCP", "port": address.port or (443 if address.scheme == "https" else 80)}]}
    if found := re.fullmatch(r"[^.]+\.([^.]+)\.svc(\..*)?", address.hostname or ""):
        rule["to"] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": found[1]}}}]
    return rule


def installing_policy(target: Target) -> Manifest:
    """Lets the pod that plans a PipelineJob reach anything: it installs what the functions require."""
    selected = {"matchLabels": {UID_LABEL: target.owner_uid, STAGE_LABEL: "plan"}}
    return _policy(target, "plan", {"podSelector": selected, "policyTypes": ["Egress"], "egress": [{}]})


def _policy(target: Target, what: str, spec: Manifest) -> Manifest:
    mark = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:6]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(target, f"{target.name}-{target.uid[:5]}-{what}-{mark}", labels(target)),
        "spec": spec,
    }


def _once() -> Manifest:
    return {"backoffLimit": RETRIES, "podFailurePolicy": {"rules": _failure_rules()}}


def _failure_rules() -> list[Manifest]:
    """The first that applies decides; what none of them names is a retry that counts."""
    disruption = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [_on_exit(FAIL_JOB, "FailJob"), _on_exit(STOPPED, "Ignore"), disruption]


def _on_exit(code: int, action: str) -> Manifest:
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [code]}}


def _job(target: Target, name: str, stage: str, environment: Mapping[str, str], fields: Manifest, defaults: Defaults) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(target, name, labels(target, stage)),
        "spec": {
            **fields,
            "podReplacementPolicy": "Failed",  # the next pod of a shard starts only when the last is gone
            "ttlSecondsAfterFinished": defaults.job_ttl,
            "template": {"metadata": {"labels": labels(target, stage)}, "spec": _pod(target, stage, environment, defaults)},
        },
    }


def _metadata(target: Target, name: str, marks: dict[str, str]) -> Manifest:
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": target.name,
        "uid": target.owner_uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {"name": name, "namespace": target.namespace, "labels": marks, "ownerReferences": [owner]}


def _pod(target: Target, stage: str, environment: Mapping[str, str], defaults: Defaults) -> Manifest:
    worker = target.spec.get("worker") or {}
    lost = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST}
        for what in ("unreachable", "not-ready")
    ]
    security: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if defaults.fs_group is not None:
        security |= {"fsGroup": defaults.fs_group, "fsGroupChangePolicy": "OnRootMismatch"}
    chosen = {key: worker[key] for key in ("nodeSelector", "imagePullSecrets", "priorityClassName") if worker.get(key)}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security,
        "tolerations": [*lost, *(worker.get("tolerations") or [])],
        **chosen,
        "containers": [_container(target, stage, environment, defaults)],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": target.spec["data"]["persistentVolumeClaim"]},
            {"name": "tmp", "emptyDir": {}},  # resources may set a limit, as ephemeral-storage
        ],
    }


def _container(target: Target, stage: str, environment: Mapping[str, str], defaults: Defaults) -> Manifest:
    url = {"secretKeyRef": {"name": secret_name(target), "key": URL_KEY}}
    return {
        "name": CONTAINER,
        "image": target.image,
        "imagePullPolicy": defaults.pull_policy,
        "command": ["python", "-m", "pipelinejob"],
        "args": [stage],
        "env": [
            {"name": "PIPELINEJOB_DATABASE_URL", "valueFrom": url},
            {"name": "PIPELINEJOB_JOB", "value": target.uid},
            {"name": "PIPELINEJOB_READY_PORT", "value": str(READY_PORT)},
            *({"name": name, "value": value} for name, value in environment.items()),
            *(_pip(defaults) if stage == "plan" else ()),
            *([{"name": logs.VARIABLE, "value": defaults.log_format}] if defaults.log_format != "text" else []),
            *([dict(zip(("name", "value"), defaults.collector, strict=True))] if defaults.collector else []),
        ],
        "resources": _resources(target, defaults),
        "securityContext": _CONFINED,
        "terminationMessagePolicy": "File",
        # No exec: that would be a process with the Secret in its environment, for users' functions to read.
        "readinessProbe": {
            "tcpSocket": {"port": READY_PORT},
            "initialDelaySeconds": 2,
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 1,
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }


def _pip(defaults: Defaults) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in defaults.pip]


def _resources(target: Target, defaults: Defaults) -> dict[str, Any]:
    return (target.spec.get("worker") or {}).get("resources") or defaults.resources


def _children(resources: Mapping[str, Any]) -> int:
    """Whole processors that a pod may use, at least 1; the API server says it better when cpu is no quantity."""
    cpu = next((resources[kind]["cpu"] for kind in ("limits", "requests") if "cpu" in (resources.get(kind) or {})), 1)
    try:
        return max(1, int(parse_quantity(cpu)))  # type: ignore[no-untyped-call]
    except (ValueError, ArithmeticError):
        return 1
