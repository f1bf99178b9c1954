"""A look into a CSV before anything runs: how many rows match, which are malformed, and the first that would run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelinejob.model import PipelineJob
from pipelinejob.plan import CsvIndex, shards
from pipelinejob.rows import Record, records
from pipelinejob.where import compile_where

if TYPE_CHECKING:
    import pandas as pd

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
    first_rows: dict[int, list[str]]  # by row number
    columns: tuple[str, ...]
    exact: bool

    @property
    def first(self) -> pd.DataFrame:
        """The first rows that match, indexed by row number."""
        import pandas as pd  # noqa: PLC0415 - half a second, and not in the pods

        return pd.DataFrame.from_dict(self.first_rows, orient="index", columns=list(self.columns))

    @property
    def share(self) -> float:
        """The share of well-formed rows that match."""
        return self.matching / max(1, self.matching + self.filtered)


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
    return Preview(most, matching, filtered, malformed, problems, first, tuple(columns), exact=most == index.rows)


def _records(csv: Path, job: PipelineJob, index: CsvIndex) -> Iterator[Record]:
    source = job.spec.source
    with open(csv, "rb") as file:
        for shard in shards(index, job.spec.sharding.batch_rows):
            file.seek(shard.byte_start)
            data = file.read(shard.byte_end - shard.byte_start)
            yield from records(data, shard.first_row, index.header.columns, source.delimiter, source.encoding)
