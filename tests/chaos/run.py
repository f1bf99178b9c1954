"""One seeded run from its catalogue to its outcome."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from chaos import catalogue, checker
from chaos.laptop import Laptop, Server
from chaos.play import NotNowError, StuckError, World, play
from chaos.report import Outcome
from chaos.schedule import Fault, schedule

Say = Callable[[str], None]
NEVER = Fault(0, "none", 1e9, 0.0, 0.0)


def prepare(folder: Path, rows: int, server: Server, spec: dict[str, Any] | None = None) -> tuple[Path, checker.Results]:
    """The catalogue of so many rows, and what a run leaves that nobody disturbs; kept in `folder` for all later runs.

    That run is one on this machine: the same input gives the same bytes in a cluster.
    """
    data, kept = folder / f"catalogue-{rows}", folder / f"undisturbed-{rows}.json"
    if not data.exists():
        catalogue.make(data, rows)
    if not kept.exists():
        world = Laptop(folder / f"undisturbed-{rows}", data, server, "undisturbed", spec)
        try:
            deque(play(world, repeat(NEVER), limit=900, say=lambda _: None), maxlen=0)
            found = world.results()
        finally:
            world.close()
        if findings := checker.check(found, rows, found):
            raise AssertionError(f"the undisturbed run is not well: {findings}")
        kept.write_text(json.dumps(found._asdict(), default=str))
    values = json.loads(kept.read_text())
    values["files"] = {path: tuple(file) for path, file in values["files"].items()}
    return data, checker.Results(**values)


def run(
    world: World, where: str, seed: int, undisturbed: checker.Results, *, pace: float, limit: float, say: Say, most: int | None = None
) -> Outcome:
    """Runs the job of a world under the faults of a seed, and has the checker look at what it left.

    Args:
        world: where it runs.
        where: laptop or cluster.
        seed: of the faults.
        undisturbed: what it should leave.
        pace: mean seconds between two faults.
        limit: seconds that the job may take.
        say: told what happens.
        most: how many faults come at most; None: they come until the job has ended.
    """
    faults = chain(islice(schedule(where, seed, list(world.faults), pace), most), repeat(NEVER))
    rows = undisturbed.job["rows_total"]
    say(f"-- {where}, seed {seed}, {rows:,} rows")
    began = time.monotonic()
    struck, findings = [], []
    try:
        for one in play(world, faults, limit=limit, say=say):
            struck.append(one)
    except StuckError as error:
        findings = [checker.Finding("stuck", str(error))]
    seconds = time.monotonic() - began
    try:
        findings += checker.check(world.results(), rows, undisturbed)
    except (StuckError, NotNowError) as error:
        findings.append(checker.Finding("stuck", str(error)))
    if findings:
        say(world.story())
    hit = [one for one in struck if one.did is not None]
    kinds = Counter(one.fault.kind for one in hit)
    say(f"-- {len(hit)} faults in {seconds:.0f} s; found: {findings or 'nothing'}")
    starts = world.starts if isinstance(world, Laptop) else 1
    return Outcome(
        where, seed, rows, pace, round(seconds, 1), dict(kinds), len(struck) - len(hit), starts, [tuple(one) for one in findings]
    )
