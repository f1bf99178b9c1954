"""The `kubectl pipelinejob` command."""

from __future__ import annotations

import csv as csvlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelinejob import __version__, report
from pipelinejob.model import Rows
from pipelinejob.reasons import ENDS, JobError, Phase, RowReason
from pipelinejob_kubectl import jobs, view, watch
from pipelinejob_kubectl.arguments import hoist
from pipelinejob_kubectl.errors import PluginError
from pipelinejob_kubectl.kube import Kube, Object, Options

EXIT_INTERRUPTED = 130
EPILOG = "-n/--namespace, --context and --kubeconfig are those of kubectl and may stand anywhere. Exit codes: 0, 1 failed, 2 usage."

# Typer carries its own copy of click and exports this one of its errors.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="kubectl pipelinejob",
    help="The PipelineJobs of a cluster: run them, watch them, get their logs, failures and results.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(help="The job file (YAML).", show_default=False)]
Name = Annotated[str, typer.Argument(help="The job's name.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end; exit 0 if it is Complete, else 1.")]


@app.callback()
def options(
    ctx: typer.Context,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="The namespace; by default the context's.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="The context of the kubeconfig.")] = None,
    kubeconfig: Annotated[str | None, typer.Option("--kubeconfig", help="The kubeconfig; by default $KUBECONFIG.")] = None,
) -> None:
    """The PipelineJobs of a cluster: run them, watch them, get their logs, failures and results."""
    ctx.obj = Options(namespace, context, kubeconfig)


def _kube(ctx: typer.Context) -> Kube:
    return Kube(ctx.obj)


@app.command(name="list")
def list_jobs(
    ctx: typer.Context,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="The jobs of all namespaces.")] = False,
    json: Json = False,
) -> None:
    """List the jobs, as `kubectl get pipelinejobs` does."""
    kube = _kube(ctx)
    found = jobs.listed(kube, everywhere)
    if json:
        report.print_json({"jobs": [jobs.summary(job) for job in found]})
    elif found:
        view.say(view.job_list(found, everywhere=everywhere))
    else:
        where = "this cluster" if everywhere else f"the namespace {kube.namespace}"
        view.tell(f"no PipelineJobs in {where}: 'kubectl pipelinejob run FILE' makes one")


@app.command()
def status(ctx: typer.Context, name: Name, follow: Watch = False, json: Json = False) -> None:
    """Show how a job stands."""
    kube = _kube(ctx)
    job = jobs.find(kube, name)
    if not follow:
        view.show_job(job, json=json)
        return
    _to_the_end(kube, job, json=json)


@app.command()
def run(
    ctx: typer.Context,
    file: File,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the job to its end.")] = False,
    json: Json = False,
) -> None:
    """Apply a job and follow it to its end; the same command goes on following it."""
    from pipelinejob_kubectl import planned  # noqa: PLC0415 - reading job files loads more than other verbs need

    kube = _kube(ctx)
    job = jobs.submit(kube, planned.document(kube, file))
    if no_wait:
        view.show_job(job, json=json, message=f"{job['metadata']['namespace']}/{job['metadata']['name']} is {jobs.phase_of(job)}")
        return
    _to_the_end(kube, job, json=json)


@app.command()
def plan(ctx: typer.Context, file: File, json: Json = False) -> None:
    """Show what a job would do: it is planned in the cluster, and nothing of it is run or kept."""
    from pipelinejob_kubectl import planned  # noqa: PLC0415 - as above

    kube = _kube(ctx)
    with planned.made(kube, planned.document(kube, file), view.tell) as job:
        ended = _follow(kube, job, quiet=True)
        if not jobs.only_planned(ended):
            view.show_job(ended, json=json)
            raise typer.Exit(2 if jobs.standing(ended)[0] == "InvalidSpec" else 1)
        view.show_plan(ended, json=json)


@app.command()
def logs(
    ctx: typer.Context,
    name: Name,
    shard: Annotated[int | None, typer.Option(min=0, help="Only the pods of that shard.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only the pods of that stage: plan, shard or finalize.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines of each pod.")] = None,
) -> None:
    """Show what the pods of a job print."""
    from pipelinejob_kubectl import logs as reading  # noqa: PLC0415

    reading.check(stage, shard)
    kube = _kube(ctx)
    job = jobs.find(kube, name)
    (reading.follow if follow else reading.show)(kube, job, stage, shard, tail, lambda line: print(line, flush=True))


@app.command()
def failures(
    ctx: typer.Context,
    name: Name,
    reason: Annotated[str | None, typer.Option("--reason", help="Only rows that failed for this reason.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print them as a CSV.")] = False,
    json: Json = False,
) -> None:
    """List the rows that failed, each with its reason; before the end the commonest reasons."""
    if reason is not None and reason not in list(RowReason):
        raise PluginError("InvalidSpec", f"--reason: {reason!r} is none: expected one of {', '.join(RowReason)}")
    kube = _kube(ctx)
    job = jobs.find(kube, name)
    if jobs.phase_of(job) not in ENDS:
        _top_failures(job, json=json)
        return
    if root := job["spec"]["source"].get("failedRowsOf"):
        view.tell(f"{name} ran rows of {root['name']} again, whose results are its own: these are the failed rows of {root['name']}")
    from pipelinejob.store import FailedRow  # noqa: PLC0415 - loads the database's driver
    from pipelinejob_kubectl import copying, reading  # noqa: PLC0415

    found: list[FailedRow] = []
    if jobs.rows_of(job).failed or job["spec"]["source"].get("failedRowsOf"):
        with tempfile.TemporaryDirectory() as scratch, reading.reader(kube, job) as pod:
            folder = Path(scratch)
            with reading.packed(kube, job, pod, ["manifest.json", "failures.csv"], images=False) as stream:
                copying.unpack(stream, folder)
            copying.verify(folder, "", tables=["failures.csv"], images=False)
            found = [row for row in _rows(folder / "failures.csv") if reason in (None, row.reason)]
    if csv:
        writer = csvlib.writer(sys.stdout, lineterminator="\n")
        writer.writerows([FailedRow._fields, *found])
    else:
        report.show_failures(found, json=json)


def _rows(path: Path) -> Any:
    from pipelinejob.store import FailedRow  # noqa: PLC0415

    with open(path, encoding="utf-8", newline="") as file:
        for row in csvlib.DictReader(file):
            yield FailedRow(int(row["row"]), row["id"], row["reason"], row["function"], row["message"], int(row["attempts"]))


def _top_failures(job: Object, *, json: bool) -> None:
    note = (
        f"{job['metadata']['name']} has not ended ({jobs.phase_of(job)}): these are the commonest reasons so far, the rows come at its end"
    )
    top = jobs.top_of(job)
    if json:
        report.print_json({"failures": [], "topFailures": [one.model_dump() for one in top], "message": note})
        return
    view.tell(note)
    if top:
        from rich.console import Console  # noqa: PLC0415

        Console().print(report.failures_table(top))
    else:
        view.say("no failed rows so far")


@app.command()
def results(
    ctx: typer.Context,
    name: Name,
    to: Annotated[Path | None, typer.Option("--to", help="The folder to make; by default NAME-results.", show_default=False)] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="The images, too.")] = True,
    json: Json = False,
) -> None:
    """Copy the results out of the cluster, checked against their manifest."""
    from pipelinejob_kubectl import fetch  # noqa: PLC0415

    kube = _kube(ctx)
    job = jobs.find(kube, name)
    folder = (to or Path(f"{name}-results")).absolute()
    copied = fetch.results(kube, job, folder, images=images)
    if json:
        made = {"folder": str(folder), "files": copied.files, "bytes": copied.bytes}
        report.print_json({**jobs.summary(job), **made})
        return
    from rich.console import Console  # noqa: PLC0415

    Console().print(report.counts_table(f"{kube.namespace}/{name}", jobs.rows_of(job)))
    view.say(f"{copied.files:,} files, {copied.bytes:,} bytes, as manifest.json has them: {folder}")


@app.command()
def upload(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder with the CSV and the images.", show_default=False)],
    claim: Annotated[str, typer.Option("--claim", help="The claim that gets it.", show_default=False)],
    to: Annotated[str | None, typer.Option("--to", help="Where on the claim; by default the folder's name.", show_default=False)] = None,
    image: Annotated[str | None, typer.Option("--image", help="Of the pod that writes; by default the workers'.")] = None,
    json: Json = False,
) -> None:
    """Copy a folder onto a claim; what is there already is not sent again."""
    from pipelinejob_kubectl import upload as sending  # noqa: PLC0415

    kube, path = _kube(ctx), sending.place(to, folder)
    sent = sending.upload(kube, folder, claim, path, image)
    if json:
        report.print_json({"namespace": kube.namespace, "claim": claim, "path": path, **sent._asdict()})
        return
    kept = f"; {sent.kept:,} were there" if sent.kept else ""
    view.say(f"{sent.files:,} {'file' if sent.files == 1 else 'files'}, {sent.bytes:,} bytes, in {path!r} of the claim {claim}{kept}")


@app.command()
def redrive(
    ctx: typer.Context,
    name: Name,
    reason: Annotated[list[str] | None, typer.Option("--reason", help="Only rows that failed for this reason; may be repeated.")] = None,
    pending: Annotated[bool, typer.Option("--pending", help="Not in a cluster: says what to do instead.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow it to its end.")] = False,
    json: Json = False,
) -> None:
    """Run the failed rows of a job again, into its results."""
    if pending:
        advice = "raise spec.failurePolicy of a job that failed for its budget, and it goes on; a cancelled one wants a new job"
        raise PluginError("InvalidSpec", f"--pending: not in a cluster: {advice}")
    kube = _kube(ctx)
    job = jobs.redrive(kube, name, reason or [])
    if job is None:
        root = jobs.find(kube, name)
        none = {**jobs.summary(root, "no failed rows: nothing to run again"), "phase": Phase.COMPLETE, "rows": Rows().counts()}
        if json:
            report.print_json(none)
        else:
            view.say(f"no failed rows in {name}: nothing to run again")
        return
    made = job["metadata"]["name"]
    if no_wait:
        view.show_job(job, json=json, message=f"made {made}: 'kubectl pipelinejob status {made} --watch' follows it")
        return
    view.tell(f"made {made}")
    _to_the_end(kube, job, json=json)


@app.command()
def suspend(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Stop a job until it is resumed; what is done is kept."""
    _change(ctx, name, {"suspend": True}, "suspend", f"{name} is being suspended: its pods go, what is done is kept", json=json)


@app.command()
def resume(ctx: typer.Context, name: Name, follow: Watch = False, json: Json = False) -> None:
    """Go on with a job that was suspended."""
    told = None if follow else f"{name} goes on"
    job = _change(ctx, name, {"suspend": False}, "resume", told, json=json)
    if follow:
        _to_the_end(_kube(ctx), job, json=json)


@app.command()
def cancel(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Cancel a job for good; what is done is kept."""
    _change(ctx, name, {"cancel": True}, "cancel", f"{name} is being cancelled: the results of what is done are written", json=json)


@app.command()
def scale(
    ctx: typer.Context,
    name: Name,
    parallelism: Annotated[int, typer.Argument(min=1, max=10_000, help="How many pods.", show_default=False)],
    json: Json = False,
) -> None:
    """Set how many pods a job may have, also while it runs."""
    _change(ctx, name, {"parallelism": parallelism}, "scale", f"{name} may have {parallelism} pods at once", json=json)


def _change(ctx: typer.Context, name: str, spec: dict[str, Any], verb: str, told: str | None, *, json: bool) -> Object:
    job = jobs.change(_kube(ctx), name, spec, verb)
    if told is not None:
        view.show_job(job, json=json, message=told)
    return job


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    output: Annotated[bool, typer.Option("--output", help="Not in a cluster: says what to do instead.")] = False,
    json: Json = False,
) -> None:
    """Delete a job with its pods; its output stays on its claim."""
    kube = _kube(ctx)
    job = jobs.find(kube, name)
    where = (job.get("status") or {}).get("output") or "nothing yet"
    if output:
        raise PluginError("InvalidSpec", f"--output: nothing is deleted from claims: remove the folder {where!r} of the claim yourself")
    kube.call("DELETE", kube.ours(name))
    view.show_job(job, json=json, message=f"deleted {name}; its output stays on its claim ({where})")


@app.command()
def functions(ctx: typer.Context, json: Json = False) -> None:
    """List the built-in functions, and the PipelineFunctions of the namespace."""
    from pipelinejob.functions import BUILTINS  # noqa: PLC0415 - loads the image library

    kube = _kube(ctx)
    found = kube.items(kube.ours(kind="pipelinefunctions"))
    if json:
        named = [{"name": one["metadata"]["name"], **(one.get("status") or {})} for one in found]
        report.print_json({"functions": [each.described() for each in BUILTINS.values()], "pipelineFunctions": named})
        return
    report.show_functions(list(BUILTINS.values()), json=False)
    view.show_functions(found, kube.namespace)


@app.command()
def doctor(ctx: typer.Context, json: Json = False) -> None:
    """Check the installation, your rights and what jobs wait for; say what to fix. Exit 1 if something is broken."""
    from pipelinejob_kubectl import doctor as deciding  # noqa: PLC0415
    from pipelinejob_kubectl import facts  # noqa: PLC0415

    findings = facts.examine(_kube(ctx))
    deciding.show(findings, json=json)
    if any(one.level == "problem" for one in findings):
        raise typer.Exit(1)


@app.command()
def version(
    ctx: typer.Context,
    client: Annotated[bool, typer.Option("--client", help="Only of this command: no cluster is asked.")] = False,
    json: Json = False,
) -> None:
    """Show the version of this command and of the operator in the cluster."""
    from pipelinejob_kubectl import facts  # noqa: PLC0415

    operator = None if client else facts.operator_version(_kube(ctx))
    if json:
        report.print_json({"client": __version__, **({} if client else {"operator": operator})})
        return
    view.say(f"kubectl pipelinejob {__version__}")
    if not client:
        view.say(f"operator            {operator or 'not found, or not yours to see'}")


def _follow(kube: Kube, job: Object, *, quiet: bool) -> Object:
    meta = job["metadata"]
    with watch.display(quiet=quiet) as (show, tell):
        return watch.follow(kube, kube.ours(meta["name"], namespace=meta["namespace"]), meta["uid"], show, tell)


def _to_the_end(kube: Kube, job: Object, *, json: bool) -> None:
    """Follows a job; its end is the command's."""
    ended = _follow(kube, job, quiet=json)
    view.show_job(ended, json=json)
    if jobs.only_planned(ended) or jobs.phase_of(ended) == Phase.COMPLETE:
        return
    raise typer.Exit(2 if jobs.standing(ended)[0] == "InvalidSpec" else 1)


def main() -> None:
    """The command's entry: turns every error into a line and an exit code, and with --json into an object."""
    json, began = "--json" in sys.argv, time.monotonic()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = app(hoist(sys.argv[1:]), prog_name="kubectl pipelinejob", standalone_mode=False) or 0
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # it has printed the help
            sys.exit(2)
        code = _fail("InvalidSpec", error.format_message(), 2, json, began)
    except PluginError as error:
        code = _fail(error.reason, error.message, error.code, json, began)
    except JobError as error:
        code = _fail(error.reason, error.message, 2, json, began)
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output (as head does) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        code = _fail("Unexpected", f"{type(error).__name__}: {error}: please report this", 1, json, began)
    if code == EXIT_INTERRUPTED:  # typer makes it of a Ctrl-C
        _fail("Interrupted", "jobs go on in the cluster: 'kubectl pipelinejob status NAME --watch' follows one", code, json, began)
    sys.exit(code)


def _fail(reason: str, message: str, code: int, json: bool, began: float) -> int:
    view.show_error(reason, message, json=json, seconds=time.monotonic() - began)
    return code
