"""Two operators on a real cluster: one leads, the other takes over, and a job does not notice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from support.shop import SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(400)
CHART = Path(__file__).parents[2] / "helm/pipelinejob"
ROWS = 900
OPTIONS: dict[str, Any] = {
    "functions": [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 16, "height": 16}}, SLOW],
    "sharding": {"rowsPerShard": 225, "batchRows": 10},
    "backoffLimitPerIndex": 0,
}


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    upgrade = ("upgrade", cluster.release, str(CHART), "-n", cluster.namespace, "--reuse-values", "--wait", "--timeout", "90s")
    cluster.helm(*upgrade, "--set", "operator.replicas=2")
    made = Shop(cluster, "leader")
    made.project.catalogue(ROWS)
    yield made
    made.close()
    cluster.helm(*upgrade, "--set", "operator.replicas=1")


@pytest.fixture(scope="module")
def undisturbed(shop: Shop, server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    name = "leader"  # its own: other tests use the same ledger
    return shop.laptop(tmp_path_factory.mktemp("laptop"), server, name, **OPTIONS).tree(f"out/{name}")


def _leader(cluster: Cluster) -> str:
    return str(cluster.get("lease", "pipelinejob-operator", cluster.namespace)["spec"].get("holderIdentity", ""))


def _process(cluster: Cluster, pod: str) -> int:
    if cluster.node is None:
        pytest.skip("the node's processes are not on this machine (kind, or a cluster that was given)")
    (pid,) = cluster.processes_of(cluster.get("pod", pod, cluster.namespace)["metadata"]["uid"])
    return pid


def _epoch(cluster: Cluster) -> int:
    with cluster.database() as url, closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT number FROM pipelinejob.epoch")
        (number,) = cursor.fetchone() or (0,)
    return int(number)


def _begin(shop: Shop, name: str) -> None:
    shop.slow_down()
    shop.apply(name, **OPTIONS)
    shop.wait(lambda: shop.status(name).get("rows", {}).get("succeeded"), 60, "some rows are done")


def _ends_the_same(shop: Shop, name: str, undisturbed: dict[str, str]) -> None:
    shop.speed_up()
    status = shop.wait_end(name, 150)
    assert (status["phase"], status["rows"]["succeeded"]) == ("Complete", ROWS), shop.story()
    found = {path: digest for path, digest in shop.project.tree(f"out/{name}").items() if path != "manifest.json"}
    assert found == {path: digest for path, digest in undisturbed.items() if path != "manifest.json"}


def test_the_release_with_a_standby_tests_itself(shop: Shop, cluster: Cluster) -> None:
    operators = ("get", "pods", "-n", cluster.namespace, "-l", "app.kubernetes.io/component=operator", "-o", "name")
    shop.wait(lambda: len(cluster.kubectl(*operators).split()) == 2, 60, "the pods of the release before have gone")
    shop.wait(lambda: f"pod/{_leader(cluster)}" in cluster.kubectl(*operators).split(), 40, "one of the two leads")
    output = cluster.helm("test", cluster.release, "-n", cluster.namespace, "--logs", "--timeout", "60s")
    assert "healthz: ok" in output and "database: ok" in output
    budget = cluster.get("poddisruptionbudget", "pipelinejob-operator", cluster.namespace)
    assert budget["status"]["disruptionsAllowed"] == 1


def test_a_leader_is_killed_with_its_pod(shop: Shop, cluster: Cluster, undisturbed: dict[str, str]) -> None:
    _begin(shop, "killed")
    old, before = _leader(cluster), _epoch(cluster)
    pid = _process(cluster, old)
    cluster.kubectl("delete", "pod", old, "-n", cluster.namespace, "--grace-period=0", "--force", "--wait=false")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    shop.wait(lambda: _leader(cluster) not in ("", old), 40, "the standby leads")
    shop.wait(lambda: _epoch(cluster) > before, 20, "the ledger has a new epoch")
    _ends_the_same(shop, "killed", undisturbed)


def test_a_leader_that_was_stopped_ends_when_it_goes_on(shop: Shop, cluster: Cluster, undisturbed: dict[str, str]) -> None:
    _begin(shop, "stopped")
    old, before = _leader(cluster), _epoch(cluster)
    pid = _process(cluster, old)
    os.kill(pid, signal.SIGSTOP)
    try:
        shop.wait(lambda: _leader(cluster) not in ("", old), 25, "the standby leads")
        shop.wait(lambda: _epoch(cluster) == before + 1, 20, "the ledger has a new epoch")
    finally:
        os.kill(pid, signal.SIGCONT)
    shop.wait(lambda: not os.path.exists(f"/proc/{pid}"), 15, "the old leader has ended")
    _ends_the_same(shop, "stopped", undisturbed)
    assert (_leader(cluster) != old, _epoch(cluster)) == (True, before + 1)


def test_a_rolling_upgrade_while_a_job_runs(shop: Shop, cluster: Cluster, undisturbed: dict[str, str]) -> None:
    _begin(shop, "upgrade")
    old = _leader(cluster)
    deployment = ("deployment/pipelinejob-operator", "--namespace", cluster.namespace)
    cluster.kubectl("rollout", "restart", *deployment)
    cluster.kubectl("rollout", "status", *deployment, "--timeout=90s")
    shop.wait(lambda: _leader(cluster) not in ("", old), 20, "a new one leads")
    _ends_the_same(shop, "upgrade", undisturbed)
