"""What is kept of a job and how it is asked for: the named operations on the tables of the schema `pipelinejob`."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelinejob.reasons import ENDS, Phase
from pipelinejob.store.connection import Database, migrate
from pipelinejob.timings import Timing

if TYPE_CHECKING:  # a pod that runs rows does without pydantic, the longest of its imports
    from pipelinejob.model import Rows, Shards, TopFailure

PAGE = 5_000
SHARDS_AT_ONCE = 100  # of a plan, in one statement


class GoneError(KeyError):
    """The ledger has no job of that uid: it was deleted, perhaps since its name was looked up."""


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
    rows_reused: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    generation: int | None  # of the object in the cluster; None: a job of a laptop
    image: str | None
    problem: dict[str, str] | None  # {stage, reason, message}, as the first pod to fail in this round said
    round_done: int
    deleted_at: datetime | None
    root_uid: str | None  # of a redrive: the job whose rows it runs again
    redrive: int | None  # its number among the redrives of that job
    selection: dict[str, Any] | None  # {reasons: list or None for any, pending: bool}

    @property
    def rows(self) -> Rows:
        """The counts; what is in no final state is pending."""
        reused = self.rows_reused if self.spec.get("incrementalOf") else None
        return _rows(self.rows_total, self.rows_succeeded, self.rows_filtered, self.rows_skipped, self.rows_failed, reused)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended: never before it began, though a clock was set back meanwhile, or two machines' clocks differ."""
        if self.started_at is None or self.finished_at is None:
            return self.finished_at
        return max(self.started_at, self.finished_at)

    @property
    def seconds(self) -> float:
        """How long it ran; 0 while that cannot be told."""
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else 0.0


class Outline(NamedTuple):
    """How a job stands, in short: what people who watch many are told."""

    uid: str
    namespace: str
    name: str
    phase: str
    reason: str | None
    stop: str | None
    rows_total: int
    rows_succeeded: int
    rows_filtered: int
    rows_skipped: int
    rows_failed: int


@dataclass(frozen=True)
class ShardRow:
    """A shard with the first rows of its batches that are recorded.

    That of a redrive has batches with gaps in between, of whose rows only those `picked` are to run: `rows` is how many.
    """

    index: int
    first_row: int
    rows: int
    end_row: int
    byte_start: int
    batch_ends: list[int]
    batch_checksums: list[int]
    recorded: frozenset[int]
    homes: list[int] | None
    batch_starts: list[int] | None
    picked: list[int] | None


class Batch(NamedTuple):
    """A batch to run: its rows and bytes, exclusive ends, and which of its rows; None: all."""

    first_row: int
    rows: int
    byte_start: int
    byte_end: int
    checksum: int
    picked: list[int] | None

    @property
    def to_run(self) -> int:
        """How many rows are to run."""
        return self.rows if self.picked is None else len(self.picked)


class BatchRow(NamedTuple):
    """A recorded batch."""

    first_row: int
    rows: int
    succeeded: int
    images: int
    bytes: int
    images_sha256: str
    inputs_sha256: str
    redriven: list[tuple[int, int]]  # of `succeeded`, in which redrive how many did


class TimedBatch(NamedTuple):
    """A recorded batch, and how long its steps took."""

    uid: str
    first_row: int
    recorded_at: datetime
    namespace: str
    functions: list[str]
    timings: list[Timing]


@dataclass(frozen=True)
class ShardDone:
    """A shard, and how many of its rows ended how."""

    index: int
    first_row: int
    rows: int
    succeeded: int
    filtered: int
    skipped: int
    failed: int

    @property
    def done(self) -> int:
        """Rows in a final state."""
        return self.succeeded + self.filtered + self.skipped + self.failed


class FailedRow(NamedTuple):
    """A row that failed, with its reason."""

    row: int
    id: str
    reason: str
    function: str
    message: str
    attempts: int


class Store:
    """The operations on the ledger; each is one transaction.

    What a pod needs goes through functions of the database, which let a job's own role do it for that job alone, and the
    ledger's owner for every job. The rest is for the owner: a laptop, the operator.

    Args:
        database: the connection.
        migrated: the schema is up to date; else it is brought up to date now, which only the owner can do.
    """

    def __init__(self, database: Database, *, migrated: bool = False) -> None:
        self._db = database
        if not migrated:
            migrate(database)

    def close(self) -> None:
        """Closes the connection."""
        self._db.close()

    def rest(self) -> None:
        """Closes the connection if it has not been used for a while; a later call opens a new one."""
        self._db.close_if_idle()

    def be_patient(self, seconds: float) -> None:
        """From now on a database that goes away is waited for that long."""
        self._db.patience = seconds

    def abandon(self) -> None:
        """From now on nothing waits for the database, neither for one that is away nor for one that is silent."""
        self._db.abandon()

    def find_job(self, namespace: str, name: str) -> Job | None:
        """The job of that name, if there is one that is not deleted."""
        found = self._jobs("pipelinejob.jobs WHERE namespace = %s AND name = %s AND deleted_at IS NULL", (namespace, name))
        return found[0] if found else None

    def get_job(self, uid: str) -> Job:
        """The job of that uid; GoneError if there is none."""
        found = self._jobs("pipelinejob.job_v1(%s)", (uid,))
        if not found:
            raise GoneError(uid)
        return found[0]

    def jobs(self) -> list[Job]:
        """All jobs that are not deleted, the newest first."""
        return self._jobs("pipelinejob.jobs WHERE deleted_at IS NULL ORDER BY created_at DESC", ())

    def jobs_page(
        self,
        *,
        namespace: str | None = None,
        phases: Sequence[str] = (),
        name: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = PAGE,
    ) -> list[Job]:
        """At most `limit` of the jobs that are not deleted, the newest first.

        Args:
            namespace: only of this one.
            phases: only in one of these; none: in any.
            name: only with this in their name.
            before: (created_at, uid) of the last job of the page before.
            limit: how many at most.
        """
        created_at, uid = before or (None, None)
        return self._jobs(
            "pipelinejob.jobs WHERE deleted_at IS NULL AND (%(namespace)s::text IS NULL OR namespace = %(namespace)s)"
            " AND (%(phases)s::text[] IS NULL OR phase = ANY (%(phases)s)) AND (%(name)s::text IS NULL OR strpos(name, %(name)s) > 0)"
            " AND (%(at)s::timestamptz IS NULL OR (created_at, uid) < (%(at)s, %(uid)s::uuid))"
            " ORDER BY created_at DESC, uid DESC LIMIT %(limit)s",
            {"namespace": namespace, "phases": list(phases) or None, "name": name, "at": created_at, "uid": uid, "limit": limit},
        )

    def waiting(self) -> list[Job]:
        """The laptop's jobs, but for redrives, that are to run and that nobody runs, or not yet, the oldest first."""
        return self._jobs(
            "pipelinejob.jobs WHERE deleted_at IS NULL AND generation IS NULL AND root_uid IS NULL AND phase = %s ORDER BY created_at",
            (Phase.PENDING,),
        )

    def outlines(self) -> list[Outline]:
        """How all jobs that are not deleted stand, in short."""
        columns = ", ".join(f"{name}::text" if name == "uid" else name for name in Outline._fields)

        def work(cursor: Any) -> list[Outline]:
            with cursor.connection.cursor() as plain:  # tuples: a dict for each of 10,000 jobs takes six times as long
                plain.execute(f"SELECT {columns} FROM pipelinejob.jobs WHERE deleted_at IS NULL")
                return [Outline(*row) for row in plain.fetchall()]

        return self._db.transaction(work)

    def live_uids(self) -> dict[str, tuple[str, str]]:
        """uid → (namespace, name) of the cluster's jobs that are not deleted."""
        rows = self._db.query("SELECT uid, namespace, name FROM pipelinejob.jobs WHERE generation IS NOT NULL AND deleted_at IS NULL")
        return {str(row["uid"]): (row["namespace"], row["name"]) for row in rows}

    def _jobs(self, source: str, parameters: Sequence[object] | dict[str, object]) -> list[Job]:
        rows = self._db.query(f"SELECT {', '.join(Job._fields)} FROM {source}", parameters)
        return [Job(**{**row, "uid": str(row["uid"]), "root_uid": row["root_uid"] and str(row["root_uid"])}) for row in rows]

    def insert_job(self, **fields: object) -> Job:
        """Adds a job, unless it is there; the fields are those of `Job` without defaults in the table."""
        names = list(fields)
        marks = ", ".join(["%s"] * len(names))
        sql = f"INSERT INTO pipelinejob.jobs ({', '.join(names)}) VALUES ({marks}) ON CONFLICT (uid) DO NOTHING"  # as when it is sent again
        self._db.query(sql, [_adapt(fields[name]) for name in names])
        return self.get_job(str(fields["uid"]))

    def insert_redrive(self, root: str, **fields: object) -> Job | None:
        """Adds a redrive, unless it is there, with the next number; None when the root has not ended, or has another unfinished one.

        Of this and `reopen` at once, one is first, and the other finds what it did.
        """

        def work(cursor: Any) -> bool:
            if _is_idle(cursor, root):
                columns = {**fields, "root_uid": root}
                marks = ", ".join(["%s"] * len(columns))
                cursor.execute(
                    f"INSERT INTO pipelinejob.jobs ({', '.join(columns)}, redrive) SELECT {marks}, coalesce(max(redrive), 0) + 1"
                    " FROM pipelinejob.jobs WHERE root_uid = %s",
                    [*map(_adapt, columns.values()), root],
                )
            cursor.execute("SELECT FROM pipelinejob.jobs WHERE uid = %s", (fields["uid"],))  # also where an answer was lost
            return bool(cursor.rowcount)

        return self.get_job(str(fields["uid"])) if self._db.transaction(work) else None

    def update_job(self, uid: str, **fields: object) -> None:
        """Sets columns of a job."""
        self._db.query(*_update(uid, fields))

    def reopen(self, uid: str, **fields: object) -> None:
        """Sets columns of a job that has ended and is to go on; nothing while a redrive of it is unfinished."""
        self._db.transaction(lambda cursor: cursor.execute(*_update(uid, fields)) if _is_idle(cursor, uid) else None)

    def delete_job(self, uid: str) -> None:
        """Removes a job with all that is recorded of it."""
        self._db.query("DELETE FROM pipelinejob.jobs WHERE uid = %s", (uid,))

    def mark_deleted(self, uid: str) -> None:
        """The job's object is gone: its processes stop, what is recorded stays, and its name is free.

        The round of a redrive stays open until it is finalized: what its processes publish until then is to be recorded.
        """
        self._db.query(
            "WITH closed AS (UPDATE pipelinejob.shards s SET open = false FROM pipelinejob.jobs j"
            "                WHERE j.uid = %(uid)s AND j.root_uid IS NULL AND s.job_uid = j.uid AND s.open)"
            " UPDATE pipelinejob.jobs SET stop = 'deleted', deleted_at = coalesce(deleted_at, now()) WHERE uid = %(uid)s",
            {"uid": uid},
        )

    def purge(self, days: float) -> None:
        """Removes jobs that were deleted more than that many days ago; a redrive stays as long as the job it belongs to."""
        self._db.query(
            "DELETE FROM pipelinejob.jobs j WHERE deleted_at < now() - %s * interval '1 day' AND root_uid IS NULL"
            " AND NOT EXISTS (SELECT FROM pipelinejob.jobs r WHERE r.root_uid = j.uid AND r.deleted_at IS NULL)",
            (days,),
        )

    def overlapping_output(self, uid: str) -> tuple[str, str] | None:
        """(name, output folder) of a planned job whose output is equal to, inside or above that of this one."""
        rows = self._db.query("SELECT name, output FROM pipelinejob.overlapping_output_v1(%s)", (uid,))
        return (rows[0]["name"], rows[0]["output"]) if rows else None

    def is_predecessor(self, uid: str, other: str) -> bool:
        """Whether `other`, of the same name as this job, was deleted before it."""
        return bool(self._db.query("SELECT pipelinejob.is_predecessor_v1(%s, %s) AS answer", (uid, other))[0]["answer"])

    def save_plan(
        self,
        uid: str,
        planned: Mapping[str, object],
        rows: int,
        shards: Callable[[], Iterable[Any]],
        functions: Sequence[Mapping[str, Any]] | None = None,
        digest: str | None = None,
    ) -> bool:
        """Stores the plan of a job, all of it or nothing; False when it has one, which then stays.

        Args:
            uid: the job.
            planned: what is kept of the input, with its `sha256`.
            rows: how many there are to run.
            shards: gives the shards, anew if it has to be done again.
            functions: as they will run; None: those the job was entered with.
            digest: the job's digest; None: the one it was entered with.
        """

        def work(cursor: Any) -> bool:
            cursor.execute("SELECT pipelinejob.begin_plan_v1(%s) AS ours", (uid,))
            if not cursor.fetchone()["ours"]:
                return False
            source = iter(shards())
            while page := [_shard_entry(shard) for shard in islice(source, SHARDS_AT_ONCE)]:
                cursor.execute("SELECT pipelinejob.add_shards_v1(%s, %s)", (uid, json.dumps(page)))
            cursor.execute(
                "SELECT pipelinejob.finish_plan_v1(%s, %s, %s, %s, %s)",
                (uid, json.dumps(planned), rows, None if functions is None else json.dumps(functions), digest),
            )
            return True

        return self._db.transaction(work)

    def plan_redrive(
        self, uid: str, rows_per_shard: int, functions: Sequence[Mapping[str, Any]] | None = None, digest: str | None = None
    ) -> int:
        """Stores the plan of a redrive, unless it has one, and returns how many rows it has.

        Args:
            uid: the redrive.
            rows_per_shard: about how many rows a shard has.
            functions: as they will run; None: those it was entered with.
            digest: its digest; None: the one it was entered with.
        """
        parameters = (uid, rows_per_shard, None if functions is None else json.dumps(functions), digest)
        return int(self._db.query("SELECT pipelinejob.plan_redrive_v1(%s, %s, %s, %s) AS rows", parameters)[0]["rows"])

    def redriven(self, *, unsettled: bool = False) -> list[tuple[str, str]]:
        """(namespace, name) of the cluster's jobs that have redrives; or, `unsettled`, one that was deleted before its end."""
        rows = self._db.query(
            "SELECT DISTINCT j.namespace, j.name FROM pipelinejob.jobs j JOIN pipelinejob.jobs r ON r.root_uid = j.uid"
            " WHERE j.generation IS NOT NULL AND j.deleted_at IS NULL"
            " AND (NOT %s OR r.deleted_at IS NOT NULL AND r.phase <> ALL (%s))",
            (unsettled, list(ENDS)),
        )
        return [(row["namespace"], row["name"]) for row in rows]

    def plan_matched(self, uid: str, planned: Mapping[str, object], shards: Sequence[Mapping[str, object]]) -> None:
        """Stores the plan of a redrive whose rows are in a file of its own; one that is there stays.

        Args:
            uid: the redrive.
            planned: what is kept of the input, with its `sha256`.
            shards: each with all columns of a redrive's shard.
        """
        rows = sum(int(str(shard["rows"])) for shard in shards)

        def work(cursor: Any) -> None:
            cursor.execute("SELECT pipelinejob.begin_plan_v1(%s) AS ours", (uid,))
            if not cursor.fetchone()["ours"]:
                return
            for shard in shards:
                names = ", ".join(shard)
                marks = ", ".join(["%s"] * len(shard))
                cursor.execute(f"INSERT INTO pipelinejob.shards (job_uid, {names}) VALUES (%s, {marks})", (uid, *shard.values()))
            cursor.execute("SELECT pipelinejob.finish_plan_v1(%s, %s, %s, NULL, NULL)", (uid, json.dumps(planned), rows))

        self._db.transaction(work)

    def unfinished_redrive(self, uid: str) -> Job | None:
        """The redrive of a job that has not ended, if there is one; one that was deleted before its end has its files to be written."""
        return next((one for one in self.redrives(uid) if one.phase not in ENDS), None)

    def redrives(self, uid: str) -> list[Job]:
        """The redrives of a job, in order."""
        return self._jobs("pipelinejob.redrives_v1(%s)", (uid,))

    def failed_count(self, uid: str, reasons: Sequence[str] | None) -> int:
        """How many rows of a job failed, for one of these reasons or for any."""
        sql = "SELECT count(*) AS n FROM pipelinejob.failed_rows WHERE job_uid = %s AND (%s::text[] IS NULL OR reason = ANY (%s))"
        return int(self._db.query(sql, (uid, reasons, reasons))[0]["n"])

    def touched(self, uid: str, shard: int) -> list[BatchRow]:
        """The batches of its root that a shard of a redrive has rows of; one that nobody recorded has no rows."""
        columns = ", ".join(BatchRow._fields)
        return [BatchRow(**row) for row in self._db.query(f"SELECT {columns} FROM pipelinejob.touched_v1(%s, %s)", (uid, shard))]

    def set_images(self, uid: str, batches: Sequence[Mapping[str, object]]) -> None:
        """Says what images batches of a redrive's root have now: {first_row, images, bytes, images_sha256}."""
        self._db.query("SELECT pipelinejob.set_images_v1(%s, %s)", (uid, json.dumps(batches)))

    def open_round(self, uid: str) -> int:
        """Starts a round: unfinished shards can record again, under its number, which is returned.

        They get the positions 0, 1, ... in the order of their indexes.
        """

        def work(cursor: Any) -> int:
            cursor.execute(
                "UPDATE pipelinejob.jobs SET round = round + 1, problem = NULL, round_done ="
                " (SELECT coalesce(sum(succeeded + filtered + skipped + failed), 0) FROM pipelinejob.shards WHERE job_uid = %(uid)s)"
                " WHERE uid = %(uid)s RETURNING round",
                {"uid": uid},
            )
            round_number = int(cursor.fetchone()["round"])
            cursor.execute("UPDATE pipelinejob.shards SET open = false WHERE job_uid = %s AND open", (uid,))
            cursor.execute(
                "UPDATE pipelinejob.shards s SET open = true, round = %(round)s, position = n.position"
                " FROM (SELECT index, row_number() OVER (ORDER BY index) - 1 AS position FROM pipelinejob.shards"
                "       WHERE job_uid = %(uid)s AND succeeded + filtered + skipped + failed < rows) n"
                " WHERE s.job_uid = %(uid)s AND s.index = n.index",
                {"uid": uid, "round": round_number},
            )
            return round_number

        return self._db.transaction(work)

    def close_round(self, uid: str, number: int) -> None:
        """Ends that round, and no later one: nothing of it can be recorded any more; waits for transactions in flight."""
        self._db.query("SELECT pipelinejob.close_round_v2(%s, %s)", (uid, number))

    def unfinished_count(self, uid: str) -> int:
        """How many shards have batches that are not recorded."""
        rows = self._db.query(
            "SELECT count(*) AS n FROM pipelinejob.shards WHERE job_uid = %s AND succeeded + filtered + skipped + failed < rows", (uid,)
        )
        return int(rows[0]["n"])

    def unfinished_shards(self, uid: str) -> Iterator[ShardRow]:
        """The shards with batches that are not recorded, in order, one at a time."""
        index = -1
        while rows := self._db.query("SELECT * FROM pipelinejob.unfinished_shard_v2(%s, %s)", (uid, index)):
            index = rows[0]["index"]
            yield _shard_row(rows[0])

    def shard_at(self, uid: str, round_number: int, position: int) -> ShardRow | None:
        """The shard with that completion index in a round; None when the round is closed."""
        rows = self._db.query("SELECT * FROM pipelinejob.shard_at_v2(%s, %s, %s)", (uid, round_number, position))
        return _shard_row(rows[0]) if rows else None

    def shard_finished(self, uid: str, index: int) -> bool:
        """Whether every row of a shard is in a recorded batch."""
        return bool(self._db.query("SELECT pipelinejob.shard_finished_v1(%s, %s) AS answer", (uid, index))[0]["answer"])

    def shards_of(self, uid: str, first_rows: Sequence[int]) -> dict[int, int]:
        """The index of the shard that each of these rows is in; rows of no shard are left out."""
        rows = self._db.query("SELECT * FROM pipelinejob.shards_of_v1(%s, %s::bigint[])", (uid, list(first_rows)))
        return {row["row_number"]: row["index"] for row in rows}

    def recorded(self, uid: str, first_rows: Sequence[int]) -> set[int]:
        """Which of the batches that start at these rows are recorded."""
        rows = self._db.query("SELECT first_row FROM pipelinejob.recorded_v1(%s, %s::bigint[])", (uid, list(first_rows)))
        return {row["first_row"] for row in rows}

    def record(self, uid: str, shard: int, round_number: int, batches: Sequence[Mapping[str, object]]) -> str:
        """Records finished batches of a shard; answers go, closed or stop."""
        rows = self._db.query(
            "SELECT pipelinejob.record_batches_v1(%s, %s, %s, %s) AS answer",
            (uid, shard, round_number, json.dumps(batches)),
        )
        return str(rows[0]["answer"])

    def report(self, uid: str, stage: str, reason: str, message: str) -> None:
        """Says why a pod failed; the first report stands until the next round."""
        self._db.query("SELECT pipelinejob.report_v1(%s, %s, %s, %s)", (uid, stage, reason, message))

    def stop_reason(self, uid: str) -> str | None:
        """Why the job is to stop, if it is."""
        stop: str | None = self._db.query("SELECT pipelinejob.stop_reason_v1(%s) AS stop", (uid,))[0]["stop"]
        return stop

    def update_counts(self, uid: str) -> tuple[Rows, Shards]:
        """Adds up the shards into the job's counts and returns them; GoneError if there is no such job."""
        found = self._db.query("SELECT * FROM pipelinejob.update_counts_v1(%s)", (uid,))
        if not found:
            raise GoneError(uid)
        return _counts(found[0])

    def totals(self) -> dict[str, tuple[Rows, Shards]]:
        """The counts of all unfinished jobs of the cluster, by uid; they are written into the jobs, too.

        A job whose failure budget is broken gets stop = 'budget' (the percentage counts from 1,000 rows that ran).
        """
        return {str(row["uid"]): _counts(row) for row in self._db.query("SELECT * FROM pipelinejob.totals_v1()")}

    def connections(self) -> tuple[int, int]:
        """(used now, usable): connections of clients to the server, and how many it has for those without privileges."""
        (row,) = self._db.query(
            "SELECT (SELECT sum(numbackends) FROM pg_stat_database)::int AS used, current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " - coalesce(current_setting('reserved_connections', true), '0')::int AS usable"
        )
        return row["used"], row["usable"]

    def batches(self, uid: str) -> Iterator[BatchRow]:
        """The recorded batches in the order of their rows, read page by page."""
        columns = ", ".join(BatchRow._fields)
        last = -1
        while page := self._db.query(f"SELECT {columns} FROM pipelinejob.batches_v2(%s, %s, %s)", (uid, last, PAGE)):
            yield from (BatchRow(**row) for row in page)
            last = page[-1]["first_row"]

    def recorded_at(self, uid: str) -> list[tuple[float, int]]:
        """(seconds since the start, rows) of the recorded batches, in the order in which they were; in at most 10,000 steps."""
        rows = self._db.query(
            "SELECT extract(epoch FROM max(recorded_at) - max(started_at))::float8 AS second, sum(rows)::bigint AS rows"
            " FROM (SELECT recorded_at, started_at, rows, ntile(10000) OVER (ORDER BY recorded_at) AS part"
            "       FROM pipelinejob.batches JOIN pipelinejob.jobs ON uid = job_uid WHERE job_uid = %s) b GROUP BY part ORDER BY part",
            (uid,),
        )
        return [(max(0.0, row["second"] or 0.0), row["rows"]) for row in rows]

    def timings(self, uid: str) -> list[Timing]:
        """How long the steps of all recorded batches took, added up."""
        found = self._db.query(
            "SELECT (one->>0)::integer AS position, (one->>1)::integer AS bucket, sum((one->>2)::bigint)::bigint AS calls,"
            " sum((one->>3)::float8) AS seconds"
            " FROM pipelinejob.batches, jsonb_array_elements(timings) AS one WHERE job_uid = %s GROUP BY 1, 2 ORDER BY 1, 2",
            (uid,),
        )
        return [Timing(**row) for row in found]

    def timings_since(self, since: datetime | None) -> tuple[datetime, list[TimedBatch]]:
        """(now, as the database has it; the batches that were recorded since) with their timings; None: no batches yet."""
        now: datetime = self._db.query("SELECT now() AS now")[0]["now"]
        found = self._db.query(
            "SELECT b.job_uid::text AS uid, b.first_row, b.recorded_at, j.namespace,"
            " ARRAY(SELECT one->>'name' FROM jsonb_array_elements(j.functions) AS one) AS functions, b.timings"
            " FROM pipelinejob.batches b JOIN pipelinejob.jobs j ON j.uid = b.job_uid"
            " WHERE b.recorded_at >= %s AND b.timings IS NOT NULL",
            (since or now,),
        )
        return now, [TimedBatch(**{**row, "timings": [Timing(*one) for one in row["timings"]]}) for row in found]

    def shards_done(self, uid: str) -> list[ShardDone]:
        """How far each shard is, in their order."""
        columns = ", ".join(field.name for field in fields(ShardDone))
        found = self._db.query(f"SELECT {columns} FROM pipelinejob.shards WHERE job_uid = %s ORDER BY index", (uid,))
        return [ShardDone(**row) for row in found]

    def function_columns(self, uid: str) -> list[tuple[int, str, str]]:
        """(position, function, column) of everything that functions returned, by position, then by name."""
        rows = self._db.query("SELECT value FROM pipelinejob.function_columns_v1(%s)", (uid,))
        return sorted((row["value"][0], row["value"][1], row["value"][2]) for row in rows)

    def pending_ranges(self, uid: str, batch_rows: int) -> list[dict[str, int]]:
        """The rows in no recorded batch, as ranges {first, rows}."""
        ranges: list[dict[str, int]] = []
        for shard in self.unfinished_shards(uid):
            for batch in batches_of(shard, batch_rows):
                if ranges and ranges[-1]["first"] + ranges[-1]["rows"] == batch.first_row:
                    ranges[-1]["rows"] += batch.rows
                else:
                    ranges.append({"first": batch.first_row, "rows": batch.rows})
        return ranges

    def failures(self, uid: str, reason: str | None = None) -> Iterator[FailedRow]:
        """The failed rows in the order of the CSV, read page by page."""
        last = -1
        while page := self.failures_page(uid, reason=reason, after=last, limit=PAGE):
            yield from page
            last = page[-1].row

    def failures_page(self, uid: str, *, reason: str | None, after: int, limit: int) -> list[FailedRow]:
        """At most `limit` failed rows behind the row `after`, in the order of the CSV."""
        columns = ", ".join(FailedRow._fields)
        page = self._db.query(f"SELECT {columns} FROM pipelinejob.failures_v1(%s, %s, %s, %s)", (uid, after, reason, limit))
        return [FailedRow(**row) for row in page]

    def top_failures(self, uid: str, most: int = 5) -> list[TopFailure]:
        """The commonest reasons with their counts and the first row of each as an example."""
        rows = self._db.query(
            "SELECT DISTINCT ON (n.count, reason) f.reason, n.count, f.row, f.id, f.message"
            " FROM pipelinejob.failed_rows f JOIN (SELECT reason, count(*) AS count FROM pipelinejob.failed_rows"
            "  WHERE job_uid = %(uid)s GROUP BY reason ORDER BY count(*) DESC, reason LIMIT %(most)s) n USING (reason)"
            " WHERE f.job_uid = %(uid)s ORDER BY n.count DESC, reason, f.row",
            {"uid": uid, "most": most},
        )
        from pipelinejob.model import TopFailure  # noqa: PLC0415 - see above

        return [TopFailure(reason=row["reason"], count=row["count"], example=f"row {row['row']}: {row['message']}") for row in rows]


def batches_of(shard: ShardRow, batch_rows: int) -> Iterator[Batch]:
    """The batches of a shard that are not recorded, in order."""
    homes = shard.homes or range(shard.first_row, shard.end_row, batch_rows)
    starts = shard.batch_starts or [shard.byte_start, *shard.batch_ends[:-1]]
    picked = 0
    for first, start, end, checksum in zip(homes, starts, shard.batch_ends, shard.batch_checksums, strict=True):
        rows = min(batch_rows, shard.end_row - first)
        own = None
        if shard.picked is not None:
            after = bisect_left(shard.picked, first + rows, picked)
            own, picked = shard.picked[picked:after], after
        if first not in shard.recorded:
            yield Batch(first, rows, start, end, checksum, own)


def _update(uid: str, fields: Mapping[str, object]) -> tuple[str, list[object]]:
    settings = ", ".join(f"{name} = %s" for name in fields)
    return f"UPDATE pipelinejob.jobs SET {settings} WHERE uid = %s", [*map(_adapt, fields.values()), uid]


def _is_idle(cursor: Any, uid: str) -> bool:
    """Whether a job has ended and no redrive of it is unfinished; it stays so until the end of the transaction."""
    ends = list(ENDS)
    cursor.execute("SELECT FROM pipelinejob.jobs WHERE uid = %s AND deleted_at IS NULL AND phase = ANY (%s) FOR UPDATE", (uid, ends))
    if not cursor.rowcount:
        return False
    cursor.execute("SELECT FROM pipelinejob.jobs WHERE root_uid = %s AND phase <> ALL (%s)", (uid, ends))
    return not cursor.rowcount


def _adapt(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _shard_entry(shard: Any) -> dict[str, object]:
    names = ("index", "first_row", "rows", "byte_start", "byte_end", "batch_ends", "batch_checksums")
    return {name: getattr(shard, name) for name in names}


def _shard_row(row: Mapping[str, Any]) -> ShardRow:
    return ShardRow(**{**row, "recorded": frozenset(row["recorded"])})


def _counts(row: Mapping[str, Any]) -> tuple[Rows, Shards]:
    from pipelinejob.model import Shards  # noqa: PLC0415 - see above

    rows = _rows(row["rows_total"], row["succeeded"], row["filtered"], row["skipped"], row["failed"], row["reused"])
    return rows, Shards(total=row["shards"], active=row["begun"], succeeded=row["finished"])


def _rows(total: int, succeeded: int, filtered: int, skipped: int, failed: int, reused: int | None = None) -> Rows:
    from pipelinejob.model import Rows  # noqa: PLC0415 - see above

    pending = total - succeeded - filtered - skipped - failed
    return Rows(total=total, succeeded=succeeded, filtered=filtered, skipped=skipped, failed=failed, pending=pending, reused=reused)
