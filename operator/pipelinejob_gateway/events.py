"""Changes of jobs, as they come: one look at the ledger a second for all who listen, and none while nobody does.

A listener that reads slowly gets the newest state of each job that changed meanwhile, not every step: what waits for it
is at most one change a job, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.concurrency import run_in_threadpool

from pipelinejob.reasons import JobError
from pipelinejob.store import Outline

EVERY = 1.0  # seconds between looks


class Listener:
    """What waits for one who listens."""

    def __init__(self, namespace: str | None, name: str | None) -> None:
        self._namespace, self._name = namespace, name
        self._waiting: dict[str, dict[str, Any]] = {}
        self._something = asyncio.Event()

    def put(self, kind: str, outline: Outline) -> None:
        """Tells of a change, in place of an older one of the same job."""
        if self._namespace in (None, outline.namespace) and self._name in (None, outline.name):
            self._waiting[outline.uid] = {"type": kind, **_told(outline)}
            self._something.set()

    async def take(self) -> list[dict[str, Any]]:
        """Waits for changes and takes them."""
        await self._something.wait()
        self._something.clear()
        taken, self._waiting = self._waiting, {}
        return list(taken.values())


class Feed:
    """Changes for all who listen.

    Args:
        outlines: how all jobs stand now; called in a thread.
    """

    def __init__(self, outlines: Callable[[], list[Outline]]) -> None:
        self._outlines = outlines
        self._listeners: set[Listener] = set()
        self._poll: asyncio.Task[None] | None = None
        self._begin = asyncio.Lock()
        self._known: dict[str, Outline] = {}

    async def changes(self, namespace: str | None, name: str | None) -> AsyncIterator[dict[str, Any]]:
        """Changes from now on, of one namespace or of one job; of one job also how it stands at first."""
        listener = Listener(namespace, name)
        self._listeners.add(listener)
        try:
            async with self._begin:
                if self._poll is None:
                    self._known = await self._look() or {}
                    self._poll = asyncio.create_task(self._run())
            if name is not None:
                for outline in self._known.values():
                    listener.put("MODIFIED", outline)
            while True:
                for change in await listener.take():
                    yield change
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._poll is not None:
                self._poll.cancel()
                self._poll = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            now = await self._look()
            if now is None:
                continue
            for kind, outline in difference(self._known, now):
                for listener in self._listeners:
                    listener.put(kind, outline)
            self._known = now

    async def _look(self) -> dict[str, Outline] | None:
        """How all jobs stand; None while the database is away."""
        with suppress(JobError):
            return {outline.uid: outline for outline in await run_in_threadpool(self._outlines)}
        return None


def difference(before: Mapping[str, Outline], now: Mapping[str, Outline]) -> list[tuple[str, Outline]]:
    """What happened between two looks: (ADDED, MODIFIED or DELETED, the job)."""
    found = [("MODIFIED" if uid in before else "ADDED", one) for uid, one in now.items() if before.get(uid) != one]
    return found + [("DELETED", one) for uid, one in before.items() if uid not in now]


def _told(outline: Outline) -> dict[str, Any]:
    counts = {key.removeprefix("rows_"): value for key, value in outline._asdict().items() if key.startswith("rows_")}
    pending = counts["total"] - sum(value for key, value in counts.items() if key != "total")
    return {
        "uid": outline.uid,
        "namespace": outline.namespace,
        "name": outline.name,
        "phase": outline.phase,
        "reason": outline.reason,
        "rows": {**counts, "pending": pending},
    }
