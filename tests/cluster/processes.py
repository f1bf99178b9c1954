"""The cluster's processes on this machine: each with a pid file, a log and its command, so that any later run can stop it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path


class Processes:
    """Processes of one run folder.

    Args:
        folder: holds <name>.json (pid, command) and logs/<name>.log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts a process of its own session that holds nothing of the caller's."""
        (self._folder / "logs").mkdir(exist_ok=True)
        with open(self._folder / "logs" / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                list(command),
                cwd=self._folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        record = {"pid": process.pid, "command": list(command), "environment": dict(environment or {})}
        self._file(name).write_text(json.dumps(record))
        end = time.monotonic() + 1
        while self.pid(name) is None and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)  # the kernel shows its command line a moment after Popen returns
        process.returncode = 0  # it outlives this program on purpose: no warning that nobody waited for it

    def restart(self, name: str) -> None:
        """Starts a process anew as it was started before."""
        record = json.loads(self._file(name).read_text())
        self.start(name, record["command"], record["environment"])

    def pid(self, name: str) -> int | None:
        """The pid of a process that runs; a pid that belongs to another program by now does not count."""
        try:
            record = json.loads(self._file(name).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record["pid"] if command_of(record["pid"]) == record["command"] else None

    def log(self, name: str) -> Path:
        """What a process writes."""
        return self._folder / "logs" / f"{name}.log"

    def stop(self, name: str, seconds: float = 5.0) -> None:
        """Ends a process, if it runs: politely, then by force."""
        pid = self.pid(name)
        if pid is not None:
            end_all(lambda: [pid] if self.pid(name) == pid else [], signal.SIGTERM, seconds)
            end_all(lambda: [pid] if self.pid(name) == pid else [], signal.SIGKILL, seconds)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def end_all(pids: Callable[[], Iterable[int]], sign: signal.Signals = signal.SIGKILL, seconds: float = 10.0) -> None:
    """Signals all of these processes, and again those that appear meanwhile, until there are none or the time is over."""
    end = time.monotonic() + seconds
    told: set[int] = set()
    while left := set(pids()):
        for pid in left - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        told |= left
        if time.monotonic() > end:
            return
        time.sleep(0.05)


def of_cluster(run: Path, bin: Path) -> Iterator[int]:
    """All that belongs to the cluster in the folder `run`: programs in `bin` that were started for it, and what runs in its containers.

    A user's kubectl is not among them, nor a shell whose command line names the folder.
    """
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            pid = int(entry)
            named = _program(pid).startswith(f"{bin}/") and any(str(run) in word for word in command_of(pid)[1:])
            if (named and Path(_program(pid)).name not in ("kubectl", "helm", "ctr")) or f"{run}/containerd/" in _root_file_system(pid):
                yield pid


def folders_in_use() -> Iterator[Path]:
    """The run folders of all clusters of this kind on this machine, as their etcd names them."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and Path(_program(int(entry))).name == "etcd":
            for word in command_of(int(entry)):
                if word.startswith("--data-dir=") and word.endswith("/run/etcd"):
                    yield Path(word.removeprefix("--data-dir=")).parent


def command_of(pid: int) -> list[str]:
    """Its command line; [] for a process that is gone or only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _program(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _root_file_system(pid: int) -> str:
    """What is mounted as / for a process: of a container, layers in containerd's folder."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.split()[4] == "/"), "")
