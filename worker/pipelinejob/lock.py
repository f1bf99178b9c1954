"""One lock per job: held by the processes of a run, parent and children, and gone when the last of them is."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from pipelinejob.reasons import JobError, JobReason

CHILDREN_END_WITHIN = 10.0  # seconds; they need one


class JobLock:
    """The lock file in a job's output folder; children inherit `descriptor` and so hold it, too."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._take()
        except BaseException:
            os.close(self.descriptor)
            raise

    def _take(self) -> None:
        """Takes the lock; waits only for children whose parent has died.

        Raises:
            JobError: InvalidSpec, naming the process that runs the job.
        """
        give_up = time.monotonic() + CHILDREN_END_WITHIN
        while not _try(self.descriptor):
            pid = holder(self._path)
            if (pid is not None and _is_running(pid)) or time.monotonic() > give_up:
                raise JobError(
                    JobReason.INVALID_SPEC,
                    f"{self._what} is being run by process {pid}: wait for it, or stop it (kill {pid}) and run again",
                )
            time.sleep(0.1)
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets go of it; children that still live hold it on."""
        os.close(self.descriptor)


def holder(path: Path) -> int | None:
    """The process that took the lock last."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def is_held(path: Path) -> bool:
    """Whether a run holds this lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
