"""The ledger on a real Postgres: what is recorded once stays once, whoever records it, and closed rounds stay closed."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

from pipelinejob.plan import Shard
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.store import Database, GoneError, Job, Store
from pipelinejob.store.ledger import batches_of


def _store(url: str, say: Callable[[str], None] = lambda _: None) -> Store:
    return Store(Database(lambda: url, patience=5, say=say))


@pytest.fixture
def store(database: str) -> Store:
    return _store(database)


def _unplanned(store: Store, name: str = "job", **more: object) -> Job:
    return store.insert_job(
        uid=str(uuid.uuid4()),
        namespace="default",
        name=name,
        phase="Planning",
        functions=[],
        digest="d",
        data_root="/data",
        output_root="/data",
        **{"spec": {"sharding": {"batchRows": 10}}, "output": "out", **more},
    )


def _job(store: Store, name: str = "job", **more: object) -> Job:
    job = _unplanned(store, name, **more)
    planned = {"columns": ["id"], "rows": 45, "bytes": 450, "sha256": "s", "mtime_ns": 1}
    shards = [
        Shard(0, 0, 20, 3, 203, (103, 203), (11, 12)),
        Shard(1, 20, 20, 203, 403, (303, 403), (13, 14)),
        Shard(2, 40, 5, 403, 453, (453,), (15,)),
    ]
    assert store.save_plan(job.uid, planned, 45, lambda: shards)
    return store.get_job(job.uid)


def _batch(first: int, rows: int = 10, failed: int = 0, attempt: str = "a") -> dict[str, object]:
    failures = [{"row": first + n, "id": f"i{n}", "reason": "ImageInvalid", "function": "", "message": "m"} for n in range(failed)]
    return {
        "first_row": first,
        "attempt": attempt,
        "rows": rows,
        "succeeded": rows - failed,
        "filtered": 0,
        "skipped": 0,
        "failed": failed,
        "images": rows - failed,
        "bytes": 100,
        "images_sha256": "x",
        "inputs_sha256": "y",
        "columns": [[0, "f", "c"]],
        "byte_start": 3,
        "byte_end": 103,
        "failures": failures,
    }


def test_migrations_by_five_processes_at_once(database: str) -> None:
    for _ in range(10):  # who meets whom where is chance
        with ThreadPoolExecutor(5) as threads:
            stores = list(threads.map(lambda _: _store(database), range(5)))
        assert [store.jobs() for store in stores] == [[]] * 5
        for store in stores:
            store.close()
        with psycopg2.connect(database) as connection:
            connection.cursor().execute("DROP SCHEMA pipelinejob CASCADE")
        connection.close()


def test_a_batch_is_recorded_once(store: Store) -> None:
    job = _job(store)
    number = store.open_round(job.uid)
    assert store.record(job.uid, 0, number, [_batch(0, failed=2)]) == "go"
    assert store.record(job.uid, 0, number, [_batch(0, failed=2, attempt="b"), _batch(10)]) == "go"

    rows, shards = store.update_counts(job.uid)

    assert (rows.succeeded, rows.failed, rows.pending) == (18, 2, 25)
    assert (shards.total, shards.succeeded, shards.active) == (3, 1, 0)
    assert [failure.row for failure in store.failures(job.uid)] == [0, 1]
    assert [batch.first_row for batch in store.batches(job.uid)] == [0, 10]


def test_many_at_once_count_each_batch_once(store: Store, database: str) -> None:
    job = _job(store)
    number = store.open_round(job.uid)
    workers = [_store(database) for _ in range(4)]
    work = [(worker, shard, first) for worker in workers for shard, first in ((0, 0), (0, 10), (1, 20), (1, 30))]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda item: item[0].record(job.uid, item[1], number, [_batch(item[2], failed=1)]), work))
    assert set(answers) == {"go"}
    rows, _ = store.update_counts(job.uid)
    assert (rows.succeeded, rows.failed, rows.pending) == (36, 4, 5)


def test_a_closed_round_records_nothing(store: Store) -> None:
    job = _job(store)
    number = store.open_round(job.uid)
    store.close_round(job.uid, number)
    assert store.record(job.uid, 0, number, [_batch(0)]) == "closed"
    again = store.open_round(job.uid)
    assert store.record(job.uid, 0, number, [_batch(0)]) == "closed"  # of the round before
    store.close_round(job.uid, number)  # by a process that outlived its round
    assert store.record(job.uid, 0, again, [_batch(0)]) == "go"


def test_stop_is_told_with_the_next_record(store: Store) -> None:
    job = _job(store)
    number = store.open_round(job.uid)
    store.update_job(job.uid, stop="cancel")
    assert store.record(job.uid, 0, number, [_batch(0)]) == "stop"
    assert store.stop_reason(job.uid) == "cancel"
    assert store.update_counts(job.uid)[0].succeeded == 10  # what was done counts all the same


def test_what_is_left_to_do(store: Store) -> None:
    job = _job(store)
    number = store.open_round(job.uid)
    store.record(job.uid, 0, number, [_batch(0), _batch(10)])
    store.record(job.uid, 1, number, [_batch(30)])
    left = [batch for shard in store.unfinished_shards(job.uid) for batch in batches_of(shard, 10)]
    assert left == [(20, 10, 203, 303, 13, None), (40, 5, 403, 453, 15, None)]
    assert store.pending_ranges(job.uid, 10) == [{"first": 20, "rows": 10}, {"first": 40, "rows": 5}]


def test_the_commonest_failures_with_an_example(store: Store) -> None:
    job = _job(store)
    number = store.open_round(job.uid)
    store.record(job.uid, 0, number, [_batch(0, failed=3)])
    (top,) = store.top_failures(job.uid)
    assert (top.reason, top.count, top.example) == ("ImageInvalid", 3, "row 0: m")
    assert store.function_columns(job.uid) == [(0, "f", "c")]


def test_failures_are_read_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelinejob.store.ledger.PAGE", 3)
    job = _job(store)
    number = store.open_round(job.uid)
    store.record(job.uid, 0, number, [_batch(0, failed=10), _batch(10, failed=10)])
    assert [failure.row for failure in store.failures(job.uid)] == list(range(20))
    assert list(store.failures(job.uid, "MalformedRow")) == []


def test_a_plan_is_stored_whole_or_not_at_all(store: Store) -> None:
    job = _unplanned(store)

    def broken() -> Iterator[Shard]:
        yield Shard(0, 0, 20, 3, 203, (103, 203), (11, 12))
        raise ValueError("the disk of the plan")

    with pytest.raises(ValueError, match="the disk of the plan"):
        store.save_plan(job.uid, {"sha256": "other"}, 1, broken)
    assert store.get_job(job.uid).input is None
    assert list(store.unfinished_shards(job.uid)) == []


def test_a_plan_is_stored_once(store: Store) -> None:
    job = _job(store)
    assert not store.save_plan(job.uid, {"sha256": "other"}, 1, lambda: [])
    assert store.get_job(job.uid).input_digest == "s"
    assert store.unfinished_count(job.uid) == 3


def test_a_plan_brings_the_functions_that_it_found(store: Store) -> None:
    job = _unplanned(store, "other")
    shards = [Shard(n, n * 10, 10, n, n + 1, (n + 1,), (n,)) for n in range(250)]
    assert store.save_plan(job.uid, {"sha256": "t"}, 2500, lambda: shards, [{"name": "f"}], "digest")
    job = store.get_job(job.uid)
    assert (job.functions, job.digest, job.rows_total, store.unfinished_count(job.uid)) == ([{"name": "f"}], "digest", 2500, 250)


def test_two_that_plan_at_once(store: Store, database: str) -> None:
    job = _unplanned(store)
    shards = [Shard(n, n * 10, 10, n, n + 1, (n + 1,), (n,)) for n in range(300)]
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: _store(database).save_plan(job.uid, {"sha256": "t"}, 3000, lambda: shards), range(4)))
    assert sorted(done) == [False, False, False, True]
    assert store.unfinished_count(job.uid) == 300


def test_positions_of_a_round(store: Store) -> None:
    job = _job(store)
    first = store.open_round(job.uid)
    store.record(job.uid, 0, first, [_batch(0), _batch(10)])
    assert store.shard_finished(job.uid, 0) and not store.shard_finished(job.uid, 1)
    store.report(job.uid, "shard", "InputChanged", "one")
    store.report(job.uid, "shard", "InputChanged", "two")
    assert store.get_job(job.uid).problem == {"stage": "shard", "reason": "InputChanged", "message": "one"}

    second = store.open_round(job.uid)

    assert store.get_job(job.uid).problem is None and store.get_job(job.uid).round_done == 20
    at = [store.shard_at(job.uid, second, position) for position in (0, 1, 2)]
    assert [shard and shard.index for shard in at] == [1, 2, None]
    assert store.shard_at(job.uid, first, 0) is None
    store.close_round(job.uid, second)
    assert store.shard_at(job.uid, second, 0) is None


def test_totals_of_the_clusters_jobs(store: Store) -> None:
    spec = {"sharding": {"batchRows": 10}, "failurePolicy": {"maxFailedRowsPercent": 5, "maxFailedRows": 7}}
    laptops = _job(store, "laptop")
    job, other = _job(store, "one", spec=spec, generation=1), _job(store, "two", spec=spec, generation=1)
    suspended = _job(store, "three", spec=spec, generation=1)
    for each, phase in ((laptops, "Running"), (job, "Running"), (other, "Running"), (suspended, "Suspended")):
        store.update_job(each.uid, phase=phase)
    number = store.open_round(job.uid)
    store.record(job.uid, 0, number, [_batch(0, failed=7), _batch(10)])

    totals = store.totals()

    assert set(totals) == {job.uid, other.uid}
    rows, shards = totals[job.uid]
    assert (rows.total, rows.succeeded, rows.failed, rows.pending) == (45, 13, 7, 25)
    assert (shards.total, shards.active, shards.succeeded) == (3, 0, 1)
    assert store.get_job(job.uid).rows == rows
    assert store.stop_reason(job.uid) is None  # 35 % failed, but of less than 1,000 rows, and 7 is not more than 7
    store.record(job.uid, 1, number, [_batch(20, failed=1)])
    store.totals()
    assert store.stop_reason(job.uid) == "budget"
    assert store.stop_reason(other.uid) is None and store.stop_reason(laptops.uid) is None


@pytest.mark.parametrize(("failed", "stop"), [(50, None), (51, "budget")])
def test_the_percentage_counts_from_1000_rows(store: Store, failed: int, stop: str | None) -> None:
    spec = {"sharding": {"batchRows": 1000}, "failurePolicy": {"maxFailedRowsPercent": 5, "maxFailedRows": None}}
    job = _unplanned(store, spec=spec, generation=1)
    store.save_plan(job.uid, {"sha256": "s"}, 2000, lambda: [Shard(0, 0, 2000, 0, 9, (5, 9), (1, 2))])
    store.record(job.uid, 0, store.open_round(job.uid), [_batch(0, rows=1000, failed=failed)])
    store.update_job(job.uid, phase="Running")
    store.totals()
    assert store.stop_reason(job.uid) == stop


def test_a_deleted_object_frees_its_name(store: Store) -> None:
    old = _job(store, generation=1)
    number = store.open_round(old.uid)
    store.mark_deleted(old.uid)
    new = _unplanned(store, generation=1)

    assert store.find_job("default", "job") == new
    assert store.jobs() == [new]
    assert store.live_uids() == {new.uid: ("default", "job")}
    assert store.stop_reason(old.uid) == "deleted" and store.get_job(old.uid).deleted_at is not None
    assert store.record(old.uid, 0, number, [_batch(0)]) == "closed"
    assert store.is_predecessor(new.uid, old.uid) and not store.is_predecessor(old.uid, new.uid)
    store.purge(1)
    assert store.get_job(old.uid).uid == old.uid
    store.purge(0)
    for ask in (store.get_job, store.update_counts):
        with pytest.raises(GoneError):
            ask(old.uid)
    assert store.stop_reason(old.uid) == "deleted"


@pytest.mark.parametrize(("theirs", "found"), [("a/b", True), ("a", True), ("a/b/c", True), ("a/bc", False), ("b", False)])
def test_outputs_that_overlap(store: Store, theirs: str, found: bool) -> None:
    other = _job(store, "other", output=theirs)
    job = _unplanned(store, output="a/b")
    assert store.overlapping_output(job.uid) == (("other", theirs) if found else None)
    store.mark_deleted(other.uid)
    assert store.overlapping_output(job.uid) is None


def test_connections_are_counted(store: Store, database: str) -> None:
    used, usable = store.connections()
    more = _store(database)
    assert more.connections()[0] > used
    assert usable >= 90
    more.close()


def test_a_connection_that_rests_is_closed(store: Store, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job(store)
    other = _store(database)
    other.rest()
    assert other._db._connection is not None
    monkeypatch.setattr("pipelinejob.store.connection._IDLE", -1.0)
    other.rest()
    assert other._db._connection is None
    assert other.get_job(job.uid).name == "job"


def test_who_is_told_to_end_does_not_wait() -> None:
    database = Database(lambda: "postgresql://nobody@127.0.0.1:1/none", patience=math.inf, say=lambda _: None)
    threading.Timer(0.5, database.give_up).start()
    began = time.monotonic()
    with pytest.raises(JobError, match="no database"):
        database.query("SELECT 1")
    assert time.monotonic() - began < 5


def test_a_deleted_job_leaves_nothing(store: Store, database: str) -> None:
    job = _job(store)
    store.record(job.uid, 0, store.open_round(job.uid), [_batch(0, failed=1)])
    store.delete_job(job.uid)
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        for table in ("jobs", "shards", "batches", "failed_rows"):
            cursor.execute(f"SELECT count(*) FROM pipelinejob.{table}")
            assert cursor.fetchone() == (0,), table
    connection.close()


def test_a_lost_connection_is_replaced(store: Store, database: str) -> None:
    job = _job(store)
    connection = psycopg2.connect(database)
    connection.autocommit = True
    said: list[str] = []
    other = _store(database, said.append)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    connection.close()
    assert other.get_job(job.uid).name == "job"
    assert said[0].startswith("the database is away") and said[-1] == "the database is back: going on"


def test_a_database_that_does_not_come_back() -> None:
    with pytest.raises(JobError) as caught:
        Store(Database(lambda: "postgresql://nobody@127.0.0.1:1/none", patience=0.5, say=lambda _: None))
    assert caught.value.reason is JobReason.DATABASE_UNAVAILABLE
    assert "PIPELINEJOB_DATABASE_URL" in caught.value.message


def test_values_that_look_like_sql(store: Store) -> None:
    job = _job(store, name="x'); DROP TABLE pipelinejob.jobs; --")
    number = store.open_round(job.uid)
    bad = _batch(0, failed=1)
    bad["failures"] = json.loads('[{"row": 0, "id": "\'; --", "reason": "MalformedRow", "function": "%s", "message": "{}\\\\"}]')
    assert store.record(job.uid, 0, number, [bad]) == "go"
    (failure,) = store.failures(job.uid)
    assert (failure.id, failure.function, failure.message) == ("'; --", "%s", "{}\\")
    assert store.find_job("default", job.name) is not None
