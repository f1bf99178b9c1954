"""Writes statuses: only when they say something new, at most every two seconds a job, with an Event for each turn."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pipelinejob.reasons import JobError
from pipelinejob_operator.conditions import news
from pipelinejob_operator.kube import Kube
from pipelinejob_operator.ledger import Ledger
from pipelinejob_operator.pace import Pace
from pipelinejob_operator.queue import Key, Queue

INTERVAL = 2.0  # seconds between two writes of one status


class StatusWriter:
    """The way of every status into its resource, and from there into the ledger.

    Args:
        kube: the cluster.
        ledger: has the same status, for those who ask it.
        queue: where a job goes whose status has to wait.
        pace: remembers when each was written.
    """

    def __init__(self, kube: Kube, ledger: Ledger, queue: Queue, pace: Pace) -> None:
        self._kube, self._ledger, self._queue, self._pace = kube, ledger, queue, pace

    async def write(self, key: Key, body: Mapping[str, Any], status: dict[str, Any]) -> None:
        """Puts a status in the place of the one in `body`; a later look does it when it is too early now."""
        previous = body.get("status") or {}
        if status == previous:
            return
        uid = body["metadata"]["uid"]
        wait = self._pace.wait_to_write(uid, INTERVAL)
        if wait > 0:
            self._queue.add(key, wait)
            return
        if await self._kube.patch_status(*key, status) is None:
            return
        self._pace.written(uid)
        with suppress(JobError):  # the database is away, as the status may just say
            await self._ledger(lambda store: store.update_job(uid, status=status))
        for told in news(previous, status):
            await self._kube.emit_event(body, told.type, told.reason, told.message)
