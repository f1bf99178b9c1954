"""The ledger's tables as a test sees them: databases of their own, and what is in them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import psycopg2


def fresh_database(server: str) -> str:
    """The URL of a new, empty database of this server."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(server, f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Runs statements over a connection of their own, each by itself; returns the rows of the last."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def contents(url: str) -> dict[str, Sequence[tuple[Any, ...]]]:
    """What the ledger has of its one job, without what tells one run from another."""
    queries = {
        "jobs": "name, namespace, functions, digest, input_digest, input - 'mtime_ns', rows_total, rows_succeeded, rows_filtered,"
        " rows_skipped, rows_failed FROM pipelinejob.jobs",
        "shards": "index, first_row, rows, byte_start, byte_end, batch_ends, batch_checksums, succeeded, filtered, skipped, failed"
        " FROM pipelinejob.shards ORDER BY index",
        "batches": "first_row, shard, rows, succeeded, filtered, skipped, failed, images, bytes, images_sha256, inputs_sha256, columns"
        " FROM pipelinejob.batches ORDER BY first_row",
        "failed": "row, id, reason, function, message, attempts, byte_start, byte_end FROM pipelinejob.failed_rows ORDER BY row",
    }
    return {name: execute(url, f"SELECT {query}") for name, query in queries.items()}
