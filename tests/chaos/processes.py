"""Looking at processes and ending them, each by its own pid."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from chaos.play import NotNowError

CHILD = b"pipelinejob.child"


def pick(victims: Sequence[int], share: float) -> int:
    """One of them.

    Raises:
        NotNowError: there is none.
    """
    if not victims:
        raise NotNowError
    return sorted(victims)[int(share * len(victims))]


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Signals those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def children(parent: int) -> list[int]:
    """The processes of a run that run rows."""
    found = []
    with suppress(OSError):
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if CHILD in command(int(pid)):
                found.append(int(pid))
    return found


def command(pid: int) -> bytes:
    """Its command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """Whether it runs, or is stopped; not a process that has ended and waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
