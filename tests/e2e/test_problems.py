"""What keeps a job from running shows within seconds in its conditions and as an Event, in words that say what to do."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import yaml
from PIL import Image

from support.shop import Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(180)
WITHIN = 30.0  # seconds; 15 are promised, a busy machine gets twice that


@pytest.fixture
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "problems")
    made.project.catalogue(40)
    yield made
    made.close()


def shows(shop: Shop, reason: str, *words: str, seconds: float = WITHIN) -> None:
    """The reason stands in the condition Complete or Failed, and in an Event."""

    def found() -> Any:
        for kind in ("Complete", "Failed"):
            condition = shop.condition(kind)
            if condition.get("reason") == reason:
                return condition
        return None

    condition = shop.wait(found, seconds, f"condition with reason {reason}")
    for word in words:
        assert word in condition["message"], condition
    shop.wait(lambda: ("Warning", reason) in shop.events(), 5, f"Event {reason}")
    assert reason in shop.kubectl("describe", "pipelinejob", "job")


def test_an_image_that_cannot_be_pulled(shop: Shop) -> None:
    shop.apply(worker={"image": "localhost/no-such-image:1"})
    shows(shop, "ImagePullBackOff", "localhost/no-such-image:1", "spec.worker.image")


def test_a_pod_that_fits_on_no_node(shop: Shop) -> None:
    shop.apply(worker={"resources": {"requests": {"cpu": "500"}}})
    shows(shop, "Unschedulable", "cpu")


def test_a_claim_that_is_not_there(shop: Shop) -> None:
    shop.apply(data={"persistentVolumeClaim": {"claimName": "nothing"}})
    shows(shop, "VolumeNotBound", "nothing")


def test_a_quota_that_is_used_up(shop: Shop) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    shop.kubectl("apply", "-f", "-", input=yaml.safe_dump(quota))
    shop.apply()
    shows(shop, "QuotaExceeded", "quota")
    shop.kubectl("delete", "resourcequota", "none")
    assert shop.wait_end()["phase"] == "Complete"


def test_a_database_without_a_free_connection(shop: Shop) -> None:
    with shop.cluster.database() as url, ExitStack() as stack:
        connections = [stack.enter_context(closing(psycopg2.connect(url)))]
        connections[0].autocommit = True  # a transaction would count once
        cursor = connections[0].cursor()
        cursor.execute("SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int")
        (usable,) = cursor.fetchone()
        while used(cursor) < usable:
            connections.append(stack.enter_context(closing(psycopg2.connect(url))))
        shop.apply()
        shows(shop, "DatabaseConnections", "no free connection", "database.maxWorkers")
    assert shop.wait_end()["phase"] == "Complete"


def used(cursor: Any) -> int:
    """The connections that the server has now."""
    cursor.execute("SELECT sum(numbackends)::int FROM pg_stat_database")
    return int(cursor.fetchone()[0])


def test_a_pod_that_is_killed_for_its_memory(shop: Shop) -> None:
    shop.apply(worker={"resources": {"limits": {"memory": "12Mi"}, "requests": {"memory": "12Mi"}}})
    shop.wait(lambda: "OOMKilled" in json.dumps(shop.status()) or shop.condition("Failed"), 60, "OOMKilled")
    assert "OOMKilled" in json.dumps(shop.status()), shop.story()


GREEDY = """
import mmap
def greedy(image, row):
    if row["id"] == "1023":
        shared = mmap.mmap(-1, 800 << 20)  # not a process's own, and so beyond its limit
        while True:
            shared.write(bytes(1 << 20))
    return image
"""


def test_rows_that_take_all_the_memory_of_their_pod_fail_alone(shop: Shop) -> None:
    """A line of 20,000 pixels takes 800 MB when it is turned by 45 degrees: more than its process may have. What processes share
    is limited by the container alone, which ends as a whole, however often it is tried."""
    Image.new("RGB", (2, 20_000)).save(shop.root / "img/1017.jpg")
    function = {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineFunction", "metadata": {"name": "greedy"}}
    shop.kubectl("apply", "-f", "-", input=json.dumps({**function, "spec": {"source": {"inline": GREEDY}}}))
    shop.apply(
        functions=[{"name": "rotate", "params": {"angle": 45}}, {"name": "greedy"}],
        sharding={"batchRows": 10},
        worker={"resources": {"limits": {"memory": "200Mi", "cpu": "1"}, "requests": {"memory": "100Mi", "cpu": "100m"}}},
    )
    with whole_pods_out_of_memory(shop):
        status = shop.wait_end()
    assert status["phase"] == "Complete", shop.story()
    assert status["rows"] == {"total": 40, "succeeded": 38, "filtered": 0, "skipped": 0, "failed": 2, "pending": 0}, shop.story()
    failed = shop.project.failed()
    assert failed.keys() == {17, 23} and {reason for reason, _ in failed.values()} == {"FunctionError"}
    assert "MemoryError: more than a process here may use" in failed[17][1]
    assert "and the whole pod with it, 3 times: most likely it ran out of memory" in failed[23][1]
    ended = [pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] for pod in shop.pods()]
    assert sorted(ended) == ["Completed", "OOMKilled", "OOMKilled", "OOMKilled"]


@contextmanager
def whole_pods_out_of_memory(shop: Shop) -> Iterator[None]:
    """Lets an OOM kill end all of a worker's container, as cgroup v2 does. Where our own node has v1, which ends one process,
    that is to be the container's first, with which the others end."""
    job = f"PIPELINEJOB_JOB={shop.get()['metadata']['uid']}".encode()
    done = threading.Event()

    def choose() -> None:
        while not done.wait(0.01):
            for entry in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):  # it has gone
                    if job in (entry / "environ").read_bytes().split(b"\0"):
                        first = (entry / "cmdline").read_bytes().endswith(b"\0shard\0")
                        (entry / "oom_score_adj").write_text("1000" if first else "0")

    chooser = threading.Thread(target=choose)
    if shop.cluster.node is not None:
        chooser.start()
    try:
        yield
    finally:
        done.set()
        if chooser.ident is not None:
            chooser.join()


def test_an_object_that_the_api_server_refuses(shop: Shop) -> None:
    shop.apply(worker={"resources": {"limits": {"memory": "1GB!"}}})
    shows(shop, "ApiRefused", "quantities")


def test_a_csv_that_is_not_there(shop: Shop) -> None:
    shop.apply(source={"csv": "nothing.csv"})
    shows(shop, "InputNotFound", "spec.source.csv", "nothing.csv")
    assert shop.phase() == "Failed"


def test_a_folder_that_cannot_be_written(shop: Shop) -> None:
    (shop.root / "out").mkdir()
    os.chmod(shop.root / "out", 0o555)
    shop.apply()
    shows(shop, "InvalidSpec", "out/job", "10001")


def test_a_column_that_is_not_there(shop: Shop) -> None:
    shop.apply(source={"idColumn": "sku"})
    shows(shop, "InvalidSpec", "spec.source.idColumn", "gender")
    assert shop.condition("Accepted")["status"] == "False"


@pytest.mark.parametrize(
    ("functions", "field"),
    [
        ([{"name": "rezise", "params": {"width": 8}}], "spec.functions[0].name"),
        ([{"name": "resize", "params": {"width": 8, "height": "x"}}], "spec.functions[0].params.height"),
    ],
)
def test_a_spec_that_the_api_server_cannot_judge_is_refused_soon(shop: Shop, functions: list[Any], field: str) -> None:
    shop.apply(functions=functions)
    shop.wait(lambda: shop.condition("Accepted"), 10, "an answer; two seconds are promised, a busy machine gets more")
    assert shop.condition("Accepted")["status"] == "False"
    assert field in shop.condition("Accepted")["message"]
    assert shop.phase() == "Failed"
