"""What a job would do, for programs that ask before they send it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipelinejob import jobfile, objects, planning, preview
from pipelinejob.functions import BUILTINS
from pipelinejob.model import PipelineJob


def on_claim(job: PipelineJob, root: Path, claim: str, *, whole: bool) -> dict[str, Any]:
    """What a job of a cluster would do, where its claim can be read; code of users is not loaded here.

    Args:
        job: checked already but for what its claim holds.
        root: where the claim is mounted.
        claim: its name.
        whole: as for `plan`.

    Raises:
        JobError: as `plan` does.
    """
    ours = all(function.module is None and function.name in BUILTINS for function in job.spec.functions)
    functions = jobfile.resolve(job, Path("/"), root=root) if ours else []
    return plan(planning.Request(job, functions, root, root, root, claim=f"the claim {claim!r}"), whole=whole)


def plan(request: planning.Request, *, whole: bool) -> dict[str, Any]:
    """What a job would do, as `pipelinejob plan --json` says it, with the first rows; nothing is written.

    Args:
        request: the job, and where its data is.
        whole: read all rows for exact numbers, not the first 10,000.

    Raises:
        JobError: InvalidSpec, Input...
    """
    began = time.monotonic()
    csv, _, _ = planning.inspect(request)
    index = planning.scan(request, csv)
    seen = preview.look(csv, request.job, index, whole=whole)
    planned = objects.of_plan(request, index, planning.shard_count(request.job.spec, index.rows), seen, time.monotonic() - began)
    first = [{"row": int(str(row)), "cells": dict(cells)} for row, cells in seen.first.iterrows()]
    return {**planned, "columns": list(seen.columns), "first": first, "problems": seen.problems}
