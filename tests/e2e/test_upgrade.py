"""An upgrade from an earlier chart while a job runs.

There is no earlier release yet, so one is made: today's chart with a lower version, a CRD without the newest fields, and an
operator that knows no Lease and takes no epoch. Its programs are today's; what an earlier ledger needs is tried in store/test_upgrade.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from support.shop import SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
CHART = Path(__file__).parents[2] / "helm/pipelinejob"
ROWS = 450
NEW_FIELDS = ("topFailures", "estimatedCompletionTime")
OPTIONS: dict[str, Any] = {
    "functions": [{"name": "resize", "params": {"width": 16, "height": 16}}, SLOW],
    "sharding": {"rowsPerShard": 75, "batchRows": 10},
}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The chart as an earlier version might have had it."""
    made = tmp_path / "pipelinejob"
    shutil.copytree(CHART, made)
    chart = yaml.safe_load((made / "Chart.yaml").read_text())
    (made / "Chart.yaml").write_text(yaml.safe_dump({**chart, "version": "0.0.9", "appVersion": "0.0.9"}))
    crd = yaml.safe_load((made / "files/pipelinejobs.yaml").read_text())
    (version,) = crd["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    for field in NEW_FIELDS:
        del status[field]
    version["additionalPrinterColumns"] = version["additionalPrinterColumns"][:3]
    (made / "files/pipelinejobs.yaml").write_text(yaml.safe_dump(crd))
    operator = made / "templates/operator.yaml"
    lines = operator.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "PIPELINEJOB_LEASE" not in line]
    assert len(kept) == len(lines) - 1
    operator.write_text("".join(kept))
    return made


@pytest.fixture
def shop(cluster: Cluster, earlier: Path) -> Iterator[Shop]:
    """A user of the earlier version; today's is back at the end."""
    try:
        _upgrade(cluster, earlier)
        made = Shop(cluster, "upgraded")
        made.project.catalogue(ROWS, broken=[5])
        yield made
        made.close()
    finally:
        _upgrade(cluster, CHART)


def _upgrade(cluster: Cluster, chart: Path) -> None:
    values = ("--reuse-values", "--wait", "--timeout", "90s")
    cluster.helm("upgrade", cluster.release, str(chart), "-n", cluster.namespace, *values)


def _since(resource: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["lastTransitionTime"] for one in resource["status"]["conditions"] if one["status"] == "True"}


def test_an_earlier_chart_is_upgraded_while_a_job_runs(shop: Shop, cluster: Cluster) -> None:
    shop.apply("ended", **{**OPTIONS, "functions": []})
    shop.wait_end("ended")
    shop.slow_down(0.5)
    shop.apply(**OPTIONS)
    shop.wait(lambda: shop.status().get("rows", {}).get("failed"), 60, "the first rows")
    before, ended = shop.get(), shop.get("ended")
    assert not set(NEW_FIELDS) & set(ended["status"])

    _upgrade(cluster, CHART)
    assert shop.phase() == "Running", "the job is too short to be upgraded"
    shop.speed_up()
    status = shop.wait_end()
    assert (status["phase"], status["rows"]["succeeded"], status["rows"]["failed"]) == ("Complete", ROWS - 1, 1), shop.story()
    assert (status["startTime"], status["topFailures"][0]["count"]) == (before["status"]["startTime"], 1)
    assert _since(before).items() <= _since(shop.get()).items()  # what was so before has been so since then
    assert len(shop.project.table("out/job/metadata.csv")) == ROWS - 1

    still = shop.get("ended")
    assert _since(still) == _since(ended) and still["status"]["rows"] == ended["status"]["rows"]
    assert len(shop.pods(name="ended")) == 6  # nothing of it has run again
