"""What Prometheus may know of the operator and of the ledger; nothing is served unless a port is set.

The ledger is asked when somebody asks us, at most once in some seconds, and by the operator that leads: a row a job is read, the batches
of late, and never a failed row. Rows and jobs are gauges, of what the ledger has now: a redrive makes failed rows succeeded, and a deleted
job takes its rows along, as no counter may.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelinejob.reasons import JobError
from pipelinejob.store import Database, Store
from pipelinejob_operator.latencies import Latencies

REGISTRY = CollectorRegistry()
RECONCILE = Histogram(
    "pipelinejob_reconcile_seconds",
    "How long a look at one PipelineJob took, by how it ended: done, or failed and to be tried again.",
    ["outcome"],
    registry=REGISTRY,
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)
QUEUE = Gauge("pipelinejob_queue_depth", "PipelineJobs that want a look.", registry=REGISTRY)
LEADING = Gauge("pipelinejob_leading", "1 where this operator leads, 0 where it stands by.", registry=REGISTRY)
FRESH = 5.0  # seconds for which the ledger's answers are given again
PATIENCE = 2.0  # seconds to wait for a database that is away

_JOBS = """
SELECT namespace, phase, count(*) AS jobs, sum(rows_succeeded) AS succeeded, sum(rows_filtered) AS filtered, sum(rows_skipped) AS skipped,
       sum(rows_failed) AS failed, sum(rows_total - rows_succeeded - rows_filtered - rows_skipped - rows_failed) AS pending,
       sum(CASE WHEN phase = 'Running' THEN coalesce((status->>'rowsPerSecond')::float8, 0) ELSE 0 END) AS rate
FROM pipelinejob.jobs WHERE deleted_at IS NULL AND root_uid IS NULL GROUP BY namespace, phase
"""
_REASONS = """
SELECT namespace, one->>'reason' AS reason, sum((one->>'count')::bigint) AS rows
FROM pipelinejob.jobs, jsonb_array_elements(status->'topFailures') AS one
WHERE deleted_at IS NULL AND root_uid IS NULL AND jsonb_typeof(status->'topFailures') = 'array' GROUP BY namespace, one->>'reason'
"""
OUTCOMES = ("succeeded", "filtered", "skipped", "failed", "pending")


class LedgerCollector(Collector):
    """Asks the ledger when Prometheus asks us.

    Args:
        url: of the database.
        leads: whether this operator leads; else nothing is told of the ledger.
    """

    def __init__(self, url: str, leads: Callable[[], bool]) -> None:
        self._database = Database(lambda: url, patience=PATIENCE, say=lambda _: None, advice="")
        self._leads, self._lock = leads, threading.Lock()
        self._latencies = Latencies()
        self._known: tuple[float, list[Metric]] | None = None

    def describe(self) -> list[Metric]:
        """Nothing is asked for when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families that `families` makes, or of a database that is away only that it is."""
        if not self._leads():
            return
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > FRESH:
                self._known = time.monotonic(), self._ask()
            yield from self._known[1]

    def _ask(self) -> list[Metric]:
        try:
            store = Store(self._database, migrated=True)
            self._latencies.look(store)
            found = families(self._database.query(_JOBS), self._database.query(_REASONS), store.connections())
            return found + self._latencies.families()
        except (JobError, psycopg2.Error):
            return [_up(0)]


def families(jobs: list[dict[str, Any]], reasons: list[dict[str, Any]], connections: tuple[int, int]) -> list[Metric]:
    """What the ledger's answers are in Prometheus' terms.

    Args:
        jobs: {namespace, phase, jobs, rate, and rows by outcome}.
        reasons: {namespace, reason, rows} of the five commonest reasons of each job.
        connections: (used, usable) of the database.
    """
    count = GaugeMetricFamily("pipelinejob_jobs", "PipelineJobs that are there, but for redrives.", labels=["namespace", "phase"])
    rows = GaugeMetricFamily("pipelinejob_rows", "Rows of these PipelineJobs, by outcome.", labels=["namespace", "outcome"])
    rate = GaugeMetricFamily("pipelinejob_rows_per_second", "Rows that running PipelineJobs do a second.", labels=["namespace"])
    failed = GaugeMetricFamily(
        "pipelinejob_failed_rows", "Rows that failed, of the five commonest reasons of each PipelineJob.", labels=["namespace", "reason"]
    )
    sums: dict[str, dict[str, float]] = {}
    for one in jobs:
        count.add_metric([one["namespace"], one["phase"]], one["jobs"])
        found = sums.setdefault(one["namespace"], dict.fromkeys((*OUTCOMES, "rate"), 0.0))
        for key in found:
            found[key] += float(one[key])
    for namespace, found in sums.items():
        rate.add_metric([namespace], found["rate"])
        for outcome in OUTCOMES:
            rows.add_metric([namespace, outcome], found[outcome])
    for one in reasons:
        failed.add_metric([one["namespace"], one["reason"]], float(one["rows"]))
    used = GaugeMetricFamily("pipelinejob_database_connections", "Connections to the database server.", value=connections[0])
    usable = GaugeMetricFamily("pipelinejob_database_connections_limit", "Connections that it can take.", value=connections[1])
    return [_up(1), count, rows, rate, failed, used, usable]


def _up(value: int) -> Metric:
    return GaugeMetricFamily("pipelinejob_database_up", "1 where the ledger answers.", value=value)


def serve(port: int | None, url: str) -> None:
    """Answers Prometheus on a port, from threads of its own; None: does not.

    Raises:
        OSError: the port is taken.
    """
    if port is None:
        return
    REGISTRY.register(LedgerCollector(url, lambda: LEADING._value.get() == 1))
    start_http_server(port, registry=REGISTRY)
