"""What people look at beyond a job's counts: its shards, its pace, and all reasons of its failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipelinejob.timings import Share, shares

if TYPE_CHECKING:
    from pipelinejob.model import TopFailure
    from pipelinejob.store import ShardDone, Store

BARS, FEWEST, SHORTEST = 60, 5, 2.0  # of a chart: at most, at least, seconds of one; batches are recorded about once a second
LATELY = 30.0  # seconds
MOST_REASONS = 20  # more than there are


class Insight(NamedTuple):
    """How a job came to stand as it does."""

    shards: Sequence[ShardDone]
    reasons: Sequence[TopFailure]  # the commonest first
    recorded: Sequence[tuple[float, int]]  # (seconds since the start, rows) of the recorded batches
    shares: Sequence[Share]  # where the time of the processes went

    @property
    def seconds(self) -> float:
        """From the start to the last batch."""
        return self.recorded[-1][0] if self.recorded else 0.0


def look(store: Store, uid: str) -> Insight:
    """Asks the ledger: four questions, whose answers grow with the shards and batches of the job."""
    functions = [function["name"] for function in store.get_job(uid).functions]
    spent = shares(store.timings(uid), functions)
    return Insight(store.shards_done(uid), store.top_failures(uid, MOST_REASONS), store.recorded_at(uid), spent)


def pace(recorded: Sequence[tuple[float, int]], seconds: float) -> float:
    """Rows a second of late.

    Args:
        recorded: (seconds since the start, rows) of the recorded batches.
        seconds: since the start, now.
    """
    since = max(0.0, seconds - LATELY)
    return sum(rows for second, rows in recorded if second > since) / max(1.0, seconds - since)


def rates(recorded: Sequence[tuple[float, int]]) -> list[float]:
    """Rows a second over the time of the run, in at most 60 equal parts of it; nothing where it was too short for five."""
    length = recorded[-1][0] if recorded else 0.0
    count = min(BARS, int(length / SHORTEST))
    if count < FEWEST:
        return []
    found = [0.0] * count
    for second, rows in recorded:
        found[min(count - 1, int(second * count / length))] += rows * count / length
    return found
