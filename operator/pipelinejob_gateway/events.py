"""Changes of jobs, as they come: one look at the jobs a second for all who listen, and none while nobody does.

What has changed is kept once for all: of each job its newest change, in the order of these. A listener knows how far it has read. One that
reads slowly gets the newest state of each job that changed meanwhile, not every step; it takes no memory, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from pipelinejob.reasons import JobError
from pipelinejob.store import Outline

EVERY = 1.0  # seconds between looks
KEPT = 100_000  # changes
LONGEST = 3600.0  # seconds, after which a listener is to connect anew, and whether it may is asked anew
SEEN_FOR = 30.0  # seconds, after which it is asked anew whether a listener may hear of a namespace
SILENCE = 15.0  # seconds after which a listener hears that the line still stands


class Change(NamedTuple):
    """What happened to a job, and the how-manieth change that was."""

    number: int
    kind: str
    outline: Outline

    def told(self) -> bytes:
        """As an event."""
        return format_sse_event(event=self.kind, data_str=json.dumps({"type": self.kind, **_told(self.outline)}))


class Changes:
    """Of each job its newest change, the newest last."""

    def __init__(self) -> None:
        self._newest: dict[str, Change] = {}
        self.count = 0
        self.forgotten = 0  # the number of the last change that is not kept any more: jobs that are deleted do not stay for ever

    def add(self, kind: str, outline: Outline) -> None:
        """Takes the place of an older change of the same job."""
        self.count += 1
        self._newest.pop(outline.uid, None)
        self._newest[outline.uid] = Change(self.count, kind, outline)
        if len(self._newest) > KEPT:
            self.forgotten = self._newest.pop(next(iter(self._newest))).number

    def since(self, number: int) -> list[Change]:
        """Those after the change of that number, the oldest first."""
        found = []
        for change in reversed(self._newest.values()):
            if change.number <= number:
                break
            found.append(change)
        return found[::-1]


class Feed:
    """Changes for all who listen.

    Args:
        outlines: how all jobs stand now; called in a thread.
    """

    def __init__(self, outlines: Callable[[], list[Outline]]) -> None:
        self._outlines = outlines
        self._listeners: set[asyncio.Event] = set()
        self._poll: asyncio.Task[None] | None = None
        self._begin = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False
        self._known: dict[str, Outline] = {}
        self._changes = Changes()

    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    async def stream(self, namespace: str | None, name: str | None, sees: Callable[[str], bool] | None = None) -> AsyncIterator[bytes]:
        """Changes from now on as server-sent events, of one namespace or of one job; of one job also how it stands at first.

        Args:
            namespace: None: all.
            name: of the job; None: all.
            sees: whether the listener may hear of a namespace, asked in a thread; None: of all.
        """

        allowed: dict[str, tuple[float, bool]] = {}

        async def wanted(outline: Outline) -> bool:
            if namespace not in (None, outline.namespace) or name not in (None, outline.name):
                return False
            if sees is None:
                return True
            until, may = allowed.get(outline.namespace, (0.0, False))
            if until <= time.monotonic():
                may = await run_in_threadpool(sees, outline.namespace)
                allowed[outline.namespace] = time.monotonic() + SEEN_FOR, may
            return may

        something, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._listeners.add(something)
        try:
            async with self._begin:
                if self._poll is None:
                    self._known = await self._look() or {}
                    self._poll = asyncio.create_task(self._run())
            read, spoke_at = self._changes.count, time.monotonic()
            if name is not None:
                for outline in self._known.values():
                    if await wanted(outline):
                        yield Change(read, "MODIFIED", outline).told()
            end = spoke_at + LONGEST
            while not self._over and time.monotonic() < end:
                with suppress(TimeoutError):
                    await asyncio.wait_for(something.wait(), max(0.0, spoke_at + SILENCE - time.monotonic()))
                something.clear()
                if read < self._changes.forgotten:  # too far behind: it is to connect, and list, anew
                    return
                fresh, read = self._changes.since(read), self._changes.count
                for change in fresh:
                    if await wanted(change.outline):
                        yield change.told()
                        spoke_at = time.monotonic()
                if time.monotonic() - spoke_at >= SILENCE:
                    yield KEEPALIVE_COMMENT
                    spoke_at = time.monotonic()
        finally:
            self._listeners.discard(something)
            if not self._listeners and self._poll is not None:
                self._poll.cancel()
                self._poll, self._changes = None, Changes()

    def close(self) -> None:
        """Ends all streams, as the server is to end; called from anywhere."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._over = True
        for something in self._listeners:
            something.set()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            now = await self._look()
            if now is None:
                continue
            for kind, outline in difference(self._known, now):
                self._changes.add(kind, outline)
            if self._known != now:
                for something in self._listeners:
                    something.set()
            self._known = now

    async def _look(self) -> dict[str, Outline] | None:
        """How all jobs stand; None while the database is away."""
        with suppress(JobError):
            now = await run_in_threadpool(self._outlines)
            # Those that are as they were are kept, and the new ones freed together, for they would hold pages among others'.
            return {one.uid: known if (known := self._known.get(one.uid)) == one else one for one in now}
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
