"""What keeps a PipelineJob's pods from running: Jobs, pods and Events in, one problem that a person can act on out.

Only what stands now counts: of the Jobs the newest, of each of its unfinished indexes the newest pod.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipelinejob_operator.manifests import FAIL_INDEX, FAIL_JOB, STOPPED
from pipelinejob_operator.objects import (
    Object,
    born,
    completed_indexes,
    condition,
    container,
    end_of,
    image_of,
    index_of,
    is_leaving,
    is_live,
    latest_event,
    name_of,
    owner_of,
    parse_time,
    state,
    when,
)

MAX_MESSAGE = 500  # characters
TOLD = (FAIL_INDEX, FAIL_JOB)  # exit codes of a worker that has said why (see `termination`)
LOST = timedelta(seconds=60)  # past the end that a deletion set, which has the grace period in it
HELD = timedelta(seconds=5)  # past the same end: a pod that has ended is gone by then, unless its Job keeps it
STARTING = timedelta(seconds=5)  # that a container may take to be created before somebody asks why
CONNECTING = timedelta(seconds=9)  # that a worker may take to reach the database; its probe looks every 5 s
CREATING = timedelta(seconds=3)  # that a Job may be without a pod

# The first that is found is told: what no time will mend comes before what may mend itself.
ORDER = (
    "ImagePullBackOff",
    "ContainerCannotRun",
    "VolumeNotBound",
    "QuotaExceeded",
    "PodsForbidden",
    "OOMKilled",
    "NodeLost",
    "PodFailed",
    "DatabaseUnavailable",
    "Unschedulable",
    "Queued",
)
_NO_IMAGE = (
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
_CANNOT_RUN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_NEVER_RAN = ("StartError", "ContainerCannotRun")  # the same, once it is over


@dataclass(frozen=True)
class Problem:
    """Why a job does not go on, in one line.

    Args:
        reason: one word.
        message: what is wrong, in whose words, and what to do.
    """

    reason: str
    message: str


def diagnose(jobs: Sequence[Object], pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Problem | None:
    """The problem to tell of, or None.

    Args:
        jobs: those of one PipelineJob.
        pods: theirs; succeeded ones may be missing.
        events: about those that wait (see `needs_events`), as core/v1 spells them.
        now: the present time, with its zone.
    """
    job = _current(jobs)
    if job is None or job_state(job) not in ("running", "failed"):
        return None
    mine = _newest_pods(job, pods)
    found = [problem for pod in mine for problem in _of_pod(pod, events, now)]
    if job["spec"].get("suspend"):
        found.append(Problem("Queued", f"the Job {name_of(job)} is suspended: its Kueue queue has not admitted it yet"))
    elif job_state(job) == "running" and _lacks_pods(job, mine):
        found += _not_created(job, mine, events)
    return min(found, key=lambda problem: ORDER.index(problem.reason), default=None)


def needs_events(jobs: Sequence[Object], pods: Sequence[Object], now: datetime) -> bool:
    """Whether only Events can say why nothing happens: a pod is long in starting, or a Job is without one."""
    job = _current(jobs)
    if job is None or job_state(job) != "running" or job["spec"].get("suspend"):
        return False
    mine = _newest_pods(job, pods)
    if any(_is_starting(pod) and now - _scheduled(pod) > STARTING for pod in mine):
        return True
    return _lacks_pods(job, mine) and now - _last_pod(job, mine) > CREATING


def lost_pods(pods: Iterable[Object], now: datetime) -> list[Object]:
    """Pods that are still there a minute after their deletion should have ended them: their node does not answer."""
    return [pod for pod in pods if is_live(pod) and is_leaving(pod) and now - parse_time(pod["metadata"]["deletionTimestamp"]) > LOST]


def held_pods(pods: Iterable[Object], now: datetime) -> list[Object]:
    """Pods that were deleted and have ended, and are still there: a Job keeps a failed one until it has made another for its index.

    In a namespace that goes it never can, and the namespace would stay for ever, for Kubernetes deletes pods before Jobs.
    """
    return [pod for pod in pods if not is_live(pod) and is_leaving(pod) and now - parse_time(pod["metadata"]["deletionTimestamp"]) > HELD]


def termination(pods: Sequence[Object]) -> Problem | None:
    """What the pods of the newest Job said of an end that no retry can mend; the latest word counts."""
    newest = owner_of(max(pods, key=born)) if pods else None
    ends = [end for pod in pods if owner_of(pod) == newest and (end := end_of(pod)) and end["exitCode"] in TOLD]
    said = map(_said, sorted(ends, key=lambda end: end.get("finishedAt") or "", reverse=True))
    return next((problem for problem in said if problem is not None), None)


def job_state(job: Object) -> Literal["running", "complete", "failed", "deleting"]:
    """How a Job stands; some pods of a complete or failed one may still be ending (see `terminating`)."""
    if is_leaving(job):
        return "deleting"
    if condition(job, "Failed", "True") or condition(job, "FailureTarget", "True"):
        return "failed"
    if condition(job, "Complete", "True") or condition(job, "SuccessCriteriaMet", "True"):
        return "complete"
    return "running"


def terminating(job: Object) -> int:
    """How many pods of a Job that ends have not ended."""
    status = job.get("status", {})
    return (status.get("active") or 0) + (status.get("terminating") or 0)


# ---- what counts


def _current(jobs: Iterable[Object]) -> Object | None:
    """The Job of the present stage: one comes after the other."""
    return max(jobs, key=lambda job: (born(job), job_state(job) == "running"), default=None)


def _newest_pods(job: Object, pods: Iterable[Object]) -> list[Object]:
    """The newest pod of each index that has not succeeded, in the order of the indexes."""
    newest: dict[int, Object] = {}
    for pod in sorted(pods, key=lambda pod: (born(pod), is_live(pod))):
        if owner_of(pod) == job["metadata"]["uid"]:
            newest[index_of(pod)] = pod
    done = completed_indexes(job)
    return [newest[index] for index in sorted(newest) if not any(index in span for span in done)]


def _lacks_pods(job: Object, pods: Iterable[Object]) -> bool:
    """Whether fewer pods live than may run at once: a quota may let only some of them in."""
    left: int = job["spec"].get("completions", 1) - (job.get("status", {}).get("succeeded") or 0)
    return sum(map(is_live, pods)) < min(int(job["spec"].get("parallelism", 1)), left)


def _is_starting(pod: Object) -> bool:
    """It has a node, but neither a container nor a word why."""
    if not is_live(pod) or condition(pod, "PodScheduled", "True") is None:
        return False
    waiting = state(pod, "waiting") or {}
    return not container(pod) or waiting.get("reason") in ("ContainerCreating", "PodInitializing")


def _scheduled(pod: Object) -> datetime:
    return parse_time((condition(pod, "PodScheduled", "True") or {}).get("lastTransitionTime") or born(pod))


def _last_pod(job: Object, pods: Iterable[Object]) -> datetime:
    """When the Job's last pod ended, or when it could have had its first."""
    ends = [end["finishedAt"] for pod in pods if (end := end_of(pod)) and end.get("finishedAt")]
    return parse_time(max([job.get("status", {}).get("startTime") or born(job), *ends]))


def _is_silent(pod: Object) -> bool:
    """Its container is ready and the pod is not: only the controller of nodes says so, when the kubelet is silent."""
    return state(pod, "running") is not None and bool(container(pod).get("ready")) and condition(pod, "Ready", "False") is not None


def _is_cut_off(pod: Object, now: datetime) -> bool:
    """Its container runs and is not ready, which is: it reaches its database."""
    running = state(pod, "running")
    return running is not None and not container(pod).get("ready") and now - parse_time(running["startedAt"]) > CONNECTING


# ---- what is wrong


def _of_pod(pod: Object, events: Iterable[Object], now: datetime) -> Iterator[Problem]:
    waiting, unscheduled = state(pod, "waiting") or {}, condition(pod, "PodScheduled", "False") or {}
    if lost_pods([pod], now) or (is_live(pod) and _is_silent(pod)):
        yield _node_lost(pod)
    elif is_leaving(pod):
        return  # somebody's doing, and replaced when it is gone
    elif not is_live(pod):
        yield from _of_failed(pod)
    elif waiting.get("reason") in _NO_IMAGE:
        yield _no_image(pod, waiting)
    elif waiting.get("reason") in _CANNOT_RUN:
        yield _cannot_run(pod, waiting)
    elif _is_cut_off(pod, now):
        yield _no_database(pod)
    elif _is_starting(pod):
        yield from _not_started(pod, events)
    elif unscheduled.get("reason") == "Unschedulable":
        yield _unschedulable(pod, unscheduled.get("message") or "")


def _of_failed(pod: Object) -> Iterator[Problem]:
    status, end, disruption = pod["status"], end_of(pod), condition(pod, "DisruptionTarget", "True")
    if status["phase"] != "Failed" or (disruption is not None and disruption.get("reason") != "TerminationByKubelet"):
        return  # preempted, evicted by request or lost with its node: replaced at once
    if end is None or status.get("reason"):  # the container's own end then tells less
        said = ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
        yield _problem("PodFailed", f"pod {name_of(pod)} was ended by its node", said, "check spec.worker.resources and the node")
    elif end.get("reason") == "OOMKilled" and end["exitCode"] != 0:
        yield _out_of_memory(pod, end)
    elif end.get("reason") in _NEVER_RAN:
        yield _cannot_run(pod, end)
    elif end["exitCode"] not in (*TOLD, STOPPED):
        word = _said(end)
        advice = f"see `kubectl logs -n {pod['metadata']['namespace']} {name_of(pod)}`"
        what = f"pod {name_of(pod)} ended with exit code {_exit(end)}"
        yield _problem("PodFailed", what, f"{word.reason}: {word.message}" if word else "", advice)


def _node_lost(pod: Object) -> Problem:
    what = f"node {pod['spec'].get('nodeName')} does not answer, and pod {name_of(pod)} is on it"
    return _problem("NodeLost", what, "", "if the node stays away, another pod takes over within three minutes; check the node")


def _out_of_memory(pod: Object, end: Object) -> Problem:
    limit = ((container(pod).get("resources") or {}).get("limits") or {}).get("memory", "none")
    what = f"pod {name_of(pod)} was killed for its use of memory (limit {limit}), exit code {_exit(end)}"
    advice = "in a new PipelineJob raise spec.worker.resources.limits.memory, or lower limits.cpu (a process runs for each processor)"
    return _problem("OOMKilled", what, "", advice)


def _no_database(pod: Object) -> Problem:
    what = f"pod {name_of(pod)} runs and waits for the database, which it cannot reach or log in to"
    name, namespace = name_of(pod), pod["metadata"]["namespace"]
    advice = f"check network policies, the chart's database.workerUrl and the pooler; see `kubectl logs -n {namespace} {name}`"
    return _problem("DatabaseUnavailable", what, "", advice)


def _no_image(pod: Object, waiting: Object) -> Problem:
    said = re.sub(r'^Back-off pulling image "[^"]*"(: \w+: )?', "", waiting.get("message") or "")  # the two waits take turns
    advice = "check spec.worker.image (or the chart's image.worker), and spec.worker.imagePullSecrets for a private registry"
    return _problem("ImagePullBackOff", f"pod {name_of(pod)} cannot get its image {image_of(pod)!r}", said or waiting["reason"], advice)


def _cannot_run(pod: Object, said: Object) -> Problem:
    what = f"the container of pod {name_of(pod)} cannot be started"
    advice = f"check that image {image_of(pod)!r} has pipelinejob and a numeric USER other than root, and that the job's Secret is there"
    return _problem("ContainerCannotRun", what, said.get("message") or said["reason"], advice)


def _not_started(pod: Object, events: Iterable[Object]) -> Iterator[Problem]:
    mount = latest_event(events, pod, ("FailedMount", "FailedAttachVolume"))
    if mount is not None:
        yield _no_volume(pod, "cannot be mounted", mount.get("message") or "")
    sandbox = latest_event(events, pod, ("FailedCreatePodSandBox",))
    if sandbox is not None:
        what = f"node {pod['spec'].get('nodeName')} cannot start pod {name_of(pod)}"
        yield _problem("ContainerCannotRun", what, sandbox.get("message") or "", "check the node, and that limits.memory is not too low")


def _unschedulable(pod: Object, said: str) -> Problem:
    if re.search("persistent ?volume", said, re.IGNORECASE):
        return _no_volume(pod, "is not bound", said.removesuffix(". not found"))  # the scheduler ends each such message so
    said = re.split(r"(?: no new claims to deallocate,)? preemption:", said)[0]
    advice = "check spec.worker.resources, nodeSelector and tolerations, or add nodes"
    return _problem("Unschedulable", f"no node takes pod {name_of(pod)}", said, advice)


def _no_volume(pod: Object, what: str, said: str) -> Problem:
    advice = f"check the claim with `kubectl describe pvc -n {pod['metadata']['namespace']}`"
    return _problem("VolumeNotBound", f"the claim of spec.data.persistentVolumeClaim.claimName {what}", said, advice)


def _not_created(job: Object, pods: Sequence[Object], events: Iterable[Object]) -> Iterator[Problem]:
    event = latest_event(events, job, ("FailedCreate",))
    if event is None or when(event) < max(map(born, pods), default=""):
        return  # nothing refused, or it was mended since
    said = re.sub(r'^(\(combined from similar events\): )?(Error creating: )?(pods "[^"]*" (is )?)?', "", event.get("message") or "")
    namespace = job["metadata"]["namespace"]
    if "exceeded quota" in said:
        advice = f"wait until others end, lower spec.worker.resources, or raise it: `kubectl describe quota -n {namespace}`"
        live = sum(map(is_live, pods))
        room = f"room for {live} of {job['spec']['parallelism']} pods" if live else "no room for a pod"
        yield _problem("QuotaExceeded", f"the quota of namespace {namespace} leaves {room}", said, advice)
    else:
        advice = "check spec.worker against the namespace's rules"
        yield _problem("PodsForbidden", f"namespace {namespace} takes no pod of Job {name_of(job)}", said, advice)


# ---- in words


def _problem(reason: str, what: str, said: str, advice: str) -> Problem:
    """In one line; what somebody else said is cut where there is too much, never what to do."""
    said = " ".join(said.split()).rstrip(".")
    room = MAX_MESSAGE - len(what) - len(advice) - len(": : ")
    if len(said) > room:
        said = f"{said[: max(0, room - 1)]}…"
    return Problem(reason, ": ".join(part for part in (what, said, advice) if part)[:MAX_MESSAGE])


def _said(end: Object) -> Problem | None:
    """What a worker left of its end, or None for anything else."""
    try:
        said = json.loads(end.get("message") or "")
        reason, message = said["reason"], said["message"]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(reason, str) or not isinstance(message, str):
        return None
    return Problem(reason, " ".join(message.split())[:MAX_MESSAGE])


def _exit(end: Object) -> str:
    names = {one.value: one.name for one in signal.Signals}
    number = end.get("signal") or end["exitCode"] - 128
    return f"{end['exitCode']} ({names[number]})" if number in names else str(end["exitCode"])
