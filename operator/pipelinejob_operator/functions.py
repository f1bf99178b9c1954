"""PipelineFunctions: each is loaded once in a pod of its own, and a job gets its code as it is when the job is accepted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipelinejob import jobfile, pipelinefunction
from pipelinejob.functions import BUILTINS
from pipelinejob.pipelinefunction import ConfigMapKey, PipelineFunction
from pipelinejob.reasons import JobError, JobReason
from pipelinejob_operator import manifests
from pipelinejob_operator.kube import ApiError, Key, Kube
from pipelinejob_operator.objects import state
from pipelinejob_operator.queue import Queue
from pipelinejob_operator.settings import Settings

LOOK_AGAIN = 0.5  # seconds until another look at a pod that loads a function
RESYNC = 30.0  # seconds until another look at a ConfigMap: it may have other code
FORBIDDEN = "spec.requirements: the operator's settings forbid them (functions.requirements of the chart): put them into a worker image"

log = logging.getLogger("pipelinejob.functions")


class Functions:
    """Keeps the status of PipelineFunctions, and finds those that jobs name.

    Args:
        settings: what the chart says.
        kube: the cluster.
    """

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings, self._kube = settings, kube
        self._bodies: dict[Key, Mapping[str, Any]] = {}
        self._queue = Queue()

    def see(self, body: Mapping[str, Any], deleted: bool) -> None:
        """Takes in what the watch tells."""
        key = body["metadata"]["namespace"], body["metadata"]["name"]
        if deleted:
            self._bodies.pop(key, None)
            return
        self._bodies[key] = body
        self._queue.add(key)

    async def work(self) -> None:
        """Looks at what has changed, one after the other; never ends."""
        while True:
            key = await self._queue.take()
            failed = False
            try:
                await self._look(key)
            except ApiError as error:
                log.warning("function=%s/%s %s", *key, error)
                failed = True
            except Exception:
                log.exception("function=%s/%s", *key)
                failed = True
            self._queue.done(key, failed=failed)

    async def of(self, body: Mapping[str, Any]) -> dict[str, jobfile.Entry]:
        """The PipelineFunctions that a PipelineJob names, by name, as they are at this moment; those that are not there are left out.

        Raises:
            JobError: InvalidSpec, for one that no job can run.
        """
        found: dict[str, jobfile.Entry] = {}
        named = body["spec"].get("functions") or []
        for index, entry in enumerate(named if isinstance(named, list) else []):
            name = entry.get("name") if isinstance(entry, dict) and jobfile.is_named(entry) else None
            if isinstance(name, str) and manifests.is_name(name) and name not in found:
                resource = await self._kube.get_function(body["metadata"]["namespace"], name)
                if resource is not None:
                    found[name] = await self._entry_for_job(resource, f"spec.functions[{index}].name")
        return found

    async def _entry_for_job(self, resource: Mapping[str, Any], field: str) -> jobfile.Entry:
        try:
            function, entry = await self._read(resource)
        except JobError as error:
            lines = error.message.splitlines()
            told = "\n".join(f"{field}: the {pipelinefunction.KIND}'s {line}" for line in lines)
            raise JobError(JobReason.INVALID_SPEC, told) from None
        return {**entry, "limits": {"timeoutSeconds": function.spec.timeout_seconds, "resources": function.spec.resources}}

    async def _read(self, resource: Mapping[str, Any]) -> tuple[PipelineFunction, dict[str, Any]]:
        function = pipelinefunction.parse({key: resource[key] for key in ("apiVersion", "kind", "metadata", "spec") if key in resource})
        if function.spec.requirements and not self._settings.requirements:
            raise JobError(JobReason.INVALID_SPEC, FORBIDDEN)
        texts: dict[ConfigMapKey, str] = {}
        if (wanted := function.spec.source.config_map) is not None:
            text = await self._kube.get_config_map(resource["metadata"]["namespace"], wanted.name, wanted.key)
            if text is None:
                problem = f"spec.source.configMap: there is no ConfigMap {wanted.name!r} with the key {wanted.key!r}"
                raise JobError(JobReason.INVALID_SPEC, problem)
            texts[wanted] = text
        return function, function.entry(texts.__getitem__)

    async def _look(self, key: Key) -> None:
        """Brings one status up to date."""
        body = self._bodies.get(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return
        try:
            function, entry = await self._read(body)
        except JobError as error:
            await self._write(body, "False", "InvalidSpec", error.message, {})
            self._queue.add(key, RESYNC)  # a ConfigMap may come
            return
        if key[1] in BUILTINS:
            await self._write(body, "False", "NameTaken", "metadata.name: a built-in function has that name: choose another", {})
            return
        if function.spec.source.config_map is not None:
            self._queue.add(key, RESYNC)
        checked = hashlib.sha256(json.dumps([entry, self._settings.worker_image], sort_keys=True).encode()).hexdigest()
        if is_answered(body, checked):
            return
        name = f"{key[1]}-{body['metadata']['uid'][:5]}-check-{checked[:8]}"
        manifest = manifests.check_job(body, name, {"name": key[1], **entry}, self._settings.worker_image, self._settings.defaults())
        answer = outcome(await self._kube.look_at_check(key[0], manifest))
        if answer is None:
            self._queue.add(key, LOOK_AGAIN)
            return
        await self._write(body, *answer[:3], {"checked": checked, **answer[3]} if answer[0] != "Unknown" else {})
        if answer[0] == "Unknown":
            self._queue.add(key, 4 * LOOK_AGAIN)
        else:
            await self._kube.end_check(key[0], name)

    async def _write(self, body: Mapping[str, Any], truth: str, reason: str, message: str, more: Mapping[str, Any]) -> None:
        status = status_of(body, truth, reason, message, more, datetime.now(UTC))
        if status != body.get("status"):
            made = await self._kube.patch_function_status(body, status)
            if made is not None:
                self._bodies[made["metadata"]["namespace"], made["metadata"]["name"]] = made


def is_answered(body: Mapping[str, Any], checked: str) -> bool:
    """Whether a PipelineFunction's status is about its code as it is now."""
    status = body.get("status") or {}
    return status.get("checked") == checked and status.get("observedGeneration") == body["metadata"]["generation"]


def outcome(pod: Mapping[str, Any] | None) -> tuple[str, str, str, dict[str, Any]] | None:
    """What the pod that loads a function says: (status of Ready, reason, message, fields of the status); None: nothing yet."""
    if pod is None:
        return None
    if waits := state(pod, "waiting"):
        if str(waits.get("reason")) in ("ContainerCreating", "PodInitializing"):
            return None
        return "Unknown", str(waits.get("reason")), f"the pod that loads it waits: {waits.get('message') or waits.get('reason')}", {}
    ended = state(pod, "terminated")
    if ended is None:
        if pod.get("status", {}).get("phase") == "Failed":
            return (
                "False",
                "CheckFailed",
                f"the pod that loads it failed: {pod['status'].get('message') or pod['status'].get('reason')}",
                {},
            )
        return None
    try:
        answer = json.loads(ended.get("message") or "")
    except ValueError:
        code = ended.get("exitCode")
        return "False", "CheckFailed", f"it ended the process that loads it (exit code {code}, {ended.get('reason')}): see its file", {}
    if "error" in answer:
        return "False", "CannotLoad", str(answer["error"]), {}
    fields = {key: answer[key] for key in ("digest", "doc", "params") if answer.get(key)}
    return "True", "Loaded", "jobs of this namespace can name it", fields


def status_of(body: Mapping[str, Any], truth: str, reason: str, message: str, more: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The whole status, with the time of the condition's last change."""
    old: Mapping[str, Any] = next(iter((body.get("status") or {}).get("conditions") or []), {})
    since = old.get("lastTransitionTime") if old.get("status") == truth else None
    condition = {"type": "Ready", "status": truth, "reason": reason, "message": message}
    condition["lastTransitionTime"] = since or f"{now:%Y-%m-%dT%H:%M:%SZ}"
    return {"observedGeneration": body["metadata"]["generation"], "conditions": [condition], **more}
