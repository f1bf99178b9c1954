"""What has been seen of the cluster: the latest PipelineJobs, their Jobs and pods, cut down to what is read here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pipelinejob_operator.manifests import UID_LABEL

Kind = Literal["pipelinejobs", "jobs", "pods"]
Key = tuple[str, str]  # (namespace, name) of a PipelineJob
Object = dict[str, Any]

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_INDEX = "batch.kubernetes.io/job-completion-index"
_POD_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "ownerReferences",
)


class Cache:
    """The objects by what they belong to. An older version never takes the place of a newer one."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, Object]] = {}  # namespace → name → PipelineJob
        self._namespaces: dict[str, str] = {}  # uid of a PipelineJob → its namespace
        self._owned: dict[Kind, dict[str, dict[str, Object]]] = {"jobs": {}, "pods": {}}  # uid of the PipelineJob → own uid → object
        self._watched: dict[str, int] = {}  # own uid → the version that the watch told last
        self._behind: dict[str, tuple[int, float]] = {}  # own uid → (version that the watch has not told, since when)

    # ---- look-ups

    def job(self, key: Key) -> Object | None:
        """The PipelineJob, None when there is none."""
        return self._jobs.get(key[0], {}).get(key[1])

    def keys(self) -> list[Key]:
        """All PipelineJobs."""
        return [(namespace, name) for namespace, jobs in self._jobs.items() for name in jobs]

    def jobs_in(self, namespace: str) -> list[Object]:
        """The PipelineJobs of a namespace."""
        return list(self._jobs.get(namespace, {}).values())

    def children(self, uid: str) -> list[Object]:
        """The Jobs of a PipelineJob, without their pod templates."""
        return list(self._of("jobs", uid))

    def pods(self, uid: str) -> list[Object]:
        """The pods of a PipelineJob; of those that succeeded little more than that."""
        return list(self._of("pods", uid))

    def watch_lag(self) -> float:
        """Seconds since a live look found something that the watch has not told to this moment; 0 when there is no such thing."""
        return max((time.monotonic() - since for _, since in self._behind.values()), default=0.0)

    def _of(self, kind: Kind, uid: str) -> Iterator[Object]:
        return (one for one in self._owned[kind].get(uid, {}).values() if self._belongs(one))

    def _belongs(self, one: Object) -> bool:
        """Whether it stands beside its PipelineJob: in other namespaces a label with that uid is forged."""
        return bool(self._namespaces.get(_owner(one)) == one["metadata"]["namespace"])

    # ---- what comes in

    def see(self, kind: Kind, body: Mapping[str, Any], deleted: bool) -> bool:
        """Takes in what the watch tells.

        Returns:
            False when it is no news: an old version, or one that a call of ours has returned before.
        """
        uid, version = body["metadata"]["uid"], version_of(body)
        if deleted:
            self._drop(kind, body)
            return True
        self._watched[uid] = version
        if uid in self._behind and self._behind[uid][0] <= version:
            del self._behind[uid]
        return self._put(kind, body)

    def _found(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Takes in what a live look found, and notes what the watch should have told by now."""
        uid, version = body["metadata"]["uid"], version_of(body)
        if self._watched.get(uid, 0) < version:
            self._behind.setdefault(uid, (version, time.monotonic()))
        self._put(kind, body)

    def _put(self, kind: Kind, body: Mapping[str, Any]) -> bool:
        metadata = body["metadata"]
        place = self._place(kind, body)
        name = metadata["name"] if kind == "pipelinejobs" else metadata["uid"]
        known = place.get(name)
        if known is not None and version_of(known) >= version_of(body):
            return False
        if kind == "pipelinejobs":
            if known is not None and known["metadata"]["uid"] != metadata["uid"]:
                self._drop(kind, known)
                place = self._place(kind, body)
            self._namespaces[metadata["uid"]] = metadata["namespace"]
        place[name] = _SLIM[kind](body)
        return True

    def _place(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Object]:
        if kind == "pipelinejobs":
            return self._jobs.setdefault(body["metadata"]["namespace"], {})
        return self._owned[kind].setdefault(_owner(body), {})

    def _forget(self, kind: Kind, uid: str) -> None:
        """Drops a Job or pod, if it is known."""
        for owned in list(self._owned[kind].values()):
            if uid in owned:
                self._drop(kind, owned[uid])

    def _drop(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Forgets an object that is gone, and what belonged to it."""
        metadata = body["metadata"]
        uid = metadata["uid"]
        self._watched.pop(uid, None)
        self._behind.pop(uid, None)
        if kind != "pipelinejobs":
            place = self._place(kind, body)
            place.pop(uid, None)
            if not place:
                del self._owned[kind][_owner(body)]
            return
        self._namespaces.pop(uid, None)
        jobs = self._jobs.get(metadata["namespace"], {})
        if metadata["name"] in jobs and jobs[metadata["name"]]["metadata"]["uid"] == uid:
            del jobs[metadata["name"]]
            if not jobs:
                del self._jobs[metadata["namespace"]]
        for owned in ("jobs", "pods"):
            for one in list(self._owned[owned].get(uid, {}).values()):
                self._drop(owned, one)


def version_of(body: Mapping[str, Any]) -> int:
    """How new an object or a list is; 0 for a version that is no number."""
    version = body["metadata"].get("resourceVersion", "")
    return int(version) if version.isdecimal() else 0


def _owner(body: Mapping[str, Any]) -> str:
    return str(body["metadata"]["labels"][UID_LABEL])


def _slim_pipelinejob(body: Mapping[str, Any]) -> Object:
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    if _LAST_APPLIED in metadata.get("annotations", {}):
        metadata["annotations"] = {key: value for key, value in metadata["annotations"].items() if key != _LAST_APPLIED}
    return {**body, "metadata": metadata}


def _slim_job(body: Mapping[str, Any]) -> Object:
    spec = {key: value for key, value in body["spec"].items() if key != "template"}
    return {**_slim_pipelinejob(body), "spec": spec}


def _slim_pod(body: Mapping[str, Any]) -> Object:
    """A pod as far as it tells why it does not run or how it ended; thousands that succeeded stay about for an hour."""
    metadata = {key: body["metadata"][key] for key in _POD_METADATA if key in body["metadata"]}
    if index := body["metadata"].get("annotations", {}).get(_INDEX):
        metadata["annotations"] = {_INDEX: index}
    spec, status = body.get("spec", {}), body.get("status", {})
    if status.get("phase") == "Succeeded":
        metadata["labels"] = {UID_LABEL: metadata["labels"][UID_LABEL]}
        return {"metadata": metadata, "spec": {}, "status": {"phase": "Succeeded"}}
    kept = {
        "nodeName": spec.get("nodeName"),
        "containers": [{"name": one["name"], "image": one.get("image")} for one in spec.get("containers", [])],
        "volumes": [one for one in spec.get("volumes", []) if "persistentVolumeClaim" in one],
    }
    return {"metadata": metadata, "spec": kept, "status": status}


_SLIM = {"pipelinejobs": _slim_pipelinejob, "jobs": _slim_job, "pods": _slim_pod}
