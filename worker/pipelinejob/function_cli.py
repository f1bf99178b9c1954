"""`pipelinejob function`: what people do with a function of their own before a job runs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelinejob import contact_sheet, report, trial
from pipelinejob.reasons import JobError, JobReason, RowFailure, RowReason

app = typer.Typer(help="Try functions of your own.", no_args_is_help=True)


@app.callback()
def function() -> None:
    """Try functions of your own."""


@app.command()
def test(
    file: Annotated[Path, typer.Argument(help="The Python file.", show_default=False)],
    name: Annotated[str | None, typer.Argument(help="The function or class in it, when there are several.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help="The picture of the row; without one, the row has none.", show_default=False)] = None,
    row: Annotated[list[str] | None, typer.Option(metavar="COLUMN=CELL", help="A cell of the row; may be repeated.")] = None,
    param: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter; may be repeated.")] = None,
    save: Annotated[Path | None, typer.Option(help="Draw before and after into this file (PNG or JPEG).", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")] = False,
) -> None:
    """Run a function once, on one row, and show before and after."""
    cells = dict(_pair(text, "--row") for text in row or ())
    params = {key: trial.value_of(value) for key, value in (_pair(text, "--param") for text in param or ())}
    try:
        tried = trial.try_out(file, name, params, cells, image)
    except RowFailure as failure:
        report.show_row_failure(failure, json=json)
        if image is None and failure.reason is RowReason.FUNCTION_ERROR:
            sys.stderr.write("The row had no picture: give it one with --image FILE, if the function wants one.\n")
        raise typer.Exit(1) from None
    if save is not None:
        try:
            contact_sheet.beside(tried.before, tried.outcome.image, save)
        except (OSError, ValueError) as error:
            raise JobError(JobReason.INVALID_SPEC, f"--save: {save}: {error}") from None
    report.show_trial(tried, save, json=json)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise JobError(JobReason.INVALID_SPEC, f"{option}: expected NAME=VALUE, got {text!r}")
    return name, value
