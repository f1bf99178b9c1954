"""An operator whose epoch is over can write nothing into the ledger, by whichever way it goes."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import psycopg2
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


def test_a_new_epoch_waits_for_what_is_under_way_and_not_for_a_stopped_process(database: str) -> None:
    first = _open(database)
    Store(first)
    epoch = take_epoch(first)
    stopped = psycopg2.connect(database)
    stopped.cursor().execute("SELECT pipelinejob.check_epoch(%s)", (epoch,))  # and no more
    began = time.monotonic()
    taken: list[int] = []
    taking = threading.Thread(target=lambda: taken.append(take_epoch(_open(database))))
    taking.start()
    taking.join(1)
    assert not taken
    taking.join(20)
    assert (taken, time.monotonic() - began > 5) == ([epoch + 1], True)
    with pytest.raises(psycopg2.Error):
        stopped.commit()
        stopped.cursor().execute("SELECT 1")
