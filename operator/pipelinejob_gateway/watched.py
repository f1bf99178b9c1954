"""All PipelineJobs of the cluster as they stand now, kept up by a watch: pages and changes are answered from it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from kubernetes.client import CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError

from pipelinejob.reasons import Phase
from pipelinejob.resources import Page
from pipelinejob.store import Outline
from pipelinejob_gateway.callers import GROUP, PLURAL
from pipelinejob_gateway.kube import Kube

log = logging.getLogger("pipelinejob.gateway")

VERSION = "v1alpha1"
LISTED = 500  # jobs in one answer to a LIST
WATCHED_FOR = 120  # seconds, after which a watch is begun again where it ended
AWAY = 15.0  # seconds beyond that, after which a server that says nothing is taken for gone
AGAIN = 1.0  # seconds until a watch that failed is begun again
_WHAT = (GROUP, VERSION, PLURAL)


class _Kept(NamedTuple):
    """A job: its outline, what it is ordered by, and its resource as text, a tenth of what it would weigh as objects."""

    outline: Outline
    order: tuple[datetime, str]
    text: str


class Watched:
    """Lists and watches in a thread of its own, from `start` on."""

    def __init__(self, kube: Kube) -> None:
        self._custom = CustomObjectsApi(kube.api)
        self._jobs: dict[str, _Kept] = {}
        self._ordered: list[_Kept] | None = []
        self._lock = threading.Lock()
        self._fresh_at: float | None = None

    def start(self) -> None:
        """Begins; `is_current` says when the first list is here."""
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    def is_current(self) -> bool:
        """Whether all jobs are known, and the API server has been heard of late."""
        return self._fresh_at is not None and time.monotonic() - self._fresh_at < WATCHED_FOR + 4 * AWAY

    def outlines(self) -> list[Outline]:
        """How all jobs stand, in short."""
        with self._lock:
            return [kept.outline for kept in self._jobs.values()]

    def namespaces(self) -> set[str]:
        """Those that have jobs."""
        return {outline.namespace for outline in self.outlines()}

    def page(
        self, namespaces: set[str] | None, phases: Sequence[str], name: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> Page:
        """A page of the jobs of some namespaces, or of all, the newest first."""
        found: list[_Kept] = []
        for kept in self._newest_first():
            outline = kept.outline
            if before is not None and kept.order >= before:
                continue
            if namespaces is not None and outline.namespace not in namespaces:
                continue
            if (phases and outline.phase not in phases) or (name is not None and name not in outline.name):
                continue
            found.append(kept)
            if len(found) > limit:
                break
        last = found[limit - 1].order if len(found) > limit else None
        return Page([json.loads(kept.text) for kept in found[:limit]], last)

    def _newest_first(self) -> list[_Kept]:
        with self._lock:
            if self._ordered is None:
                self._ordered = sorted(self._jobs.values(), key=lambda kept: kept.order, reverse=True)
            return self._ordered

    def _run(self) -> None:
        while True:
            try:
                self._follow(self._list())
            except (ApiException, HTTPError, OSError, ValueError) as error:
                if not (isinstance(error, ApiException) and error.status == 410):  # too old a place to go on from: list again
                    log.warning("the watch of PipelineJobs failed and begins again: %s", str(error).partition("\n")[0])
            time.sleep(AGAIN)

    def _list(self) -> str:
        found: dict[str, _Kept] = {}
        more: dict[str, Any] = {}
        while True:
            page: Any = self._custom.list_cluster_custom_object(*_WHAT, limit=LISTED, _request_timeout=30, **more)
            found.update((job["metadata"]["uid"], _kept(job)) for job in page["items"])
            if not page["metadata"].get("continue"):
                break
            more = {"_continue": page["metadata"]["continue"]}
        with self._lock:
            self._jobs, self._ordered, self._fresh_at = found, None, time.monotonic()
        return str(page["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        while True:
            for kind, job in self._changes(version):
                meta = job["metadata"]
                version = meta["resourceVersion"]
                with self._lock:
                    if kind == "DELETED":
                        self._jobs.pop(meta["uid"], None)
                    elif kind != "BOOKMARK":
                        self._jobs[meta["uid"]] = _kept(job)
                    self._ordered = self._ordered if kind == "BOOKMARK" else None
                    self._fresh_at = time.monotonic()
            self._fresh_at = time.monotonic()

    def _changes(self, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
        stream = Watch().stream(  # type: ignore[no-untyped-call]
            self._custom.list_cluster_custom_object,
            *_WHAT,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCHED_FOR,
            _request_timeout=(5, WATCHED_FOR + AWAY),
        )
        for event in stream:
            yield event["type"], event["raw_object"]


def shown(job: Mapping[str, Any]) -> dict[str, Any]:
    """A resource as it is answered: without who wrote which field when, which is most of it."""
    metadata = {key: value for key, value in job["metadata"].items() if key != "managedFields"}
    return {**job, "metadata": metadata}


def _kept(job: Mapping[str, Any]) -> _Kept:
    meta, status = job["metadata"], job.get("status") or {}
    rows = status.get("rows") or {}
    failures = [one for one in status.get("conditions", []) if one["type"] == "Failed" and one["status"] == "True"]
    outline = Outline(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        phase=status.get("phase") or Phase.PENDING,
        reason=failures[0].get("reason") if failures else None,
        stop=None,
        rows_total=rows.get("total", 0),
        rows_succeeded=rows.get("succeeded", 0),
        rows_filtered=rows.get("filtered", 0),
        rows_skipped=rows.get("skipped", 0),
        rows_failed=rows.get("failed", 0),
    )
    return _Kept(outline, (datetime.fromisoformat(meta["creationTimestamp"]), meta["uid"]), json.dumps(shown(job)))
