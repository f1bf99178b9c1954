"""A pod beside a job's claim, for as long as its results are read."""

from __future__ import annotations

import inspect
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from pipelinejob.model import API_VERSION, GROUP, KIND
from pipelinejob_kubectl import in_pod
from pipelinejob_kubectl.errors import DOCTOR, ApiError, PluginError
from pipelinejob_kubectl.kube import Kube, Object

NAME = "pipelinejob-kubectl"  # by which our pods are found
DEADLINE = 6 * 3600  # seconds
PATIENCE = 120.0  # seconds for the pod to start
ROOT = "/data"
_OF_POD = ("securityContext", "tolerations", "nodeSelector", "imagePullSecrets", "priorityClassName")
_NO_START = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError")


@dataclass(frozen=True)
class Like:
    """What a pod of ours takes over from the job's.

    Args:
        image: of the workers.
        pull_policy: of the image.
        pod: fields of a pod's spec.
    """

    image: str
    pull_policy: str = "IfNotPresent"
    pod: Mapping[str, Any] = field(default_factory=dict)


def like_job(job: Object) -> Like:
    """As in one of the Jobs of a PipelineJob."""
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    pod = {key: spec[key] for key in _OF_POD if spec.get(key)}
    return Like(container["image"], container.get("imagePullPolicy", "IfNotPresent"), pod)


def like_spec(job: Object, environment: Mapping[str, str]) -> Like | None:
    """As the operator would make them from the spec of a PipelineJob, by the environment of its Deployment."""
    worker = job["spec"].get("worker") or {}
    image = worker.get("image") or environment.get("PIPELINEJOB_WORKER_IMAGE")
    if not image:
        return None
    pod: dict[str, Any] = {key: worker[key] for key in _OF_POD if worker.get(key)}
    if group := environment.get("PIPELINEJOB_WORKER_FS_GROUP"):
        pod["securityContext"] = {"fsGroup": int(group), "fsGroupChangePolicy": "OnRootMismatch"}
    return Like(image, environment.get("PIPELINEJOB_WORKER_PULL_POLICY", "IfNotPresent"), pod)


def manifest(like: Like, name: str, namespace: str, claim: str, *, job: Object | None = None) -> Object:
    """The pod: no rights, no token, no network service of ours; the claim read-only where it is a job's, which owns the pod."""
    source, about = inspect.getsource(in_pod), {}
    if job is not None:
        meta = job["metadata"]
        owner = {"apiVersion": API_VERSION, "kind": KIND, "name": meta["name"], "uid": meta["uid"], "blockOwnerDeletion": False}
        about = {"annotations": {f"{GROUP}/reads": meta["name"]}, "ownerReferences": [owner]}
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": NAME},
            **about,
        },
        "spec": {
            **like.pod,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {**like.pod.get("securityContext", {}), **security},
            "containers": [
                {
                    "name": "reader",
                    "image": like.image,
                    "imagePullPolicy": like.pull_policy,
                    "command": ["python", "-I", "-c", source, "wait"],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                    "securityContext": {
                        "readOnlyRootFilesystem": True,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "data", "mountPath": ROOT, "readOnly": job is not None},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }


def like(kube: Kube, job: Object) -> Like:
    """What a pod for this job should be like: as its Jobs, or, an hour after its end, as the operator would make one.

    Raises:
        PluginError: neither can be seen.
    """
    meta = job["metadata"]
    jobs = kube.call("GET", f"/apis/batch/v1/namespaces/{meta['namespace']}/jobs", query=[("labelSelector", f"{GROUP}/job={meta['name']}")])
    if jobs["items"]:
        return like_job(jobs["items"][0])
    found = like_spec(job, {})
    with suppress(ApiError):  # who may not look into the operator's namespace has the image from the spec alone
        found = like_spec(job, operator_environment(kube)) or found
    if found is None:
        advice = "ask who may read Deployments there, or read the claim with a pod of your own"
        raise PluginError(
            "NoImage", f"the Jobs of {meta['name']!r} are gone, and you may not see the operator for the worker image: {advice}"
        )
    return found


def operator_environment(kube: Kube) -> dict[str, str]:
    """What the operator's Deployment has as its environment; {} without one."""
    query = [("labelSelector", "app.kubernetes.io/name=pipelinejob-operator,app.kubernetes.io/component=operator")]
    found = kube.call("GET", "/apis/apps/v1/deployments", query=query)["items"]
    if not found:
        return {}
    return {one["name"]: one.get("value", "") for one in found[0]["spec"]["template"]["spec"]["containers"][0].get("env", [])}


@contextmanager
def reader(kube: Kube, job: Object) -> Iterator[str]:
    """The name of a pod that runs beside the job's claim; it is gone afterwards, whatever happens.

    Raises:
        PluginError: it does not start.
    """
    claim = job["spec"]["data"]["persistentVolumeClaim"]["claimName"]
    with beside(kube, manifest(like(kube, job), new_name(), job["metadata"]["namespace"], claim, job=job)) as name:
        yield name


def new_name() -> str:
    """Of a pod of ours."""
    return f"{NAME}-{secrets.token_hex(4)}"


@contextmanager
def beside(kube: Kube, body: Object) -> Iterator[str]:
    """The name of the pod of a manifest, once it runs; it is gone afterwards, whatever happens.

    Raises:
        PluginError: it does not start.
    """
    name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
    _sweep(kube, namespace)
    kube.call("POST", kube.core("pods", namespace=namespace), body=body)
    try:
        _await(kube, kube.core("pods", name, namespace))
        yield name
    finally:
        with suppress(PluginError):
            kube.call("DELETE", kube.core("pods", name, namespace))


def _sweep(kube: Kube, namespace: str) -> None:
    """Deletes what readers that were killed have left: pods that have ended."""
    query = [("labelSelector", f"app.kubernetes.io/name={NAME}")]
    for pod in kube.items(kube.core("pods", namespace=namespace), query):
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            with suppress(ApiError):
                kube.call("DELETE", kube.core("pods", pod["metadata"]["name"], namespace))


def _await(kube: Kube, path: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        pod = kube.call("GET", path)
        if pod["status"].get("phase") == "Running":
            return
        why, for_good = why_not_running(pod)
        if for_good or time.monotonic() > end:
            raise PluginError("ReaderFailed", f"the pod beside the claim does not start ({why}); {DOCTOR}")
        time.sleep(0.3)


def why_not_running(pod: Object) -> tuple[str, bool]:
    """(why, whether no time will mend it) of a pod that does not run."""
    status = pod["status"]
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        if waiting := state.get("waiting"):
            return f"{waiting.get('reason')}: {waiting.get('message', '')}".strip(": "), waiting.get("reason") in _NO_START
        if ended := state.get("terminated"):
            return f"it ended with exit code {ended.get('exitCode')} {ended.get('message', '')}".strip(), True
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message', '')}", False
    return f"{status.get('phase', 'Pending')} {status.get('message', '')}".strip(), status.get("phase") in ("Failed", "Succeeded")


def in_the_pod(kube: Kube, namespace: str, pod: str, verb: str, folder: str, *words: str, input: bool = False) -> list[str]:
    """The command that does something in a pod of ours.

    Through kubectl itself: the client library keeps whatever has arrived in memory, which may be more than there is.

    Args:
        verb: of in_pod.
        folder: of the claim, relative to its root.
        words: more arguments.
        input: whether it is sent our standard input.

    Raises:
        PluginError: there is no kubectl.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise PluginError("NoKubectl", "kubectl is not on the PATH, and copies the files: add its folder")
    script = ["python", "-I", "-c", inspect.getsource(in_pod), verb, ROOT, folder, *words]
    return [kubectl, "exec", *(["-i"] if input else []), pod, "-n", namespace, "-c", "reader", *kube.options.words(), "--", *script]


@contextmanager
def packed(kube: Kube, job: Object, pod: str, names: Sequence[str], *, images: bool) -> Iterator[IO[bytes]]:
    """The tar of results that the pod makes, as it comes.

    Raises:
        PluginError: it broke off.
    """
    command = in_the_pod(kube, job["metadata"]["namespace"], pod, "pack", job["status"]["output"], "yes" if images else "no", *names)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        broken = ""
        try:
            yield process.stdout
            while process.stdout.read(1 << 16):  # what pads a tar at its end
                pass
        except tarfile.TarError as error:
            broken = str(error)
        except BaseException:
            process.kill()
            raise
        said = " ".join(process.stderr.read().decode(errors="replace").split())[-300:]
        if process.wait() or broken:
            raise PluginError("CopyFailed", f"the copy broke off ({said or broken}): try again")
