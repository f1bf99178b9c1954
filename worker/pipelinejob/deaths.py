"""The rows at which earlier processes of a job died, as their marks still say: the memory of a run that was killed whole.

A pod that runs out of memory ends with all its processes, and the next one begins anew; their marks stay on the volume.
A mark is known to be of a dead process by the lock that a living one holds on it. That a mark is in the system's cache
of files only, and not on the disk, is enough: that cache dies with the machine alone, and then no row was at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelinejob.batch import DECODE, ENCODE, SEVERAL, Task
from pipelinejob.child import IDLE, left_by_dead
from pipelinejob.reasons import RowReason

DEATHS_OF_A_ROW = 3  # and it is not run again; no more than the retries of a shard by default


class Deaths(NamedTuple):
    """How often processes died at a row, and at which function the last of them; deaths in a call for several rows do not count."""

    times: int
    position: int


def read_deaths(marks: Path) -> dict[int, Deaths]:
    """What the marks in a folder say, by row."""
    found: dict[int, Deaths] = {}
    for path in sorted(marks.iterdir()):
        row, position = left_by_dead(path) or (IDLE, DECODE)
        if row != IDLE:
            times = found[row].times if row in found else 0
            found[row] = Deaths(times + (position < SEVERAL), position % SEVERAL if position >= 0 else position)
    return found


def set_aside(
    tasks: Callable[[], Iterable[Task]], deaths: Mapping[int, Deaths], doom: Callable[[Deaths], list[str]]
) -> tuple[Iterator[Task], list[Task]]:
    """Parts the batches in which processes died from all others.

    A process that died with all others of its run may have died of any row that one of them was at. So these batches run
    last, one at a time: whatever the run is killed at then is to blame, and the rest is done before.

    Args:
        tasks: gives all batches, each time it is called.
        deaths: by row.
        doom: what to note for a row with enough of them: [reason, function, message].

    Returns:
        (the others, those set aside): the most deaths first, so that each three of a row get the run on; rows with enough
        of them are not to be run.
    """
    aside: dict[int, tuple[int, Task]] = {}
    for task in tasks() if deaths else ():
        at = {row: deaths[row] for row in deaths if task.first_row <= row < task.first_row + task.rows}
        if at:
            doomed = {str(row): doom(each) for row, each in at.items() if each.times >= DEATHS_OF_A_ROW}
            most = max(each.times for each in at.values())
            aside[task.first_row] = most, task._replace(doomed=doomed, singly=True)
    others = (task for task in tasks() if task.first_row not in aside)
    return others, [task for _, task in sorted(aside.values(), key=lambda item: (-item[0], item[1].first_row))]


def doom_of(job: Mapping[str, Any], position: int, message: str, reason: RowReason = RowReason.FUNCTION_ERROR) -> list[str]:
    """What is noted for a row that is not to be run again: [reason, name of the function or "", message]."""
    name = "" if position in (DECODE, ENCODE) else str(job["functions"][position]["name"])
    return [reason.value, name, message]
