"""Tables of what was measured of the REST API under load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common import Spread
from report import MIB, Grid, Page, Sections, Target

GROWTH, HARM, LONGEST = 1.1, 1.25, 1.0


def targets(sections: Sections) -> list[Target]:
    """What was asked for."""
    found = list(_targets(sections["gateway"]["data"])) if "gateway" in sections else []
    if "pages" in sections:
        name, slowest = max(sections["pages"]["data"]["pages"].items(), key=lambda one: float(one[1]["most"]))
        what = f"the slowest page for people ({name}), of {sections['pages']['data']['times']} times the longest"
        found.append(Target(what, f"≤ {LONGEST:g} s", f"{slowest['most']:.2f} s", slowest["most"] <= LONGEST))
    return found


def _targets(data: Mapping[str, Any]) -> Iterator[Target]:
    runs = _runs(data)
    errors, requests = sum(run["errors"] for run in runs), sum(run["requests"] for run in runs)
    yield Target(f"errors in {requests:,} requests", "0", str(errors), errors == 0)
    grown = data["resident_end"] / data["resident_after"]
    yield Target(
        "memory of the server, from when everything was asked for once to the end", f"≤ {GROWTH:g} ×", f"{grown:.2f} ×", grown <= GROWTH
    )
    harm = _harm(data).median
    what = f"p99 beside {data['deaf']} listeners that never read, to without"
    yield Target(what, f"≤ {HARM:g} ×", f"{harm:.2f} ×", harm <= HARM)


def gateway_grid(data: Mapping[str, Any]) -> Grid:
    """Latencies by kind of request."""
    rows = [_row(kind, found) for kind, found in data["kinds"].items()]
    for name, label in (("alone", "all of these"), ("beside", f"the same, {data['deaf']} listeners that never read")):
        rows.append(_row(label, sorted((pair[name] for pair in data["pairs"]), key=lambda run: run["p99"])[len(data["pairs"]) // 2]))
    memory = f"{data['resident_before'] / MIB:.0f}, {data['resident_after'] / MIB:.0f}, {data['resident_end'] / MIB:.0f}"
    rows.append(["memory of the server at first, when everything was asked for once, at the end, MiB", memory, "", "", ""])
    return Grid(("", "requests/s", "p50, ms", "p99, ms", "errors"), rows)


def pages_grid(data: Mapping[str, Any]) -> Grid:
    """Times and costs by page."""
    rows = []
    for name, one in data["pages"].items():
        times = [f"{1000 * one['median']:.0f}", f"{1000 * one['most']:.0f}"]
        rows.append([name, *times, f"{one['bytes'] / 1024:.0f}", str(one["transactions"]), f"{one['blocks']:,}"])
    return Grid(("", "median, ms", "longest, ms", "KiB", "transactions", "blocks of the database"), rows)


def _row(label: str, found: Mapping[str, Any]) -> list[str]:
    return [label, f"{found['rate']:,}", f"{1000 * found['p50']:.0f}", f"{1000 * found['p99']:.0f}", str(found["errors"])]


def _runs(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*data["kinds"].values(), *(run for pair in data["pairs"] for run in pair.values())]


def _harm(data: Mapping[str, Any]) -> Spread:
    return Spread.of([pair["beside"]["p99"] / pair["alone"]["p99"] for pair in data["pairs"]])


PAGE = Page(
    "benchmarks-gateway.md",
    "The REST API under load",
    'Written by `make bench ARGS="--only gateway pages"`; do not edit.',
    targets,
    {"gateway": "200 clients at once", "pages": "Pages for people"},
    {"gateway": gateway_grid, "pages": pages_grid},
    {
        "gateway": """`pipelinejob serve` with {jobs:,} jobs in its ledger, one of them a real run of {rows:,} rows of which one in a
hundred failed. {clients} clients on the same machine, each asking again as soon as it was answered, {seconds:g} s for each line: server,
database and clients share the processors, so that a request waits behind 199 others. In the last two lines, measured in pairs one after
the other, 200 jobs change each second; the run with the middle p99 is shown.""",
        "pages": """The same server with {jobs:,} jobs, one of them of {rows:,} rows; each page {times} times, one after the
other. What the database did for one is what its own statistics say: transactions, and blocks of 8 KiB that were looked at, nearly all of
them in memory.""",
    },
    ("machine", "system", "Python", "pipelinejob"),
)
