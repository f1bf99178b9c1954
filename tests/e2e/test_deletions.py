"""Things that are deleted while a job runs on a real cluster: nothing hangs, nothing is left, nothing is mixed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.cluster import Cluster, ClusterError
from support.shop import SLOW, Shop

pytestmark = pytest.mark.timeout(240)
ROWS = 600
FAST: list[dict[str, Any]] = [{"name": "resize", "params": {"width": 16, "height": 16}}]
LONG: dict[str, Any] = {"functions": [*FAST, SLOW], "sharding": {"rowsPerShard": 300, "batchRows": 10}}
OPERATOR = ("-n", "pipelinejob-system", "-l", "app.kubernetes.io/component=operator")


@pytest.fixture
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "deleted")
    made.project.catalogue(ROWS)
    yield made
    made.close()


def _begin(shop: Shop) -> str:
    """Applies a job, waits until it has done some rows, and returns its uid."""
    shop.slow_down()
    shop.apply(**LONG)
    shop.wait(lambda: shop.status().get("rows", {}).get("succeeded"), 60, "some rows are done")
    assert shop.status()["rows"]["pending"] > 300, "the job is too short to be disturbed"
    return str(shop.get()["metadata"]["uid"])


def _is_closed(cluster: Cluster, uid: str) -> bool:
    """Whether the ledger knows that a job was deleted, and its pods' role is gone."""
    roles = f"SELECT count(*) FROM pg_roles WHERE rolname = 'plj_{uid.replace('-', '')}'"
    return _psql(cluster, f"SELECT stop, ({roles}) FROM pipelinejob.jobs WHERE uid = '{uid}'") == "deleted|0"


def _psql(cluster: Cluster, query: str) -> str:
    psql = ["-n", cluster.namespace, "pipelinejob-postgres-0", "--", "psql", "-U", "pipelinejob", "-d", "pipelinejob", "-Atc", query]
    return cluster.kubectl("exec", *psql).strip()


def _rest(cluster: Cluster, namespace: str) -> str:
    """What Kubernetes says of a namespace that goes, "" when it is gone."""
    return cluster.kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "jsonpath={.metadata.name} {.status.conditions}")


def test_a_namespace_is_deleted_while_its_job_runs(shop: Shop, cluster: Cluster) -> None:
    other = Shop(cluster, "stays")
    other.project.catalogue(20)
    uid = _begin(shop)
    cluster.kubectl("delete", "namespace", shop.namespace, "--wait=false")
    other.apply()
    assert other.wait_end(seconds=60)["phase"] == "Complete"
    try:
        cluster.wait_for(lambda: not _rest(cluster, shop.namespace), 120, "the namespace is gone")
    except ClusterError as error:
        raise AssertionError(f"{error}; left: {_rest(cluster, shop.namespace)}") from error
    cluster.wait_for(lambda: _is_closed(cluster, uid), 60, "the ledger has closed its job")
    other.close()


def test_a_job_is_deleted_while_it_runs(shop: Shop, cluster: Cluster) -> None:
    uid = _begin(shop)
    shop.kubectl("delete", "pipelinejob", "job", "--timeout=10s")
    shop.wait(lambda: not shop.kubectl("get", "jobs,pods,secrets", "-o", "name").strip(), 60, "nothing is left")
    cluster.wait_for(lambda: _is_closed(cluster, uid), 40, "the ledger has closed it")


def test_a_job_is_applied_anew_while_old_pods_run(shop: Shop, cluster: Cluster) -> None:
    """Processes of the deleted job stand still, and go on when the new one of its name is under way."""
    if cluster.node is None:
        pytest.skip("the node's processes are not on this machine (kind, or a cluster that was given)")
    old = _begin(shop)
    stopped = [pid for pod in shop.running_pods() for pid in cluster.processes_of(pod["metadata"]["uid"])]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        shop.kubectl("delete", "pipelinejob", "job", "--timeout=10s")
        left = len(list((shop.root / "out/job/images").iterdir()))
        shop.apply(**{**LONG, "functions": []})
        shop.wait(lambda: shop.phase() in ("Running", "Finalizing", "Complete"), 30, "the new job runs")
        assert any(os.path.exists(f"/proc/{pid}") for pid in stopped), "no old process is left to disturb it"
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    status = shop.wait_end(seconds=60)
    assert (status["phase"], status["rows"]["succeeded"]) == ("Complete", ROWS), shop.story()
    shop.wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in stopped), 40, "the old processes have ended")
    sources = {file.name: file.read_bytes() for file in (shop.root / "img").iterdir()}
    images = {file.name: file.read_bytes() for file in (shop.root / "out/job/images").rglob("*") if file.is_file()}
    assert images == sources
    moved = shop.root / f"out/job.{old}/images"
    assert left <= len(list(moved.iterdir())) <= left + 2  # what they had finished when they were stopped


def test_a_redrive_is_deleted_while_it_runs(shop: Shop, cluster: Cluster) -> None:
    """At first with one of its name applied at once, then while the operator is away: what was done stays, the rest fails as before."""
    late = shop.root / "late"
    (shop.root / "img").rename(late)
    shop.apply(**{**LONG, "functions": FAST})
    assert shop.wait_end()["rows"]["failed"] == ROWS
    late.rename(shop.root / "img")
    first = _redrive(shop, "again")
    shop.kubectl("delete", "pipelinejob", "again", "--timeout=10s")
    second = _redrive(shop, "again")
    began = f"SELECT created_at FROM pipelinejob.jobs WHERE uid = '{second}'"
    order = f"SELECT phase, finished_at <= ({began}) FROM pipelinejob.jobs WHERE uid = '{first}'"
    assert _psql(cluster, order) == "Cancelled|t"
    shop.wait(lambda: ("Normal", "RedriveDeleted") in shop.events(), 10, "an Event of the job whose rows it ran")

    cluster.kubectl("scale", "deployment", *OPERATOR, "--replicas=0")
    try:
        shop.wait(lambda: not cluster.kubectl("get", "pods", *OPERATOR, "-o", "name").strip(), 30, "the operator is away")
        shop.kubectl("delete", "pipelinejob", "again", "--timeout=10s")
    finally:
        cluster.kubectl("scale", "deployment", *OPERATOR, "--replicas=1")
    ended = f"SELECT phase FROM pipelinejob.jobs WHERE uid = '{second}'"
    shop.wait(lambda: _psql(cluster, ended) == "Cancelled", 90, "the redrive has ended")
    done = [one["counts"]["succeeded"] for one in _manifest(shop)["redrives"]]
    assert len(done) == 2 and 0 < done[0] < done[0] + done[1] < ROWS
    shop.wait(lambda: shop.status()["rows"]["succeeded"] == sum(done), 10, "the status of the job has what was done")
    assert shop.phase() == "Complete" and shop.status()["rows"]["failed"] == ROWS - sum(done)
    _is_whole(shop, sum(done))

    _redrive(shop, "mended", FAST)
    assert shop.wait_end("mended")["rows"]["succeeded"] == ROWS - sum(done)
    shop.wait(lambda: shop.status()["rows"]["succeeded"] == ROWS, 10, "every row is done")
    _is_whole(shop, ROWS)


def _redrive(shop: Shop, name: str, functions: list[dict[str, Any]] | None = None) -> str:
    """Applies a redrive of all failed rows, waits until it has done some, and returns its uid."""
    shop.slow_down()
    shop.apply(name, **{**LONG, "functions": functions or LONG["functions"], "source": {"failedRowsOf": {"name": "job"}}, "output": {}})
    shop.wait(lambda: shop.status(name).get("rows", {}).get("succeeded"), 90, f"some rows of {name} are done")
    return str(shop.get(name)["metadata"]["uid"])


def _manifest(shop: Shop) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(shop.project.text("out/job/manifest.json"))
    return made


def _is_whole(shop: Shop, succeeded: int) -> None:
    """The tables agree with the images and with each other; no round is open."""
    urls = [row["url"] for row in shop.project.table("out/job/metadata.csv")]
    images = shop.root / "out/job/images"
    assert len(urls) == succeeded and set(urls) == {f"images/{file.relative_to(images)}" for file in images.rglob("*") if file.is_file()}
    assert len(shop.project.table("out/job/failures.csv")) == ROWS - succeeded
    assert _manifest(shop)["counts"]["succeeded"] == succeeded
    assert {file.name for file in (shop.root / "out/job/.pipelinejob").iterdir() if file.is_dir()} <= {"records"}
