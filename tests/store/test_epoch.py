"""An operator whose epoch is over can write nothing into the ledger, by whichever way it goes."""

from __future__ import annotations

import select
import time
import uuid
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

from pipelinejob.store import Database, StaleEpoch, Store, roles, take_epoch


def _open(url: str, epoch: int | None = None) -> Database:
    return Database(lambda: url, patience=5, say=lambda _: None, epoch=epoch)


def _insert(store: Store, name: str) -> str:
    uid = str(uuid.uuid4())
    columns: dict[str, Any] = {"functions": [], "digest": "d", "data_root": "/d", "output_root": "/d", "spec": {}, "output": "out"}
    store.insert_job(uid=uid, namespace="shop", name=name, phase="Planning", **columns)
    return uid


def _rows(url: str) -> list[Any]:
    database = _open(url)
    tables = ("jobs", "shards", "settings", "epoch")
    return [database.query(f"SELECT t::text AS row FROM pipelinejob.{table} t ORDER BY 1") for table in tables]


def test_an_old_leader_writes_nothing(database: str) -> None:
    first = _open(database)
    Store(first)
    roles.setup(first)
    old = _open(database, take_epoch(first))
    store = Store(old, migrated=True)
    uid = _insert(store, "men")
    new = _open(database, take_epoch(first))
    before = _rows(database)
    for work in (
        lambda: _insert(store, "women"),
        lambda: store.update_job(uid, generation=2),
        lambda: store.mark_deleted(uid),
        lambda: store.update_counts(uid),
        lambda: store.purge(0),
        lambda: roles.setup(old),
        lambda: roles.create_job_role(old, uid),
        lambda: roles.drop_job_role(old, uid),
    ):
        with pytest.raises(StaleEpoch):
            work()
    assert _rows(database) == before
    Store(new, migrated=True).update_job(uid, generation=3)
    assert Store(new, migrated=True).get_job(uid).generation == 3


@pytest.mark.parametrize("under_way", ["SELECT 1", "SELECT repeat('x', 1000) FROM generate_series(1, 100000)"])
def test_a_new_epoch_ends_what_a_stopped_process_has_under_way(database: str, under_way: str) -> None:
    """It had begun a transaction, and does not go on with it, or does not read a large answer."""
    first = _open(database)
    Store(first)
    epoch = take_epoch(first)
    stopped = psycopg2.connect(database, async_=True)
    select.select([], [stopped], [], 5)
    while stopped.poll() != psycopg2.extensions.POLL_OK:
        time.sleep(0.01)
    stopped.cursor().execute(f"BEGIN; SELECT pipelinejob.check_epoch({epoch}); {under_way}")  # and reads nothing of the answer
    while not first.query("SELECT 1 FROM pg_locks WHERE relation = 'pipelinejob.epoch'::regclass AND pid <> pg_backend_pid()"):
        time.sleep(0.01)

    began = time.monotonic()
    assert take_epoch(_open(database)) == epoch + 1
    assert time.monotonic() - began < 5
    with pytest.raises(psycopg2.Error):
        while stopped.poll() != psycopg2.extensions.POLL_OK:
            time.sleep(0.01)
        raise AssertionError("the transaction of the old epoch went on")
