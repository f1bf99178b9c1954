"""What the pages for people cost beside a job of a million rows: time, and what the database does for each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg2
from common import CACHE, Spread
from gateway_load import BIG, big_job, many_jobs, server

from pipelinejob.store import EmbeddedServer

TIMES = 20
PAGES = {
    "the jobs": "/",
    "the job": f"/jobs/default/{BIG}",
    "its failed rows": f"/jobs/default/{BIG}/failures",
    "its rows (without images)": f"/jobs/default/{BIG}/rows",
    "its columns": f"/jobs/default/{BIG}/columns",
    "a new job": "/new",
}


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of each page, asked one after the other, and transactions and blocks (of 8 KiB) of the database."""
    jobs, rows = (100, 20_000) if quick else (1_000, 1_000_000)
    folder = CACHE / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    big_job(folder, rows, say)
    many_jobs(folder, jobs)
    found: dict[str, Any] = {"jobs": jobs, "rows": rows, "times": TIMES, "pages": {}}
    with server(folder) as (url, _), httpx.Client(base_url=url, headers={"Accept": "text/html"}, timeout=60) as client:
        for name, path in PAGES.items():
            client.get(path).raise_for_status()  # what is loaded once
            before, seconds, size = _done(folder), [], 0
            for _ in range(TIMES):
                began = time.monotonic()
                size = len(client.get(path).raise_for_status().content)
                seconds.append(time.monotonic() - began)
            transactions, blocks = (int((after - one) / TIMES) for after, one in zip(_done(folder), before, strict=True))
            told = {"median": Spread.of(seconds).median, "most": max(seconds), "bytes": size}
            found["pages"][name] = {**told, "transactions": transactions, "blocks": blocks}
            say(f"pages, {name}: {found['pages'][name]}")
    shutil.rmtree(folder)
    return found


def _done(folder: Path) -> tuple[int, int]:
    """Transactions and blocks of the ledger's database until now; each session tells of its own when it was idle for ten seconds."""
    time.sleep(11)
    connection = psycopg2.connect(EmbeddedServer(folder / ".pipelinejob").url())
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT sum(xact_commit), sum(blks_hit + blks_read) FROM pg_stat_database WHERE datname = current_database()")
        (row,) = cursor.fetchall()
        return int(row[0]), int(row[1])
    finally:
        connection.close()
