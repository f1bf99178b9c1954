"""One row through one function of one's own, to see what it does before it does so to a million."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pipelinejob import images, model
from pipelinejob.functions import loading, resolve_functions
from pipelinejob.functions.chain import Chain, Outcome
from pipelinejob.reasons import JobError, JobReason

MAX_PIXELS = int(model.Source.model_fields["max_pixels"].default)


class Trial(NamedTuple):
    """What a function made of a row."""

    function: dict[str, Any]  # as a job would run it: name, file, params with defaults, digest
    before: Image.Image | None
    outcome: Outcome
    seconds: float  # of the row alone; loading is not in it

    @property
    def columns(self) -> dict[str, object]:
        """What it returned beside the picture."""
        return {name: value for _, _, columns in self.outcome.columns for name, value in columns.items()}


def try_out(file: Path, name: str | None, params: Mapping[str, object], row: Mapping[str, str], picture: Path | None) -> Trial:
    """Runs a function once, in this process, with the checks of a job.

    Args:
        file: the Python file.
        name: the function or class in it; None: the only one that it defines.
        params: its parameters.
        row: the cells by column; `id` is "0" unless it says otherwise.
        picture: the image of the row; None: it has none.

    Raises:
        JobError: InvalidSpec, for a file, name or params that a job would refuse, too; InputNotFound, for a picture that is not there.
        RowFailure: what the row would fail with.
    """
    entry = {"name": name or _only_one(file), "file": file.name, "params": dict(params)}
    functions, problems = resolve_functions([entry], file.resolve().parent)
    if problems:
        lines = [f"{field.removeprefix('functions[0].')}: {message}" for field, message in problems]
        raise JobError(JobReason.INVALID_SPEC, model.told(lines))
    before = None if picture is None else _decoded(picture)
    try:
        chain = Chain(functions, seed=0)
    except ValueError as error:
        raise JobError(JobReason.INVALID_SPEC, str(error)) from error
    cells = {"id": "0", **row}
    began = time.monotonic()
    outcome = chain.run(None if before is None else before.copy(), cells, cells["id"])
    return Trial(functions[0], before, outcome, time.monotonic() - began)


def value_of(text: str) -> object:
    """A parameter as it is typed: JSON where it is that, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _only_one(file: Path) -> str:
    try:
        names = loading.names_in(file)
    except ValueError as error:
        raise JobError(JobReason.INVALID_SPEC, f"file: {error}") from None
    if len(names) != 1:
        found = f"defines {', '.join(names)}: say which" if names else "defines no function"
        raise JobError(JobReason.INVALID_SPEC, f"name: {file} {found}")
    return names[0]


def _decoded(picture: Path) -> Image.Image:
    try:
        return images.decode(picture.read_bytes(), max_pixels=MAX_PIXELS)
    except OSError as error:
        raise JobError(JobReason.INPUT_NOT_FOUND, f"{picture}: {error.strerror}") from None
