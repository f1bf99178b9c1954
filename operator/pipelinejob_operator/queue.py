"""The queue of the reconcile loop: each key at most once in it, at most one task at a key, failures wait longer each time."""

from __future__ import annotations

import asyncio
import heapq
import random
from itertools import count

Key = tuple[str, str]  # (namespace, name) of a PipelineJob
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds after a failure


class Queue:
    """Keys that want a look, the earliest first."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._number = count()
        self._taken: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, delay: float = 0) -> None:
        """Wants a look at a key in `delay` seconds; an earlier wish stands."""
        due = asyncio.get_running_loop().time() + delay
        if key in self._taken:
            self._again[key] = min(due, self._again.get(key, due))
        elif due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._number), key))
            self._changed.set()

    async def take(self) -> Key:
        """Waits for the next key; it is the caller's until `done`."""
        while True:
            now = asyncio.get_running_loop().time()
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)  # an earlier wish took its place, or it was taken
            if self._heap and self._heap[0][0] <= now:
                key = heapq.heappop(self._heap)[2]
                del self._due[key]
                self._taken.add(key)
                return key
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), self._heap[0][0] - now if self._heap else None)
            except TimeoutError:
                continue

    def done(self, key: Key, *, failed: bool = False) -> None:
        """Gives a key back; what came in meanwhile is due, and a failure is tried again after a while."""
        self._taken.discard(key)
        if failed:
            times = self._failures[key] = self._failures.get(key, 0) + 1
            wait = min(FIRST_WAIT * 2 ** min(times - 1, 10), LONGEST_WAIT)
            self._again.pop(key, None)  # the next try sees whatever came in
            self.add(key, wait * random.uniform(0.5, 1))
            return
        self._failures.pop(key, None)
        if key in self._again:
            self.add(key, max(0.0, self._again.pop(key) - asyncio.get_running_loop().time()))
