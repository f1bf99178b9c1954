"""Storage that fails for a while, as a full disk or a file server that is away: waited for like a database that is away."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pipelinejob.reasons import JobError, JobReason

T = TypeVar("T")

_PATIENCE = "PIPELINEJOB_PATIENCE"
_ROOM = {errno.ENOSPC: "no room is left", errno.EDQUOT: "the quota is used up"}
_AWAY = {errno.EIO, errno.ESTALE, errno.EROFS, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EREMOTEIO}
ON_A_LAPTOP = "then run the same command to go on"
IN_A_POD = "the pod is tried again"


class StorageError(JobError):
    """Storage failed for longer than is waited for; nothing is lost, and what is left can be run when it is well again."""

    def __init__(self, error: OSError, advice: str) -> None:
        what = "make room" if error.errno in _ROOM else "mend the storage"
        super().__init__(JobReason.SHARDS_FAILED, f"{_told(error)}: {what}, {advice}")


def is_transient(error: BaseException) -> bool:
    """Whether it is the storage that failed: nothing is known about the file then, and later it may go well."""
    return isinstance(error, OSError) and (error.errno in _ROOM or error.errno in _AWAY)


def patience_of_a_run() -> float:
    """Seconds that a run waits for a database or storage before it ends.

    Raises:
        JobError: InvalidSpec, when PIPELINEJOB_PATIENCE is no number.
    """
    return seconds_from(_PATIENCE, 600.0)


def seconds_from(variable: str, default: float) -> float:
    """What an environment variable says.

    Raises:
        JobError: InvalidSpec, when it is no number.
    """
    text = os.environ.get(variable) or str(default)
    try:
        return float(text)
    except ValueError:
        raise JobError(JobReason.INVALID_SPEC, f"{variable}: expected a number of seconds, found {text!r}") from None


def is_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        OSError: the storage fails.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        if is_transient(error):
            raise
        return False


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors of reading and writing through a descriptor do not say which file it was: now they do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise


class Storage:
    """Does work again until storage is well; that it waits is told once per outage, and that it goes on.

    Args:
        say: tells a person.
        advice: what becomes of the job when storage fails for too long.
        patience: for how many seconds nothing at all may get stored.
    """

    def __init__(self, say: Callable[[str], None], advice: str = ON_A_LAPTOP, patience: float | None = None) -> None:
        self._say, self._advice = say, advice
        self._patience = patience_of_a_run() if patience is None else patience
        self._failing_since: float | None = None

    def patiently(self, work: Callable[[], T]) -> T:
        """Does work that can be done again from its start.

        Raises:
            StorageError: it fails for too long.
        """
        import stamina  # noqa: PLC0415 - the children need the rest of this module, and should start soon

        try:
            for attempt in stamina.retry_context(on=self._is_away, attempts=None, timeout=None, wait_initial=0.5, wait_max=10.0):
                with attempt:
                    result = work()
                    self.works()
                    return result
        except OSError as error:
            if is_transient(error):
                raise StorageError(error, self._advice) from error
            raise
        raise AssertionError("unreachable: the retries end by a result or an exception")

    def works(self) -> None:
        """Something was stored: the outage is over, if there was one."""
        if self._failing_since is not None:
            self._failing_since = None
            self._say("the storage works again: going on")

    def _is_away(self, error: Exception) -> bool:
        if not isinstance(error, OSError) or not is_transient(error):
            return False
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            self._say(f"{_told(error)}: waiting up to {self._patience:g} s for it")
        return time.monotonic() - self._failing_since < self._patience


def _told(error: OSError) -> str:
    what = _ROOM.get(error.errno or 0, "the storage fails")
    return f"{what} ({error.strerror}{f': {error.filename}' if error.filename else ''})"
