"""What a person sees: tables and errors; with `--json` the one object that says it to a program."""

from __future__ import annotations

import json as jsonlib
import shlex
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelinejob import objects
from pipelinejob.model import PipelineJob, Rows, TopFailure
from pipelinejob.progress import duration
from pipelinejob.reasons import JobError, Phase, RowFailure, RowReason

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelinejob.functions import Function
    from pipelinejob.local import Result
    from pipelinejob.plan import CsvIndex
    from pipelinejob.planning import Request
    from pipelinejob.preview import Preview
    from pipelinejob.store import FailedRow, Job
    from pipelinejob.trial import Trial

WHAT_TO_DO = {
    RowReason.MALFORMED_ROW: "mend these lines in the CSV (often a comma that wants quotes), or correct source.encoding",
    RowReason.INVALID_OUTPUT_NAME: "give these rows an id that can be a file name",
    RowReason.DUPLICATE_ID: "give these rows ids of their own, or choose another source.idColumn",
    RowReason.IMAGE_NOT_FOUND: "add the files, or correct source.images",
    RowReason.IMAGE_TOO_LARGE: "shrink these images, or raise source.maxPixels or source.maxBytes",
    RowReason.IMAGE_INVALID: "replace these files: they cannot be decoded",
    RowReason.FUNCTION_ERROR: "look at the function, or at its params for these rows",
    RowReason.FUNCTION_TIMEOUT: "raise the function's timeoutSeconds, or look why it hangs",
    RowReason.OUTPUT_ERROR: "choose another output.format or size",
}
STYLES = {Phase.COMPLETE: "green", Phase.FAILED: "red", Phase.CANCELLED: "yellow", Phase.SUSPENDED: "yellow"}


def print_json(value: object) -> None:
    """The one line that says it to a program."""
    # In ASCII, so that it is one line to every reader (U+0085 and U+2028 end lines to some) under every locale.
    sys.stdout.write(jsonlib.dumps(value) + "\n")
    sys.stdout.flush()


def show_result(result: Result, top: Sequence[TopFailure], *, json: bool, seconds: float) -> None:
    """The end of a run: failures first, since they want reading, then the counts and where the results are."""
    if json:
        print_json(objects.of_result(result, seconds, result.note if result.interrupted else None))
        return
    console = Console()
    _print_failures(console, top, result.job.name)
    _print_counts(console, result)
    console.print(f"took {duration(seconds)}", highlight=False)
    if result.job.phase in (Phase.COMPLETE, Phase.FAILED, Phase.CANCELLED):
        console.print(f"results: {result.output}", highlight=False, markup=False, soft_wrap=True)


def show_redrive(result: Result, top: Sequence[TopFailure], root: Result, *, json: bool, seconds: float) -> None:
    """The end of a redrive, and how the job stands now whose rows it ran."""
    show_result(result, top, json=json, seconds=seconds)
    if not json and result.interrupted is None:
        rows = root.rows
        left = f"{rows.failed:,} of {rows.total:,} rows failed" + (f", {rows.pending:,} were not run" if rows.pending else "")
        Console().print(f"{root.job.name} is {root.job.phase}: {left}", highlight=False, markup=False, soft_wrap=True)


def failures_table(top: Sequence[TopFailure]) -> Table:
    """The commonest reasons, each with an example and what to do."""
    table = Table(title="Failed rows", title_justify="left")
    table.add_column("reason", style="red", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("for example")
    table.add_column("what to do")
    for failure in top:
        table.add_row(failure.reason, f"{failure.count:,}", escape(failure.example), WHAT_TO_DO[RowReason(failure.reason)])
    return table


def counts_table(title: str, rows: Rows) -> Table:
    """How many rows ended how."""
    table = Table(title=title, title_justify="left")
    counts = rows.counts()
    for column in counts:
        table.add_column(column, justify="right")
    table.add_row(*(f"{count:,}" for count in counts.values()))
    return table


def _print_failures(console: Console, top: Sequence[TopFailure], name: str) -> None:
    if not top:
        return
    console.print(failures_table(top))
    console.print(f"all of them: failures.csv in the results, or 'pipelinejob failures {name}'", highlight=False)


def _print_counts(console: Console, result: Result) -> None:
    job = result.job
    console.print(counts_table(f"{job.namespace}/{job.name}", result.rows))
    style = STYLES.get(Phase(job.phase), "cyan")
    reason = f" ({job.reason})" if job.reason else ""
    console.print(f"[{style}]{job.phase}[/]{reason}", highlight=False)
    for line in dict.fromkeys(filter(None, (job.message, result.note))):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_status(result: Result, top: Sequence[TopFailure], *, json: bool) -> None:
    """How a job stands now."""
    if json:
        print_json(objects.of_result(result, result.job.seconds, result.note))
        return
    console = Console()
    _print_failures(console, top, result.job.name)
    _print_counts(console, result)
    console.print(f"output: {result.output}", highlight=False, markup=False, soft_wrap=True)


def show_done(result: Result, message: str, *, json: bool) -> None:
    """A command that has nothing to show but that it is done."""
    if json:
        print_json(objects.of_result(result, result.job.seconds, message))
    else:
        Console().print(message, highlight=False, markup=False, soft_wrap=True)


def show_path(what: str, path: Path, *, json: bool) -> None:
    """A file that was written."""
    if json:
        print_json({what: str(path.resolve())})
    else:
        Console().print(str(path), highlight=False, markup=False, soft_wrap=True)


def show_list(jobs: Sequence[Job], states: Sequence[str | None], *, json: bool) -> None:
    """The jobs of the ledger."""
    if json:
        print_json({"jobs": [objects.of_job(job, state) for job, state in zip(jobs, states, strict=True)]})
        return
    table = Table()
    for column in ("name", "phase", "progress", "failed", "created", "output"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        rows = job.rows
        table.add_row(
            job.name if job.namespace == "default" else f"{job.namespace}/{job.name}",
            job.phase,
            f"{rows.total - rows.pending}/{rows.total}",
            str(rows.failed),
            job.created_at.strftime("%Y-%m-%d %H:%M"),
            str(Path(job.output_root) / job.output),
        )
    Console().print(table if jobs else "no jobs yet: 'pipelinejob run FILE' makes one")


def show_failures(failures: Iterable[FailedRow], *, json: bool) -> None:
    """The failed rows, one by one."""
    if json:
        print_json({"failures": [failure._asdict() for failure in failures]})
        return
    table = Table()
    table.add_column("row", justify="right")
    for column in ("id", "reason", "function", "message", "attempts"):
        table.add_column(column, overflow="fold")
    for failure in failures:
        table.add_row(*(escape(str(cell)) for cell in failure))
    Console().print(table if table.rows else "no failed rows")


def show_results(result: Result, home: Path, *, json: bool) -> None:
    """Where the results are, with a contact sheet of them."""
    from pipelinejob import contact_sheet  # noqa: PLC0415 - only here are images looked at

    sheet = contact_sheet.make(
        result.output, result.job.spec["output"]["urlColumn"], home / "contact-sheets" / f"{result.job.namespace}-{result.job.name}.png"
    )
    if json:
        print_json({**objects.of_result(result, result.job.seconds, result.note), "contactSheet": str(sheet) if sheet else None})
        return
    console = Console()
    _print_counts(console, result)
    lines = [f"results:       {result.output}"]
    lines += [f"  {name}" for name in ("metadata.csv", "failures.csv", "manifest.json") if (result.output / name).exists()]
    lines.append(f"contact sheet: {sheet}" if sheet else "no images yet")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_functions(functions: Sequence[Function], *, json: bool) -> None:
    """The built-in functions and their params."""
    if json:
        print_json({"functions": [function.described() for function in functions]})
        return
    table = Table(show_lines=True)
    for column in ("function", "version", "params", "what it does"):
        table.add_column(column, overflow="fold")
    for function in functions:
        params = "\n".join(
            f"[bold]{param.name}[/]: {escape(param.expected)}"
            + (" (required)" if param.required else f" \\[{escape(repr(param.default))}]")
            for param in function.params
        )
        table.add_row(function.name, function.version, params, escape(function.doc))
    Console().print(table)


def show_trial(tried: Trial, sheet: Path | None, *, json: bool) -> None:
    """What a function made of one row."""
    function, after = tried.function, tried.outcome.image
    if json:
        said = {key: function[key] for key in ("name", "params", "digest")}
        pictures = {"before": _size(tried.before), "after": _size(after)}
        print_json({**said, **pictures, "columns": tried.columns, "skipped": tried.outcome.skipped, "seconds": round(tried.seconds, 6)})
        return
    params = ", ".join(f"{key}={value!r}" for key, value in function["params"].items())
    console = Console()
    console.print(f"{function['name']}({params}): {1000 * tried.seconds:.1f} ms", highlight=False, markup=False)
    if tried.outcome.skipped:
        console.print("skipped: it returned None")
    table = Table("", "before", "after")
    table.add_row("picture", _described(tried.before), _described(after))
    for name, value in tried.columns.items():
        table.add_row(escape(name), "", escape(value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)))
    if not tried.outcome.skipped:
        console.print(table)
    if sheet is not None:
        console.print(f"before and after: {sheet}", highlight=False, markup=False)


def show_row_failure(failure: RowFailure, *, json: bool) -> None:
    """What a row would fail with, and the lines of the function that raised it."""
    if json:
        print_json({"reason": failure.reason.value, "function": failure.function, "message": failure.message})
    if failure.__cause__ is not None:
        traceback.print_exception(failure.__cause__)
    sys.stderr.write(f"{failure.reason.value}: {failure.message}\n")


def _size(image: Image | None) -> dict[str, object] | None:
    return None if image is None else {"width": image.width, "height": image.height, "mode": image.mode}


def _described(image: Image | None) -> str:
    return "none" if image is None else f"{image.width} × {image.height} {image.mode}"


def rows_in(rows: int, shards: int) -> str:
    """How large a job is, in words."""
    return f"{rows:,} rows in {shards:,} {'shard' if shards == 1 else 'shards'}"


def expected(matching: int, share: float, malformed: int, *, is_chosen: bool) -> str:
    """What is to become of rows, in words.

    Args:
        matching: rows that would run.
        share: of these in all rows, from 0 to 1.
        malformed: rows whose line cannot be read.
        is_chosen: whether the job has a `where`.
    """
    would = f"{matching:,} match where ({share:.1%})" if is_chosen else f"{matching:,} would run"
    return f"{would}, {malformed:,} {'is' if malformed == 1 else 'are'} malformed"


def show_plan(
    request: Request, index: CsvIndex, shards: int, seen: Preview, tried: objects.Tried | None, *, json: bool, seconds: float
) -> None:
    """What a job would do, and what it made of a sample."""
    spec = request.job.spec
    if json:
        print_json(objects.of_plan(request, index, shards, seen, seconds, tried))
        return
    console = Console()
    console.print(
        f"{rows_in(index.rows, shards)} ({index.bytes:,} bytes, sha256 {index.sha256[:12]}…)",
        highlight=False,
    )
    of = "of all rows" if seen.exact else f"of the first {seen.rows:,} rows (a sample; --count reads them all)"
    console.print(f"{expected(seen.matching, seen.share, seen.malformed, is_chosen=bool(spec.source.where))}, {of}", highlight=False)
    for problem in seen.problems:
        console.print(f"  {problem}", style="red", markup=False, highlight=False)
    console.print(f"functions: {' → '.join(function.name for function in spec.functions) or 'none (files are copied)'}", highlight=False)
    output = request.output_root / request.job.output_path
    console.print(f"output: {output}", highlight=False, markup=False, soft_wrap=True)
    table = Table(title="The first rows that would run", title_justify="left")
    table.add_column("column", style="bold", no_wrap=True)
    for number in seen.first.index:
        table.add_column(f"row {number}", overflow="ellipsis", no_wrap=True, max_width=16)
    for column, cells in seen.first.items():  # a line for each column: tables are wider than terminals
        table.add_row(escape(str(column)), *(escape(str(cell)) for cell in cells))
    console.print(table)
    if tried is not None:
        said = objects.of_sample(tried, request, index, seen)
        counts = Counter(row["status"] for row in said["rows"])
        told = ", ".join(f"{counts[status]} {status}" for status in ("succeeded", "skipped", "failed"))
        console.print(
            f"of {len(said['rows'])} rows that were tried {told}; all would take about {duration(said['estimatedSeconds'])}",
            highlight=False,
        )
        for row in said["rows"]:
            if row["status"] == "failed":
                console.print(f"  row {row['row']}: {row['message']}", style="red", markup=False, highlight=False)
        console.print(f"before and after: {tried.page} and {tried.sheet.name}", highlight=False, markup=False, soft_wrap=True)


def show_error(error: JobError, job: PipelineJob | None, result: Result | None, *, json: bool, seconds: float) -> None:
    """An error, and with --json the object that says it too."""
    Console(stderr=True).print(f"{error.reason}: {error.message}", style="red", markup=False, highlight=False, soft_wrap=True)
    if not json:
        return
    said: dict[str, Any] = {"phase": Phase.FAILED, "reason": error.reason, "message": error.message}
    if result is not None:
        print_json(objects.of_result(result, seconds) | said)
    elif job is not None:
        print_json(objects.summary(name=job.metadata.name, namespace=job.metadata.namespace, seconds=seconds) | said)
    else:
        print_json(objects.summary(seconds=seconds) | said)


def show_bug(error: Exception, *, json: bool, seconds: float) -> None:
    """An error that nobody foresaw; its traceback has been printed."""
    message = f"unexpected {type(error).__name__}: {error}"
    Console(stderr=True).print(f"{message}: please report this", style="red", markup=False, highlight=False, soft_wrap=True)
    if json:
        print_json(objects.summary(seconds=seconds, message=message))


def show_scaffold(path: Path, *, json: bool) -> None:
    """A job file that was written, and what to do with it."""
    if json:
        print_json({"file": str(path)})
    else:
        name = shlex.quote(str(path))
        Console().print(
            f"wrote {path}: look it over, then\n  pipelinejob plan {name}\n  pipelinejob run {name}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def show_interrupt(*, json: bool) -> None:
    """A Ctrl-C before or after the run of rows."""
    message = "interrupted: run the same command to go on"
    Console(stderr=True).print(message, style="yellow")
    if json:
        print_json(objects.summary(phase=Phase.PENDING, message=message))
