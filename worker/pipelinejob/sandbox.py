"""What a process that runs users' code may have: memory, an environment, processes of its own; Linux alone keeps most of it.

It ends with its parent, whatever it is doing; what it forks ends with the batch; memory beyond its share is refused.
Files and the network are the container's to guard: on one machine, a function may do what its user may.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from pipelinejob import costs

PARENT = "PIPELINEJOB_PARENT"  # the environment variable with the parent's pid
OUT_OF_MEMORY = 77  # the exit code of a process that was refused memory
ROOM = 64 << 20  # bytes that a process may always have beside what it has when it has loaded
_MEMORY = "PIPELINEJOB_PROCESS_MEMORY"  # the environment variable with the MiB of a process that runs rows
_SECRETS = ("PIPELINEJOB_DATABASE_URL", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_PDEATHSIG, _DUMPABLE, _CHILD_SUBREAPER = 1, 4, 36  # of prctl
_LINUX = sys.platform == "linux"
_room: tuple[int, int] | None = None  # bytes mapped when all was loaded, and at most


def environment() -> dict[str, str]:
    """Our environment as processes may see it that run users' code: without what leads to the database, or opens a collector of traces."""
    return {key: value for key, value in os.environ.items() if key not in _SECRETS and not key.startswith("PG")}


def hide() -> None:
    """Keeps processes of the same user from reading our environment and memory."""
    _prctl(_DUMPABLE, 0)


def die_with_parent() -> None:
    """Asks for a SIGKILL when the parent dies: also where a function holds the interpreter for ever."""
    _prctl(_PDEATHSIG, signal.SIGKILL)
    if _LINUX and os.getppid() != int(os.environ[PARENT]):
        os._exit(0)  # it died before we asked


def adopt_forks() -> None:
    """From now on what our children leave behind is ours, so that we can end it."""
    _prctl(_CHILD_SUBREAPER, 1)


def end_forks() -> None:
    """Kills all processes that came of this one; one system call where there are none."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not _LINUX:
            return
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def share_of_each(count: int) -> int:
    """The bytes that each of `count` processes may use: as the environment says, else of the container's memory, else of the machine's."""
    if said := os.environ.get(_MEMORY):
        return int(said) << 20
    return costs.memory_of_each(count) or costs.memory_of_machine(count)


def limit_memory(share: int | None) -> None:
    """Refuses memory beyond `share` bytes, for all that this process holds, with a MemoryError; None: no limit."""
    global _room  # noqa: PLW0603 - a limit of the process, as the system has it
    if share is None or not _LINUX:
        return
    loaded = _memory("VmData")
    most = loaded + max(ROOM, share - _memory("VmRSS"))  # much of what is mapped at a start is never used
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    _room = loaded, most


def end_if_full() -> None:
    """After memory was refused: ends this process if most of its share stays taken by what earlier rows left.

    Then a new one runs the batch again; else the row itself asked for too much.
    """
    if _room is None:
        return
    gc.collect()
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    loaded, most = _room
    if _memory("VmData") - loaded > (most - loaded) // 2:
        os._exit(OUT_OF_MEMORY)


def _memory(key: str) -> int:
    """Bytes of this process, by the kernel's name for them."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.findall(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)[0])


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir() if _LINUX else ():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
