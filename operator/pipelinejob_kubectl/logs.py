"""What the pods of a job print: found by stage and shard, and followed while they run."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pipelinejob.model import GROUP
from pipelinejob_kubectl.errors import PluginError
from pipelinejob_kubectl.jobs import has_ended, shards_of
from pipelinejob_kubectl.kube import Kube, Object

STAGES = ("plan", "shard", "finalize")
INDEX = "batch.kubernetes.io/job-completion-index"
EVERY = 2.0  # seconds between looks for new pods
HEAD = 2048  # bytes of a log, at whose beginning a pod says which shard it has
MOST = 100  # pods whose logs are shown
_RUN = re.compile(r"-run-([0-9]+)$")

Say = Callable[[str], None]


def pods_of(kube: Kube, job: Object, stage: str | None, shard: int | None) -> list[Object]:
    """The pods of a job that still have logs, in the order of their birth."""
    meta = job["metadata"]
    labels = f"{GROUP}/job={meta['name']},{GROUP}/uid={meta['uid']}"
    if shard is not None or stage:
        labels += f",{GROUP}/stage={'shard' if shard is not None else stage}"
    found = kube.items(kube.core("pods", namespace=meta["namespace"]), [("labelSelector", labels)])
    started = [pod for pod in found if pod["status"].get("containerStatuses") and _has_begun(pod)]
    if shard is not None:
        started = [pod for pod in started if may_have(pod, shard) and (_is_first_round(pod) or _says(kube, pod, shard))]
    return sorted(started, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def may_have(pod: Object, shard: int) -> bool:
    """Whether a pod can be one of that shard: in the first round its index is the shard, later it is at most that."""
    index = int(pod["metadata"]["labels"].get(INDEX, -1))
    return index == shard if _is_first_round(pod) else index <= shard


def _is_first_round(pod: Object) -> bool:
    match = _RUN.search(pod["metadata"]["labels"].get("batch.kubernetes.io/job-name", ""))
    return match is not None and match[1] == "1"


def _says(kube: Kube, pod: Object, shard: int) -> bool:
    head = kube.text(_log(kube, pod), [("limitBytes", HEAD)])
    return f"shard {shard} of job " in head


def _has_begun(pod: Object) -> bool:
    state = pod["status"]["containerStatuses"][0].get("state") or {}
    return "running" in state or "terminated" in state


def show(kube: Kube, job: Object, stage: str | None, shard: int | None, tail: int | None, say: Say) -> None:
    """Says what the pods printed so far.

    Raises:
        PluginError: there are none with logs.
    """
    found = pods_of(kube, job, stage, shard)
    if not found:
        raise PluginError("NoPods", none(job, stage, shard))
    if len(found) > MOST:
        raise PluginError("InvalidSpec", f"{len(found)} pods have logs: choose with --shard or --stage (at most {MOST} are shown)")
    for pod in found:
        prefix = _prefix(pod) if len(found) > 1 else ""
        query: list[tuple[str, object]] = [("tailLines", tail)] if tail is not None else []
        for line in kube.text(_log(kube, pod), query).splitlines():
            say(prefix + line)


def follow(kube: Kube, job: Object, stage: str | None, shard: int | None, tail: int | None, say: Say) -> None:
    """Says what the pods print until the job ends, those that come later too."""
    path = kube.ours(job["metadata"]["name"], namespace=job["metadata"]["namespace"])
    lines: queue.Queue[str] = queue.Queue(MOST)  # threads read, this one alone writes: whoever reads us may go
    threads: dict[str, threading.Thread] = {}
    look_at, ended = 0.0, False
    while not ended or any(thread.is_alive() for thread in threads.values()) or not lines.empty():
        if not ended and time.monotonic() >= look_at:
            now = kube.call("GET", path)
            for pod in pods_of(kube, now, stage, shard):
                if (uid := pod["metadata"]["uid"]) not in threads and len(threads) < MOST:
                    threads[uid] = threading.Thread(target=_read, args=(kube, pod, tail, lines), daemon=True)
                    threads[uid].start()
            look_at, ended = time.monotonic() + EVERY, has_ended(now)
        with suppress(queue.Empty):
            say(lines.get(timeout=0.2))


def _read(kube: Kube, pod: Object, tail: int | None, lines: queue.Queue[str]) -> None:
    """Puts the lines of a pod into a queue, to its end."""
    query: list[tuple[str, object]] = [("follow", "true"), *([("tailLines", tail)] if tail is not None else [])]
    try:
        for line in kube.lines(_log(kube, pod), query):
            lines.put(_prefix(pod) + line)
    except PluginError as error:
        lines.put(f"{_prefix(pod)}({error.message})")


def none(job: Object, stage: str | None, shard: int | None) -> str:
    """Why there are no logs."""
    what = f" of shard {shard}" if shard is not None else f" of the stage {stage}" if stage else ""
    if not (job.get("status") or {}).get("conditions"):
        return "the operator has not seen this job yet: wait, or 'kubectl pipelinejob doctor'"
    if shard is not None and 0 < (shards := shards_of(job).total) <= shard:
        return f"the job has {shards} shards, numbered from 0"
    if has_ended(job):
        return f"no pod{what} is left: a job's pods are kept for an hour after its end, those of a suspended or cancelled round not at all"
    return f"no pod{what} has begun: 'kubectl pipelinejob status {job['metadata']['name']}' says what it waits for"


def check(stage: str | None, shard: int | None) -> None:
    """Refuses what is no stage, and a shard of another stage.

    Raises:
        PluginError: InvalidSpec.
    """
    if stage is not None and stage not in STAGES:
        raise PluginError("InvalidSpec", f"--stage: {stage!r} is none: expected one of {', '.join(STAGES)}")
    if stage not in (None, "shard") and shard is not None:
        raise PluginError("InvalidSpec", f"--shard: the stage {stage} has no shards")


def _log(kube: Kube, pod: Object) -> str:
    return kube.core("pods", f"{pod['metadata']['name']}/log", pod["metadata"]["namespace"])


def _prefix(pod: Object) -> str:
    return f"[{pod['metadata']['name']}] "
