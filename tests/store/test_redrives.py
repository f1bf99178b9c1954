"""A redrive and a raised budget in the same moment, by two connections: one of them is first, and the other finds what it did."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import psycopg2
import pytest

from pipelinejob import model
from pipelinejob.model import Rows, Spec
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.store import Database, Job, Store
from pipelinejob_operator.apply import Applier, insert_job
from pipelinejob_operator.decide import Enter, Observed, decide
from pipelinejob_operator.kube import Kube
from pipelinejob_operator.ledger import Ledger
from pipelinejob_operator.settings import Settings

SETTINGS = Settings.from_environment({"PIPELINEJOB_DATABASE_URL": "postgresql://host/db", "PIPELINEJOB_WORKER_IMAGE": "worker:1"})
DATA = {"persistentVolumeClaim": {"claimName": "catalogue"}}


def _database(url: str) -> Database:
    return Database(lambda: url, patience=5, say=lambda _: None)


def _document(name: str, source: dict[str, Any], **spec: Any) -> model.PipelineJob:
    body = {"source": {"csv": "rows.csv", "images": "img/{id}.jpg", **source}, "output": {"path": "out"}, "data": DATA, **spec}
    return model.parse({"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": {"name": name}, "spec": body})


@pytest.fixture
def store(database: str) -> Store:
    return Store(_database(database))


@pytest.fixture
def root(store: Store) -> Job:
    """A job that broke its failure budget, and was planned."""
    job = insert_job(store, str(uuid.uuid4()), _document("job", {}, failurePolicy={"maxFailedRows": 1}), 1, "worker:1")
    assert store.save_plan(job.uid, {"columns": ["id"], "rows": 0, "bytes": 3, "sha256": "s", "mtime_ns": 1}, 0, lambda: [])
    store.update_job(job.uid, phase=Phase.FAILED, reason=JobReason.FAILURE_BUDGET_EXCEEDED)
    return store.get_job(job.uid)


def _redrive(url: str, name: str) -> Callable[[], str]:
    """Enters a redrive as the operator does; returns what came of it."""

    def enter() -> str:
        accepted = _document(name, {"failedRowsOf": {"name": "job"}}, output={})
        try:
            return insert_job(Store(_database(url), migrated=True), str(uuid.uuid4()), accepted, 1, "worker:1").name
        except JobError as error:
            return error.message

    return enter


def _raised(url: str, root: Job) -> Callable[[], str]:
    """Decides and applies what a raised budget leads to, as the operator does; returns the phase after it."""
    spec = Spec.model_validate({**root.spec, "failurePolicy": {"maxFailedRows": 100}})
    seen = Observed(root, spec, [], Rows(), 0, 1)  # before anybody entered a redrive
    step = decide(seen)
    assert step == Enter(Phase.PENDING, clear_stop=True)

    async def apply() -> Job:
        ledger = Ledger(lambda: _database(url))
        try:
            return await Applier(SETTINGS, cast("Kube", None), ledger).apply(step, seen, {})
        finally:
            ledger.close()

    return lambda: str(asyncio.run(apply()).phase)


def _at_once(url: str, job: Job, *works: Callable[[], str]) -> list[str]:
    """Runs all when each has got as far as it can while somebody holds the row of a job."""
    holder = psycopg2.connect(url)
    watcher = psycopg2.connect(url)
    watcher.autocommit = True
    with ThreadPoolExecutor(len(works)) as pool, holder.cursor() as cursor, watcher.cursor() as looks:
        cursor.execute("SELECT FROM pipelinejob.jobs WHERE uid = %s FOR UPDATE", (job.uid,))
        running = [pool.submit(work) for work in works]
        end = time.monotonic() + 10
        count = 0
        while count < len(works) and time.monotonic() < end:
            looks.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
            count = cast("tuple[int]", looks.fetchone())[0]
            threading.Event().wait(0.02)
        holder.rollback()
        results = [one.result(10) for one in running]
    holder.close()
    watcher.close()
    assert count == len(works), results
    return results


def test_a_redrive_and_a_raised_budget_at_once(store: Store, root: Job, database: str) -> None:
    for _ in range(5):
        store.update_job(root.uid, phase=Phase.FAILED)
        said, phase = _at_once(database, root, _redrive(database, "again"), _raised(database, root))
        redrive = store.find_job("default", "again")
        if redrive is not None:
            assert (said, phase, store.get_job(root.uid).phase) == ("again", "Failed", "Failed")
            store.delete_job(redrive.uid)
        else:
            assert (phase, store.get_job(root.uid).phase) == ("Pending", "Pending")
            assert "has not ended (it is Pending)" in said


def test_two_redrives_at_once(store: Store, root: Job, database: str) -> None:
    said = _at_once(database, root, _redrive(database, "one"), _redrive(database, "two"))
    (first,) = store.redrives(root.uid)
    (refused,) = [one for one in said if one != first.name]
    assert f"'{first.name}' runs rows of 'job' now" in refused and first.redrive == 1
    store.update_job(first.uid, phase=Phase.COMPLETE)
    assert _redrive(database, "three")() == "three"
    assert [one.redrive for one in store.redrives(root.uid)] == [1, 2]


def test_a_redrive_that_is_sent_again_is_there_once(store: Store, root: Job) -> None:
    fields: dict[str, object] = {"uid": str(uuid.uuid4()), "namespace": "default", "name": "again", "phase": Phase.PLANNING, "spec": {}}
    fields |= {"functions": [], "digest": "", "data_root": "/data", "output_root": "/data", "output": "out", "generation": 1}
    first = store.insert_redrive(root.uid, **fields)
    assert first is not None and store.insert_redrive(root.uid, **fields) == first
    assert store.insert_redrive(root.uid, **{**fields, "uid": str(uuid.uuid4()), "name": "other"}) is None


def test_roots_with_a_redrive_that_was_deleted_before_its_end(store: Store, root: Job, database: str) -> None:
    _redrive(database, "again")()
    redrive = store.redrives(root.uid)[0]
    assert (store.redriven(), store.redriven(unsettled=True)) == ([("default", "job")], [])
    store.mark_deleted(redrive.uid)
    assert store.redriven(unsettled=True) == [("default", "job")]
    store.update_job(redrive.uid, phase=Phase.CANCELLED)
    assert (store.redriven(), store.redriven(unsettled=True)) == ([("default", "job")], [])
