"""Changes of jobs, as they come: one look at the ledger a second for all who listen, and none while nobody does.

A listener that reads slowly gets the newest state of each job that changed meanwhile, not every step: what waits for it
is at most one change a job, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from pipelinejob.reasons import JobError
from pipelinejob.store import Outline

EVERY = 1.0  # seconds between looks
SILENCE = 15.0  # seconds after which a listener hears that the line still stands


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

    def wake(self) -> None:
        """Lets it look whether there is anything."""
        self._something.set()

    async def take(self) -> list[dict[str, Any]]:
        """Waits for changes and takes them; after a while without any, none."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._something.wait(), SILENCE)
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        self._known: dict[str, Outline] = {}

    async def stream(self, namespace: str | None, name: str | None) -> AsyncIterator[bytes]:
        """Changes from now on as server-sent events, of one namespace or of one job; of one job also how it stands at first."""
        listener, self._loop = Listener(namespace, name), asyncio.get_running_loop()
        self._listeners.add(listener)
        try:
            async with self._begin:
                if self._poll is None:
                    self._known = await self._look() or {}
                    self._poll = asyncio.create_task(self._run())
            if name is not None:
                for outline in self._known.values():
                    listener.put("MODIFIED", outline)
            while not self._over:
                taken = await listener.take()
                for change in taken:
                    yield format_sse_event(event=change["type"], data_str=json.dumps(change))
                if not taken:
                    yield KEEPALIVE_COMMENT
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._poll is not None:
                self._poll.cancel()
                self._poll = None

    def close(self) -> None:
        """Ends all streams, as the server is to end; called from anywhere."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._over = True
        for listener in self._listeners:
            listener.wake()

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
