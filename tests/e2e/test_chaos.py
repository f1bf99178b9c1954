"""A short chaos run on a real cluster."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.cluster_world import InCluster
from chaos.laptop import Server
from chaos.run import prepare, run

if TYPE_CHECKING:
    from cluster.cluster import Cluster

ROWS = 9000
SPEC = {"sharding": {"rowsPerShard": 1500, "batchRows": 200}}


@pytest.mark.timeout(480)
def test_a_short_chaos_run(cluster: Cluster, tmp_path: Path) -> None:
    """As `make chaos CHAOS_WHERE=cluster CHAOS_SEED=2 CHAOS_ROWS=9000 CHAOS_PACE=2`, with smaller shards and at most eight faults."""
    if cluster.node is None:
        pytest.skip("the node's processes are not on this machine (kind, or a cluster that was given)")
    server = Server(tmp_path / "server")
    data, undisturbed = prepare(tmp_path, ROWS, server, SPEC)
    server.close()
    with closing(InCluster(cluster, data, SPEC)) as world:
        outcome = run(world, "cluster", 2, undisturbed, pace=2, limit=300, say=print, most=8)

    assert outcome.findings == []
    assert outcome.struck >= 3  # how many come before the job has ended is up to the machine
