"""How many pods each job may run at once, so that all together stay within what the database bears."""

from __future__ import annotations

from collections.abc import Mapping

from pipelinejob.reasons import Phase
from pipelinejob.store import Job
from pipelinejob_operator.diagnose import Problem


class Grants:
    """What running jobs have, first come first served.

    Args:
        most: pods of all jobs together; 0: no limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._granted: dict[str, int] = {}

    def resume(self, running: Mapping[str, int]) -> None:
        """After a start: the pods of each job, by uid, that an operator before gave out."""
        self._granted = dict(running)

    def grant(self, job: Job, wanted: int) -> int:
        """The pods that this job may run at once, up to `wanted`; they are its own until it stops running."""
        if job.phase not in (Phase.PENDING, Phase.RUNNING) or job.stop is not None or job.spec["mode"] == "plan":
            self.release(job.uid)
            return wanted
        granted = wanted
        if self._most:
            others = sum(granted for uid, granted in self._granted.items() if uid != job.uid)
            granted = max(0, min(granted, self._most - others))
        self._granted[job.uid] = granted
        return granted

    def release(self, uid: str) -> None:
        """The job runs no more."""
        self._granted.pop(uid, None)

    def held_back(self, wanted: int, granted: int) -> Problem | None:
        """What to tell of a job that got less than it asked for."""
        if granted >= wanted:
            return None
        return Problem(
            "DatabaseConnections",
            f"held to {granted} of {wanted} pods: all jobs together may have {self._most} (the chart's database.maxWorkers); "
            "it gets more as others end, or with a pooler before the database",
        )
