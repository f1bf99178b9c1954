"""make bench: measures ours beside other ways to do the same, prints tables, and writes docs/benchmarks.md.

What was measured on a cluster, and on a ledger under load, is docs/benchmarks-cluster.md; of the REST API, docs/benchmarks-gateway.md;
of single functions, docs/benchmarks-functions.md. A page is written when there are numbers of all its sections; until then it stays as
it is.

    python tests/bench/bench.py                          all but the million rows and what needs a cluster
    python tests/bench/bench.py --million                the million rows as well, and their redrive
    python tests/bench/bench.py --cluster                what needs a cluster as well; it is brought up, and stays
    python tests/bench/bench.py --only planner start     some sections anew; the others keep their numbers and dates
    python tests/bench/bench.py --quick                  a try-out in a minute or two: tables only, docs/ stays as it is

Catalogues, outputs, logs and raw numbers (results.json) are in .bench/, which can be removed at any time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import accounting
import again
import boundary
import chain
import cluster_apply
import cluster_control
import cluster_report
import cluster_scale
import cluster_whole
import function_report
import gateway_load
import gateway_report
import incremental
import ledger_load
import pages
import planner
import predicting
import report
import start
from common import CACHE, ROOT, prepare_cache
from rich.console import Console

PAGES = (report.PAGE, cluster_report.PAGE, gateway_report.PAGE, function_report.PAGE)
ON_CLUSTER = ("cluster-apply", "cluster-whole", "cluster-scale", "cluster-churn", "cluster-control")
LARGE = ("million", "redrive")
SECTIONS = tuple(name for page in PAGES for name in page.grids)
console = Console() if sys.stdout.isatty() else Console(width=140)


def main() -> int:
    """Measures what is asked for; the exit code does not say whether targets were met."""
    given = arguments()
    prepare_cache()
    path = CACHE / ("results-quick.json" if given.quick else "results.json")
    sections = json.loads(path.read_text()) if path.exists() else {}
    described, load = about(), os.getloadavg()[0]
    for name in given.only:
        data = measure(name, given)
        date = datetime.now(UTC).strftime("%Y-%m-%d")
        sections[name] = {"date": date, "command": command(), "about": described, "load": load, "quick": given.quick, "data": data}
        path.write_text(json.dumps(sections, indent=1) + "\n")
    for page in PAGES:
        report.show(page, sections, console)
        if not given.quick and not set(page.grids).isdisjoint(given.only):
            write(page, sections)
    return 0


def write(page: report.Page, sections: report.Sections) -> None:
    """The page under docs/, if nothing that it tells of is missing."""
    missing = [name for name in page.grids if name not in sections]
    if missing:
        say(f"docs/{page.file} stays as it is: there are no numbers of {', '.join(missing)} in .bench/results.json")
        return
    (ROOT / "docs" / page.file).write_text(report.markdown(page, sections), encoding="utf-8")
    say(f"wrote docs/{page.file}")


def arguments() -> argparse.Namespace:
    """The command line; `only` then names all sections to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, to see that all works; the numbers mean nothing")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="NAME", help=f"sections to measure: {', '.join(SECTIONS)}")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often all contenders take turns (default 3)")
    parser.add_argument("--million", action="store_true", help="the million rows as well, and their redrive (fewer with --quick)")
    known = list(chain.CONTENDERS)
    who = f"who runs the chain: {', '.join(known)} (default: all); the section then holds these alone"
    parser.add_argument("--cluster", action="store_true", help=f"the sections on a cluster as well: {', '.join(ON_CLUSTER)}")
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="how long jobs come and go in cluster-churn (default 30)")
    parser.add_argument("--contenders", nargs="+", choices=known, default=known, metavar="NAME", help=who)
    given = parser.parse_args()
    if given.repeat < 1:
        parser.error("--repeat must be at least 1")
    only = given.only or [name for name in SECTIONS if name not in LARGE and name not in ON_CLUSTER]
    more = [*(LARGE if given.million else []), *(ON_CLUSTER if given.cluster else [])]
    given.only = [name for name in SECTIONS if name in only or name in more]
    return given


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measures one section."""
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "planner": lambda: planner.measure(quick=given.quick, repeat=given.repeat, say=say),
        "start": lambda: start.measure(quick=given.quick, repeat=given.repeat, say=say),
        "ledger": lambda: accounting.ledger(quick=given.quick, say=say),
        "connections": lambda: ledger_load.measure(quick=given.quick, say=say),
        "gateway": lambda: gateway_load.measure(quick=given.quick, say=say),
        "pages": lambda: pages.measure(quick=given.quick, say=say),
        "boundary": lambda: boundary.measure(quick=given.quick, repeat=given.repeat, say=say),
        "incremental": lambda: incremental.measure(quick=given.quick, say=say),
        "predict": lambda: predicting.measure(quick=given.quick, repeat=given.repeat, say=say),
        "million": lambda: accounting.million(50_000 if given.quick else 1_000_000, say),
        "redrive": lambda: again.measure(quick=given.quick, say=say),
        "cluster-control": lambda: cluster_control.measure(quick=given.quick, repeat=given.repeat, say=say),
        "cluster-apply": lambda: cluster_apply.measure(quick=given.quick, say=say),
        "cluster-whole": lambda: cluster_whole.measure(quick=given.quick, repeat=given.repeat, say=say),
        "cluster-scale": lambda: cluster_scale.measure(quick=given.quick, say=say),
        "cluster-churn": lambda: cluster_scale.churn(quick=given.quick, minutes=given.minutes, say=say),
    }
    if name in work:
        return work[name]()
    return chain.measure(name, quick=given.quick, repeat=given.repeat, contenders=given.contenders, say=say)


def say(message: str) -> None:
    """A line about what was done."""
    console.print(message, markup=False, highlight=False)


def command() -> str:
    """The command as one would type it in the repository."""
    return " ".join(["python tests/bench/bench.py", *sys.argv[1:]])


def about() -> dict[str, str]:
    """Machine and versions."""
    packages = {name: importlib.metadata.version(name) for name in ("pipelinejob", "pillow", "numpy")}
    peers = chain.installed_peers()
    engines = {name: peers.get(name, "not installed") for name in dict.fromkeys(chain.ENGINE_PACKAGE.values())}
    return {
        "machine": f"{cores()} cores, {processor()}, {memory()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "Postgres": postgres(),
        **packages,
        **engines,
    }


def cores() -> int | None:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def memory() -> str:
    """The machine's memory."""
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def postgres() -> str:
    """The embedded server's version."""
    try:
        return (CACHE / "home/postgres/PG_VERSION").read_text().strip() + ", embedded"
    except OSError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
