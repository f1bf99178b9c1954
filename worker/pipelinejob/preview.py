"""A look into a CSV before anything runs: how many rows match, which are malformed, and the first that would run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pipelinejob import objects, planning
from pipelinejob.model import PipelineJob
from pipelinejob.plan import CsvIndex, shards
from pipelinejob.rows import Record, records
from pipelinejob.where import compile_where

SAMPLE_ROWS = 10_000
FIRST_ROWS = 3
PROBLEMS_SHOWN = 5


class Preview(NamedTuple):
    """What was seen; `exact` when all rows were read, not only the first."""

    rows: int
    matching: int
    filtered: int
    malformed: int
    problems: list[str]
    first: pd.DataFrame  # indexed by row number
    exact: bool

    @property
    def share(self) -> float:
        """The share of well-formed rows that match."""
        return self.matching / max(1, self.matching + self.filtered)


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
    seen = look(csv, request.job, index, whole=whole)
    planned = objects.of_plan(request, index, planning.shard_count(request.job.spec, index.rows), seen, time.monotonic() - began)
    first = [{"row": int(str(row)), "cells": dict(cells)} for row, cells in seen.first.iterrows()]
    return {**planned, "first": first, "problems": seen.problems}


def look(csv: Path, job: PipelineJob, index: CsvIndex, *, whole: bool) -> Preview:
    """Reads the first 10,000 rows, or all, with the very code that a run reads them with."""
    columns = index.header.columns
    where = compile_where(job.spec.source.where, columns)
    most = index.rows if whole else min(index.rows, SAMPLE_ROWS)
    matching = filtered = malformed = 0
    problems: list[str] = []
    first: dict[int, list[str]] = {}
    for record in islice(_records(csv, job, index), most):
        if record.problem:
            malformed += 1
            if len(problems) < PROBLEMS_SHOWN:
                problems.append(f"row {record.row}: {record.problem}")
        elif where(record.cells):
            matching += 1
            if len(first) < FIRST_ROWS:
                first[record.row] = record.cells
        else:
            filtered += 1
    frame = pd.DataFrame.from_dict(first, orient="index", columns=list(columns))
    return Preview(most, matching, filtered, malformed, problems, frame, exact=most == index.rows)


def _records(csv: Path, job: PipelineJob, index: CsvIndex) -> Iterator[Record]:
    source = job.spec.source
    with open(csv, "rb") as file:
        for shard in shards(index, job.spec.sharding.batch_rows):
            file.seek(shard.byte_start)
            data = file.read(shard.byte_end - shard.byte_start)
            yield from records(data, shard.first_row, index.header.columns, source.delimiter, source.encoding)
