"""The records of batches: what became of the rows that succeeded, as metadata.csv is made of them.

A record is a file of JSON lines: first the batch's summary, then for each succeeded row, in order, [row, its line of
metadata.csv up to the url, [position, function, {column: value}] of what functions returned, its key (reuse.py)]. A batch
has the record of its job, `<first row>.jsonl`, and one of each redrive in which rows of it succeeded, `<first row>.<n>.jsonl`.
"""

from __future__ import annotations

import csv
import heapq
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipelinejob import names

SUMMARY = ".batch.jsonl"  # what a record is called in the folder of its batch


def record_name(first_row: int, redrive: int | None = None) -> str:
    """What the record of a batch is called once the job is finalized."""
    return f"{names.folder(first_row)}.jsonl" if redrive is None else f"{names.folder(first_row)}.{redrive}.jsonl"


def record_files(folder: Path, first_row: int) -> list[Path]:
    """All records that there are of a batch."""
    return sorted(folder.glob(f"{names.folder(first_row)}.*jsonl"))


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of the batch with this record."""
    with open(path, encoding="utf-8") as file:
        summary: dict[str, Any] = json.loads(file.readline())
    return summary


def read_rows(paths: Iterable[Path]) -> Iterator[list[Any]]:
    """The succeeded rows of a batch from its records, in the order of the CSV."""
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, encoding="utf-8")) for path in paths]
        for file in files:
            next(file)  # the summary
        yield from heapq.merge(*(map(json.loads, file) for file in files), key=itemgetter(0))


def read_urls_and_more(path: Path) -> Iterator[tuple[str, list[Any], str]]:
    """(url, what functions returned, key) of the succeeded rows of a record; the key is empty where there is none."""
    for _, line, *rest in read_rows([path]):
        (cells,) = csv.reader(io.StringIO(line, newline="\n"))
        yield cells[-1], rest[0] if rest else [], rest[1] if len(rest) > 1 else ""


def read_urls(paths: Iterable[Path]) -> Iterator[tuple[int, str]]:
    """(row, url) of the succeeded rows of a batch; the url is empty where there is no image."""
    for row, line, *_ in read_rows(paths):
        (cells,) = csv.reader(io.StringIO(line, newline="\n"))
        yield row, cells[-1]
