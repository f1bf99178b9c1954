"""What a person sees of jobs: a line each as kubectl prints them, or one of them whole, also while it changes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelinejob import report
from pipelinejob.progress import duration
from pipelinejob.reasons import ENDS, Phase
from pipelinejob_kubectl.jobs import phase_of, rows_of, seconds_of, shards_of, standing, summary, top_of
from pipelinejob_kubectl.kube import Object

_UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
# Ages are told in one unit up to so many seconds, in it and the next smaller one from a tenth of that on; as kubectl does.
_AGES = (
    (120, "s", ""),
    (600, "m", "s"),
    (10_800, "m", ""),
    (28_800, "h", "m"),
    (172_800, "h", ""),
    (691_200, "d", "h"),
    (63_072_000, "d", ""),
)


def age(seconds: float) -> str:
    """Seconds as kubectl's column AGE has them."""
    left = max(0, int(seconds))
    large, small = next(((large, small) for most, large, small in _AGES if left < most), ("y", "d"))
    sizes = {unit: size for size, unit in _UNITS}
    whole, rest = divmod(left, sizes[large])
    more = rest // sizes[small] if small else 0
    return f"{whole}{large}" + (f"{more}{small}" if more else "")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as kubectl prints them."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def job_list(jobs: Sequence[Object], *, everywhere: bool, now: datetime | None = None) -> str:
    """What `kubectl get pipelinejobs` prints."""
    now = now or datetime.now(UTC)
    rows = []
    for job in jobs:
        meta, status = job["metadata"], job.get("status") or {}
        cells = [
            meta["name"],
            phase_of(job),
            status.get("progress", ""),
            rows_of(job).failed if status else "",
            status.get("rowsPerSecond", ""),
            age((now - datetime.fromisoformat(meta["creationTimestamp"])).total_seconds()),
        ]
        rows.append([meta["namespace"], *cells] if everywhere else cells)
    headings = ["NAME", "PHASE", "PROGRESS", "FAILED", "RATE", "AGE"]
    return table(["NAMESPACE", *headings] if everywhere else headings, rows)


def whole(job: Object, now: datetime | None = None) -> RenderableType:
    """One job: a bar, its counts, its shards, what keeps it, its commonest failures."""
    meta, rows, shards = job["metadata"], rows_of(job), shards_of(job)
    done, phase = rows.total - rows.pending, phase_of(job)
    parts: list[RenderableType] = [report.counts_table(f"{meta['namespace']}/{meta['name']}", rows)]
    if rows.total:
        bar = ProgressBar(total=rows.total, completed=done, width=40)
        parts.append(Columns([bar, Text(" ".join(_progress(job, now)))]))
    if shards.total:
        parts.append(Text(f"shards: {shards.succeeded} of {shards.total} done, {shards.active} active, {shards.failed} failed"))
    if top := top_of(job):
        parts += [report.failures_table(top), Text(f"all of them: 'kubectl pipelinejob failures {meta['name']}'")]
    reason, said = standing(job)
    style = report.STYLES.get(Phase(phase), "cyan") if phase in list(Phase) else "cyan"
    parts.append(Text.assemble((phase, style), f" ({reason})" if reason else ""))
    if said:
        parts.append(Text(said))
    if output := (job.get("status") or {}).get("output"):
        claim = job["spec"].get("data", {}).get("persistentVolumeClaim", {}).get("claimName")
        parts.append(Text(f"output: {output} on the claim {claim}"))
    return Group(*parts)


def line(job: Object) -> str:
    """One job as it stands, in a line."""
    return f"{phase_of(job)}: {' '.join(_progress(job, None))}"


def _progress(job: Object, now: datetime | None) -> list[str]:
    rows, status = rows_of(job), job.get("status") or {}
    done = rows.total - rows.pending
    words = [f"{done:,}/{rows.total:,} rows"] + ([f"({100 * done / rows.total:.0f}%)"] if rows.total else [])
    if rate := status.get("rowsPerSecond"):
        words.append(f"{rate:g} rows/s")
    if eta := status.get("estimatedCompletionTime"):
        left = (datetime.fromisoformat(eta) - (now or datetime.now(UTC))).total_seconds()
        words.append(f"ETA {duration(max(0.0, left))}")
    if rows.failed:
        words.append(f"{rows.failed:,} failed")
    if phase_of(job) in ENDS:
        words.append(f"took {duration(seconds_of(job))}")
    return words


def show_job(job: Object, *, json: bool, message: str | None = None) -> None:
    """How a job stands, on standard output."""
    if json:
        report.print_json(summary(job, message))
        return
    console = Console()
    if message:
        say(message)
    else:
        console.print(whole(job), highlight=False, soft_wrap=True)


def show_plan(job: Object, *, json: bool) -> None:
    """What a job of mode plan found."""
    plan, rows, made = job["status"].get("plan") or {}, rows_of(job), summary(job)
    if json:
        exact = plan.get("exact", False)
        counts = {"filtered": plan["filtered"], "failed": plan["malformed"], "pending": plan["matching"]} if exact else {}
        sample = {key: plan.get(key) for key in ("rows", "exact", "matching", "malformed")}
        told = {"sample": sample, "estimatedSeconds": plan.get("estimatedSeconds"), "output": None}
        report.print_json({**made, **told, "phase": "Planned", "message": None, "rows": {**made["rows"], **counts}})
        return
    of = "of all rows" if plan.get("exact") else f"of the first {plan.get('rows', 0):,} rows"
    say(report.rows_in(rows.total, shards_of(job).total))
    if plan:
        share, is_chosen = plan["matching"] / max(1, plan["matching"] + plan["filtered"]), bool(job["spec"]["source"].get("where"))
        say(f"{report.expected(plan['matching'], share, plan['malformed'], is_chosen=is_chosen)}, {of}")
    if (seconds := plan.get("estimatedSeconds")) is not None:
        say(f"all would take about {duration(seconds)} at parallelism {job['spec']['parallelism']}, without the start of pods")


def show_functions(found: Sequence[Object], namespace: str) -> None:
    """The PipelineFunctions of a namespace."""
    if not found:
        say(f"no PipelineFunctions in the namespace {namespace}")
        return
    made = Table(title=f"PipelineFunctions of the namespace {namespace}", title_justify="left", show_lines=True)
    for column in ("function", "ready", "params", "what it does"):
        made.add_column(column, overflow="fold")
    for function in found:
        status = function.get("status") or {}
        ready: Object = next((one for one in status.get("conditions") or [] if one["type"] == "Ready"), {})
        params = "\n".join(
            f"{param['name']}: {param['expected']}" + (" (required)" if param["required"] else f" [{param.get('default')!r}]")
            for param in status.get("params") or []
        )
        doc = status.get("doc") or "" if ready.get("status") == "True" else ready.get("message", "not looked at yet")
        made.add_row(function["metadata"]["name"], ready.get("status", "Unknown"), escape(params), escape(doc))
    Console().print(made)


def show_error(reason: str, message: str, *, json: bool, seconds: float) -> None:
    """An error, and with --json the object that says it too."""
    from pipelinejob import objects  # noqa: PLC0415 - seldom needed

    Console(stderr=True).print(f"{reason}: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    if json:
        report.print_json({**objects.summary(seconds=seconds), "reason": reason, "message": message})


def say(message: str) -> None:
    """A line on standard output."""
    Console().print(message, markup=False, highlight=False, soft_wrap=True)


def tell(message: str) -> None:
    """A line on standard error."""
    print(message, file=sys.stderr, flush=True)
