"""A ledger that an earlier version made is brought up to date while a job of it runs."""

from __future__ import annotations

import shutil
import uuid
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pipelinejob.plan import Shard
from pipelinejob.store import Database, Store, connection

MIGRATIONS = sorted(Path(str(resources.files("pipelinejob.store"))).glob("migrations/*.sql"))
FIRST_OF_A_CLUSTER = 2  # 0002_cluster.sql
FIELDS = "uid, namespace, name, phase, spec, functions, digest, data_root, output, output_root, generation"


def _open(url: str) -> Database:
    return Database(lambda: url, patience=5, say=lambda _: None)


def _batch(first: int, failed: int) -> dict[str, Any]:
    counts = {"rows": 10, "succeeded": 10 - failed, "filtered": 0, "skipped": 0, "failed": failed, "images": 10 - failed, "bytes": 9}
    digests = {"images_sha256": "x", "inputs_sha256": "y", "columns": [], "byte_start": first * 10, "byte_end": first * 10 + 100}
    failures = [{"row": first + n, "id": "i", "reason": "ImageInvalid", "function": "", "message": "m"} for n in range(failed)]
    return {"first_row": first, "attempt": "a", **counts, **digests, "failures": failures}


@pytest.mark.parametrize("version", range(FIRST_OF_A_CLUSTER, len(MIGRATIONS)))
def test_a_ledger_of_an_earlier_version_is_upgraded_while_its_job_runs(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """Its pods, which began before, record into it as before; the counts, failures and rounds of both halves are one job's."""
    for file in MIGRATIONS[:version]:
        shutil.copy(file, tmp_path)
    with monkeypatch.context() as earlier:
        earlier.setattr(connection, "_migrations", lambda: tmp_path)
        owner = _open(database)
        pod = Store(owner)
    uid = str(uuid.uuid4())
    spec = '{"sharding": {"batchRows": 10}, "mode": "run", "failurePolicy": {}}'
    values = [uid, "shop", "men", "Running", spec, "[]", "d", "/data", "out/men", "/data", 1]
    owner.query(f"INSERT INTO pipelinejob.jobs ({FIELDS}) VALUES ({', '.join(['%s'] * len(values))})", values)
    pod.save_plan(uid, {"sha256": "s"}, 20, lambda: [Shard(0, 0, 20, 3, 203, (103, 203), (11, 12))])
    round_number = pod.open_round(uid)
    assert pod.record(uid, 0, round_number, [_batch(0, 1)]) == "go"

    operator = Store(_open(database))
    job = operator.get_job(uid)
    assert (job.phase, job.round, job.redrive) == ("Running", round_number, None)
    assert operator.totals()[uid][0].succeeded == 9
    assert pod.record(uid, 0, round_number, [_batch(10, 2)]) == "go"
    rows, shards = operator.update_counts(uid)
    assert (rows.total, rows.succeeded, rows.failed, rows.pending, shards.succeeded) == (20, 17, 3, 0, 1)
    assert [failure.row for failure in operator.failures(uid)] == [0, 10, 11]
    operator.close()
    pod.close()
