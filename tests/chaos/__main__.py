"""`python -m chaos`: seeded runs on the laptop or in a cluster, each checked against a run that nobody disturbed."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from chaos import report
from chaos.cluster_world import InCluster
from chaos.laptop import Laptop, Server
from chaos.run import prepare, run
from cluster import control
from cluster.binaries import cache
from cluster.cluster import Cluster

ROWS = {"laptop": 100_000, "cluster": 50_000}
LIMIT = 900.0  # seconds for one job
say = partial(print, flush=True)


def main() -> int:
    """Runs what the command line asks for; 1 when the checker found something."""
    asked = _parser().parse_args()
    if asked.show:
        say(report.tables(list(report.read(asked.show))))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # all that is open is closed on the way out
    began = time.monotonic()
    with ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pipelinejob-chaos-")))
        server = stack.enter_context(closing(Server(folder / "server")))
        data, undisturbed = prepare(folder, asked.rows or ROWS[asked.where], server)
        cluster = stack.enter_context(_cluster()) if asked.where == "cluster" else None
        outcomes = []
        for seed in range(asked.seed, asked.seed + asked.runs):
            if asked.within and time.monotonic() - began > asked.within:
                break
            mine = folder / f"{asked.where}-{seed}"
            shutil.rmtree(mine, ignore_errors=True)  # of a run in which something was found
            with closing(InCluster(cluster, data) if cluster else Laptop(mine, data, server, str(seed), overlay=asked.overlay)) as world:
                outcomes.append(run(world, asked.where, seed, undisturbed, pace=asked.pace, limit=LIMIT, say=say))
            if not outcomes[-1].findings:
                shutil.rmtree(mine, ignore_errors=True)
            if asked.report:
                report.add(asked.report, outcomes[-1])
    say(report.tables(outcomes))
    return int(any(one.findings for one in outcomes))


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """A cluster that is up, or one that goes with us."""
    with control.reserve():
        made = control.up("tests")
        try:
            yield made
        finally:
            if not os.environ.get(control.GIVEN) and (control.owner(cache() / "run") or {}).get("by") == "tests":
                control.down()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--where", choices=sorted(ROWS), default="laptop")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each further run has the next")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rows", type=int, help=f"of the job; by default {ROWS}")
    parser.add_argument("--pace", type=float, default=4.0, help="mean seconds between two faults")
    parser.add_argument("--within", type=float, help="seconds after which no other run begins")
    parser.add_argument("--folder", type=Path, help="kept, with the catalogue and the undisturbed run; by default one that goes at the end")
    parser.add_argument("--report", type=Path, help="a file to which a line is added for each run")
    parser.add_argument(
        "--overlay", type=Path, help="on the laptop: a folder before all others for imports, as tests/chaos/broken/no_fence"
    )
    parser.add_argument("--show", type=Path, nargs="+", help="only print the tables of the runs in these files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
