"""The only Kubernetes calls, over what has been seen of the cluster; plain dicts throughout."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelinejob.model import API_VERSION, GROUP, KIND
from pipelinejob_operator.cache import Cache, Key, Kind, Object, version_of
from pipelinejob_operator.client import JSON_PATCH, MERGE_PATCH, METADATA_ONLY, NAME, ApiError, Client
from pipelinejob_operator.diagnose import job_state, lost_pods
from pipelinejob_operator.manifests import JOB_LABEL, STAGE_LABEL, UID_LABEL
from pipelinejob_operator.objects import is_live

PLURAL, FUNCTIONS = "pipelinejobs", "pipelinefunctions"
EVENTS_AGE = 5.0  # seconds for which a namespace's Events are good enough
MAX_EVENT_MESSAGE = 1024  # bytes, the API's limit

log = logging.getLogger("pipelinejob.kube")

__all__ = ["FUNCTIONS", "PLURAL", "ApiError", "Foreign", "Key", "Kind", "Kube"]


class Foreign(Exception):
    """An object of a name that we need belongs to somebody else; it is never taken over."""


class Kube(Cache):
    """The cluster: what is known of it, and what can be done to it.

    Args:
        namespaces: those that are watched; none: all.
    """

    def __init__(self, namespaces: Sequence[str] = ()) -> None:
        super().__init__()
        self.client = Client()
        self._watched_namespaces = tuple(namespaces)
        self._events: dict[str, tuple[float, dict[str, list[Object]]]] = {}
        self._events_lock = asyncio.Lock()

    async def open(self) -> None:
        """Reads the credentials; nothing is sent yet."""
        await self.client.open()

    async def close(self) -> None:
        """Closes the connections."""
        await self.client.close()

    async def is_served(self) -> bool:
        """Whether the API server knows both kinds: the CRDs are there, and the group is in the list that clients go by."""
        groups = await self.client.call("GET", "/apis")
        found = await self._get(f"/apis/{API_VERSION}") if any(one["name"] == GROUP for one in groups["groups"]) else None
        return found is not None and {PLURAL, FUNCTIONS} <= {one["name"] for one in found["resources"]}

    # ---- live looks

    async def refresh(self, key: Key, uid: str) -> None:
        """Looks at a PipelineJob, its Jobs and its pods as they are now; finds what the watch has missed, deletions too."""
        namespace, name = key
        mine = ("labelSelector", f"{JOB_LABEL},{UID_LABEL}={uid}")  # as the watch has them: what it never tells of is not looked for
        unfinished = ("fieldSelector", "status.phase!=Succeeded")  # there can be thousands of the others
        body, (jobs, jobs_version), (pods, pods_version) = await asyncio.gather(
            self._get(f"{_pipelinejobs(namespace)}/{name}"),
            self.client.list_all(_jobs(namespace), query=[mine]),
            self.client.list_all(_pods(namespace), query=[mine, unfinished]),
        )
        known = self.job(key)
        if known is not None and (body is None or body["metadata"]["uid"] != known["metadata"]["uid"]):
            self._drop("pipelinejobs", known)
        if body is not None:
            self._found("pipelinejobs", body)
        if body is None or body["metadata"]["uid"] != uid:
            return
        self._replace("jobs", uid, jobs, jobs_version)
        self._replace("pods", uid, pods, pods_version)

    def _replace(self, kind: Kind, uid: str, found: Sequence[Object], version: str) -> None:
        there = {one["metadata"]["uid"] for one in found}
        for one in list(self._owned[kind].get(uid, {}).values()):
            succeeded = kind == "pods" and one["status"].get("phase") == "Succeeded"  # not asked for
            if one["metadata"]["uid"] not in there and not succeeded and version_of(one) <= int(version or 0):
                self._drop(kind, one)
        for one in found:
            self._found(kind, one)

    async def end_leftovers(self, namespace: str, uid: str) -> bool:
        """Deletes the Jobs that a deleted PipelineJob has left (Kubernetes does, too, but for one deleted with --cascade=orphan).

        Returns:
            Whether pods of it still run; those on a lost node do not count.
        """
        mine = ("labelSelector", f"{JOB_LABEL},{UID_LABEL}={uid}")
        (jobs, _), (pods, _) = await asyncio.gather(
            self.client.list_all(_jobs(namespace), query=[mine]), self.client.list_all(_pods(namespace), query=[mine])
        )
        for one in jobs:
            if job_state(one) != "deleting":
                await self.delete_job(namespace, one["metadata"]["name"], one["metadata"]["uid"])
        lost = lost_pods(pods, datetime.now(UTC))
        return any(is_live(one) and one not in lost for one in pods)

    async def ping(self) -> None:
        """Asks for the names and versions of all PipelineJobs: the API server answers, and what the watch missed comes to light.

        Raises:
            ApiError: it does not answer; then nothing is held against the watch.
        """
        listed: dict[Key, Object] = {}
        version = 0
        try:
            for path in [_pipelinejobs(one) for one in self._watched_namespaces] or [_pipelinejobs(None)]:
                items, newest = await self.client.list_all(path, accept=METADATA_ONLY)
                listed |= {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in items}
                version = min(version or int(newest or 0), int(newest or 0))
        except ApiError:
            self._behind.clear()
            raise
        for key in self.keys():
            known = self.job(key)
            if known is not None and key not in listed and version_of(known) <= version:
                self._drop("pipelinejobs", known)
        for key, one in listed.items():
            known = self.job(key)
            if known is None or version_of(known) < version_of(one):
                body = await self._get(f"{_pipelinejobs(key[0])}/{key[1]}")
                if body is not None:
                    self._found("pipelinejobs", body)

    async def list_runs(self) -> dict[str, int]:
        """The pods at once of each PipelineJob, by uid, whose round goes on."""
        found: dict[str, int] = {}
        for path in [_jobs(one) for one in self._watched_namespaces] or ["/apis/batch/v1/jobs"]:
            items, _ = await self.client.list_all(path, query=[("labelSelector", f"{UID_LABEL},{STAGE_LABEL}=shard")])
            found |= {uid: one["spec"]["parallelism"] for one in items if (uid := _controller(one)) and job_state(one) == "running"}
        return found

    async def list_events(self, namespace: str, uids: Collection[str]) -> list[Object]:
        """The Warning Events about objects; asked for once in a few seconds for all of a namespace, as all jobs may be stuck at once."""
        async with self._events_lock:
            at, events = self._events.get(namespace, (float("-inf"), {}))
            if time.monotonic() - at > EVENTS_AGE:
                items, _ = await self.client.list_all(_events(namespace), query=[("fieldSelector", "type=Warning")])
                events = {}
                for one in items:
                    events.setdefault(one["involvedObject"].get("uid", ""), []).append(one)
                self._events[namespace] = time.monotonic(), events
        return [event for uid in uids for event in events.get(uid, [])]

    async def is_going(self, namespace: str) -> bool:
        """Whether a namespace is being deleted, so that nothing can be made in it: tried with an Event that is not stored.

        We may not look at namespaces.
        """
        about = {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "namespace": namespace}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "try-"}, "involvedObject": about, "reason": "Try"}
        try:
            await self.client.call("POST", _events(namespace), query=[("dryRun", "All")], body=event)
        except ApiError as error:
            if error.status == 404 or (error.status == 403 and "being terminated" in error.message):
                return True
            raise
        return False

    # ---- changes

    async def create_job(self, namespace: str, body: Object) -> Object:
        """Creates a Job, or finds that it is there.

        Raises:
            Foreign: there is one of that name that is not ours.
        """
        path, name = _jobs(namespace), body["metadata"]["name"]
        try:
            made = await self.client.call("POST", path, body=body)
        except ApiError as error:
            existing = await self._get(f"{path}/{name}") if error.reason == "AlreadyExists" else None
            if existing is None:
                raise
            if _controller(existing) != _controller(body):
                raise Foreign(f"the Job {namespace}/{name} is not ours: waiting until it is gone; delete or rename it") from error
            made = existing
        self._put("jobs", made)
        return made

    async def create_secret(self, namespace: str, body: Object) -> None:
        """Creates a Secret, unless it is there."""
        await self._create(f"/api/v1/namespaces/{namespace}/secrets", body)

    async def create_network_policy(self, namespace: str, body: Object) -> None:
        """Creates a NetworkPolicy, unless it is there."""
        await self._create(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", body)

    async def _create(self, path: str, body: Object) -> None:
        try:
            await self.client.call("POST", path, body=body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def set_parallelism(self, namespace: str, name: str, parallelism: int) -> None:
        """Says how many pods of a Job may run at once."""
        made = await self._patch(f"{_jobs(namespace)}/{name}", {"spec": {"parallelism": parallelism}})
        if made is not None:
            self._put("jobs", made)

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Deletes a Job in the foreground: it is gone when its pods are."""
        made = await self._delete(f"{_jobs(namespace)}/{name}", uid, "Foreground")
        if made is None:  # or else it would be deleted again and again until the watch tells
            self._forget("jobs", uid)
        elif made.get("kind") == "Job":
            self._put("jobs", made)

    async def patch_status(self, namespace: str, name: str, status: Mapping[str, Any]) -> Object | None:
        """Puts a whole status in the place of the old one; None when the PipelineJob is gone or is another one."""
        known = self.job((namespace, name))
        if known is None:
            return None
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": known["metadata"]["uid"]},
            {"op": "add", "path": "/status", "value": status},  # also replaces
        ]
        path = f"{_pipelinejobs(namespace)}/{name}"
        try:
            made = await self._patch(f"{path}/status", patch, JSON_PATCH)
        except ApiError as error:
            # A failed test and a status that the CRD refuses give the same code.
            there = await self._get(path) if error.status == 422 else known
            if there is None or there["metadata"]["uid"] != known["metadata"]["uid"]:
                return None
            raise
        if made is not None:
            self._put("pipelinejobs", made)
        return made

    async def delete_pipelinejob(self, namespace: str, name: str, uid: str) -> None:
        """Deletes a PipelineJob; Kubernetes collects what belongs to it."""
        await self._delete(f"{_pipelinejobs(namespace)}/{name}", uid, "Background")

    async def fail_pod(self, namespace: str, name: str, message: str) -> None:
        """Declares a pod failed whose node does not answer, so that its Job makes another one."""
        status = {"phase": "Failed", "reason": "NodeLost", "message": message}
        made = await self._patch(f"{_pods(namespace)}/{name}/status", {"status": status})
        if made is not None:
            self._put("pods", made)

    async def emit_event(self, pipelinejob: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        """Posts an Event about a PipelineJob. What goes wrong is only logged."""
        metadata = pipelinejob["metadata"]
        namespace, name, now = metadata["namespace"], metadata["name"], datetime.now(UTC)
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{time.time_ns():x}", "namespace": namespace},  # those of one second keep their order
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": namespace,
                "name": name,
                "uid": metadata["uid"],
            },
            "type": type_,
            "reason": reason,
            "message": message.encode()[:MAX_EVENT_MESSAGE].decode(errors="ignore"),
            "source": {"component": NAME},
            "reportingComponent": NAME,
            "reportingInstance": os.environ.get("HOSTNAME", NAME),
            "firstTimestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "lastTimestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "count": 1,
        }
        try:
            await self.client.call("POST", _events(namespace), body=event)
        except ApiError as error:
            if error.reason != "AlreadyExists":  # a first try came through without its answer
                log.warning("job=%s/%s the Event %s was not posted: %s", namespace, name, reason, error)

    # ---- PipelineFunctions

    async def get_function(self, namespace: str, name: str) -> Object | None:
        """A PipelineFunction as it is now."""
        return await self._get(f"{_functions(namespace)}/{name}")

    async def get_config_map(self, namespace: str, name: str, key: str) -> str | None:
        """A file in a ConfigMap; None when there is no such."""
        found = await self._get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        text: str | None = ((found or {}).get("data") or {}).get(key)
        return text

    async def look_at_check(self, namespace: str, manifest: Object) -> Object | None:
        """The pod that loads a function, made if it is not there; None as long as it has none."""
        path, name = _jobs(namespace), manifest["metadata"]["name"]
        try:
            await self.client.call("POST", path, body=manifest)
        except ApiError as error:
            existing = await self._get(f"{path}/{name}") if error.reason == "AlreadyExists" else None
            if existing is None:
                raise
            if _controller(existing) != _controller(manifest):
                raise Foreign(f"the Job {namespace}/{name} is not ours: delete or rename it") from error
            pods, _ = await self.client.list_all(_pods(namespace), query=[("labelSelector", f"batch.kubernetes.io/job-name={name}")])
            return max(pods, key=lambda one: str(one["metadata"]["creationTimestamp"]), default=None)
        return None

    async def end_check(self, namespace: str, name: str) -> None:
        """Deletes the Job that loaded a function."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            await self.client.call("DELETE", f"{_jobs(namespace)}/{name}", body=options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def patch_function_status(self, body: Mapping[str, Any], status: Mapping[str, Any]) -> Object | None:
        """Puts a whole status in the place of the old one; None when the PipelineFunction is gone, or was changed meanwhile."""
        metadata = body["metadata"]
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "test", "path": "/metadata/generation", "value": metadata["generation"]},
            {"op": "add", "path": "/status", "value": status},  # also replaces
        ]
        path = f"{_functions(metadata['namespace'])}/{metadata['name']}"
        try:
            return await self._patch(f"{path}/status", patch, JSON_PATCH)
        except ApiError as error:
            there = await self._get(path) if error.status == 422 else body
            if there is None or there["metadata"].get("generation") != metadata["generation"]:
                return None
            raise

    # ---- calls that take "not there" for an answer

    async def _get(self, path: str) -> Object | None:
        try:
            return await self.client.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _patch(self, path: str, patch: object, content_type: str = MERGE_PATCH) -> Object | None:
        try:
            return await self.client.call("PATCH", path, body=patch, content_type=content_type)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _delete(self, path: str, uid: str, propagation: str) -> Object | None:
        """Deletes the object of this uid; None when it is gone, also where there is another one of its name by now."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation, "preconditions": {"uid": uid}}
        try:
            return await self.client.call("DELETE", path, body=options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            there = await self._get(path) if error.status == 409 else None
            if there is not None and there["metadata"]["uid"] == uid:
                raise  # a write that was overtaken
            return None


def _pipelinejobs(namespace: str | None) -> str:
    within = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"/apis/{API_VERSION}{within}/{PLURAL}"


def _functions(namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{FUNCTIONS}"


def _jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"


def _controller(body: Mapping[str, Any]) -> str | None:
    owners = body["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
