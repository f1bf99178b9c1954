"""The `pipelinejob` command."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelinejob import admission, function_cli, jobfile, local, planning, report, traces
from pipelinejob import redrive as redriving
from pipelinejob.functions import BUILTINS
from pipelinejob.model import PipelineJob
from pipelinejob.objects import Tried
from pipelinejob.paths import data_root
from pipelinejob.plan import CsvIndex
from pipelinejob.progress import console_reporter
from pipelinejob.reasons import JobError, JobReason, Phase, RowReason
from pipelinejob.standing import note
from pipelinejob.storage import ON_A_LAPTOP, Storage, StorageError, is_transient
from pipelinejob.store import Database, EmbeddedServer, Job, Store

STARTUP_PATIENCE = 10.0  # seconds to wait for a database before a command gives up
EXIT_INTERRUPTED = 130
SERVICE = "pipelinejob"  # what traces call this program

# Typer carries its own copy of click and exports this one of its errors.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="pipelinejob",
    help="Runs a chain of functions over every row of a CSV, and accounts for every row.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(function_cli.app, name="function")

File = Annotated[Path, typer.Argument(help="The job file (YAML).", show_default=False)]
Name = Annotated[str, typer.Argument(help="The job's name.", show_default=False)]
Data = Annotated[str, typer.Option("--data", help="The data root: csv, images and output are below it.")]
OutputRoot = Annotated[str | None, typer.Option("--output-root", help="Where outputs go when the data root is read-only.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database", envvar="PIPELINEJOB_DATABASE_URL", help="A Postgres URL; unset: the embedded server."),
]
Workers = Annotated[int | None, typer.Option(min=1, max=10_000, help="Processes; unset: spec.parallelism, at most one a core.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The job's namespace.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]


@app.command()
def run(
    file: File,
    data: Data = ".",
    output_root: OutputRoot = None,
    workers: Workers = None,
    database: DatabaseUrl = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Start anew: remove the job of that name and its output.")] = False,
    json: Json = False,
) -> None:
    """Run a job, or go on with one that was interrupted."""
    began = time.monotonic()
    request = _request(file, data, output_root, workers, limit, replace)
    if request.job.spec.mode == "plan":
        _plan(request, count=False, json=json, began=began)
        return
    store = None
    try:
        with console_reporter() as reporter:
            traces.set_up(SERVICE, reporter.say)
            Storage(reporter.say).patiently(lambda: planning.inspect(request))  # what is wrong shows before a database is started
            store = _open_store(database, reporter.say)
            result = local.run(request, store, reporter)
        failures = store.top_failures(result.job.uid)
    except JobError as error:
        known = None if store is None or error.reason is JobReason.DATABASE_UNAVAILABLE else _find(store, request.job)
        raise typer.Exit(_fail(error, json, began, request.job, known)) from None
    finally:
        if store is not None:
            store.close()
    report.show_result(result, failures, json=json, seconds=time.monotonic() - began)
    raise typer.Exit(_exit_code(result))


@app.command()
def plan(
    file: File,
    data: Data = ".",
    output_root: OutputRoot = None,
    count: Annotated[bool, typer.Option("--count", help="Read the whole file for exact numbers.")] = False,
    sample: Annotated[int, typer.Option(min=0, max=200, help="Run the chain on the first N matching rows; draw before and after.")] = 0,
    json: Json = False,
) -> None:
    """Show what a job would do; writes nothing of the job's, starts no database."""
    _plan(_request(file, data, output_root, None, None, False), count=count, sample=sample, json=json, began=time.monotonic())


def _plan(request: planning.Request, *, count: bool, json: bool, began: float, sample: int = 0) -> None:
    from pipelinejob import preview  # noqa: PLC0415 - pandas, which nothing else needs, takes half a second to load

    csv, _, _ = planning.inspect(request)
    index = planning.scan(request, csv)
    shards = planning.shard_count(request.job.spec, index.rows)
    seen = preview.look(csv, request.job, index, whole=count)
    tried = _sample(request, csv, index, sample) if sample else None
    report.show_plan(request, index, shards, seen, tried, json=json, seconds=time.monotonic() - began)


def _sample(request: planning.Request, csv: Path, index: CsvIndex, count: int) -> Tried:
    from pipelinejob import sample  # noqa: PLC0415 - seldom needed

    try:
        found = sample.run(request, csv, index, count)
    except ValueError as error:
        raise JobError(JobReason.INVALID_SPEC, f"spec.functions: {error}") from None
    try:
        return Tried(found, *sample.draw(found, request.job.metadata.name, Path.cwd()))
    except PermissionError as error:
        raise JobError(JobReason.INVALID_SPEC, f"--sample: cannot write {error.filename}: run it from a folder of yours") from None


@app.command()
def init(csv: Annotated[Path, typer.Argument(help="The CSV to make a job for.", show_default=False)], json: Json = False) -> None:
    """Write a commented job file for a CSV, guessing its id and image columns."""
    from pipelinejob import scaffold  # noqa: PLC0415 - only this command needs it

    report.show_scaffold(scaffold.write(csv), json=json)


@app.command()
def functions(json: Json = False) -> None:
    """List the built-in functions with their params."""
    report.show_functions(list(BUILTINS.values()), json=json)


@app.command(name="list")
def list_jobs(database: DatabaseUrl = None, json: Json = False) -> None:
    """List the jobs in the ledger."""
    if database is None and not EmbeddedServer(_home()).exists():
        report.show_list([], [], json=json)
        return
    with _store(database) as store:
        jobs = store.jobs()
        states = [note(job) for job in jobs]
    report.show_list(jobs, states, json=json)


@app.command()
def status(name: Name, namespace: Namespace = "default", database: DatabaseUrl = None, json: Json = False) -> None:
    """Show how a job stands."""
    _show(name, namespace, database, json)


@app.command()
def failures(
    name: Name,
    reason: Annotated[str | None, typer.Option("--reason", help="Only rows that failed for this reason.")] = None,
    namespace: Namespace = "default",
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """List the rows that failed, each with its reason."""
    if reason is not None and reason not in list(RowReason):
        raise JobError(JobReason.INVALID_SPEC, f"--reason: {reason!r} is none: expected one of {', '.join(RowReason)}")
    with _store(database) as store:
        job = _job(store, namespace, name)
        report.show_failures(store.failures(job.uid, reason), json=json)


@app.command()
def redrive(
    name: Name,
    reason: Annotated[list[str] | None, typer.Option("--reason", help="Only rows that failed for this reason; may be repeated.")] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Rows that a failed or cancelled job never reached, too.")] = False,
    match_by_id: Annotated[
        bool, typer.Option("--match-by-id", help="The CSV has changed: find the failed rows in it by their ids.")
    ] = False,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The job file, with other functions or failure budget.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="Another data root than the job's.")] = None,
    workers: Workers = None,
    namespace: Namespace = "default",
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Run the failed rows of a job again, into its results."""
    began = time.monotonic()
    wanted = redriving.Wanted(tuple(reason or ()), pending, match_by_id, file, data, _home(), workers)
    with _store(database) as store, console_reporter() as reporter:
        traces.set_up(SERVICE, reporter.say)
        root = _job(store, namespace, name)
        before, under_way = store.redrives(root.uid), store.unfinished_redrive(root.uid)
        try:
            result = redriving.redrive(root, wanted, store, reporter)
        except JobError as error:
            if error.reason is JobReason.DATABASE_UNAVAILABLE:
                raise typer.Exit(_fail(error, json, began)) from None
            after = store.redrives(root.uid)
            ours = after[-1] if len(after) > len(before) else under_way or root
            raise typer.Exit(_fail(error, json, began, None, _result(store, ours))) from None
        top = store.top_failures(result.job.uid) if result.rows.total else []
        root_now = _result(store, store.get_job(root.uid))
    report.show_redrive(result, top, root_now, json=json, seconds=time.monotonic() - began)
    raise typer.Exit(_exit_code(result))


@app.command()
def results(name: Name, namespace: Namespace = "default", database: DatabaseUrl = None, json: Json = False) -> None:
    """Show where the results are, and make a contact sheet of 20 images."""
    with _store(database) as store:
        result = _result(store, _job(store, namespace, name))
    report.show_results(result, _home(), json=json)


@app.command(name="report")
def write_report(
    name: Name,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file; by default NAME-report.html.", show_default=False)] = None,
    namespace: Namespace = "default",
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Write one HTML file about a job, to send to somebody: counts, failures, throughput, pictures."""
    from pipelinejob import html_report, insight  # noqa: PLC0415 - only this command needs them

    path = out or Path(f"{name}-report.html")
    with _store(database) as store:
        job = _job(store, namespace, name)
        rows, _ = store.update_counts(job.uid)
        top = store.top_failures(job.uid)
        examples = {one.reason: store.failures_page(job.uid, reason=one.reason, after=-1, limit=html_report.EXAMPLES) for one in top}
        seen = insight.look(store, job.uid)
        facts = html_report.Facts(job, rows, top, examples, seen.recorded, seen.shares, datetime.now(UTC))
    try:
        html_report.write(facts, path)
    except OSError as error:
        raise JobError(JobReason.INVALID_SPEC, f"--out: cannot write {path} ({error.strerror}): choose another file") from None
    report.show_path("report", path, json=json)


@app.command()
def cancel(name: Name, namespace: Namespace = "default", database: DatabaseUrl = None, json: Json = False) -> None:
    """Cancel a job for good; what is done is kept."""
    traces.set_up(SERVICE, lambda message: typer.echo(message, err=True))
    _show(name, namespace, database, json, local.cancel)


@app.command()
def suspend(name: Name, namespace: Namespace = "default", database: DatabaseUrl = None, json: Json = False) -> None:
    """Stop a job until it is resumed; what is done is kept."""
    _show(name, namespace, database, json, local.suspend)


@app.command()
def resume(
    name: Name,
    workers: Workers = None,
    namespace: Namespace = "default",
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Go on with a job that was suspended or interrupted, as the ledger has it."""
    began = time.monotonic()
    with _store(database) as store, console_reporter() as reporter:
        traces.set_up(SERVICE, reporter.say)
        job = _job(store, namespace, name)
        if job.root_uid is not None:
            root = store.get_job(job.root_uid).name
            error = JobError(JobReason.INVALID_SPEC, f"{name!r} is a redrive: 'pipelinejob redrive {root}' goes on with it")
            raise typer.Exit(_fail(error, json, began, None, _result(store, job)))
        document, functions = jobfile.reopen(job, suspend=False)
        roots = data_root(job.data_root), Path(job.output_root)
        request = planning.Request(document, functions, *roots, _home(), workers, job.row_limit, False)
        try:
            result = local.run(request, store, reporter)
        except JobError as error:
            known = None if error.reason is JobReason.DATABASE_UNAVAILABLE else _find(store, document)
            raise typer.Exit(_fail(error, json, began, document, known)) from None
        top = store.top_failures(result.job.uid)
    report.show_result(result, top, json=json, seconds=time.monotonic() - began)
    raise typer.Exit(_exit_code(result))


@app.command()
def scale(
    name: Name,
    parallelism: Annotated[int, typer.Argument(min=1, max=10_000, help="How many processes.", show_default=False)],
    namespace: Namespace = "default",
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Set how many processes a job may have, also while it runs."""
    _show(name, namespace, database, json, lambda job, store: local.scale(job, store, parallelism))


@app.command()
def delete(
    name: Name,
    output: Annotated[bool, typer.Option("--output", help="Delete its output folder, too.")] = False,
    namespace: Namespace = "default",
    database: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Remove a job from the ledger; its output stays unless asked for."""
    with _store(database) as store:
        result = _result(store, _job(store, namespace, name))
        admission.delete(result.job, store, with_output=output)
    kept = "" if output else f"; its output stays in {result.output}"
    report.show_done(result, f"deleted {name}{kept}", json=json)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; one that others can reach wants PIPELINEJOB_SERVE_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = 8080,
    data: Data = ".",
    output_root: OutputRoot = None,
    jobs: Annotated[int, typer.Option(min=1, max=100, help="How many jobs run at a time.")] = 2,
    database: DatabaseUrl = None,
) -> None:
    """Serve the REST API, with its reference at /api/v1/docs."""
    try:
        from pipelinejob_gateway.serve import serve as run_server  # noqa: PLC0415 - needs packages that nothing else does
    except ModuleNotFoundError as error:
        advice = "pip install 'pipelinejob[serve]'"
        raise JobError(JobReason.INVALID_SPEC, f"serve: the package {error.name!r} is not installed: {advice}") from None
    root = data_root(data)
    run_server(host, port, _home(), root, _outputs(root, output_root), database, jobs)


def _request(file: Path, data: str, output_root: str | None, workers: int | None, limit: int | None, replace: bool) -> planning.Request:
    root = data_root(data)
    job, functions = jobfile.load(file, root)
    if job.spec.source.failed_rows_of is not None:
        name = job.spec.source.failed_rows_of.name
        message = f"spec.source.failedRowsOf: is for a cluster; on one machine run 'pipelinejob redrive {name} -f {file}'"
        raise JobError(JobReason.INVALID_SPEC, message)
    return planning.Request(job, functions, root, _outputs(root, output_root), _home(), workers, limit, replace)


def _outputs(root: Path, output_root: str | None) -> Path:
    """The folder that outputs are below."""
    outputs = Path(output_root) if output_root is not None else root
    if output_root is not None:
        try:
            outputs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(
                JobReason.INVALID_SPEC, f"--output-root: cannot make the folder {outputs} ({error.strerror}): pass another"
            ) from None
    return outputs.resolve()


def _home() -> Path:
    """The folder of everything of ours on a laptop: the ledger's server, logs, contact sheets."""
    return Path(os.environ.get("PIPELINEJOB_HOME") or ".pipelinejob").absolute()


def _open_store(url: str | None, say: Callable[[str], None]) -> Store:
    give_url = (lambda: url) if url else EmbeddedServer(_home(), say).url
    return Store(Database(give_url, patience=STARTUP_PATIENCE, say=say))


class _store:
    """The ledger, for a short command."""

    def __init__(self, url: str | None) -> None:
        self._url = url

    def __enter__(self) -> Store:
        if self._url is None and not EmbeddedServer(_home()).exists():
            raise JobError(
                JobReason.INVALID_SPEC,
                f"no job was run here: there is no ledger in {_home()}; change to the folder where it was run, "
                "or say where with PIPELINEJOB_HOME or --database",
            )
        self._opened = _open_store(self._url, lambda message: typer.echo(message, err=True))
        return self._opened

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def _show(name: str, namespace: str, database: str | None, json: bool, change: Callable[[Job, Store], Job] | None = None) -> None:
    """Shows how a job stands, after a change if one is given."""
    began = time.monotonic()
    with _store(database) as store:
        job = _job(store, namespace, name)
        try:
            result = _result(store, change(job, store) if change else job)
        except JobError as error:
            known = None if error.reason is JobReason.DATABASE_UNAVAILABLE else _result(store, job)
            raise typer.Exit(_fail(error, json, began, None, known)) from None
        top = store.top_failures(result.job.uid)
    report.show_status(result, top, json=json)


def _job(store: Store, namespace: str, name: str) -> Job:
    job = store.find_job(namespace, name)
    if job is None:
        known = ", ".join(other.name for other in store.jobs()[:10]) or "none"
        raise JobError(JobReason.INVALID_SPEC, f"no job {name!r} in the ledger (it has: {known}); 'pipelinejob list' shows all")
    return job


def _find(store: Store, wanted: PipelineJob) -> local.Result | None:
    """The job as the ledger has it, with fresh counts."""
    job = store.find_job(wanted.metadata.namespace, wanted.metadata.name)
    return _result(store, job) if job else None


def _result(store: Store, job: Job) -> local.Result:
    rows, shards = store.update_counts(job.uid)
    return local.Result(store.get_job(job.uid), rows, shards, note=note(job))


def _exit_code(result: local.Result) -> int:
    if result.interrupted is not None:
        return EXIT_INTERRUPTED
    return 0 if result.job.phase == Phase.COMPLETE else 1


def main() -> None:
    """The command's entry: turns every error into a message and an exit code, and with --json into an object."""
    json, began = "--json" in sys.argv, time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character must not end a command
    try:
        code = app(standalone_mode=False) or 0
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # it has printed the help
            sys.exit(2)
        code = _fail(JobError(JobReason.INVALID_SPEC, error.format_message()), json, began)
    except JobError as error:
        code = _fail(error, json, began)
    except (KeyboardInterrupt, local.Interrupted, typer.Abort):
        report.show_interrupt(json=json)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output (as head does) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        if isinstance(error, OSError) and is_transient(error):
            code = _fail(StorageError(error, ON_A_LAPTOP), json, began)
        else:  # a mistake of ours, or a broken machine: scripts still get their object
            traceback.print_exc()
            report.show_bug(error, json=json, seconds=time.monotonic() - began)
            code = 1
    traces.flush()
    sys.exit(code)


def _fail(error: JobError, json: bool, began: float, job: PipelineJob | None = None, result: local.Result | None = None) -> int:
    report.show_error(error, job, result, json=json, seconds=time.monotonic() - began)
    return 2 if error.reason is JobReason.INVALID_SPEC else 1


if __name__ == "__main__":
    main()
