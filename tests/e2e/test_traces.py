"""Traces from a real cluster: operator, worker pods and gateway tell a collector on this machine, by the chart's one value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from cluster import network
from cluster.cluster import SYSTEM
from support.collector import Collector
from support.shop import Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
CHART = Path(__file__).parents[2] / "helm/pipelinejob"


@pytest.fixture
def collector(cluster: Cluster, tmp_path: Path) -> Iterator[Collector]:
    """A collector that the release is told of."""
    if cluster.node is None:
        pytest.skip("pods of another cluster than our own may not reach this machine")
    made = Collector(host="0.0.0.0")
    values = tmp_path / "values.json"
    values.write_text(cluster.helm("get", "values", cluster.release, "-n", SYSTEM, "-o", "json"))
    upgrade = ("upgrade", cluster.release, str(CHART), "-n", SYSTEM, "-f", str(values), "--wait", "--timeout", "120s")
    try:
        cluster.helm(*upgrade, "--set", f"gateway.enabled=true,tracing.endpoint=http://{network.address()}:{made.port}")
        yield made
    finally:
        cluster.helm(*upgrade)
        made.close()


def test_one_trace_from_the_first_step_to_the_last(cluster: Cluster, collector: Collector) -> None:
    shop = Shop(cluster, "traced")
    try:
        shop.project.catalogue(40, without=[3])
        shop.apply("men", sharding={"batchRows": 10, "rowsPerShard": 20})
        shop.wait_end("men")
        whole = shop.get("men")["metadata"]["uid"].replace("-", "")
        with cluster.forward(f"service/{cluster.release}-gateway", 80) as port:
            assert httpx.get(f"http://127.0.0.1:{port}/api/v1/pipelinejobs", timeout=30).status_code == 401
        shop.wait(lambda: collector.named("PipelineJob"), 30, "the root is sent")
        shop.wait(lambda: [span for span in collector.spans if span.service == "pipelinejob-gateway"], 30, "the request is sent")
    finally:
        shop.close()
    ours = [span for span in collector.spans if span.trace == whole]
    (root,) = [span for span in ours if span.name == "PipelineJob"]
    assert (root.service, root.id, root.attributes["phase"]) == ("pipelinejob-operator", whole[16:], "Complete")
    of_pods = sorted(span.name for span in ours if span.service == "pipelinejob-worker")
    assert of_pods == [*["batch"] * 4, "finalize", "plan", "shard", "shard"]
    steps = {span.name for span in ours if span.service == "pipelinejob-operator"}
    assert {"CreatePlanJob", "OpenRound", "CreateRunJob", "CreateFinalJob", "Enter"} <= steps
    shards = {span.id for span in ours if span.name == "shard"}
    assert {span.parent for span in ours if span.name == "batch"} == shards
    assert {span.parent for span in ours if span.name not in ("batch", "PipelineJob")} == {root.id}
    assert all(span.error is None for span in ours)
