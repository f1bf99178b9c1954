"""The laptop: the command as a user types it, beside a Postgres of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg2
import yaml

from chaos import catalogue, checker
from chaos.laptop_faults import FAULTS
from chaos.play import Act, NotNowError, StuckError, Undo
from chaos.processes import alive
from pipelinejob.store import EmbeddedServer
from support.project import COMMAND

DONE, INTERRUPTED = 0, 130
START_WITHIN = 60.0  # seconds for the database to start again


class Server:
    """A Postgres of our own in a folder, which can be killed."""

    def __init__(self, home: Path) -> None:
        self._home, self._embedded = home, EmbeddedServer(home)
        self.base = self._embedded.url()

    def start(self) -> None:
        """Starts it, if it does not run; what a killed one left may stand in its way for a moment."""
        end = time.monotonic() + START_WITHIN
        while True:
            try:
                self._embedded.url()
                psycopg2.connect(self.base, connect_timeout=5).close()
                return
            except (psycopg2.Error, OSError, RuntimeError, subprocess.SubprocessError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def end(self, number: signal.Signals) -> None:
        """Ends it as a fault does."""
        pid = int((self._home / "postgres/postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, number)
        while alive(pid):
            time.sleep(0.02)

    def database(self, name: str) -> str:
        """The URL of an empty database of that name."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
        return self.base.replace("/postgres?", f"/{name}?")

    def execute(self, *statements: str) -> object:
        """Runs statements, also while the server lets others only read; the first cell of what the last one gives, if it gives any."""
        connection = psycopg2.connect(self.base, connect_timeout=5, options="-c default_transaction_read_only=off")
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None
        finally:
            connection.close()

    def close(self) -> None:
        """Stops it."""
        self._embedded.close()


class Laptop:
    """One job run with the command, and the same command again whenever it ended before the job did.

    Args:
        folder: of this run; must not exist.
        data: the catalogue.
        server: the database server.
        seed: names the database.
        spec: laid over the job's.
        overlay: a folder before all others on the path for imports; None: our code as it is.
    """

    def __init__(
        self, folder: Path, data: Path, server: Server, seed: str, spec: Mapping[str, Any] | None = None, overlay: Path | None = None
    ) -> None:
        self.faults: Mapping[str, Act] = FAULTS
        self.undo, self.server = Undo(), server
        folder.mkdir(parents=True)
        self._folder, self._data = folder, data
        self.url = server.database(f"chaos_{seed}")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("PIPELINEJOB_")}
        self._environment["PIPELINEJOB_DATABASE_URL"] = self.url
        if overlay:
            self._environment["PYTHONPATH"] = str(overlay.absolute())
        (folder / "job.yaml").write_text(yaml.safe_dump(catalogue.document(**(spec or {}))))
        self._run = ["run", "job.yaml", "--data", str(data), "--output-root", str(folder)]
        self._command = self._run
        self.process: subprocess.Popen[str] | None = None
        self.starts = 0

    def begin(self) -> None:
        self._start(self._run)

    def ended(self) -> bool:
        """Whether the job is complete; the command is given again when it ended for any other reason that a fault can be."""
        assert self.process is not None
        code = self.process.poll()
        if code is None:
            return False
        out, _ = self.process.communicate()
        if code == DONE:
            return True
        if code not in (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED) and not self._may_end(out):
            raise StuckError(f"the command ended with exit code {code}: {out}")
        self._start(self._command)
        self._command = self._run
        return False

    def results(self) -> checker.Results:
        self.undo.run(all=True)
        answered = json.loads(self.cli("status", catalogue.NAME, "--json").splitlines()[-1])
        return checker.collect(self.output, self.url, catalogue.NAME, {"status --json": answered})

    @property
    def output(self) -> Path:
        """The output folder of the job."""
        return self._folder / f"out/{catalogue.NAME}"

    def story(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        """Ends the command, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def cli(self, *arguments: str) -> str:
        """Another command beside the run; standard output.

        Raises:
            NotNowError: it could not do it, as when the database is away.
        """
        ran = subprocess.run([COMMAND, *arguments], **self._surroundings(), capture_output=True, text=True, timeout=120)
        if ran.returncode:
            raise NotNowError(ran.stderr)
        return ran.stdout

    def resume_next(self) -> None:
        """The next start is by 'pipelinejob resume'."""
        self._command = ["resume", catalogue.NAME]

    def _start(self, command: list[str]) -> None:
        self.starts += 1
        with open(self._folder / "run.log", "a") as log:
            log.write(f"-- start {self.starts}: {command[0]}\n")
            log.flush()
            arguments = [COMMAND, *command, "--json"]
            self.process = subprocess.Popen(arguments, **self._surroundings(), stdout=subprocess.PIPE, stderr=log, text=True)

    def _surroundings(self) -> dict[str, Any]:
        return {"cwd": self._folder, "env": self._environment, "stdin": subprocess.DEVNULL}

    @staticmethod
    def _may_end(out: str) -> bool:
        """Whether a person would give the command again: it was suspended, found no database, or could not write."""
        lines = out.rstrip("\n").splitlines()
        last = json.loads(lines[-1]) if lines else {}
        stored = last.get("reason") == "ShardsFailed" and "storage failed" in last["message"]
        return stored or last.get("phase") == "Suspended" or last.get("reason") == "DatabaseUnavailable"
