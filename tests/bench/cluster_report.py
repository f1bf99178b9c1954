"""Tables of what was measured on a cluster and of the ledger under load, each figure beside what was aimed at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cluster_scale import parts, processor_share
from common import Spread
from report import MIB, Grid, Page, Sections, Target

APPLY_P50, APPLY_P99 = 0.3, 1.0  # seconds
WHOLE_RATIO, WHOLE_MORE = 1.25, 8.0  # times the other, and seconds
GROWTH = 1.05
CONTROL = {"broken budget to no pod of the run": 30.0, "suspend to no pod": 30.0, "resume to a new batch": 20.0}  # seconds
REDRIVE = 0.05
MEASURED = ("", "measured")


# --- Targets -----------------------------------------------------------------------------------------------------------


def targets(sections: Sections) -> list[Target]:
    """All that has a limit, in the order of the sections."""
    of_section = (
        ("cluster-apply", _apply_targets),
        ("cluster-whole", _whole_target),
        ("cluster-churn", _churn_target),
        ("cluster-control", _control_targets),
        ("redrive", _redrive_target),
    )
    return [target for name, of in of_section if name in sections for target in of(sections[name]["data"])]


def _apply_targets(data: Mapping[str, Any]) -> Iterator[Target]:
    found = data["ours"]["answered"]
    for name, limit in (("p50", APPLY_P50), ("p99", APPLY_P99)):
        what = f"from the answer to an apply until its plan Job is seen, {name}"
        yield Target(what, f"< {limit:g} s", f"{found[name]:.3f} s", found[name] < limit)


def _whole_target(data: Mapping[str, Any]) -> Iterator[Target]:
    ours, theirs = _both(data)
    limit = WHOLE_RATIO * theirs.median + WHOLE_MORE
    wanted = f"≤ {WHOLE_RATIO:g} × an Indexed Job by hand + {WHOLE_MORE:g} s: {limit:.1f} s"
    yield Target(f"{data['rows']:,} rows, apply to Complete", wanted, f"{ours.median:.1f} s", ours.median <= limit)


def _churn_target(data: Mapping[str, Any]) -> Iterator[Target]:
    growth = parts(data["samples"])["growth"]
    measured = "restarted meanwhile" if data["restarted"] else f"{growth:.3f} ×"
    what = f"the operator's memory, the end of {data['seconds'] / 60:.0f} minutes of churn to its beginning"
    yield Target(what, f"≤ {GROWTH:g} ×", measured, not data["restarted"] and growth <= GROWTH)


def _control_targets(data: Mapping[str, Any]) -> Iterator[Target]:
    for name, limit in CONTROL.items():
        slowest = max(run[name] for run in data["runs"])
        yield Target(f"a running job, {name}, at most", f"≤ {limit:g} s", f"{slowest:.1f} s", slowest <= limit)


def _redrive_target(data: Mapping[str, Any]) -> Iterator[Target]:
    share = data["again"] / data["whole"]
    what = f"{data['failed']} failed rows of {data['rows']:,} run again, of the time of the whole run"
    exact = "" if data["exact"] else ", counts NOT exact"
    yield Target(what, f"≤ {REDRIVE:.0%}", f"{share:.2%}{exact}", share <= REDRIVE and data["exact"])


# --- Tables of one section ---------------------------------------------------------------------------------------------


def apply_grid(data: Mapping[str, Any]) -> Grid:
    """Latencies."""
    ours, bare = data["ours"], data["bare"]
    rows = []
    for label, found in (
        ("apply answered to plan Job seen", ours["answered"]),
        ("apply called to plan Job seen", ours["called"]),
        ("bare client, create called to Job seen", bare["called"]),
    ):
        rows.append([label, *(f"{found[name]:.3f}" for name in ("p50", "p99", "max"))])
    ratios = (f"{ours['called'][name] / bare['called'][name]:.1f} ×" for name in ("p50", "p99", "max"))
    return Grid(("", "p50, s", "p99, s", "longest, s"), [*rows, ["ours to bare, from the call", *ratios]])


def whole_grid(data: Mapping[str, Any]) -> Grid:
    """Seconds of both."""
    ours, theirs = _both(data)
    rows = [
        ["a PipelineJob, apply to Complete", _spread(ours)],
        ["an Indexed Job by hand", _spread(theirs)],
        ["ours to it", f"{ours.median / theirs.median:.2f} ×, {ours.median - theirs.median:+.1f} s"],
    ]
    return Grid(MEASURED, rows)


def _both(data: Mapping[str, Any]) -> tuple[Spread, Spread]:
    ours, theirs = (Spread.of([run[name] for run in data["runs"]]) for name in ("ours", "by_hand"))
    return ours, theirs


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
    return Grid(MEASURED, rows)


def churn_grid(data: Mapping[str, Any]) -> Grid:
    """The operator's memory over time."""
    found = parts(data["samples"])
    rows = [
        [f"memory after {0.15 * data['seconds'] / 60:.1f} minutes, MiB", f"{found['first'] / MIB:.1f}"],
        [f"memory after {data['seconds'] / 60:.0f} minutes, MiB", f"{found['last'] / MIB:.1f}, at most {found['most'] / MIB:.1f}"],
        ["processor time", f"{processor_share(data['samples']):.1%} of one"],
    ]
    return Grid(MEASURED, rows)


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


def control_grid(data: Mapping[str, Any]) -> Grid:
    """Seconds until a job has obeyed."""
    names = list(data["runs"][0])
    return Grid(MEASURED, [[name, _spread(Spread.of([run[name] for run in data["runs"]]))] for name in names])


def redrive_grid(data: Mapping[str, Any]) -> Grid:
    """The run and the redrive, beside each other."""
    rows = [
        ["the whole run", f"{data['whole']:,.1f}", f"{data['rows']:,}", f"{data['rows']:,}"],
        ["the redrive", f"{data['again']:,.1f}", f"{data['read']:,}", f"{data['run']:,}"],
        ["the redrive to the run", *(f"{a / b:.2%}" for a, b in _shares(data))],
    ]
    return Grid(("", "seconds", "rows read from the CSV", "rows run"), rows)


def _shares(data: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    yield data["again"], data["whole"]
    yield data["read"], data["rows"]
    yield data["run"], data["rows"]


TITLES = {
    "cluster-apply": "From an applied PipelineJob to its first Job",
    "cluster-whole": "A whole job on a cluster",
    "cluster-scale": "Many jobs in a cluster",
    "cluster-churn": "The operator's memory while jobs come and go",
    "cluster-control": "How soon a running job obeys",
    "connections": "A thousand workers on one ledger",
    "redrive": "The failed rows of a million run again",
}
GRIDS = {
    "cluster-apply": apply_grid,
    "cluster-whole": whole_grid,
    "cluster-scale": scale_grid,
    "cluster-churn": churn_grid,
    "cluster-control": control_grid,
    "connections": connections_grid,
    "redrive": redrive_grid,
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
    "cluster-control": """{rows:,} rows, of which every other image is missing, on 2 pods of a real node, in batches of 10; {repeats} jobs
of each kind. From the patch, or from the status that first shows the broken budget, by a look every 50 ms; median (least–most).""",
    "connections": """{workers:,} simulated workers of {jobs} jobs, each with its job's role, its own connection and its own shard,
recording batches of 200 rows as fast as they are answered, {seconds:g} s each way; threads of 8 processes on the same machine.
Memory is the sum of the server processes' shares (PSS), PgBouncer's with it. The
bare INSERT writes one row of the same bytes with the same client.""",
    "redrive": """{rows:,} rows of 60×80 images through the reference chain on one machine with two processes; {failed} images
are missing. Then they arrive, and `pipelinejob redrive` runs their rows. Both are timed as commands; the redrive reads the batches of
its rows, and copies metadata.csv ({metadata:,} bytes) once.""",
}


INTRODUCTION = """Written by `make bench ARGS=--cluster`; do not edit. `make bench ARGS="--only cluster-apply"` measures one section anew.
The cluster is of one node, which runs on the machine below, as do all that load it; `connections` and `redrive` need none."""

VERSIONS = ("machine", "system", "Python", "pipelinejob")
PAGE = Page(
    "benchmarks-cluster.md", "Benchmarks on a cluster, and of the ledger", INTRODUCTION, targets, TITLES, GRIDS, EXPLANATIONS, VERSIONS
)


def _spread(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.low:.1f}–{spread.high:.1f}) s"


def _mib(value: float) -> str:
    return f"{value / MIB:.0f}"
