"""One connection to Postgres that waits, says so and goes on when the database goes away; and the migrations."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from typing import Any, TypeVar

import psycopg2
import psycopg2.extras
import stamina

from pipelinejob.reasons import JobError, JobReason

T = TypeVar("T")

stamina.instrumentation.set_on_retry_hooks([])  # an outage is told once, in our words, and not at every attempt

# Too many connections, shutting down or starting up, cannot connect now, read-only standby after a failover,
# a transaction that a stopped process left open.
_AWAY_STATES = ("53300", "57P01", "57P02", "57P03", "25006", "25P03")
_STALE = "PLJ01"  # raised by check_epoch
ON_A_LAPTOP = "check PIPELINEJOB_DATABASE_URL or --database, then run the same command to go on"
_IDLE = 10.0  # seconds without a statement, after which a connection is not worth its memory on the server
# A server whose machine died answers nothing at all: without these, a statement would wait for it a quarter of an hour.
_NOTICE_DEAD_SERVERS: dict[str, Any] = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}


class StaleEpoch(Exception):
    """Another operator leads by now: nothing of the transaction was written, and this process is to write no more."""


class Database:
    """Runs statements over one connection, opened when first needed; safe to share between threads.

    Args:
        url: gives the server's URL; asked again for each new connection, so that it can start a server.
        patience: seconds to wait for a database that is away before DatabaseUnavailable; math.inf: no end.
        say: told, once per outage, that it is waiting and, later, that it goes on.
        advice: what a person can do about a database that is away.
        reaches: told True after each statement that came through, False when it begins to wait.
        epoch: of an operator that leads; each transaction begins with a check that it is the newest. None: nothing is checked.
    """

    def __init__(
        self,
        url: Callable[[], str],
        *,
        patience: float,
        say: Callable[[str], None],
        advice: str = ON_A_LAPTOP,
        reaches: Callable[[bool], None] | None = None,
        epoch: int | None = None,
    ) -> None:
        self._url = url
        self._say = say
        self._advice = advice
        self._reaches = reaches or (lambda _: None)
        self._fence = "" if epoch is None else f"SELECT pipelinejob.check_epoch({int(epoch)}); "
        self._connection: Any = None
        self._lock = threading.RLock()
        self._waiting = False
        self._given_up = False
        self._used_at = 0.0
        self.patience = patience

    def query(self, sql: str, parameters: Sequence[object] | dict[str, object] = ()) -> list[dict[str, Any]]:
        """Runs one statement in a transaction of its own and returns its rows, if it has any, as dicts."""
        return self._patiently(lambda cursor: _fetch(cursor, self._fence + sql, parameters))  # one message, and so one transaction

    def transaction(self, work: Callable[[Any], T]) -> T:
        """Runs `work(cursor)` in one transaction, again from the start while the database is away.

        Raises:
            JobError: DatabaseUnavailable after `patience` seconds.
        """

        def whole(cursor: Any) -> T:
            with cursor.connection:
                if self._fence:
                    cursor.execute(self._fence)
                return work(cursor)

        return self._patiently(whole)

    def close(self) -> None:
        """Closes the connection; a later statement opens a new one."""
        with self._lock:
            self._discard()

    def close_if_idle(self) -> None:
        """Closes the connection if it has not been used for 10 s."""
        if self._connection is not None and time.monotonic() - self._used_at > _IDLE:
            self.close()

    def give_up(self) -> None:
        """From now on nothing waits for a database that is away: this process has been told to end."""
        self._given_up = True

    def abandon(self) -> None:
        """The same, and what waits for an answer at the moment fails; called from another thread than the one that waits."""
        self.give_up()
        with suppress(psycopg2.Error, AttributeError, OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def _patiently(self, work: Callable[[Any], T]) -> T:
        timeout = None if math.isinf(self.patience) else self.patience
        with self._lock:
            try:
                for attempt in stamina.retry_context(
                    on=self._is_away, attempts=None, timeout=timeout, wait_initial=0.1, wait_max=2.0, wait_jitter=0.5
                ):
                    with attempt:
                        return self._attempt(work)
            except (psycopg2.Error, OSError, RuntimeError) as error:
                if self._is_away(error):
                    raise self._unavailable(error, f"no database for {self.patience:.0f} s") from error
                if self._connection is None:  # no such database, a wrong password: waiting does not help
                    raise self._unavailable(error, "no database") from error
                raise
        raise AssertionError("unreachable: the retries end by a result or an exception")

    def _attempt(self, work: Callable[[Any], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        try:
            with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                result = work(cursor)
        except psycopg2.Error as error:
            if _is_lost(error):
                self._discard()
            if error.pgcode == _STALE:
                raise StaleEpoch(_first_line(error)) from error
            raise
        self._used_at = time.monotonic()
        self._reaches(True)
        if self._waiting:
            self._waiting = False
            self._say("the database is back: going on")
        return result

    def _connect(self) -> Any:
        try:
            connection = psycopg2.connect(self._url(), connect_timeout=5, application_name="pipelinejob", **_NOTICE_DEAD_SERVERS)
            connection.autocommit = True  # one statement, one message: also through a pooler that shares connections
            return connection
        except psycopg2.ProgrammingError as error:
            raise self._unavailable(error, "the database's URL cannot be read") from None
        except subprocess.SubprocessError as error:  # the embedded server's own programs failed
            raise self._unavailable(error, "the embedded database does not start") from error

    def _is_away(self, error: Exception) -> bool:
        """Whether waiting can help. A bad password or a missing database cannot be waited for."""
        if self._given_up:
            return False
        away = _is_lost(error)
        if isinstance(error, OSError | RuntimeError) and not isinstance(error, JobError):
            away = True  # the embedded server did not start: it says so by an error of its own
        text = str(error)
        if "authentication failed" in text or ("does not exist" in text and "FATAL" in text):
            return False
        if away and not self._waiting:
            self._waiting = True
            self._reaches(False)
            how_long = "waiting for it" if math.isinf(self.patience) else f"waiting up to {self.patience:.0f} s for it"
            self._say(f"the database is away ({_first_line(error)}): {how_long}")
        return away

    def _unavailable(self, error: Exception, what: str) -> JobError:
        return JobError(JobReason.DATABASE_UNAVAILABLE, f"{what} ({_first_line(error)}): {self._advice}")

    def _discard(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except psycopg2.Error:
                self._connection = None
            self._connection = None


def take_epoch(database: Database) -> int:
    """Begins a new epoch and returns it; ends what the last one has under way, and from then on there is no more of it.

    Ended, not waited for: a stopped process could hold its transaction open by an answer that it does not read.
    """
    database.query(
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.usename = current_user"
        " AND a.datname = current_database() AND l.database = a.datid AND l.relation = 'pipelinejob.epoch'::regclass"
        " AND l.pid <> pg_backend_pid()"
    )
    number: int = database.query("UPDATE pipelinejob.epoch SET number = number + 1 RETURNING number")[0]["number"]
    return number


def _is_lost(error: Exception) -> bool:
    """Whether the connection is no good any more; the driver says so by a plain DatabaseError, too."""
    lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return lost or type(error) is psycopg2.DatabaseError or getattr(error, "pgcode", None) in _AWAY_STATES


def _fetch(cursor: Any, sql: str, parameters: Any) -> list[dict[str, Any]]:
    cursor.execute(sql, parameters or None)
    return list(cursor.fetchall()) if cursor.description else []


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def migrate(database: Database) -> None:
    """Brings the schema `pipelinejob` up to date: each numbered file once, one process at a time.

    The lock is on a table, which roles with less rights cannot take, unlike an advisory lock.
    """
    names = sorted(item.name for item in _migrations().iterdir() if item.name.endswith(".sql"))
    with _already_there():
        database.query("CREATE SCHEMA IF NOT EXISTS pipelinejob")
    with _already_there():
        database.query(
            "CREATE TABLE IF NOT EXISTS pipelinejob.migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
    applied = {row["name"] for row in database.query("SELECT name FROM pipelinejob.migrations")}
    if not applied.issuperset(names):
        database.transaction(lambda cursor: _apply(cursor, names))


@contextmanager
def _already_there() -> Iterator[None]:
    """IF NOT EXISTS still fails when another process makes the same thing at the same moment."""
    try:
        yield
    except (psycopg2.errors.UniqueViolation, psycopg2.errors.DuplicateObject, psycopg2.errors.DuplicateTable):
        return  # which of them depends on how far the other process was


def _apply(cursor: Any, names: Sequence[str]) -> None:
    cursor.execute("LOCK TABLE pipelinejob.migrations IN ACCESS EXCLUSIVE MODE")
    cursor.execute("SELECT name FROM pipelinejob.migrations")
    applied = {row["name"] for row in cursor.fetchall()}
    for name in names:
        if name not in applied:
            cursor.execute(_migrations().joinpath(name).read_text(encoding="utf-8"))
            cursor.execute("INSERT INTO pipelinejob.migrations (name) VALUES (%s)", (name,))
    cursor.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pipelinejob FROM PUBLIC")  # everybody could call a new one


def _migrations() -> Any:
    return resources.files("pipelinejob.store").joinpath("migrations")
