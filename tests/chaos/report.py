"""What runs came to: a line of JSON each, and tables of them for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROMISES = {"lost": "rows lost", "twice": "rows twice", "bytes": "other bytes", "orphan": "orphans", "attempt": "attempts left"}
PROMISES |= {"counts": "counts that differ", "stuck": "stuck"}


@dataclass
class Outcome:
    """How a run ended.

    Args:
        faults: how many came, by kind.
        nothing_to_hit: faults that found no victim.
        starts: of the command, on the laptop.
        findings: (what, detail) of the checker.
    """

    where: str
    seed: int
    rows: int
    pace: float
    seconds: float
    faults: dict[str, int]
    nothing_to_hit: int = 0
    starts: int = 1
    findings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def struck(self) -> int:
        """How many faults came."""
        return sum(self.faults.values())


def add(path: Path, outcome: Outcome) -> None:
    """Adds a run to a file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read(paths: Iterable[Path]) -> Iterator[Outcome]:
    """The runs in these files."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            yield Outcome(**json.loads(line))


def tables(outcomes: Sequence[Outcome]) -> str:
    """Markdown: the runs, the faults by kind, and what the checker found."""
    return "\n".join([*_runs(outcomes), "", *_kinds(outcomes), "", _summary(outcomes)])


def _runs(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| where | seed | rows | seconds | faults | starts | found |"
    yield "|---|---|---|---|---|---|---|"
    for one in outcomes:
        found = "; ".join(f"{what}: {detail}" for what, detail in one.findings) or "nothing"
        starts = one.starts if one.where == "laptop" else ""
        yield f"| {one.where} | {one.seed} | {one.rows:,} | {one.seconds:.0f} | {one.struck} | {starts} | {found} |"


def _kinds(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| fault | laptop | cluster |"
    yield "|---|---|---|"
    sums = {where: sum((Counter(one.faults) for one in outcomes if one.where == where), Counter()) for where in ("laptop", "cluster")}
    for kind in sorted({*sums["laptop"], *sums["cluster"]}):
        yield f"| {kind} | {sums['laptop'][kind] or ''} | {sums['cluster'][kind] or ''} |"


def _summary(outcomes: Sequence[Outcome]) -> str:
    found = Counter(what for one in outcomes for what in {what for what, _ in one.findings})
    verdict = ", ".join(f"{found[what]} {name}" for what, name in PROMISES.items())
    return f"{len(outcomes)} runs, {sum(one.struck for one in outcomes)} faults; runs with: {verdict}."
