"""`helm test`: the operator's probe is green, and the database answers, directly and through the pooler if there is one."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from collections.abc import Callable

import psycopg2

RIGHTS = """SELECT (rolsuper OR rolcreaterole) AND has_database_privilege(current_database(), 'CREATE')
FROM pg_roles WHERE rolname = current_user"""
PATIENCE = 30  # seconds that a Service may take until it leads to its pod


def healthz() -> None:
    """The operator's watch is alive and its loop goes on."""
    with urllib.request.urlopen(os.environ["HEALTHZ"], timeout=5) as answer:
        answer.read()


def database() -> None:
    """The operator's user reaches the ledger's database, and may do there what the operator does."""
    _select(os.environ["PIPELINEJOB_DATABASE_URL"], RIGHTS)


def pooler() -> None:
    """The same user through PgBouncer, which must have found its own way to the database for that."""
    host, _, port = os.environ["POOLER"].rpartition(":")
    _select(psycopg2.extensions.make_dsn(os.environ["PIPELINEJOB_DATABASE_URL"], host=host, port=port))


def _select(dsn: str, query: str = "SELECT true") -> None:
    connection = psycopg2.connect(dsn, connect_timeout=5)
    cursor = connection.cursor()
    cursor.execute(query)
    if cursor.fetchone() != (True,):
        sys.exit("database: the user of the operator's database URL must own the database and have CREATEROLE")
    connection.close()


def _patiently(check: Callable[[], None]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return check()
        except (OSError, psycopg2.OperationalError) as error:
            if time.monotonic() > end:
                sys.exit(f"{check.__name__}: {error}")
            time.sleep(1)


for step in [healthz, database, *([pooler] if "POOLER" in os.environ else [])]:
    _patiently(step)
    print(f"{step.__name__}: ok", flush=True)
