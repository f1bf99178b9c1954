"""How long batches and functions take, counted from the batches that were recorded since somebody asked last."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from prometheus_client.core import HistogramMetricFamily, Metric

from pipelinejob.store import Store, TimedBatch
from pipelinejob.timings import BOUNDS, WHOLE, step_name

OVERLAP = timedelta(minutes=1)  # longer than any transaction that records: its batches have the time at which it began
LONGEST = 600.0  # seconds between two looks; after more of them counting begins anew, instead of reading what may be a million batches
_BUCKETS = [*map(repr, BOUNDS), "+Inf"]


class Latencies:
    """Counts of this process: they begin at 0, as counters may, when it starts or begins to lead."""

    def __init__(self) -> None:
        self._began: datetime | None = None  # as the database has it, like the next
        self._since: datetime | None = None
        self._looked_at = 0.0
        self._seen: set[tuple[str, int]] = set()
        self._cells: dict[tuple[str, str], tuple[list[int], list[float]]] = {}  # (namespace, step): calls and seconds by bucket

    def look(self, store: Store) -> None:
        """Counts what was recorded since the last look."""
        now = time.monotonic()
        if now - self._looked_at > LONGEST:
            self._began = self._since = None
        self._looked_at = now
        since = max(self._began, self._since - OVERLAP) if self._began and self._since else None
        self._since, batches = store.timings_since(since)
        self._began = self._began or self._since
        for batch in batches:
            if (batch.uid, batch.first_row) not in self._seen:
                self._count(batch)
        self._seen = {(batch.uid, batch.first_row) for batch in batches}

    def _count(self, batch: TimedBatch) -> None:
        for one in batch.timings:
            key = batch.namespace, "" if one.position == WHOLE else step_name(one.position, batch.functions)
            calls, seconds = self._cells.setdefault(key, ([0] * len(_BUCKETS), [0.0] * len(_BUCKETS)))
            calls[one.bucket] += one.calls
            seconds[one.bucket] += one.seconds

    def families(self) -> list[Metric]:
        """The two histograms."""
        batches = HistogramMetricFamily(
            "pipelinejob_batch_seconds", "How long a process takes for a batch, from its first row to its last.", labels=["namespace"]
        )
        steps = HistogramMetricFamily(
            "pipelinejob_function_seconds",
            "How long a call of a function takes; also (read) and (write) of images.",
            labels=["namespace", "function"],
        )
        for (namespace, step), (calls, seconds) in sorted(self._cells.items()):
            buckets = [(bound, sum(calls[: index + 1])) for index, bound in enumerate(_BUCKETS)]
            if step:
                steps.add_metric([namespace, step], buckets, sum(seconds))
            else:
                batches.add_metric([namespace], buckets, sum(seconds))
        return [batches, steps]
