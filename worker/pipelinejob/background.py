"""Jobs as processes of their own, beside a program that has other things to do: each is a `pipelinejob` command.

They are no children that end with the program: what runs goes on without it, as after a command in a terminal of its own.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Begins = Callable[[], None]
Ended = Callable[[int, dict[str, Any]], None]


class Runner:
    """Starts commands, at most so many at once.

    Args:
        home: where their logs go, as `logs/<name>.out`.
        environment: of the commands, beside this program's own.
        at_once: how many run at a time; the others wait for their turn.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], at_once: int) -> None:
        self._logs = home / "logs"
        self._environment = {**os.environ, **environment}
        self._waiting: queue.SimpleQueue[tuple[str, Sequence[str], Begins, Ended]] = queue.SimpleQueue()
        for _ in range(at_once):
            threading.Thread(target=self._work, daemon=True).start()

    def queue(self, name: str, command: Sequence[str], begins: Begins, ended: Ended) -> None:
        """Runs a command when its turn has come.

        Args:
            name: of its log.
            command: the arguments of `pipelinejob`, without --json.
            begins: called before it begins, in another thread.
            ended: called with its exit code and the object of --json, in another thread.
        """
        self._waiting.put((name, command, begins, ended))

    def start(self, name: str, command: Sequence[str], ended: Ended) -> None:
        """Runs a command at once."""
        threading.Thread(target=self._run, args=(name, command, ended), daemon=True).start()

    def _work(self) -> None:
        while True:
            name, command, begins, ended = self._waiting.get()
            begins()
            self._run(name, command, ended)

    def _run(self, name: str, command: Sequence[str], ended: Ended) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        with open(self._logs / f"{name}.out", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelinejob.cli", *command, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C ends the program, not what it started
            )
            out, _ = process.communicate()
            log.write(out)
        ended(process.returncode, _last_object(out))


def _last_object(out: bytes) -> dict[str, Any]:
    """What --json promises as the last line; empty for a process that was killed before."""
    try:
        value = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
