"""Following a job to its end: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from pipelinejob_kubectl import view
from pipelinejob_kubectl.errors import DOCTOR, ApiError, NoAnswerError, PluginError
from pipelinejob_kubectl.jobs import has_ended, phase_of
from pipelinejob_kubectl.kube import Kube, Object

EVERY = 1.0  # seconds; a status is written every two at most
PLAIN_EVERY = 5.0  # seconds between lines where there is no terminal
UNSEEN = 15.0  # seconds without a word of the operator, after which somebody should look
PATIENCE = 120.0  # seconds that the API server may be away


def follow(kube: Kube, path: str, uid: str, show: Callable[[Object], None], tell: Callable[[str], None]) -> Object:
    """Looks at a job until it has ended, and returns it.

    Args:
        kube: the cluster.
        path: of the job.
        uid: of the job: another one of that name is not followed.
        show: is given the job as it stands, about once a second.
        tell: is given what else a person should know.

    Raises:
        PluginError: it was deleted, or the API server is away for long.
    """
    away_since: float | None = None
    unseen_since: float | None = time.monotonic()
    told = ""
    while True:
        try:
            job = kube.call("GET", path)
            away_since, told = None, ""
        except NoAnswerError as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE:
                raise
            if error.message != told:
                tell(f"{error.message} (asking again for {PATIENCE:.0f} s)")
                told = error.message
            time.sleep(EVERY * 2)
            continue
        except ApiError as error:
            if error.status == 404:
                raise _deleted(path) from None
            if error.status < 500 and error.status != 429:
                raise
            time.sleep(EVERY * 2)
            continue
        if job["metadata"]["uid"] != uid:
            raise _deleted(path)
        show(job)
        if (job.get("status") or {}).get("conditions"):
            unseen_since = None
        elif unseen_since is not None and time.monotonic() - unseen_since > UNSEEN:
            tell(f"the operator has not taken this job on for {UNSEEN:.0f} s: {DOCTOR}")
            unseen_since = None
        if has_ended(job):
            return job
        time.sleep(EVERY)


def _deleted(path: str) -> PluginError:
    return PluginError("Deleted", f"the PipelineJob {path.rpartition('/')[2]!r} was deleted meanwhile; its output stays on its claim")


@contextmanager
def display(*, quiet: bool) -> Iterator[tuple[Callable[[Object], None], Callable[[str], None]]]:
    """(show, tell) for `follow`: both go to standard error, for the end is told on standard output.

    Args:
        quiet: no live view, as for programs.
    """
    console = Console(stderr=True)
    if console.is_terminal and not quiet:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            yield lambda job: live.update(view.whole(job), refresh=True), lambda message: live.console.print(message, markup=False)
        return
    plain = _Plain(console)
    yield plain.show, view.tell


class _Plain:
    """A line at each change of the phase, and every five seconds while something changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase, self._line, self._at = "", "", 0.0

    def show(self, job: Object) -> None:
        line, phase, now = view.line(job), phase_of(job), time.monotonic()
        if phase != self._phase or (line != self._line and now - self._at >= PLAIN_EVERY):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._phase, self._line, self._at = phase, line, now
