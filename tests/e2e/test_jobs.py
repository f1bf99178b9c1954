"""PipelineJobs on a real cluster, through kubectl: applied, watched, changed while they run, and deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
import yaml

from cluster.cluster import SYSTEM
from support.project import Project
from support.shop import SLOW, Shop

if TYPE_CHECKING:
    from cluster.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
SAMPLE = Path(__file__).parents[2] / "manifests" / "examples" / "fashion.yaml"
LONG = [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 16, "height": 16}}, SLOW]


@pytest.fixture
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster, "shop")
    yield made
    made.close()


def test_the_sample_job_completes_with_the_bytes_and_the_ledger_of_a_laptop(cluster: Cluster, tmp_path: Path, database: str) -> None:
    document = yaml.safe_load(SAMPLE.read_text())
    name = document["metadata"]["name"]
    shutil.copytree(cluster.data / "fashion", tmp_path / "fashion")
    cluster.kubectl("apply", "-f", str(SAMPLE))
    try:
        cluster.kubectl("wait", "--for=condition=Complete", f"pipelinejob/{name}", "--timeout=120s")
        shown = cluster.kubectl("get", "pipelinejobs", name)
        assert shown.split("\n")[0].split() == ["NAME", "PHASE", "PROGRESS", "FAILED", "RATE", "AGE"]
        status = json.loads(cluster.kubectl("get", "pipelinejob", name, "-o", "json"))["status"]
        uid = json.loads(cluster.kubectl("get", "pipelinejob", name, "-o", "json"))["metadata"]["uid"]
        laptop = Project(tmp_path, database)
        (tmp_path / "job.yaml").write_text(SAMPLE.read_text())
        ran = laptop.run("run", "job.yaml", "--json")
        assert ran.code == 0, ran.err
        assert status["rows"] == ran.json["rows"]
        policy = json.loads(cluster.kubectl("get", "networkpolicies", "-l", f"pipelinejob.dev/uid={uid}", "-o", "json"))["items"][0]["spec"]
        assert policy["podSelector"] == {"matchLabels": {"pipelinejob.dev/uid": uid}} and policy["policyTypes"] == ["Ingress", "Egress"]
        to = policy["egress"][1]["to"][0]  # where the database's pod is
        labels = ",".join(f"{key}={value}" for key, value in to["podSelector"]["matchLabels"].items())
        assert "postgres" in cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", labels, "-o", "name")
        assert Project(cluster.data, None).tree(status["output"]) == laptop.tree(status["output"])
        ours = _ledger(cluster, f"job_uid = '{uid}'")
        assert ours == _rows(database, "true")
    finally:
        cluster.kubectl("delete", "pipelinejob", name, "--ignore-not-found")
        shutil.rmtree(cluster.data / document["spec"]["output"]["path"], ignore_errors=True)


def test_failed_rows_run_again_into_the_output_of_their_job(shop: Shop, tmp_path: Path, database: str) -> None:
    late = [3, 4, 21, 37]
    spec = {"sharding": {"batchRows": 5, "rowsPerShard": 20}, "failurePolicy": {"maxFailedRowsPercent": 5}}
    shop.project.catalogue(60)
    clean = shop.laptop(tmp_path, database, **spec)
    for row in late:
        (shop.root / f"img/{1000 + row}.jpg").rename(shop.root / f"late-{row}")
    shop.apply(**spec)
    status = shop.wait_end()
    assert (status["phase"], status["rows"]["failed"]) == ("Failed", 4) and shop.condition("Failed")["reason"] == "FailureBudgetExceeded"

    for row in late:
        (shop.root / f"late-{row}").rename(shop.root / f"img/{1000 + row}.jpg")
    shop.apply("again", **{**spec, "source": {"failedRowsOf": {"name": "job", "reasons": ["ImageNotFound"]}}, "output": {}})
    again = shop.wait_end("again")
    assert (again["phase"], again["rows"]["total"], again["rows"]["succeeded"], again["output"]) == ("Complete", 4, 4, "out/job")
    root = shop.wait_phase("Complete")
    assert (root["rows"]["succeeded"], root["rows"]["failed"]) == (60, 0)
    ignored = {"manifest.json": ""}
    assert shop.project.tree("out/job") | ignored == clean.tree("out/job") | ignored

    shop.apply("wrong", **{**spec, "source": {"failedRowsOf": {"name": "nobody"}}, "output": {}})
    assert shop.wait_end("wrong")["phase"] == "Failed" and "no PipelineJob 'nobody'" in shop.condition("Accepted", "wrong")["message"]


BATCHES = (
    "SELECT coalesce(json_agg(b ORDER BY first_row), '[]') FROM (SELECT first_row, rows, succeeded, filtered, skipped, failed, images,"
    " bytes, images_sha256, inputs_sha256, columns FROM pipelinejob.batches WHERE {}) b"
)
FAILED = (
    "SELECT coalesce(json_agg(f ORDER BY row), '[]') FROM (SELECT row, id, reason, function, message, attempts, byte_start, byte_end"
    " FROM pipelinejob.failed_rows WHERE {}) f"
)


def _ledger(cluster: Cluster, where: str) -> list[object]:
    """Batches and failed rows, asked for in the database's own pod."""
    return [json.loads(_psql(cluster, query.format(where))) for query in (BATCHES, FAILED)]


def _psql(cluster: Cluster, query: str) -> str:
    psql = ["pipelinejob-postgres-0", "--", "psql", "-U", "pipelinejob", "-d", "pipelinejob", "-Atc", query]
    return cluster.kubectl("exec", "-n", "pipelinejob-system", *psql)


def _rows(database: str, where: str) -> list[object]:
    connection = psycopg2.connect(database)
    cursor = connection.cursor()
    found = []
    for query in (BATCHES, FAILED):
        cursor.execute(query.format(where))
        found.append(cursor.fetchone()[0])  # type: ignore[index]
    connection.close()
    return found


def test_every_row_is_accounted_for_and_a_person_can_see_it(shop: Shop, tmp_path: Path, database: str) -> None:
    shop.project.catalogue(300, without=[7, 250], broken=[100])
    options = {"sharding": {"rowsPerShard": 60, "batchRows": 20}, "source": {"where": {"gender": "Men"}}}
    shop.apply(**options)
    status = shop.wait_end()
    assert status["phase"] == "Complete"
    assert status["rows"] == {"total": 300, "succeeded": 148, "filtered": 150, "skipped": 0, "failed": 2, "pending": 0}
    assert status["shards"] == {"total": 5, "active": 0, "succeeded": 5, "failed": 0}
    assert {(one["reason"], one["count"]) for one in status["topFailures"]} == {("ImageNotFound", 1), ("ImageInvalid", 1)}
    assert {"Accepted", "Planned", "Complete"} <= {reason for _, reason in shop.events()}
    assert "every row is accounted for" in shop.kubectl("describe", "pipelinejob", "job")
    wide = shop.kubectl("get", "plj", "-o", "wide").split("\n")[0].split()
    assert wide == ["NAME", "PHASE", "PROGRESS", "FAILED", "RATE", "AGE", "SHARDS", "PARALLELISM", "OUTPUT", "ETA"]
    assert shop.project.tree("out/job") == shop.laptop(tmp_path, database, **options).tree("out/job")
    query = f"SELECT status FROM pipelinejob.jobs WHERE uid = '{shop.get()['metadata']['uid']}'"
    assert json.loads(_psql(shop.cluster, query)) == shop.status()
    for stage in ("plan", "shard", "finalize"):
        assert shop.kubectl("get", "jobs", "-l", f"pipelinejob.dev/job=job,pipelinejob.dev/stage={stage}", "-o", "name").strip()


def test_a_csv_of_a_header_alone_completes_without_a_run_job(shop: Shop) -> None:
    shop.project.write_csv([])
    shop.apply()
    assert shop.wait_end()["rows"]["total"] == 0
    assert shop.phase() == "Complete"
    assert not shop.kubectl("get", "jobs", "-l", "pipelinejob.dev/stage=shard", "-o", "name").strip()
    assert (shop.root / "out/job/metadata.csv").exists()


def test_suspend_frees_the_pods_and_resume_goes_on_to_the_same_bytes(shop: Shop, tmp_path: Path, database: str) -> None:
    shop.project.catalogue(600)
    shop.slow_down()
    options = {"functions": LONG, "sharding": {"rowsPerShard": 100, "batchRows": 10}}
    shop.apply(**options)
    shop.wait(lambda: shop.status().get("rows", {}).get("succeeded"), 60, "some rows are done")
    shop.patch(suspend=True)
    shop.wait_phase("Suspended", seconds=40)
    shop.wait(lambda: not shop.pods(), 15, "the pods are gone")
    done = shop.status()["rows"]["succeeded"]
    assert 0 < done < 600
    shop.speed_up()
    shop.patch(suspend=False)
    status = shop.wait_end()
    assert (status["phase"], status["rows"]["succeeded"]) == ("Complete", 600)
    assert {"Suspended", "Resumed"} <= {reason for _, reason in shop.events()}
    ignored = {"manifest.json": ""}  # it names where the code of a function is from
    assert shop.project.tree("out/job") | ignored == shop.laptop(tmp_path, database, **options).tree("out/job") | ignored


def test_a_job_that_is_suspended_from_the_start_makes_nothing_until_it_is_resumed(shop: Shop) -> None:
    shop.project.catalogue(20)
    shop.apply(suspend=True)
    shop.wait_phase("Suspended", seconds=15)
    assert not shop.kubectl("get", "jobs,pods", "-o", "name").strip()
    shop.patch(suspend=False)
    assert shop.wait_end()["phase"] == "Complete"


def test_parallelism_changes_without_restarting_running_pods(shop: Shop) -> None:
    shop.project.catalogue(1250)
    shop.slow_down()
    shop.apply(functions=LONG, sharding={"rowsPerShard": 250, "batchRows": 10}, parallelism=1)
    shop.wait(lambda: len(shop.running_pods()) == 1, 60, "one pod runs")
    first = shop.running_pods()[0]["metadata"]["uid"]
    shop.patch(parallelism=3)
    shop.wait(lambda: len(shop.running_pods()) == 3, 30, "three pods run")
    assert first in [pod["metadata"]["uid"] for pod in shop.running_pods()]
    shop.patch(parallelism=1)
    shop.wait(lambda: len(shop.running_pods()) == 1, 40, "one pod runs again")
    shop.speed_up()
    status = shop.wait_end()
    assert (status["phase"], status["rows"]["succeeded"]) == ("Complete", 1250)


def test_cancel_stops_for_good_and_writes_the_results_of_what_is_done(shop: Shop) -> None:
    shop.project.catalogue(900)
    shop.slow_down()
    shop.apply(functions=LONG, sharding={"rowsPerShard": 100, "batchRows": 10})
    shop.wait(lambda: shop.status().get("rows", {}).get("succeeded"), 60, "some rows are done")
    shop.patch(cancel=True)
    status = shop.wait_end()
    assert (status["phase"], shop.condition("Failed")["reason"]) == ("Cancelled", "Cancelled")
    done = status["rows"]["succeeded"]
    assert 0 < done < 900
    assert len(shop.project.table("out/job/metadata.csv")) == done
    manifest = json.loads((shop.root / "out/job/manifest.json").read_text())
    assert sum(one["rows"] for one in manifest["pending"]) == 900 - done == status["rows"]["pending"]
    refused = shop.kubectl("patch", "pipelinejob", "job", "--type=merge", "-p", '{"spec":{"cancel":false}}', check=False)
    assert shop.get()["spec"]["cancel"] is True, refused


def test_a_broken_budget_stops_the_pods_and_a_raised_one_goes_on_to_the_same_bytes(shop: Shop, tmp_path: Path, database: str) -> None:
    shop.project.catalogue(400, without=list(range(0, 400, 2)))
    shop.slow_down()
    options = {"functions": LONG, "sharding": {"rowsPerShard": 50, "batchRows": 10}}
    shop.apply(**options, failurePolicy={"maxFailedRows": 20, "maxFailedRowsPercent": 100})
    shop.wait(lambda: shop.status().get("rows", {}).get("failed", 0) > 20, 90, "the budget is broken")
    shop.wait(lambda: not shop.running_pods(), 30, "no pod runs")
    status = shop.wait_end()
    told = shop.condition("Failed")
    assert (status["phase"], told["reason"]) == ("Failed", "FailureBudgetExceeded")
    assert "more than spec.failurePolicy.maxFailedRows 20" in told["message"] and "most often ImageNotFound" in told["message"]
    rows = status["rows"]
    assert rows["pending"] > 0 and len(shop.project.table("out/job/metadata.csv")) == rows["succeeded"] > 0
    assert len(shop.project.table("out/job/failures.csv")) == rows["failed"]

    shop.speed_up()
    shop.patch(failurePolicy={"maxFailedRows": 21})
    shop.wait(lambda: "maxFailedRows 21" in shop.condition("Failed")["message"], 15, "it says that this is too little")
    shop.patch(failurePolicy={"maxFailedRows": 200})
    assert shop.wait_phase("Complete")["rows"]["failed"] == 200
    ignored = {"manifest.json": ""}  # it names where the code of a function is from
    assert shop.project.tree("out/job") | ignored == shop.laptop(tmp_path, database, **options).tree("out/job") | ignored


def test_a_deleted_job_goes_with_all_it_had_and_one_of_the_same_name_is_a_new_job(shop: Shop) -> None:
    shop.project.catalogue(400)
    shop.slow_down()
    shop.apply(functions=LONG, sharding={"rowsPerShard": 100, "batchRows": 10})
    shop.wait(lambda: shop.status().get("rows", {}).get("succeeded"), 60, "some rows are done")
    old = shop.get()["metadata"]["uid"]
    shop.kubectl("delete", "pipelinejob", "job")
    shop.apply(functions=[])
    status = shop.wait_end()
    assert (status["phase"], status["rows"]["succeeded"]) == ("Complete", 400)
    assert shop.get()["metadata"]["uid"] != old
    assert (shop.root / f"out/job.{old}").is_dir()  # what the deleted job had made
    source = next((shop.root / "img").iterdir())
    copied = next((shop.root / "out/job/images").rglob(source.name))
    assert copied.read_bytes() == source.read_bytes()
    shop.kubectl("delete", "pipelinejob", "job")
    shop.wait(lambda: not shop.kubectl("get", "jobs,pods,secrets", "-o", "name").strip(), 60, "nothing is left")
    assert (shop.root / "out/job/metadata.csv").exists()


def test_a_job_goes_when_its_time_to_live_is_over(shop: Shop) -> None:
    shop.project.catalogue(10)
    shop.apply(ttlSecondsAfterFinished=3)
    shop.wait(lambda: not shop.kubectl("get", "pipelinejobs", "-o", "name").strip(), 60, "it is gone")
    assert (shop.root / "out/job/metadata.csv").exists()


def test_a_plan_is_looked_at_and_then_run_as_it_is(shop: Shop) -> None:
    shop.project.catalogue(40)
    spec = {"mode": "plan", "source": {"where": {"gender": "Men"}}, "sharding": {"batchRows": 5, "rowsPerShard": 20}}
    shop.apply("planned", **spec)
    shop.wait(lambda: shop.condition("Complete", "planned").get("reason") == "PlanOnly", 60)
    told = shop.condition("Complete", "planned")["message"]
    assert told.startswith("20 rows match, 20 do not, 0 are malformed; about ") and "pipelinejob.dev/approve=true" in told
    plan = shop.status("planned")["plan"]
    assert (plan["rows"], plan["matching"], plan["exact"], plan["sampled"]) == (40, 20, True, 20) and plan["estimatedSeconds"] >= 0
    assert not (shop.root / "out/planned").exists()
    shop.kubectl("annotate", "pipelinejob", "planned", "pipelinejob.dev/approve=true")
    status = shop.wait_end("planned")
    assert (status["phase"], status["rows"]["succeeded"], status["rows"]["filtered"]) == ("Complete", 20, 20)
    assert len(shop.project.table("out/planned/metadata.csv")) == 20


def test_an_incremental_job_runs_what_is_new_into_the_output_of_the_one_before(shop: Shop, tmp_path: Path, database: str) -> None:
    spec = {"sharding": {"batchRows": 5, "rowsPerShard": 20}}
    shop.project.catalogue(40)
    shop.apply("first", **spec)
    assert shop.wait_end("first")["phase"] == "Complete"
    shop.project.catalogue(43, without=[7])
    (shop.root / "img/1007.jpg").unlink()
    shop.apply("second", **spec, incrementalOf="first", output={})
    status = shop.wait_end("second")
    assert (status["phase"], status["output"]) == ("Complete", "out/first")
    assert status["rows"] == {"total": 43, "succeeded": 42, "filtered": 0, "skipped": 0, "failed": 1, "pending": 0, "reused": 39}
    clean = shop.laptop(tmp_path, database, **spec)
    ignored = {"manifest.json": ""}
    assert shop.project.tree("out/first") | ignored == clean.tree("out/job") | ignored
    shop.apply("third", **spec, incrementalOf="first", output={})
    assert shop.wait_end("third")["phase"] == "Failed"
    assert "belongs to 'second'" in shop.condition("Failed", "third")["message"]
    shop.apply("fourth", **spec, incrementalOf="nobody", output={})
    assert shop.wait_end("fourth")["phase"] == "Failed"
    assert "there is no other PipelineJob 'nobody'" in shop.condition("Accepted", "fourth")["message"]
