"""Things that break while a job runs on a real cluster, and change nothing in its result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from support.project import Project
from support.shop import SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(400)
ROWS = 900
OPTIONS: dict[str, Any] = {
    "functions": [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 16, "height": 16}}, SLOW],
    "sharding": {"rowsPerShard": 225, "batchRows": 10},
    "backoffLimitPerIndex": 0,  # a disruption that counted as a failure would fail the job
}
SYSTEM = ("-n", "pipelinejob-system")


@pytest.fixture
def own_node(cluster: Cluster) -> None:
    """Tests that kill processes of the node need it to be on this machine."""
    if cluster.node is None:
        pytest.skip("the node's processes are not on this machine (kind, or a cluster that was given)")


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "faults")
    made.project.catalogue(ROWS, without=[11], broken=[200])
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(shop: Shop, server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run that nothing disturbs."""
    made: Project = shop.laptop(tmp_path_factory.mktemp("laptop"), server, **OPTIONS)
    return made.tree("out/job")


@pytest.fixture
def running(shop: Shop, undisturbed: dict[str, str], request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a job that has done some rows and has some to do, until the test speeds it up."""
    name = request.node.originalname.removeprefix("test_").replace("_", "-")[:40].strip("-")
    shop.slow_down()
    shop.apply(name, **{**OPTIONS, **getattr(request, "param", {})})
    shop.wait(lambda: shop.status(name).get("rows", {}).get("succeeded"), 60, "some rows are done")
    assert shop.status(name)["rows"]["pending"] > 100, "the job is too short to be disturbed"
    yield name
    shop.speed_up()


def ends_as_if_nothing_had_happened(shop: Shop, name: str, undisturbed: dict[str, str], seconds: float = 150) -> None:
    shop.speed_up()
    status = shop.wait_end(name, seconds)
    assert status["phase"] == "Complete", shop.story()
    assert status["rows"] == {"total": ROWS, "succeeded": ROWS - 2, "filtered": 0, "skipped": 0, "failed": 2, "pending": 0}
    found = {path: digest for path, digest in shop.project.tree(f"out/{name}").items() if path != "manifest.json"}
    assert found == {path: digest for path, digest in undisturbed.items() if path != "manifest.json"}
    (left,) = [path.name for path in (shop.root / f"out/{name}/images").iterdir() if not path.is_dir()] or [""]
    assert not left


def test_a_worker_pod_is_deleted(shop: Shop, running: str, undisturbed: dict[str, str]) -> None:
    pod = shop.wait(lambda: shop.running_pods(name=running), 30)[0]["metadata"]["name"]
    shop.kubectl("delete", "pod", pod, "--wait=false")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)


@pytest.mark.parametrize("running", [{"backoffLimitPerIndex": 2, "sharding": {"rowsPerShard": 900, "batchRows": 10}}], indirect=True)
@pytest.mark.usefixtures("own_node")
def test_a_worker_is_killed(shop: Shop, cluster: Cluster, running: str, undisturbed: dict[str, str]) -> None:
    """All processes of a pod at once, as where a container runs out of memory."""
    pod = shop.wait(lambda: shop.running_pods(name=running), 30)[0]
    for pid in cluster.processes_of(pod["metadata"]["uid"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shop.wait(lambda: any(one["status"]["phase"] == "Failed" for one in shop.pods(name=running)), 30, "a pod has failed")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)


@pytest.mark.parametrize("running", [{"sharding": {"rowsPerShard": 900, "batchRows": 10}}], indirect=True)
def test_two_pods_run_one_index(shop: Shop, running: str, undisturbed: dict[str, str]) -> None:
    """A second pod for the same rows, as Kubernetes may start one; it is nobody's, so that no controller ends it."""
    pod = shop.wait(lambda: shop.running_pods(name=running), 30)[0]
    metadata, spec = pod["metadata"], {name: value for name, value in pod["spec"].items() if name != "nodeName"}
    controllers = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")
    labels = {name: value for name, value in metadata["labels"].items() if name not in controllers}
    twin = {"name": f"{running}-twin", "labels": labels, "annotations": metadata["annotations"]}
    shop.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": twin, "spec": spec}))
    shop.wait(lambda: " begins: " in shop.kubectl("logs", twin["name"], check=False), 60, "both run at once")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)
    shop.wait(lambda: shop.kubectl("get", "pod", twin["name"], "-o", "jsonpath={.status.phase}") == "Succeeded", 30, "the twin ends, too")
    begun, ended = re.findall(r" (?:begins|ends): (\d+) done", shop.kubectl("logs", twin["name"]))
    assert int(ended) > int(begun), "the second one has run nothing"
    shop.kubectl("delete", "pod", twin["name"], "--wait=false")


def test_worker_pods_are_deleted_by_force(shop: Shop, running: str, undisturbed: dict[str, str]) -> None:
    victims = shop.wait(lambda: shop.running_pods(name=running), 30)
    shop.kubectl("delete", "pod", *(pod["metadata"]["name"] for pod in victims), "--grace-period=0", "--force")
    assert shop.status(running)["rows"]["pending"]
    ends_as_if_nothing_had_happened(shop, running, undisturbed)


def test_a_worker_pod_is_evicted(shop: Shop, running: str, undisturbed: dict[str, str]) -> None:
    pod = shop.wait(lambda: shop.running_pods(name=running), 30)[0]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": shop.namespace}}
    path = f"/api/v1/namespaces/{shop.namespace}/pods/{pod}/eviction"
    shop.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
    ends_as_if_nothing_had_happened(shop, running, undisturbed)


def test_the_operator_is_killed(shop: Shop, cluster: Cluster, running: str, undisturbed: dict[str, str]) -> None:
    selector = ("-l", "app.kubernetes.io/component=operator")
    before = cluster.kubectl("get", "pods", *SYSTEM, *selector, "-o", "name").split()
    cluster.kubectl("delete", *before, *SYSTEM, "--grace-period=0", "--force", "--wait=false")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)
    assert before and not set(before) & set(cluster.kubectl("get", "pods", *SYSTEM, *selector, "-o", "name").split())


def test_the_operator_is_away_while_the_run_ends(shop: Shop, cluster: Cluster, running: str, undisturbed: dict[str, str]) -> None:
    cluster.kubectl("scale", "deployment", *SYSTEM, "-l", "app.kubernetes.io/component=operator", "--replicas=0")
    shop.speed_up()
    shop.wait(lambda: [pod["status"]["phase"] for pod in shop.pods(name=running)] == ["Succeeded"] * 4, 120, "all shards are done")
    cluster.kubectl("scale", "deployment", *SYSTEM, "-l", "app.kubernetes.io/component=operator", "--replicas=1")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)


def test_a_job_deleted_while_the_operator_is_away_is_closed_in_the_ledger(shop: Shop, cluster: Cluster, running: str) -> None:
    uid = shop.get(running)["metadata"]["uid"]
    cluster.kubectl("scale", "deployment", *SYSTEM, "-l", "app.kubernetes.io/component=operator", "--replicas=0")
    shop.kubectl("delete", "pipelinejob", running, "--timeout=20s")  # no finalizer holds it
    cluster.kubectl("scale", "deployment", *SYSTEM, "-l", "app.kubernetes.io/component=operator", "--replicas=1")
    query = f"SELECT stop FROM pipelinejob.jobs WHERE uid = '{uid}' AND deleted_at IS NOT NULL"
    psql = ["exec", *SYSTEM, "pipelinejob-postgres-0", "--", "psql", "-U", "pipelinejob", "-d", "pipelinejob", "-Atc", query]
    shop.wait(lambda: cluster.kubectl(*psql).strip() == "deleted", 90, "the ledger knows that it is gone")


def test_postgres_restarts(shop: Shop, cluster: Cluster, running: str, undisturbed: dict[str, str]) -> None:
    before = cluster.get("pod", "pipelinejob-postgres-0", SYSTEM[1])["metadata"]["uid"]
    cluster.kubectl("delete", "pod", *SYSTEM, "pipelinejob-postgres-0", "--grace-period=0", "--force")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)
    assert cluster.get("pod", "pipelinejob-postgres-0", SYSTEM[1])["metadata"]["uid"] != before


def test_postgres_is_away_for_a_while_and_the_status_says_so(
    shop: Shop, cluster: Cluster, running: str, undisturbed: dict[str, str]
) -> None:
    cluster.kubectl("scale", "statefulset", *SYSTEM, "pipelinejob-postgres", "--replicas=0")
    try:
        shop.wait(lambda: shop.condition("Complete", running).get("reason") == "DatabaseUnavailable", 40, "the condition says so")
        shop.wait(lambda: ("Warning", "DatabaseUnavailable") in shop.events(running), 5, "an Event, too")
    finally:
        cluster.kubectl("scale", "statefulset", *SYSTEM, "pipelinejob-postgres", "--replicas=1")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)


@pytest.mark.usefixtures("own_node")
def test_the_kubelet_stops_for_a_while(shop: Shop, cluster: Cluster, running: str, undisturbed: dict[str, str]) -> None:
    cluster.stop_process("kubelet")
    time.sleep(10)
    cluster.start_process("kubelet")
    ends_as_if_nothing_had_happened(shop, running, undisturbed)


def ready(pods: list[dict[str, Any]]) -> bool:
    """Whether there are pods, and all reach their database."""
    return bool(pods) and all(one["ready"] for pod in pods for one in pod["status"].get("containerStatuses", []))


@pytest.mark.parametrize("running", [{"sharding": {"rowsPerShard": 900, "batchRows": 10}}], indirect=True)
@pytest.mark.usefixtures("own_node")
def test_a_node_is_lost_and_its_old_processes_live_on(shop: Shop, cluster: Cluster, running: str, undisturbed: dict[str, str]) -> None:
    """The pods' deletion is never answered: the operator declares them failed, so that others take over."""
    shop.wait(lambda: ready(shop.running_pods(name=running)), 30, "its readiness is known, and so can be lost")
    pod = shop.running_pods(name=running)[0]["metadata"]["name"]
    cluster.stop_process("kubelet")
    try:
        shop.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=1")
        shop.wait(lambda: ("Warning", "NodeLost") in shop.events(running), 60, "Event NodeLost")
        shop.wait(lambda: _has_failed(shop, pod), 120, "the operator declares the pod failed")
    finally:
        cluster.start_process("kubelet")
    ends_as_if_nothing_had_happened(shop, running, undisturbed, 200)


def _has_failed(shop: Shop, pod: str) -> bool:
    """Whether it is Failed, or gone since."""
    phase = shop.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}", "--ignore-not-found")
    return phase in ("Failed", "")
