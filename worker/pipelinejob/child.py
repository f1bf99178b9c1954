"""The process that runs rows: `python -m pipelinejob.child`, started by a parent, without credentials.

It reads one JSON object a line from its standard input (first the job, then tasks) and answers with one a line. It
ends when its input ends, at once, whatever it is doing: so it never outlives its parent.
"""

from __future__ import annotations

import fcntl
import gc
import json
import mmap
import os
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipelinejob import sandbox
from pipelinejob.batch import DECODE, BatchRunner, InputChangedError, Task
from pipelinejob.storage import is_transient

_MARK = struct.Struct("=qqd")  # row, position of the function, when it began (monotonic seconds)
IDLE = -1


def main() -> None:
    """Runs tasks until the input ends."""
    sandbox.die_with_parent()
    sandbox.adopt_forks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    lines, answers = _private_pipes()
    job = json.loads(lines.readline())
    folder = Path(job["folder"])
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    try:
        folder.mkdir()
        mark = Mark(Path(job["mark"]), create=True)
    except OSError as error:  # no room, or the round is over
        _answer(answers, _storage(error))
        return
    try:
        threading.Thread(target=_read_tasks, args=(lines, tasks), daemon=True).start()
        runner = BatchRunner(job, folder, mark.set)
    except Exception as error:  # a function that cannot be loaded: the parent says so
        _answer(answers, _storage(error) if is_transient(error) else {"fatal": f"{type(error).__name__}: {error}"})
        return
    sandbox.limit_memory(job["share"])
    _answer(answers, {"ready": os.getpid()})
    gc.collect()
    gc.freeze()  # what is loaded stays: no need to look at it again and again
    while True:
        task = Task(**json.loads(tasks.get()))
        answer = _run(runner, task)
        sandbox.end_forks()
        _answer(answers, answer)
        mark.rest()


def _run(runner: BatchRunner, task: Task) -> dict[str, Any]:
    began = time.time()
    try:
        summary = runner.run(task)
    except InputChangedError as error:
        return {"changed": str(error)}
    except OSError as error:
        return _storage(error)
    except Exception:
        return {"bug": traceback.format_exc(), "first_row": task.first_row}
    counts = {"rows": task.to_run, "succeeded": summary["succeeded"], "failed": summary["failed"]}
    return {"done": task.first_row, **counts, "began": began, "ended": time.time()}


def _storage(error: BaseException) -> dict[str, Any]:
    assert isinstance(error, OSError)
    return {"storage": [error.errno, error.strerror or str(error), error.filename]}


class Mark:
    """A few bytes of shared memory that say which row and function a child is at, readable after its death.

    Three aligned words, each stored at once. The time goes first: whatever a reader sees in between, no step looks
    older than it is (struct.pack_into clears its target first, and a time of 0 was once taken for a hang).
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_CLOEXEC, 0o600)
        try:
            if create:
                os.write(descriptor, _MARK.pack(IDLE, DECODE, time.monotonic()))
                with suppress(OSError):  # some network file systems have no locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)  # for as long as we live: the memory below keeps it
            self._memory = mmap.mmap(descriptor, _MARK.size)
        finally:
            os.close(descriptor)
        view = memoryview(self._memory)
        self._integers, self._times = view.cast("q"), view.cast("d")

    def set(self, row: int, position: int) -> None:
        """Notes that this step of this row begins now."""
        self._times[2] = time.monotonic()
        self._integers[1] = position
        self._integers[0] = row

    def rest(self) -> None:
        """Notes that no row is being run. Half of it may be read: a row with a position that every job has, also one without functions."""
        self.set(IDLE, DECODE)

    def get(self) -> tuple[int, int, float]:
        """(row or IDLE, position, when it began)."""
        return self._integers[0], self._integers[1], self._times[2]


def left_by_dead(path: Path) -> tuple[int, int] | None:
    """The (row or IDLE, position) in the mark of a process that is dead; None when it lives, or left nothing to read."""
    try:
        with open(path, "rb+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError:  # no locks here: Kubernetes starts a pod when the last one of its shard has gone
                pass
            row, position, _ = _MARK.unpack(file.read(_MARK.size))
    except (OSError, struct.error):
        return None
    return row, position


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Takes over standard input and output for the protocol; what functions print goes to standard error."""
    lines = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return lines, answers


def _read_tasks(lines: BinaryIO, tasks: queue.SimpleQueue[bytes]) -> None:
    for line in lines:
        tasks.put(line)
    os._exit(0)  # the parent is gone, or done with us


def _answer(answers: BinaryIO, message: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
