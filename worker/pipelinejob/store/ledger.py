"""What is kept of a job and how it is asked for: the named operations on the tables of the schema `pipelinejob`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pipelinejob.model import Rows, Shards, TopFailure
from pipelinejob.store.connection import Database, migrate

PAGE = 5_000


class Job(NamedTuple):
    """A job as the ledger has it."""

    uid: str
    namespace: str
    name: str
    phase: str
    reason: str | None
    message: str | None
    spec: dict[str, Any]
    functions: list[dict[str, Any]]
    digest: str
    status: dict[str, Any]
    data_root: str
    output: str
    output_root: str
    row_limit: int | None
    round: int
    stop: str | None
    input: dict[str, Any] | None
    input_digest: str | None
    rows_total: int
    rows_succeeded: int
    rows_filtered: int
    rows_skipped: int
    rows_failed: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def rows(self) -> Rows:
        """The counts; what is in no final state is pending."""
        done = self.rows_succeeded + self.rows_filtered + self.rows_skipped + self.rows_failed
        return Rows(
            total=self.rows_total,
            succeeded=self.rows_succeeded,
            filtered=self.rows_filtered,
            skipped=self.rows_skipped,
            failed=self.rows_failed,
            pending=self.rows_total - done,
        )


@dataclass(frozen=True)
class ShardRow:
    """A shard with the first rows of its batches that are recorded."""

    index: int
    first_row: int
    rows: int
    byte_start: int
    batch_ends: list[int]
    batch_checksums: list[int]
    recorded: frozenset[int]


class BatchRow(NamedTuple):
    """A recorded batch."""

    first_row: int
    rows: int
    succeeded: int
    images: int
    bytes: int
    images_sha256: str
    inputs_sha256: str


class FailedRow(NamedTuple):
    """A row that failed, with its reason."""

    row: int
    id: str
    reason: str
    function: str
    message: str
    attempts: int


class Store:
    """The operations on the ledger; each is one transaction. Brings the schema up to date when first used."""

    def __init__(self, database: Database) -> None:
        self._db = database
        migrate(database)

    def close(self) -> None:
        """Closes the connection."""
        self._db.close()

    def be_patient(self, seconds: float) -> None:
        """From now on a database that goes away is waited for that long."""
        self._db.patience = seconds

    def find_job(self, namespace: str, name: str) -> Job | None:
        """The job of that name, if there is one."""
        found = self._jobs("namespace = %s AND name = %s", (namespace, name))
        return found[0] if found else None

    def get_job(self, uid: str) -> Job:
        """The job of that uid; KeyError if it was deleted."""
        found = self._jobs("uid = %s", (uid,))
        if not found:
            raise KeyError(uid)
        return found[0]

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        return self._jobs("true ORDER BY created_at DESC", ())

    def _jobs(self, condition: str, parameters: Sequence[object]) -> list[Job]:
        columns = ", ".join(Job._fields)
        rows = self._db.query(f"SELECT {columns} FROM pipelinejob.jobs WHERE {condition}", parameters)
        return [Job(**{**row, "uid": str(row["uid"])}) for row in rows]

    def insert_job(self, **fields: object) -> Job:
        """Adds a job; the fields are those of `Job` without defaults in the table."""
        names = list(fields)
        marks = ", ".join(["%s"] * len(names))
        self._db.query(f"INSERT INTO pipelinejob.jobs ({', '.join(names)}) VALUES ({marks})", [_adapt(fields[n]) for n in names])
        return self.get_job(str(fields["uid"]))

    def update_job(self, uid: str, **fields: object) -> None:
        """Sets columns of a job."""
        settings = ", ".join(f"{name} = %s" for name in fields)
        self._db.query(f"UPDATE pipelinejob.jobs SET {settings} WHERE uid = %s", [*map(_adapt, fields.values()), uid])

    def delete_job(self, uid: str) -> None:
        """Removes a job with all that is recorded of it."""
        self._db.query("DELETE FROM pipelinejob.jobs WHERE uid = %s", (uid,))

    def save_plan(self, uid: str, planned: Mapping[str, object], rows: int, shards: Callable[[], Iterable[Any]]) -> None:
        """Stores the plan of a job, all of it or nothing; `shards` gives them anew if it has to be done again."""

        def work(cursor: Any) -> None:
            cursor.execute("DELETE FROM pipelinejob.shards WHERE job_uid = %s", (uid,))
            cursor.copy_expert(
                "COPY pipelinejob.shards (job_uid, index, first_row, rows, byte_start, byte_end, batch_ends, batch_checksums) FROM STDIN",
                _CopyLines(_shard_line(uid, shard) for shard in shards()),
            )
            cursor.execute(
                "UPDATE pipelinejob.jobs SET input = %s, input_digest = %s, rows_total = %s WHERE uid = %s",
                (json.dumps(planned), planned["sha256"], rows, uid),
            )

        self._db.transaction(work)

    def open_round(self, uid: str) -> int:
        """Starts a round: unfinished shards can record again, under its number, which is returned."""

        def work(cursor: Any) -> int:
            cursor.execute("UPDATE pipelinejob.jobs SET round = round + 1 WHERE uid = %s RETURNING round", (uid,))
            round_number = int(cursor.fetchone()["round"])
            cursor.execute(
                "UPDATE pipelinejob.shards SET open = true, round = %s"
                " WHERE job_uid = %s AND succeeded + filtered + skipped + failed < rows",
                (round_number, uid),
            )
            return round_number

        return self._db.transaction(work)

    def close_round(self, uid: str) -> None:
        """Ends the round: nothing can be recorded any more; waits for transactions in flight."""
        self._db.query("UPDATE pipelinejob.shards SET open = false WHERE job_uid = %s AND open", (uid,))

    def unfinished_shards(self, uid: str) -> Iterator[ShardRow]:
        """The shards with batches that are not recorded, in order, one at a time."""
        index = -1
        while True:
            rows = self._db.query(
                "SELECT s.index, s.first_row, s.rows, s.byte_start, s.batch_ends, s.batch_checksums,"
                " ARRAY(SELECT b.first_row FROM pipelinejob.batches b WHERE b.job_uid = s.job_uid"
                "       AND b.first_row >= s.first_row AND b.first_row < s.first_row + s.rows) AS recorded"
                " FROM pipelinejob.shards s WHERE s.job_uid = %s AND s.index > %s"
                " AND s.succeeded + s.filtered + s.skipped + s.failed < s.rows ORDER BY s.index LIMIT 1",
                (uid, index),
            )
            if not rows:
                return
            index = rows[0]["index"]
            yield ShardRow(**{**rows[0], "recorded": frozenset(rows[0]["recorded"])})

    def shards_of(self, uid: str, first_rows: Sequence[int]) -> dict[int, int]:
        """The index of the shard that each of these rows is in; rows of no shard are left out."""
        rows = self._db.query(
            "SELECT r.row, s.index FROM unnest(%s::bigint[]) AS r(row) JOIN pipelinejob.shards s"
            " ON s.job_uid = %s AND r.row >= s.first_row AND r.row < s.first_row + s.rows",
            (list(first_rows), uid),
        )
        return {row["row"]: row["index"] for row in rows}

    def recorded(self, uid: str, first_rows: Sequence[int]) -> set[int]:
        """Which of the batches that start at these rows are recorded."""
        rows = self._db.query(
            "SELECT first_row FROM pipelinejob.batches WHERE job_uid = %s AND first_row = ANY(%s)",
            (uid, list(first_rows)),
        )
        return {row["first_row"] for row in rows}

    def record(self, uid: str, shard: int, round_number: int, batches: Sequence[Mapping[str, object]]) -> str:
        """Records finished batches of a shard; answers go, closed or stop."""
        rows = self._db.query(
            "SELECT pipelinejob.record_batches_v1(%s, %s, %s, %s) AS answer",
            (uid, shard, round_number, json.dumps(batches)),
        )
        return str(rows[0]["answer"])

    def stop_reason(self, uid: str) -> str | None:
        """Why the job is to stop, if it is."""
        rows = self._db.query("SELECT stop FROM pipelinejob.jobs WHERE uid = %s", (uid,))
        return rows[0]["stop"] if rows else "deleted"

    def update_counts(self, uid: str) -> tuple[Rows, Shards]:
        """Adds up the shards into the job's counts and returns them."""
        rows = self._db.query(
            "WITH n AS (SELECT count(*) AS shards, count(*) FILTER (WHERE done = rows) AS finished,"
            "  count(*) FILTER (WHERE done > 0 AND done < rows) AS begun,"
            "  coalesce(sum(succeeded), 0) AS succeeded, coalesce(sum(filtered), 0) AS filtered,"
            "  coalesce(sum(skipped), 0) AS skipped, coalesce(sum(failed), 0) AS failed"
            "  FROM (SELECT *, succeeded + filtered + skipped + failed AS done FROM pipelinejob.shards"
            "        WHERE job_uid = %(uid)s) s)"
            " UPDATE pipelinejob.jobs j SET rows_succeeded = n.succeeded, rows_filtered = n.filtered,"
            "  rows_skipped = n.skipped, rows_failed = n.failed FROM n WHERE j.uid = %(uid)s"
            " RETURNING j.rows_total, n.*",
            {"uid": uid},
        )
        row = {key: int(value) for key, value in rows[0].items()}
        done = row["succeeded"] + row["filtered"] + row["skipped"] + row["failed"]
        counts = Rows(
            total=row["rows_total"],
            succeeded=row["succeeded"],
            filtered=row["filtered"],
            skipped=row["skipped"],
            failed=row["failed"],
            pending=row["rows_total"] - done,
        )
        return counts, Shards(total=row["shards"], active=row["begun"], succeeded=row["finished"])

    def batches(self, uid: str) -> Iterator[BatchRow]:
        """The recorded batches in the order of their rows, read page by page."""
        columns = ", ".join(BatchRow._fields)
        last = -1
        while page := self._db.query(
            f"SELECT {columns} FROM pipelinejob.batches WHERE job_uid = %s AND first_row > %s ORDER BY first_row LIMIT {PAGE}",
            (uid, last),
        ):
            yield from (BatchRow(**row) for row in page)
            last = page[-1]["first_row"]

    def function_columns(self, uid: str) -> list[tuple[int, str, str]]:
        """(position, function, column) of everything that functions returned, by position, then by name."""
        rows = self._db.query(
            "SELECT DISTINCT c.value AS value FROM pipelinejob.batches b, jsonb_array_elements(b.columns) AS c WHERE b.job_uid = %s",
            (uid,),
        )
        return sorted((row["value"][0], row["value"][1], row["value"][2]) for row in rows)

    def pending_ranges(self, uid: str, batch_rows: int) -> list[dict[str, int]]:
        """The rows in no recorded batch, as ranges {first, rows}."""
        ranges: list[dict[str, int]] = []
        for shard in self.unfinished_shards(uid):
            for first, rows, _, _, _ in batches_of(shard, batch_rows):
                if ranges and ranges[-1]["first"] + ranges[-1]["rows"] == first:
                    ranges[-1]["rows"] += rows
                else:
                    ranges.append({"first": first, "rows": rows})
        return ranges

    def failures(self, uid: str, reason: str | None = None) -> Iterator[FailedRow]:
        """The failed rows in the order of the CSV, read page by page."""
        columns = ", ".join(FailedRow._fields)
        last = -1
        while page := self._db.query(
            f"SELECT {columns} FROM pipelinejob.failed_rows WHERE job_uid = %s AND row > %s"
            f" AND (%s::text IS NULL OR reason = %s) ORDER BY row LIMIT {PAGE}",
            (uid, last, reason, reason),
        ):
            yield from (FailedRow(**row) for row in page)
            last = page[-1]["row"]

    def top_failures(self, uid: str, most: int = 5) -> list[TopFailure]:
        """The commonest reasons with their counts and the first row of each as an example."""
        rows = self._db.query(
            "SELECT DISTINCT ON (n.count, reason) f.reason, n.count, f.row, f.id, f.message"
            " FROM pipelinejob.failed_rows f JOIN (SELECT reason, count(*) AS count FROM pipelinejob.failed_rows"
            "  WHERE job_uid = %(uid)s GROUP BY reason ORDER BY count(*) DESC, reason LIMIT %(most)s) n USING (reason)"
            " WHERE f.job_uid = %(uid)s ORDER BY n.count DESC, reason, f.row",
            {"uid": uid, "most": most},
        )
        return [TopFailure(reason=row["reason"], count=row["count"], example=f"row {row['row']}: {row['message']}") for row in rows]


def batches_of(shard: ShardRow, batch_rows: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(first row, rows, byte start, byte end, checksum) of the batches of a shard that are not recorded."""
    start, first = shard.byte_start, shard.first_row
    for end, checksum in zip(shard.batch_ends, shard.batch_checksums, strict=True):
        rows = min(batch_rows, shard.first_row + shard.rows - first)
        if first not in shard.recorded:
            yield first, rows, start, end, checksum
        start, first = end, first + rows


def _adapt(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _shard_line(uid: str, shard: Any) -> str:
    ends = "{" + ",".join(map(str, shard.batch_ends)) + "}"
    checksums = "{" + ",".join(map(str, shard.batch_checksums)) + "}"
    cells = (uid, shard.index, shard.first_row, shard.rows, shard.byte_start, shard.byte_end, ends, checksums)
    return "\t".join(map(str, cells)) + "\n"


class _CopyLines(io.TextIOBase):
    """The lines of an iterator as the file that COPY reads."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._rest = ""

    def read(self, size: int | None = -1) -> str:
        while size is None or size < 0 or len(self._rest) < size:
            line = next(self._lines, None)
            if line is None:
                break
            self._rest += line
        if size is None or size < 0:
            size = len(self._rest)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece
