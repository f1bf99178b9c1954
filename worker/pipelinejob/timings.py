"""How long the steps of rows take: counted in buckets by the processes that run them, and kept with each batch."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

BOUNDS = tuple(4.0**exponent for exponent in range(-6, 5))  # seconds: from 0.24 ms to 256
READ, WRITE, WHOLE, PLANES = -1, -2, -3, -4  # the steps that are no function, by their positions
_NAMES = {READ: "(read)", WRITE: "(write)", WHOLE: "(batch)"}


class Timing(NamedTuple):
    """The calls of one step that took about as long as each other.

    Args:
        position: of the function in the chain, or READ, WRITE, WHOLE (a batch from its first row to its last), or PLANES (a JPEG
            through the whole chain at once, reading and writing included).
        bucket: the index of the first of BOUNDS that it did not exceed; len(BOUNDS) for none.
        calls: how many.
        seconds: all of them together.
    """

    position: int
    bucket: int
    calls: int
    seconds: float


class Stopwatch:
    """What one process spends on the steps of a batch; a step lasts until the next one begins."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._since, self._position = self._began, 0
        self._runs = False
        self._before = 0, 0.0
        self._cells: dict[tuple[int, int], list[float]] = {}

    def step(self, position: int) -> None:
        """The step at this position begins now."""
        self.rest()
        self._since, self._position, self._runs = time.perf_counter(), position, True

    def resume(self) -> None:
        """The step before goes on: what runs now was in vain, and is not counted."""
        position, seconds = self._before
        cell = self._cells[position, bisect_left(BOUNDS, seconds)]
        cell[0] -= 1
        cell[1] -= seconds
        self._since, self._position = time.perf_counter() - seconds, position

    def rest(self) -> None:
        """No step runs."""
        if self._runs:
            self._add(self._position, time.perf_counter() - self._since)
            self._runs = False

    def _add(self, position: int, seconds: float) -> None:
        self._before = position, seconds
        cell = self._cells.setdefault((position, bisect_left(BOUNDS, seconds)), [0, 0.0])
        cell[0] += 1
        cell[1] += seconds

    def stop(self) -> list[Timing]:
        """The batch is done: all there was, in order."""
        self.rest()
        self._add(WHOLE, time.perf_counter() - self._began)
        return [Timing(*key, int(calls), round(seconds, 6)) for key, (calls, seconds) in sorted(self._cells.items()) if calls]


def step_name(position: int, functions: Sequence[str]) -> str:
    """What people call a step.

    Args:
        position: as in Timing.
        functions: the names of the chain's functions.
    """
    if position == PLANES:
        return " + ".join(functions)
    return _NAMES.get(position) or functions[position]


class Share(NamedTuple):
    """What a step took of the time of a job's processes: 0 to 1; how often it ran; seconds of a call on average."""

    step: str
    share: float
    calls: int
    mean: float


def shares(timings: Iterable[Timing], functions: Sequence[str]) -> list[Share]:
    """Where the time of a job went, in the order of the chain: reading, its functions, writing.

    Args:
        timings: of its batches.
        functions: the names of its functions.
    """
    found: dict[int, list[float]] = {}
    for one in timings:
        if one.position != WHOLE:
            cell = found.setdefault(one.position, [0, 0.0])
            cell[0] += one.calls
            cell[1] += one.seconds
    whole = sum(seconds for _, seconds in found.values()) or 1.0
    order = sorted(found, key=lambda position: (position == WRITE, position != READ, position))
    return [Share(step_name(at, functions), found[at][1] / whole, int(found[at][0]), found[at][1] / found[at][0]) for at in order]
