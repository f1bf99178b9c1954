"""Failed rows found again in a CSV that was changed since, by their ids: the plan of a redrive that may not trust offsets.

The records are copied into a file of the redrive's own, in the order of the rows that failed: what runs then depends on no
file that may change again, and a redrive that was killed goes on with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipelinejob import faults, plan
from pipelinejob.checksum import checksum
from pipelinejob.commit import sync_folder
from pipelinejob.reasons import JobError, JobReason, RowReason
from pipelinejob.rows import record_spans, records
from pipelinejob.store import FailedRow, Job

NO_IDS = (RowReason.MALFORMED_ROW, RowReason.DUPLICATE_ID, RowReason.INVALID_OUTPUT_NAME)  # they fail for want of an id of their own
READ_ROWS = 1_000  # read at once


class Found(NamedTuple):
    """A failed row in the new file: where its record is, and the checksum of that."""

    row: int
    byte_start: int
    byte_end: int
    checksum: int


class Copied(NamedTuple):
    """The rows of one of the root's batches in the file of a redrive."""

    home: int  # the batch's first row
    end_row: int  # its last row, exclusive
    byte_start: int
    byte_end: int
    checksum: int
    rows: list[int]


class Matches(NamedTuple):
    """What a pass over the new file found."""

    scanned: plan.CsvIndex
    found: list[Found]  # in the order of the rows that failed
    left: dict[str, int]  # how many rows stay failed, by why

    def planned(self) -> dict[str, object]:
        """What the ledger keeps of the input."""
        index = self.scanned
        return {
            "columns": list(index.header.columns),
            "rows": index.total_rows,
            "bytes": index.bytes,
            "sha256": index.sha256,
            "mtime_ns": index.mtime_ns,
            "left": self.left,
        }

    def told(self, csv: str) -> str | None:
        """What a person should know of the rows that stay failed."""
        if not any(self.left.values()):
            return None
        why = ", ".join(f"{count:,} {what}" for what, count in self.left.items() if count)
        return f"{sum(self.left.values()):,} failed rows stay failed, since {csv} has no one row of theirs by id: {why}"


def match(root: Job, csv: Path, failures: Iterator[FailedRow]) -> Matches:
    """Looks for failed rows in a CSV by their ids, in one pass; what is kept grows with these rows, not with the file.

    Args:
        root: the job whose rows they are.
        csv: the file as it is now.
        failures: the rows that failed, in order.

    Raises:
        JobError: InvalidSpec when its columns are others; Input...
    """
    source = root.spec["source"]
    wanted, left = _wanted(failures)
    index = plan.scan(csv, delimiter=source["delimiter"], encoding=source["encoding"], batch_rows=READ_ROWS, label=source["csv"])
    columns = index.header.columns
    if root.input is None or list(columns) != root.input["columns"]:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"{source['csv']}: its columns are {', '.join(columns)}, and were others when {root.name!r} was planned: "
            "rows can be matched by id only in a file of the same columns; run the new one as a job of another name",
        )
    at = columns.index(source["idColumn"])
    found: dict[str, Found | None] = {}  # None: there more than once
    for first, start, data in _batches(csv, index):
        parsed = records(data, first, columns, source["delimiter"], source["encoding"])
        here = [(number, record.cells[at]) for number, record in enumerate(parsed) if not record.problem and record.cells[at] in wanted]
        if not here:
            continue
        spans = list(record_spans(data, source["delimiter"]))
        for number, id in here:
            begin, end = spans[number]
            twice = id in found
            found[id] = None if twice else Found(wanted[id], start + begin, start + end, checksum(data[begin:end]))
    left["not there"] = len(wanted) - len(found)
    left["there more than once"] = sum(one is None for one in found.values())
    return Matches(index, sorted(one for one in found.values() if one is not None), left)


def copy(root: Job, csv: Path, found: Sequence[Found], path: Path) -> list[Copied]:
    """Copies the records of a match into a file of its own, which appears whole or not at all.

    Args:
        root: the job whose rows they are.
        csv: where they were found.
        found: in the order of the rows that failed.
        path: the file to write.

    Returns:
        What of the file belongs to which batch of the root.

    Raises:
        JobError: InputChanged, when they are not those that were found.
    """
    size = int(root.spec["sharding"]["batchRows"])
    copied, start = [], 0
    draft = path.with_suffix(".part")
    with open(csv, "rb") as source, open(draft, "wb") as file:
        for home, group in groupby(found, key=lambda one: one.row // size * size):
            rows = list(group)
            data = b"".join(_record(source, one) for one in rows)
            file.write(data)
            end = min(home + size, root.rows_total)
            copied.append(Copied(home, end, start, start + len(data), checksum(data), [one.row for one in rows]))
            start += len(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    sync_folder(path.parent)
    faults.point("matched")
    return copied


def plan_shards(copied: Sequence[Copied], rows_per_shard: int) -> list[dict[str, Any]]:
    """The shards of a redrive over its copied records: whole batches, about so many rows a shard."""
    shards: list[dict[str, Any]] = []
    for batch in copied:
        if not shards or shards[-1]["rows"] >= rows_per_shard:
            lists: dict[str, list[int]] = {name: [] for name in ("homes", "batch_starts", "batch_ends", "batch_checksums", "picked")}
            shards.append({"index": len(shards), "first_row": batch.home, "rows": 0, "byte_start": batch.byte_start, **lists})
        shard = shards[-1]
        shard["rows"] += len(batch.rows)
        shard["end_row"], shard["byte_end"] = batch.end_row, batch.byte_end
        shard["homes"].append(batch.home)
        shard["batch_starts"].append(batch.byte_start)
        shard["batch_ends"].append(batch.byte_end)
        shard["batch_checksums"].append(batch.checksum)
        shard["picked"] += batch.rows
    return shards


def _record(file: BinaryIO, one: Found) -> bytes:
    file.seek(one.byte_start)
    data = file.read(one.byte_end - one.byte_start)
    if checksum(data) != one.checksum:
        raise _changed(Path(file.name))
    return data if data.endswith(b"\n") else data + b"\n"  # the last line of the file may have no end


def _changed(csv: Path) -> JobError:
    return JobError(JobReason.INPUT_CHANGED, f"{csv.name} changed while it was read: wait until it is complete, then try again")


def _wanted(failures: Iterator[FailedRow]) -> tuple[dict[str, int], dict[str, int]]:
    """(id → row of what can be looked for, how many rows cannot be, by why)."""
    wanted: dict[str, int] = {}
    shared: set[str] = set()
    left = {f"without an id of their own ({', '.join(NO_IDS)})": 0, "of an id that several of them have": 0}
    without, several = left
    for row in failures:
        if row.reason in NO_IDS:
            left[without] += 1
        elif row.id in shared:
            left[several] += 1
        elif row.id in wanted:
            shared.add(row.id)
            del wanted[row.id]
            left[several] += 2
        else:
            wanted[row.id] = row.row
    return wanted, left


def _batches(csv: Path, index: plan.CsvIndex) -> Iterator[tuple[int, int, bytes]]:
    """(first row, where it starts, bytes) of each part of the file."""
    with open(csv, "rb") as file:
        for shard in plan.shards(index, READ_ROWS):
            file.seek(shard.byte_start)
            data = file.read(shard.byte_end - shard.byte_start)
            if checksum(data) != shard.batch_checksums[0]:
                raise _changed(csv)
            yield shard.first_row, shard.byte_start, data
