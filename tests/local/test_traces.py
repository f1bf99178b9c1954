"""OpenTelemetry traces of a job: as a collector gets them, and what becomes of a job whose collector is away."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.collector import Collector
from support.pods import Pods
from support.project import Project

SPEC = {"sharding": {"batchRows": 5, "rowsPerShard": 20}}
NOWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}  # nothing listens there
LOST = "traces are lost"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def _check_tree(collector: Collector, uid: str) -> None:
    """One trace, which is the job's uid; the stages below its root, batches below shards; nothing twice."""
    whole = uid.replace("-", "")
    assert {span.trace for span in collector.spans} == {whole}
    (root,) = collector.named("PipelineJob")
    assert (root.id, root.parent) == (whole[16:], "")
    assert len({span.id for span in collector.spans}) == len(collector.spans)
    for name in ("plan", "shard", "finalize"):
        assert {span.parent for span in collector.named(name)} == {root.id}, name
    shards = {span.id: span for span in collector.named("shard")}
    for batch in collector.named("batch"):
        shard = shards[batch.parent]
        assert shard.began <= batch.began <= batch.ended <= shard.ended
        assert shard.attributes["shard"] == batch.attributes["first_row"] // 20
    for span in collector.spans:
        assert span.attributes["job"] == "job" and span.attributes["namespace"] == "default"


def test_a_job_is_one_trace_with_its_stages_shards_and_batches(project: Project, collector: Collector) -> None:
    project.catalogue(43, without=[3], broken=[41])
    sampled = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}  # not heeded
    ran = project.run("run", project.job(**SPEC), "--json", env={**collector.environment, **sampled})
    assert ran.code == 0, ran.err
    assert LOST not in ran.err

    _check_tree(collector, ran.json["uid"])
    names = sorted(span.name for span in collector.spans)
    assert names == ["PipelineJob", *["batch"] * 9, "finalize", "plan", *["shard"] * 3]
    counted = {span.attributes["first_row"]: span.attributes for span in collector.named("batch")}
    assert [(counted[first][key]) for first in (0, 5, 40) for key in ("rows", "succeeded", "failed")] == [5, 4, 1, 5, 5, 0, 3, 2, 1]
    assert {(span.attributes["shard"], span.attributes["round"]) for span in collector.named("shard")} == {(0, 1), (1, 1), (2, 1)}
    (root,), (plan,) = collector.named("PipelineJob"), collector.named("plan")
    assert (root.attributes["phase"], root.attributes["rows.total"], root.attributes["rows.failed"]) == ("Complete", 43, 2)
    assert plan.attributes["rows"] == 43
    assert all(root.began <= span.began and span.ended <= root.ended and span.error is None for span in collector.spans)
    assert {span.service for span in collector.spans} == {"pipelinejob"}
    assert not [key for span in collector.spans for key in span.resource if key.startswith("process.")]  # a command line has passwords


def test_a_job_that_failed_says_why_in_a_word(project: Project, collector: Collector) -> None:
    project.catalogue(20, without=range(10))
    ran = project.run("run", project.job(failurePolicy={"maxFailedRows": 3}), "--json", env=collector.environment)
    assert ran.code == 1, ran.err
    (root,) = collector.named("PipelineJob")
    assert (root.error, root.attributes["phase"]) == ("FailureBudgetExceeded", "Failed")
    assert "1000" not in str(root.attributes)  # an id, which the ledger's message names as an example


def test_a_run_that_goes_on_adds_to_the_trace(project: Project, collector: Collector) -> None:
    project.catalogue(20)
    file = project.job(suspend=True)
    assert project.run("run", file, "--json", env=collector.environment).code == 1
    assert [span.name for span in collector.spans] == ["plan"]
    ran = project.run("resume", "job", "--json", env=collector.environment)
    assert ran.code == 0, ran.err
    assert sorted({span.name for span in collector.spans}) == ["PipelineJob", "batch", "finalize", "plan", "shard"]
    _check_tree(collector, ran.json["uid"])


def test_a_redrive_has_a_trace_of_its_own(project: Project, collector: Collector) -> None:
    project.catalogue(20, without=[3])
    assert project.run("run", project.job(), "--json").code == 0
    project.images(1003)
    ran = project.run("redrive", "job", "--json", env=collector.environment)
    assert ran.code == 0, ran.err
    assert {span.trace for span in collector.spans} == {ran.json["uid"].replace("-", "")}
    (root,) = collector.named("PipelineJob")
    assert (root.attributes["job"], root.attributes["rows.succeeded"]) == ("job-redrive-1", 1)


def test_pods_tell_of_what_they_did_in_the_same_trace(project: Project, database: str, collector: Collector) -> None:
    pods = Pods(project, database)
    try:
        project.catalogue(40, without=[22])
        job = pods.accept(project.job(**SPEC))
        assert pods.run("plan", env=collector.environment)[0] == 0
        assert pods.open_round() == 2
        for index in range(2):
            code, log = pods.run("shard", index, env=collector.environment)
            assert code == 0, log
        assert pods.run("finalize", env=collector.environment)[0] == 0
    finally:
        pods.close()
    assert sorted(span.name for span in collector.spans) == [*["batch"] * 8, "finalize", "plan", "shard", "shard"]
    whole = job.uid.replace("-", "")
    assert {(span.trace, span.service) for span in collector.spans} == {(whole, "pipelinejob-worker")}
    shards = collector.named("shard")
    assert {span.parent for name in ("plan", "shard", "finalize") for span in collector.named(name)} == {whole[16:]}
    assert {span.parent for span in collector.named("batch")} == {span.id for span in shards}
    assert [(span.attributes["shard"], span.attributes["rows"], span.attributes["round"]) for span in shards] == [(0, 20, 1), (1, 20, 1)]


def test_a_plan_that_fails_says_why(project: Project, database: str, collector: Collector) -> None:
    pods = Pods(project, database)
    try:
        pods.accept(project.job())  # there is no rows.csv
        assert pods.run("plan", env=collector.environment)[0] == 43
    finally:
        pods.close()
    assert [(span.name, span.error) for span in collector.spans] == [("plan", "InputNotFound")]


@pytest.mark.parametrize("how", ["away", "slow"])
def test_a_collector_that_is_away_or_slow_costs_a_job_nothing_but_two_seconds(project: Project, how: str) -> None:
    slow = Collector(patience=60)
    patient = {**slow.environment, "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    project.catalogue(400)
    seconds, trees = {}, {}
    try:
        for name, environment in (("without", {}), ("with", NOWHERE if how == "away" else patient)):
            file = project.job(name, sharding={"batchRows": 1, "rowsPerShard": 100})
            began = time.monotonic()
            ran = project.run("run", file, "--json", env=environment)
            seconds[name], trees[name] = time.monotonic() - began, project.tree(f"out/{name}")
            assert ran.code == 0 and ran.json["rows"]["succeeded"] == 400, ran.err
            assert ran.err.count(LOST) == (name == "with"), ran.err
            assert "Traceback" not in ran.err and "opentelemetry" not in ran.err
    finally:
        slow.close()
    assert {path: digest for path, digest in trees["with"].items() if path != "manifest.json"} == {
        path: digest for path, digest in trees["without"].items() if path != "manifest.json"
    }
    assert seconds["with"] < seconds["without"] + 2 + 3  # and what a loaded machine makes of it


def test_users_code_does_not_see_what_opens_the_collector(project: Project, collector: Collector) -> None:
    project.catalogue(3)
    project.write("import os\ndef look(image, row):\n    return {'seen': 'hush' in str(dict(os.environ))}\n", "fn.py")
    file = project.job(functions=[{"name": "look", "file": "fn.py"}])
    ran = project.run("run", file, "--json", env={**collector.environment, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=hush"})
    assert ran.code == 0, ran.err
    assert {row["seen"] for row in project.table("out/job/metadata.csv")} == {"false"}
    assert {headers["api-key"] for headers in collector.headers} == {"hush"}


OFF: list[Mapping[str, str]] = [
    {},
    {**NOWHERE, "OTEL_SDK_DISABLED": "true"},
    {**NOWHERE, "OTEL_TRACES_EXPORTER": "none"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
]
LOOK = """
import sys
from pipelinejob.cli import app
code = app(["run", sys.argv[1]], standalone_mode=False)
print([name for name in sys.modules if name.split(".")[0] == "opentelemetry"])
sys.exit(code)
"""


@pytest.mark.parametrize("environment", OFF, ids=["unset", "disabled", "none", "empty"])
def test_nothing_is_imported_where_there_are_no_traces(project: Project, environment: Mapping[str, str]) -> None:
    project.catalogue(3)
    ran = _python(project, LOOK, project.job(), environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[]"


def test_without_the_packages_it_says_what_to_install(project: Project) -> None:
    project.catalogue(3)
    blocked = "import sys\nsys.modules['opentelemetry.sdk'] = None\nfrom pipelinejob.cli import main\nsys.argv[0] = 'pipelinejob'\nmain()"
    ran = _python(project, blocked, "run", project.job(), "--json", environment=NOWHERE)
    assert ran.returncode == 2
    message = json.loads(ran.stdout.splitlines()[-1])["message"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in message and "pip install 'pipelinejob[traces]'" in message
    assert not (project.root / "out").exists()


def test_a_variable_that_cannot_be_read_is_an_error_of_the_user(project: Project) -> None:
    project.catalogue(3)
    ran = project.run("run", project.job(), "--json", env={**NOWHERE, "OTEL_BSP_MAX_QUEUE_SIZE": "0"})
    assert ran.code == 2, ran.err
    assert "OTEL_" in ran.json["message"] and "max_queue_size" in ran.json["message"]


def _python(project: Project, code: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(project.root),
        env={**project.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
