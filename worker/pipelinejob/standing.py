"""What the ledger's phase does not say of a job of this machine: whether a process works on it, or nobody does."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pipelinejob.commit import OURS
from pipelinejob.lock import holder, is_held
from pipelinejob.model import Rows
from pipelinejob.reasons import ENDS, Phase
from pipelinejob.store import Job


class Standing(StrEnum):
    """Who works on a job."""

    ENDED = "ended"
    SUSPENDED = "suspended"
    RUNNING = "running"  # a process does
    WAITING = "waiting"  # nobody began with it, or goes on with it, yet
    INTERRUPTED = "interrupted"  # the process that did is gone


def standing(job: Job) -> Standing:
    """Who works on a job now."""
    if job.phase in ENDS:
        return Standing.ENDED
    if job.phase == Phase.SUSPENDED:
        return Standing.SUSPENDED
    if is_running(job):
        return Standing.RUNNING
    return Standing.WAITING if job.phase == Phase.PENDING else Standing.INTERRUPTED


def is_running(job: Job) -> bool:
    """Whether a process works on the job."""
    return is_held(_lock(job))


def note(job: Job) -> str | None:
    """What to add to a phase that was left behind by a process that died, or that is being worked on."""
    match standing(job):
        case Standing.RUNNING:
            return f"running as process {holder(_lock(job))}"
        case Standing.WAITING:
            return f"waiting for its turn: 'pipelinejob serve' begins with it, or 'pipelinejob resume {job.name}' now"
        case Standing.INTERRUPTED:
            return interrupted_message(job.rows)
        case _:
            return job.message


def interrupted_message(rows: Rows) -> str:
    """What a person is told about a job that stopped before its end."""
    return f"interrupted at row {rows.total - rows.pending} of {rows.total}: run the same command to go on"


def suspended_message(job: Job, rows: Rows) -> str:
    """What a person is told about a job that rests."""
    command = "the same redrive command" if job.root_uid is not None else f"'pipelinejob resume {job.name}'"
    return f"suspended at row {rows.total - rows.pending} of {rows.total}: {command} goes on"


def _lock(job: Job) -> Path:
    return Path(job.output_root) / job.output / OURS / "lock"
