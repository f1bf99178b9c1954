"""How fast rows get done, and how often a status may be written: the little that is remembered between looks."""

from __future__ import annotations

import time
from collections import deque

WINDOW = 30.0  # seconds over which the rate is taken


class Pace:
    """Per job: samples of its progress, and when its status was last written."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        self._written: dict[str, float] = {}

    def rate(self, uid: str, done: int) -> float | None:
        """Rows a second over the last half minute, `done` being the rows done by now; None while it cannot be told.

        It becomes 0 when nothing was done for that long.
        """
        now = time.monotonic()
        samples = self._samples.setdefault(uid, deque())
        if not samples or samples[-1][1] != done:
            samples.append((now, done))
        while len(samples) > 2 and now - samples[1][0] > WINDOW:
            samples.popleft()
        (first, before), (last, _) = samples[0], samples[-1]
        if now - last > WINDOW:
            return 0.0
        return (done - before) / (last - first) if last > first else None

    def wait_to_write(self, uid: str, interval: float) -> float:
        """Seconds until the status may be written again; 0 or less when it may now."""
        return self._written.get(uid, float("-inf")) + interval - time.monotonic()

    def written(self, uid: str) -> None:
        """The status was written just now."""
        self._written[uid] = time.monotonic()

    def forget(self, uid: str) -> None:
        """The job is gone."""
        self._samples.pop(uid, None)
        self._written.pop(uid, None)
