"""Tables of what was measured on a cluster and of the ledger under load, each figure beside what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster_scale import parts, processor_share
from common import Spread
from report import MIB, Grid

APPLY_P50, APPLY_P99 = 0.3, 1.0  # seconds
WHOLE_RATIO, WHOLE_MORE = 1.25, 8.0  # times the other, and seconds
GROWTH = 1.05
COLUMNS = ("", "measured", "wanted", "")


def apply_grid(data: Mapping[str, Any]) -> Grid:
    """Latencies."""
    ours, bare = data["ours"], data["bare"]
    p50, p99 = ours["answered"]["p50"], ours["answered"]["p99"]
    ratio = ours["called"]["p50"] / bare["called"]["p50"]
    rows = [
        ["apply answered to plan Job seen, p50", f"{p50:.3f} s", f"< {APPLY_P50:g} s", _met(p50 < APPLY_P50)],
        ["the same, p99", f"{p99:.3f} s", f"< {APPLY_P99:g} s", _met(p99 < APPLY_P99)],
        ["the same, longest", f"{ours['answered']['max']:.3f} s", "", ""],
        ["apply called to plan Job seen, p50 and p99", _two(ours["called"]), "", ""],
        ["bare client, Job created to Job seen, p50 and p99", _two(bare["called"]), "", ""],
        ["ours to bare, p50", f"{ratio:.1f} ×", "", ""],
    ]
    return Grid(COLUMNS, rows)


def whole_grid(data: Mapping[str, Any]) -> Grid:
    """Seconds of both."""
    ours, theirs = (Spread.of([run[name] for run in data["runs"]]) for name in ("ours", "by_hand"))
    limit = WHOLE_RATIO * theirs.median + WHOLE_MORE
    rows = [
        ["a PipelineJob, apply to Complete", _spread(ours), f"≤ {limit:.1f} s", _met(ours.median <= limit)],
        ["an Indexed Job by hand", _spread(theirs), "", ""],
        ["ours to it", f"{ours.median / theirs.median:.2f} ×, {ours.median - theirs.median:+.1f} s", "", ""],
    ]
    return Grid(COLUMNS, rows)


def scale_grid(data: Mapping[str, Any]) -> Grid:
    """The operator with many jobs."""
    restart = data["restart"]
    rows = [
        ["the operator's memory before, MiB", _mib(data["before"])],
        [f"with {data['jobs']:,} jobs, MiB", f"{_mib(data['resident'])}, at most {_mib(data['peak'])}"],
        [f"its processor time, {data['active']} active", f"{data['processor']:.1%} of one"],
        ["status writes a second", f"{data['writes']:.1f} ({data['writes'] / data['active']:.2f} for an active job)"],
        [f"{data['jobs'] - data['active']:,} jobs taken on and ended", f"{data['filled']:.0f} s"],
        ["restart: a new process after the pod's deletion", f"{restart['started']:.1f} s"],
        ["from its start until each active job has new counts", f"{restart['active']:.1f} s"],
        ["from its start until it has seen what was patched while it was away", f"{restart['ended_jobs']:.1f} s"],
        ["its memory after that, MiB", f"{_mib(restart['resident'])}, at most {_mib(restart['peak'])}"],
    ]
    return Grid(("", "measured"), rows)


def churn_grid(data: Mapping[str, Any]) -> Grid:
    """The operator's memory over time."""
    found = parts(data["samples"])
    grown = "restarted meanwhile" if data["restarted"] else f"{found['growth']:.3f} ×"
    rows = [
        [f"memory after {0.15 * data['seconds'] / 60:.1f} minutes, MiB", _mib(found["first"]), "", ""],
        [f"memory after {data['seconds'] / 60:.0f} minutes, MiB", f"{_mib(found['last'])}, at most {_mib(found['most'])}", "", ""],
        ["the last to the first", grown, f"≤ {GROWTH:g} ×", _met(not data["restarted"] and found["growth"] <= GROWTH)],
        ["processor time", f"{processor_share(data['samples']):.1%} of one", "", ""],
    ]
    return Grid(COLUMNS, rows)


def connections_grid(data: Mapping[str, Any]) -> Grid:
    """The ways to the ledger."""
    labels = {
        "bare": f"a bare INSERT of a row, {data['held']} connections",
        "held": f"{data['workers']:,} workers, held to {data['held']} at a time",
        "direct": f"{data['workers']:,} workers at once",
        "pooled": f"{data['workers']:,} workers at once through PgBouncer",
    }
    bare, rows = data["ways"]["bare"]["rate"], []
    for name, found in data["ways"].items():
        times = [f"{found[key] * 1000:,.0f}" for key in ("p50", "p99")]
        memory = f"{found['memory'] / MIB:,.0f}"
        rows.append([labels[name], f"{found['rate']:,.0f}", f"{found['rate'] / bare:.2f}", *times, f"{found['connections']:,}", memory])
    return Grid(("", "commits/s", "to bare", "p50, ms", "p99, ms", "server connections", "server memory, MiB"), rows)


TITLES = {
    "cluster-apply": "From an applied PipelineJob to its first Job",
    "cluster-whole": "A whole job on a cluster",
    "cluster-scale": "Many jobs in a cluster",
    "cluster-churn": "The operator's memory while jobs come and go",
    "connections": "A thousand workers on one ledger",
}
GRIDS = {
    "cluster-apply": apply_grid,
    "cluster-whole": whole_grid,
    "cluster-scale": scale_grid,
    "cluster-churn": churn_grid,
    "connections": connections_grid,
}
EXPLANATIONS = {
    "cluster-apply": """{count} PipelineJobs applied at {rate:g} a second by the Python client, their pods on nodes that kwok fakes; then
as many Jobs with the same manifests created by the client alone. By this process's clock and a watch.""",
    "cluster-whole": """{rows:,} rows of 60×80 images through the reference chain on {parallelism} pods of a real node, beside a
hand-written Indexed Job of the same image, image code and shards, which keeps no ledger and no final files. {repeats} pairs in turn; median
(least–most).""",
    "cluster-scale": """{jobs:,} PipelineJobs, {active} of them active with a batch recorded every second, the others ended. Pods are
on nodes that kwok fakes; the benchmark enters plans and batches in their place.""",
    "cluster-churn": """{jobs:,} jobs, {rate:g} a second, each deleted after {life:g} s, for {seconds:,.0f} s; pods on nodes that kwok
fakes. Middle values of the second tenth of the time and of the last.""",
    "connections": """{workers:,} simulated workers of {jobs} jobs, each with its job's role, its own connection and its own shard,
recording batches of 200 rows as fast as they are answered, {seconds:g} s each way; threads of 8 processes on the same machine.
Memory is the sum of the server processes' shares (PSS), PgBouncer's with it. The
bare INSERT writes one row of the same bytes with the same client.""",
}


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def _two(found: Mapping[str, float]) -> str:
    return f"{found['p50']:.3f} and {found['p99']:.3f} s"


def _spread(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f}–{spread.high:.1f}) s"


def _mib(value: float) -> str:
    return f"{value / MIB:.0f}"
