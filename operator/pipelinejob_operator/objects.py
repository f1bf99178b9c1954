"""How Jobs, pods and Events spell what `diagnose` asks of them; whatever is optional may be missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]


def name_of(thing: Object) -> str:
    """Its name."""
    return str(thing["metadata"]["name"])


def born(thing: Object) -> str:
    """When it was created; such times compare as text."""
    return str(thing["metadata"].get("creationTimestamp") or "")


def is_leaving(thing: Object) -> bool:
    """Whether somebody has deleted it."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def owner_of(pod: Object) -> str | None:
    """The uid of the Job that made a pod."""
    return next((owner["uid"] for owner in pod["metadata"].get("ownerReferences") or [] if owner.get("controller")), None)


def index_of(pod: Object) -> int:
    """Its index in an Indexed Job; -1 in others."""
    return int((pod["metadata"].get("annotations") or {}).get("batch.kubernetes.io/job-completion-index", -1))


def completed_indexes(job: Object) -> list[range]:
    """The indexes that have succeeded."""
    pairs = (part.partition("-") for part in (job.get("status", {}).get("completedIndexes") or "").split(",") if part)
    return [range(int(first), int(last or first) + 1) for first, _, last in pairs]


def image_of(pod: Object) -> str:
    """The image of its container, as the manifest names it."""
    return str(pod["spec"]["containers"][0]["image"])


def is_live(pod: Object) -> bool:
    """Whether it has not ended."""
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def condition(thing: Object, kind: str, truth: str) -> Object | None:
    """Its condition of that type, if it has that status."""
    conditions = thing.get("status", {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == truth), None)


def container(pod: Object) -> Object:
    """The status of its only container; {} before the kubelet has written one."""
    return next(iter(pod.get("status", {}).get("containerStatuses") or []), {})


def state(pod: Object, which: str) -> Object | None:
    """That state of its container ("waiting", "running" or "terminated"), if it is in it."""
    found: Object | None = (container(pod).get("state") or {}).get(which)
    return found


def end_of(pod: Object) -> Object | None:
    """How its container ended, or how it ended the last time."""
    last: Object | None = (container(pod).get("lastState") or {}).get("terminated")
    return state(pod, "terminated") or last


def latest_event(events: Iterable[Object], thing: Object, reasons: Sequence[str]) -> Object | None:
    """The last Event of one of those reasons about a thing."""
    about = [one for one in events if one["involvedObject"].get("uid") == thing["metadata"]["uid"] and one.get("reason") in reasons]
    return max(about, key=when, default=None)


def when(event: Object) -> str:
    """When it was last seen; of the two generations of Events, each fills in other fields."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp"))
    return next((str(time) for time in times if time), born(event))


def parse_time(text: str) -> datetime:
    """A point in time, with its zone."""
    return datetime.fromisoformat(text)
