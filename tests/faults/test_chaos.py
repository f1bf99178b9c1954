"""A short chaos run on this machine; and builds that are wrong on purpose, which the checker must catch."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest
import yaml

from chaos import catalogue, checker
from chaos.laptop import Laptop, Server
from chaos.run import prepare, run
from pipelinejob.stopping import EXIT_STOPPED
from pipelinejob.verdict import write_status
from support.pods import Pods
from support.project import Project

BROKEN = Path(__file__).resolve().parents[1] / "chaos/broken"
SLOW = {"functions": [{"name": "resize", "params": {"width": 600, "height": 800}}]}


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A Postgres that may be killed."""
    made = Server(tmp_path / "server")
    yield made
    made.close()


def test_a_short_chaos_run(tmp_path: Path, own_server: Server) -> None:
    """The same as `make chaos CHAOS_SEED=5 CHAOS_ROWS=4000 CHAOS_PACE=0.4`, with slower rows and at most eight faults."""
    data, undisturbed = prepare(tmp_path, 4000, own_server, SLOW)
    with closing(Laptop(tmp_path / "run", data, own_server, "5", SLOW)) as world:
        outcome = run(world, "laptop", 5, undisturbed, pace=0.4, limit=90, say=print, most=8)

    assert outcome.findings == []
    assert outcome.struck >= 3  # how many come before the job has ended is up to the machine


# --- Builds that are wrong on purpose -------------------------------------------------------------------------------------


def _kinds(findings: list[checker.Finding]) -> set[str]:
    return {finding.what for finding in findings}


@pytest.mark.parametrize("broken", [False, True], ids=["our build", "recorded before renamed"])
def test_a_batch_recorded_before_its_rename_is_caught(project: Project, database: str, server: str, broken: bool) -> None:
    rows = 600
    catalogue.make(project.root, rows)
    project.file("job.yaml", yaml.safe_dump(catalogue.document()).encode())
    overlay = {"PYTHONPATH": str(BROKEN / "recorded_before_renamed")} if broken else {}

    first = project.run("run", "job.yaml", env={**overlay, "PIPELINEJOB_FAULT": "recorded:1"})
    assert first.code == -signal.SIGKILL, first.err
    project.run("run", "job.yaml", env=overlay)

    found = _collect(project, database)
    assert project.run("run", "job.yaml", "--replace").code == 0
    findings = checker.check(found, rows, _collect(project, database))
    assert _kinds(findings) >= {"stuck", "lost"} if broken else findings == []


def _collect(project: Project, url: str) -> checker.Results:
    status = project.run("status", catalogue.NAME, "--json").json
    return checker.collect(project.root / f"out/{catalogue.NAME}", url, catalogue.NAME, {"status --json": status})


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


def _planned(pods: Pods) -> int:
    """A job of three batches, the first of which has nothing to publish, with its round open; returns how many rows it has."""
    rows = [(number, f"P{number}") for number in range(60)]
    pods.project.write_csv(rows, ("number", "id"))
    pods.project.images(*(id for number, id in rows if number >= 20))
    pods.accept(pods.project.job(catalogue.NAME, sharding={"batchRows": 20, "rowsPerShard": 60}))
    assert pods.run("plan")[0] == 0
    pods.open_round()
    return len(rows)


def _unfence(url: str) -> None:
    """From now on the ledger takes records of any round, also of one that is over."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef('pipelinejob.record_batches_v1'::regproc)")
        ((definition,),) = cursor.fetchall()
        broken = definition.replace("s.open AND s.round = p_round", "true")
        assert broken != definition
        cursor.execute(broken)
    connection.close()


def _stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize(
    ("step", "broken", "caught"),
    [
        ("durable", False, set()),
        ("published", False, set()),
        ("record", False, set()),
        ("durable", True, {"orphan", "attempt"}),  # nothing closes the round's folder
        ("record", True, {"counts"}),  # the ledger takes records of any round
    ],
)
def test_a_missing_fence_is_caught(pods: Pods, step: str, broken: bool, caught: set[str]) -> None:
    """A pod hangs at a step, its job is cancelled and finalized, and the pod goes on: it must change nothing any more."""
    rows, store = _planned(pods), pods.store
    if broken and step == "record":
        _unfence(pods.url)
    hangs = pods.start("shard", 0, {"PYTHONPATH": str(BROKEN / "stop_at_a_point"), "PIPELINEJOB_FAULT": step})
    end = time.monotonic() + 20
    while not _stopped(hangs.pid):
        assert time.monotonic() < end, "it never came to that step"
        time.sleep(0.02)

    store.update_job(pods.job.uid, stop="cancel")
    code, log = pods.run("finalize", env={"PYTHONPATH": str(BROKEN / "no_fence")} if broken and step == "durable" else None)
    assert code == 0, log
    store.update_job(pods.job.uid, phase="Cancelled", finished_at=datetime.now(UTC))
    write_status(store, pods.job.uid)
    os.kill(hangs.pid, signal.SIGCONT)
    log, _ = hangs.communicate(timeout=30)
    assert broken or hangs.returncode == EXIT_STOPPED, log
    store.update_counts(pods.job.uid)

    findings = checker.check(checker.collect(pods.project.root / f"out/{catalogue.NAME}", pods.url, catalogue.NAME, {}), rows)
    assert caught <= _kinds(findings) if broken else findings == [], findings
