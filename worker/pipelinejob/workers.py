"""The children of a run: starting them, feeding them batches, and what to do when one dies or hangs.

A row that kills the process it runs in costs itself, and nothing else: the batch runs again in a new process, and a
row at which processes died three times, or a function overran its time, is failed there without being run. Deaths in
runs that were killed whole, the parent too, count with them (deaths.py).
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipelinejob import costs, names, sandbox
from pipelinejob.batch import DECODE, ENCODE, SEVERAL, Task
from pipelinejob.child import IDLE, Mark
from pipelinejob.commit import RoundClosedError
from pipelinejob.deaths import DEATHS_OF_A_ROW, Deaths, doom_of, read_deaths, set_aside
from pipelinejob.reasons import JobError, JobReason, RowReason
from pipelinejob.storage import is_transient, seconds_from

AHEAD = 2  # batches a child has in hand: the one it runs, and the next
DEATHS_WITHOUT_PROGRESS = 10
STEP_TIMEOUT = 300.0  # seconds for decoding or encoding one image
START_TIMEOUT = "PIPELINEJOB_START_TIMEOUT"  # the variable with the seconds in which a process has loaded its functions
_NOT_READY = (
    "a worker process has not loaded its functions after {:g} s: what runs when a file is loaded, or in the __init__ of a class, hangs; "
    f"if it is only slow, set {START_TIMEOUT}"
)
MAX_BACKLOG = 40  # finished batches that may wait for the database before no new one is started
# glibc gives the memory of each large picture back and asks for it anew: 1 ms of page faults a photograph.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
MAX_PRINTED = 64 << 10  # bytes that are kept of what is printed during a batch


class HopelessError(JobError):
    """The work cannot be done, however often it is tried: a function that cannot be loaded, a mistake of ours."""


class Child:
    """One process that runs rows, with the batches it has in hand."""

    def __init__(self, job: Mapping[str, Any], round_folder: Path, marks: Path, lock: int | None) -> None:
        attempt = uuid.uuid4().hex
        self.folder, self._mark_path = round_folder / attempt, marks / attempt
        environment = sandbox.environment()
        environment[sandbox.PARENT] = str(os.getpid())
        environment["PYTHONUTF8"] = "1"  # file names are UTF-8 whatever the locale is
        for name, value in MALLOC.items():
            environment.setdefault(name, value)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipelinejob.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,
            pass_fds=() if lock is None else (lock,),  # a new run of the job waits until this process has ended, too
        )
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        self._input, self.output, self.printed = self.process.stdin, self.process.stdout, self.process.stderr
        os.set_blocking(self.output.fileno(), False)
        os.set_blocking(self.printed.fileno(), False)
        self.unkept, self._kept = 0, 0  # bytes printed during this batch
        self.tasks: deque[Task] = deque()
        self._rest = b""
        self._mark: Mark | None = None
        self.started_at, self.ready = time.monotonic(), False
        self.overran: str | None = None  # the message, once it was killed for running too long
        self._send({**job, "attempt": attempt, "folder": str(self.folder), "mark": str(self._mark_path)})

    def give(self, task: Task) -> None:
        """Hands it a batch."""
        self.tasks.append(task)
        self._send(task._asdict())

    def answers(self) -> tuple[list[dict[str, Any]], bool]:
        """What it has answered since the last call, and whether it has ended."""
        try:
            data = os.read(self.output.fileno(), 1 << 20)
        except BlockingIOError:
            return [], False
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines], not data

    def prints(self) -> bytes:
        """What it has printed since the last call, as far as it is kept."""
        try:
            data = os.read(self.printed.fileno(), 1 << 20)
        except BlockingIOError:
            return b""
        kept = data[: MAX_PRINTED - self._kept]
        self._kept += len(kept)
        self.unkept += len(data) - len(kept)
        return kept

    def keep_again(self) -> bytes:
        """A new batch: what it prints is kept again; returns a line about what was not."""
        line = f"... {self.unkept} bytes more were printed, and are not kept\n".encode() if self.unkept else b""
        self.unkept = self._kept = 0
        return line

    def at(self) -> tuple[int, int, float]:
        """(row or IDLE, position of the function, when it began), as last noted by the child."""
        if self._mark is None:
            try:
                self._mark = Mark(self._mark_path)
            except (FileNotFoundError, ValueError):
                return IDLE, DECODE, time.monotonic()
        return self._mark.get()

    def await_end(self) -> None:
        """Gives it a moment to end by itself, so that its exit code is its own and not that of our kill."""
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return

    def kill(self) -> None:
        """Kills it with all that it has forked."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def end(self) -> None:
        """Kills it, if it still runs, and frees what it held."""
        self.kill()
        self.process.wait()
        try:
            self._input.close()
        except BrokenPipeError:
            self._input = self.output
        self.output.close()
        self.printed.close()

    def dismiss(self) -> None:
        """Ends it by our own will: no row is to blame."""
        self.end()
        self._mark_path.unlink(missing_ok=True)

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._input.write(json.dumps(message).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            return  # it has died: its end of file on the other pipe says so


class Workers:
    """Runs batches in child processes until there are none left, or until told to stop.

    Args:
        job: what a child is told of the job (see BatchRunner).
        round_folder: where the attempt folders go.
        marks: where processes note the row that they are at; those of earlier runs of the same rows are there, too.
        whole: what is killed when not one process dies, but this one with all others: a pod, or a run.
        count: how many processes.
        timeouts: seconds allowed for each function, by position.
        log: where the children's standard error goes; None: where ours goes.
        lock: the descriptor of the job's lock, which they hold as long as they live; None: there is none.
        finished: called with (batch, attempt folder, what its process says of it) for each finished batch.
        say: told what a person should know.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        round_folder: Path,
        marks: Path,
        *,
        whole: str,
        count: int,
        timeouts: list[float],
        log: Path | None,
        lock: int | None,
        finished: Callable[[Task, Path, Mapping[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self._job: Mapping[str, Any] = {**job, "memory": costs.memory_of_each(count), "share": sandbox.share_of_each(count)}
        self._start_timeout = seconds_from(START_TIMEOUT, 600.0)
        self._round_folder, self._marks, self._whole, self._count, self._timeouts = round_folder, marks, whole, count, timeouts
        self._log_path, self._lock, self._finished, self._say = log, lock, finished, say
        self._log = open(log, "ab") if log else None  # noqa: SIM115 - closed by stop()
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._attempts: list[Path] = []
        self._again: deque[Task] = deque()
        self._deaths: dict[int, Deaths] = read_deaths(marks)
        self._alone = False  # whether one process runs, and no other
        self._deaths_in_a_row = 0

    def start(self) -> None:
        """Starts the processes; they load while the caller goes on."""
        self.resize(self._count)

    def resize(self, count: int) -> None:
        """From now on this many processes; those that are too many end what they have in hand."""
        self._count = count
        while len(self._children) < self._most:
            self._start_child()

    def run(self, tasks: Callable[[], Iterator[Task]], check: Callable[[], tuple[bool, bool]]) -> None:
        """Runs all tasks, those last and one at a time in which processes died before.

        Args:
            tasks: gives all that are left to run, each time it is called.
            check: asked several times a second for (may take new batches, must end now).

        Raises:
            JobError: InputChanged, or ShardsFailed when the processes cannot do the work (a HopelessError: nor can others).
            OSError: storage fails, and may be well later.
            RoundClosedError: the round is over.
        """
        others, aside = set_aside(tasks, self._deaths, self._doom_of_earlier)
        if aside:
            rows = ", ".join(
                str(row) for task in aside for row in sorted(self._deaths) if task.first_row <= row < task.first_row + task.rows
            )
            self._say(f"earlier processes died at row {rows}: each of these batches runs by itself, after all others")
        self._run_all(others, check)
        self._alone = True
        self._run_all(iter(aside), check)

    def _run_all(self, tasks: Iterator[Task], check: Callable[[], tuple[bool, bool]]) -> None:
        while True:
            may_take, must_end = check()
            if must_end:
                return
            if may_take:
                self._feed(tasks)
            if may_take and not any(child.tasks for child in self._children) and self._nothing_left(tasks):
                return
            for key, _ in self._selector.select(timeout=0.2):
                if not key.fileobj.closed:  # type: ignore[union-attr]  # a child may have ended at what was heard just before
                    key.data()
            self._kill_overrunning()
            self._end_surplus()

    def stop(self) -> None:
        """Kills all processes."""
        for child in self._children:
            self._take_prints(child)
            self._forget(child)
            child.dismiss()
        self._children.clear()
        self._selector.close()
        if self._log:
            self._log.close()

    def clear(self) -> None:
        """Removes what is left of their attempts, where nobody takes it up."""
        for folder in self._attempts:
            shutil.rmtree(folder, ignore_errors=True)  # finalize does it again

    def _feed(self, tasks: Iterator[Task]) -> None:
        for ahead in range(AHEAD):  # breadth first: every child has one before any has two
            for child in self._children[: self._most]:
                if len(child.tasks) > ahead:
                    continue
                task = self._again.popleft() if self._again else next(tasks, None)
                if task is None:
                    return
                child.give(task)

    def _nothing_left(self, tasks: Iterator[Task]) -> bool:
        if self._again:
            return False
        task = next(tasks, None)
        if task is None:
            return True
        self._again.append(task)
        return False

    def _take_prints(self, child: Child) -> None:
        """Puts what a child prints to the log."""
        while data := child.prints():
            self._write_log(data)

    def _write_log(self, data: bytes) -> None:
        log = self._log or sys.stderr.buffer
        log.write(data)
        log.flush()

    def _hear(self, child: Child, *, is_dead: bool = False) -> None:
        answers, ended = child.answers()
        for answer in answers:
            if "done" in answer:
                task = child.tasks.popleft()
                self._deaths_in_a_row = 0
                self._take_prints(child)
                self._write_log(child.keep_again())
                self._finished(task, child.folder / names.folder(task.first_row), answer)
            elif "ready" in answer:
                child.ready = True
            else:
                raise self._failure(answer)
        if ended or is_dead:
            self._replace(child)

    def _failure(self, answer: Mapping[str, Any]) -> Exception:
        if "changed" in answer:
            return JobError(
                JobReason.INPUT_CHANGED,
                f"the CSV was changed while the job ran: {answer['changed']}; "
                "rows of two files are never mixed: make a new job for the new file",
            )
        if "storage" in answer:
            error = OSError(*answer["storage"])
            if is_transient(error):
                return error
            if not self._round_folder.exists():  # as for a process that stood still until others had ended the job
                return RoundClosedError(str(error))
            return JobError(JobReason.SHARDS_FAILED, f"storage failed ({error}): mend it, and run what is left again")
        text = str(answer.get("fatal") or answer.get("bug")).strip()
        return HopelessError(JobReason.SHARDS_FAILED, f"a worker process could not go on: {text}")

    def _replace(self, child: Child) -> None:
        """A child has died: finds the row it was at, and starts another that runs its batches."""
        row, position, _ = child.at()
        self._take_prints(child)
        self._write_log(child.keep_again())
        self._forget(child)
        self._children.remove(child)
        child.await_end()
        child.end()
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > DEATHS_WITHOUT_PROGRESS:
            raise JobError(
                JobReason.SHARDS_FAILED,
                f"worker processes keep dying ({_how_it_ended(child)}): {self._last_log_line()}",
            )
        tasks = list(child.tasks)
        if tasks and position >= SEVERAL:  # which of them it was, the next death tells
            tasks[0] = tasks[0]._replace(singly=True)
            self._deaths_in_a_row = 0
        elif row != IDLE and tasks and tasks[0].first_row <= row < tasks[0].first_row + tasks[0].rows:
            times = self._deaths[row].times + 1 if row in self._deaths else 1
            self._deaths[row] = Deaths(times, position)
            self._deaths_in_a_row = min(self._deaths_in_a_row, times)
            doom = self._doom(child, row, position)
            if doom:
                tasks[0] = tasks[0]._replace(doomed={**tasks[0].doomed, str(row): doom})
                self._deaths_in_a_row = 0
        where = "its start" if row == IDLE else f"row {row}" if position < SEVERAL else f"row {row} or one after it"
        self._say(f"a worker process died at {where} ({child.overran or _how_it_ended(child)}): its batch runs again in another")
        self._again.extendleft(reversed(tasks))
        if len(self._children) < self._most:
            self._start_child()

    def _doom(self, child: Child, row: int, position: int) -> list[str] | None:
        """[reason, function, message] when this row is not to be tried again."""
        if child.overran is not None:
            return doom_of(self._job, position, child.overran, RowReason.FUNCTION_TIMEOUT)
        if self._deaths[row].times >= DEATHS_OF_A_ROW:
            return doom_of(self._job, position, _how_it_ended(child))
        return None

    def _doom_of_earlier(self, deaths: Deaths) -> list[str]:
        message = f"the process was killed, and the whole {self._whole} with it, {deaths.times} times: most likely it ran out of memory"
        return doom_of(self._job, deaths.position, message)

    @property
    def _most(self) -> int:
        return 1 if self._alone else self._count

    def _end_surplus(self) -> None:
        for child in [child for child in self._children[self._most :] if not child.tasks]:
            self._forget(child)
            self._children.remove(child)
            child.dismiss()

    def _kill_overrunning(self) -> None:
        for child in list(self._children):
            if child.process.poll() is not None:  # a process that it has forked may hold its pipes open
                self._hear(child, is_dead=True)
                continue
            if not child.ready and time.monotonic() - child.started_at > self._start_timeout:
                raise HopelessError(JobReason.SHARDS_FAILED, _NOT_READY.format(self._start_timeout))
            row, position, began = child.at()
            if row == IDLE or child.overran is not None:
                continue
            limit = self._timeouts[position % SEVERAL] if position >= 0 else STEP_TIMEOUT
            if time.monotonic() - began <= limit:
                continue
            what = {DECODE: "reading the image", ENCODE: "writing the image"}.get(position, "the function")
            child.overran = f"{what} took longer than {limit:g} s"
            child.kill()

    def _start_child(self) -> None:
        child = Child(self._job, self._round_folder, self._marks, self._lock)
        self._children.append(child)
        self._attempts.append(child.folder)
        self._selector.register(child.output, selectors.EVENT_READ, partial(self._hear, child))
        self._selector.register(child.printed, selectors.EVENT_READ, partial(self._take_prints, child))

    def _forget(self, child: Child) -> None:
        self._selector.unregister(child.output)
        self._selector.unregister(child.printed)

    def _last_log_line(self) -> str:
        if self._log_path is None:
            return "see the log above"
        with open(self._log_path, "rb") as file:
            file.seek(max(0, os.path.getsize(self._log_path) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
        line = next((line for line in reversed(lines) if line.strip()), "no message")
        return f"{line} (see {self._log_path})"


def _how_it_ended(child: Child) -> str:
    code = child.process.returncode
    if code == sandbox.OUT_OF_MEMORY:
        return "the process was refused memory beyond its share: give the workers more, or have fewer of them"
    if code is not None and code < 0:
        return f"the process died with signal {-code} ({signal.strsignal(-code)})"
    return f"the process ended with exit code {code}"
