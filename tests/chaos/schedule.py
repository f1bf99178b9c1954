"""Which fault comes when: drawn from the seed alone, so that a run can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple


class Fault(NamedTuple):
    """A fault that is to come.

    Args:
        number: from 1.
        kind: its name in the table of faults.
        after: seconds after the one before.
        lasts: seconds until it is undone, where it can be.
        pick: 0 to 1, which of the possible victims it takes.
    """

    number: int
    kind: str
    after: float
    lasts: float
    pick: float


def schedule(where: str, seed: int, kinds: Sequence[str], pace: float) -> Iterator[Fault]:
    """Faults without end: all kinds in one order, then all in another, and so on, so that no run misses any for long.

    Args:
        where: laptop or cluster.
        seed: the same seed gives the same faults.
        kinds: the names of the faults.
        pace: mean seconds between two; they last as long.
    """
    random, number = Random(f"{where}/{seed}"), 0
    while True:
        for kind in random.sample(sorted(kinds), len(kinds)):
            number += 1
            after, lasts = (round(random.uniform(0.4, 1.6) * pace, 2) for _ in range(2))
            yield Fault(number, kind, after, lasts, round(random.random(), 3))
