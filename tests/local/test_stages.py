"""The stages of pods as real processes, each with a job's own database role: same bytes, same ledger as on a laptop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg2
import pytest
import yaml

from pipelinejob import model
from pipelinejob.store import Database, Job, Store, roles
from support.project import Project

ROWS = 60
SPEC: dict[str, Any] = {
    "source": {"where": {"year": {"gte": 2009}}},
    "sharding": {"batchRows": 5, "rowsPerShard": 20},
    "output": {"path": "out/job"},
}
PLAIN = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
needs_setpriv = pytest.mark.skipif(bool(PLAIN) and shutil.which("setpriv") is None, reason="root, and no setpriv to be less than that")
SLOW = "import time\ndef slow(image, row, *, seconds: float = 0.05):\n    time.sleep(seconds)\n    return {'n': len(row['name'])}\n"


def _fresh(server: str) -> str:
    name = f"test_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(server)
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return server.replace("/postgres?", f"/{name}?")


class Cluster:
    """What the operator and Kubernetes do, by hand: a job in the ledger, its role, and processes in place of pods."""

    def __init__(self, project: Project, url: str) -> None:
        self.project, self.url = project, url
        self.database = Database(lambda: url, patience=10, say=lambda _: None)
        self.store = Store(self.database)
        roles.setup(self.database)
        self.roles: list[str] = []
        self.termination = project.root.parent / f"{project.root.name}-termination"
        self.round = 0

    def accept(self, file: str, **more: object) -> Job:
        """Enters a job as the operator does."""
        document = yaml.safe_load((self.project.root / file).read_text())
        document["spec"]["data"] = {"persistentVolumeClaim": {"claimName": "catalogue"}}
        job = model.parse(document)
        self.job = self.store.insert_job(
            **{
                "uid": str(uuid.uuid4()),
                "namespace": job.metadata.namespace,
                "name": job.metadata.name,
                "phase": "Pending",
                "spec": job.spec.as_dict(),
                "functions": [],
                "digest": "",
                "data_root": "/data",
                "output": job.output_path,
                "output_root": "/data",
                "generation": 1,
                "image": "worker:test",
                **more,
            }
        )
        self.roles.append(self.job.uid)
        password = roles.create_job_role(self.database, self.job.uid)
        parts = urlsplit(self.url)
        netloc = f"{roles.role_name(self.job.uid)}:{password}@{parts.netloc.rpartition('@')[2]}"
        self.worker_url = urlunsplit(parts._replace(netloc=netloc))
        return self.job

    def start(self, stage: str, index: int = 0, env: Mapping[str, str] | None = None, *, plain: bool = False) -> subprocess.Popen[str]:
        self.termination.unlink(missing_ok=True)
        environment = {
            **self.project.environment,
            "PIPELINEJOB_DATABASE_URL": self.worker_url,
            "PIPELINEJOB_JOB": self.job.uid,
            "PIPELINEJOB_ROUND": str(self.round),
            "JOB_COMPLETION_INDEX": str(index),
            "PIPELINEJOB_CHILDREN": "2",
            "PIPELINEJOB_DATA": str(self.project.root),
            "PIPELINEJOB_TERMINATION_LOG": str(self.termination),
            **(env or {}),
        }
        return subprocess.Popen(
            [*(PLAIN if plain else []), sys.executable, "-m", "pipelinejob", stage],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )

    def run(self, stage: str, index: int = 0, env: Mapping[str, str] | None = None, *, plain: bool = False) -> tuple[int, str]:
        """Runs a stage to its end: (exit code, log); `plain` as in a pod, without root's power over files."""
        with self._open_socket() if plain else nullcontext():
            process = self.start(stage, index, env, plain=plain)
            out, _ = process.communicate(timeout=30)
        return process.returncode, out

    @contextmanager
    def _open_socket(self) -> Iterator[None]:
        """The tests' server has its socket in a folder that only its own user, and root's power, can enter."""
        folder = Path(parse_qs(urlsplit(self.url).query)["host"][0])
        mode = folder.stat().st_mode
        folder.chmod(0o711)
        try:
            yield
        finally:
            folder.chmod(mode)

    def open_round(self) -> int:
        """Opens a round and returns how many pods its Job has."""
        count = self.store.unfinished_count(self.job.uid)
        self.round = self.store.open_round(self.job.uid)
        return count

    def finalize(self) -> None:
        code, log = self.run("finalize")
        assert code == 0, log

    def why(self) -> dict[str, str]:
        """What the pod wrote for Kubernetes."""
        value: dict[str, str] = json.loads(self.termination.read_text())
        return value

    def close(self) -> None:
        for uid in self.roles:
            roles.drop_job_role(self.database, uid)
        self.database.close()


@pytest.fixture
def cluster(project: Project, database: str) -> Iterator[Cluster]:
    made = Cluster(project, database)
    yield made
    made.close()


def _catalogue(project: Project) -> str:
    project.catalogue(ROWS, without=[3, 21], broken=[22])
    return project.job(**SPEC)


def _ledger(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """What the ledger has of its one job, without what tells one run from another."""
    queries = {
        "jobs": "name, namespace, functions, digest, input_digest, input - 'mtime_ns', rows_total, rows_succeeded, rows_filtered,"
        " rows_skipped, rows_failed FROM pipelinejob.jobs",
        "shards": "index, first_row, rows, byte_start, byte_end, batch_ends, batch_checksums, succeeded, filtered, skipped, failed"
        " FROM pipelinejob.shards ORDER BY index",
        "batches": "first_row, shard, rows, succeeded, filtered, skipped, failed, images, bytes, images_sha256, inputs_sha256, columns"
        " FROM pipelinejob.batches ORDER BY first_row",
        "failed": "row, id, reason, function, message, attempts, byte_start, byte_end FROM pipelinejob.failed_rows ORDER BY row",
    }
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        found = {}
        for name, query in queries.items():
            cursor.execute(f"SELECT {query}")
            found[name] = cursor.fetchall()
    connection.close()
    return found


class Laptop:
    """The same job, run with the command."""

    def __init__(self, root: Path, url: str) -> None:
        project = Project(root, url)
        ran = project.run("run", _catalogue(project), "--json")
        assert ran.code == 0, ran.err
        self.tree, self.ledger = project.tree("out/job"), _ledger(url)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, server: str) -> Laptop:
    return Laptop(tmp_path_factory.mktemp("laptop"), _fresh(server))


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def _same_as(cluster: Cluster, laptop: Laptop) -> None:
    assert cluster.project.tree("out/job") == laptop.tree
    cluster.store.update_counts(cluster.job.uid)
    assert _ledger(cluster.url) == laptop.ledger


def test_the_same_bytes_and_the_same_ledger_as_on_a_laptop(cluster: Cluster, laptop: Laptop) -> None:
    cluster.accept(_catalogue(cluster.project))
    code, log = cluster.run("plan")
    assert code == 0 and "planned job job: 60 rows" in log
    assert cluster.run("plan")[0] == 0  # again
    assert cluster.open_round() == 3
    shards = [cluster.start("shard", index) for index in range(3)]
    logs = [shard.communicate(timeout=60)[0] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0, 0], logs
    assert "shard 1 of job job, rows 20-39 begins: 0 done, 0 failed" in logs[1]
    assert "shard 1 of job job, rows 20-39 ends: 20 done, 2 failed" in logs[1]
    assert cluster.run("shard", 1)[0] == 0  # a pod of a finished shard finds nothing to do
    cluster.finalize()
    cluster.finalize()
    _same_as(cluster, laptop)
    assert not cluster.termination.exists()


def test_two_of_everything_at_once(cluster: Cluster, laptop: Laptop) -> None:
    cluster.accept(_catalogue(cluster.project))
    for stage, indexes in (("plan", [0, 0]), ("shard", [0, 0, 1, 1, 2, 2]), ("finalize", [0, 0, 0])):
        if stage == "shard":
            cluster.open_round()
        pods = [cluster.start(stage, index) for index in indexes]
        logs = [pod.communicate(timeout=60)[0] for pod in pods]
        assert [pod.returncode for pod in pods] == [0] * len(pods), logs
    _same_as(cluster, laptop)


STEPS = [("plan", step) for step in ("claimed", "planned")]
STEPS += [("shard", step) for step in ("durable:1", "durable:3", "published:1", "published:3", "record", "recorded")]
STEPS += [("finalize", step) for step in ("closed", "closed-ledger", "collected", "tables", "manifest")]


@pytest.mark.parametrize(("stage", "step"), STEPS)
def test_killed_at_a_step_and_started_again(cluster: Cluster, laptop: Laptop, stage: str, step: str) -> None:
    cluster.accept(_catalogue(cluster.project))
    for each in ("plan", "shard", "finalize"):
        for index in range(cluster.open_round() if each == "shard" else 1):
            if each == stage:
                code, log = cluster.run(each, index, env={"PIPELINEJOB_FAULT": step})
                assert code == -signal.SIGKILL, f"{step} was never reached: {log}"
            code, log = cluster.run(each, index)
            assert code == 0, log
    _same_as(cluster, laptop)


@pytest.mark.parametrize("step", ["rows-done:2", "summary-written:2", "batch-done:2"])
def test_children_that_die(cluster: Cluster, laptop: Laptop, step: str) -> None:
    cluster.accept(_catalogue(cluster.project))
    assert cluster.run("plan")[0] == 0
    for index in range(cluster.open_round()):
        code, log = cluster.run("shard", index, env={"PIPELINEJOB_FAULT": step})
        assert "a worker process died" in log
        if code != 0:
            assert cluster.run("shard", index)[0] == 0
    cluster.finalize()
    _same_as(cluster, laptop)


def test_what_was_published_is_not_run_again(cluster: Cluster) -> None:
    cluster.accept(_catalogue(cluster.project))
    cluster.run("plan")
    cluster.open_round()
    assert cluster.run("shard", 0, env={"PIPELINEJOB_FAULT": "record"})[0] == -signal.SIGKILL
    published = {path: path.stat().st_ino for path in (cluster.project.root / "out/job/images").glob("*")}
    assert published and cluster.store.update_counts(cluster.job.uid)[0].pending == ROWS
    assert cluster.run("shard", 0, env={"PIPELINEJOB_FAULT": "adopted"})[0] == -signal.SIGKILL
    assert cluster.store.update_counts(cluster.job.uid)[0].pending == ROWS - 5 * len(published)
    assert cluster.run("shard", 0)[0] == 0
    assert {path: path.stat().st_ino for path in published} == published


def _slow(cluster: Cluster, seconds: float = 0.15) -> Job:
    """A job that takes some seconds, with a function from a module that the image has."""
    project = cluster.project
    project.file("modules/slowly.py", SLOW.encode())
    project.environment["PYTHONPATH"] = str(project.root / "modules")
    project.catalogue(ROWS)
    functions = [{"name": "slow", "module": "slowly", "params": {"seconds": seconds}}]
    job = cluster.accept(project.job(functions=functions, sharding={"batchRows": 5}))
    code, log = cluster.run("plan")
    assert code == 0, log
    assert cluster.open_round() == 1
    return job


def _published(cluster: Cluster) -> int:
    return cluster.store.update_counts(cluster.job.uid)[0].succeeded


def test_told_to_end(cluster: Cluster) -> None:
    _slow(cluster)
    pod = cluster.start("shard")
    _wait(lambda: _published(cluster) >= 10)
    pod.send_signal(signal.SIGTERM)
    began = time.monotonic()
    out, _ = pod.communicate(timeout=20)
    assert pod.returncode == 75, out
    assert time.monotonic() - began < 5 and "stopped: told to end" in out
    assert 0 < cluster.store.update_counts(cluster.job.uid)[0].pending < ROWS
    assert cluster.run("shard")[0] == 0
    cluster.finalize()
    assert cluster.store.update_counts(cluster.job.uid)[0].succeeded == ROWS


@pytest.mark.parametrize("stage", ["plan", "shard"])
def test_told_to_end_while_the_database_is_away(cluster: Cluster, stage: str) -> None:
    cluster.accept(_catalogue(cluster.project))
    pod = cluster.start(stage, env={"PIPELINEJOB_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    line = pod.stdout.readline() if pod.stdout else ""
    assert "the database is away" in line and line.rstrip().endswith("waiting for it")
    pod.send_signal(signal.SIGTERM)
    began = time.monotonic()
    pod.communicate(timeout=20)
    assert pod.returncode == 75 and time.monotonic() - began < 10


def test_the_jobs_stop_is_heard_with_the_next_record(cluster: Cluster) -> None:
    job = _slow(cluster)
    pod = cluster.start("shard")
    _wait(lambda: _published(cluster) >= 5)
    cluster.store.update_job(job.uid, stop="suspend")
    out, _ = pod.communicate(timeout=20)
    assert pod.returncode == 75, out
    began = time.monotonic()
    code, log = cluster.run("shard")
    assert code == 75 and "stopped: suspend" in log
    assert time.monotonic() - began > 4  # Kubernetes would start the next at once, and the next
    cluster.store.update_job(job.uid, stop=None)
    cluster.open_round()
    assert cluster.run("shard")[0] == 0


def test_a_round_that_is_over(cluster: Cluster) -> None:
    job = _slow(cluster)
    pod = cluster.start("shard")
    _wait(lambda: _published(cluster) >= 5)
    cluster.store.open_round(job.uid)  # the pod is of the round before
    out, _ = pod.communicate(timeout=20)
    assert pod.returncode == 75, out
    code, log = cluster.run("shard")
    assert code == 75 and "stopped: round 1 is over" in log
    cluster.round = 2
    assert cluster.run("shard")[0] == 0


def test_a_late_pod_leaves_nothing_behind(cluster: Cluster) -> None:
    cluster.accept(_catalogue(cluster.project))
    cluster.run("plan")
    for index in range(cluster.open_round()):
        cluster.run("shard", index)
    cluster.finalize()
    before = cluster.project.everything("out/job")
    assert cluster.run("shard", 0)[0] == 75
    assert cluster.project.everything("out/job") == before


def test_a_job_that_was_deleted(cluster: Cluster) -> None:
    cluster.accept(_catalogue(cluster.project))
    cluster.run("plan")
    cluster.open_round()
    cluster.store.mark_deleted(cluster.job.uid)
    for stage in ("plan", "shard", "finalize"):
        assert cluster.run(stage)[0] == 75


def test_a_csv_that_is_not_there(cluster: Cluster) -> None:
    job = cluster.accept(_catalogue(cluster.project))
    (cluster.project.root / "rows.csv").unlink()
    code, _ = cluster.run("plan")
    assert code == 43
    message = "spec.source.csv: no file 'rows.csv' in the claim 'catalogue': check the path"
    assert cluster.why() == {"reason": "InputNotFound", "message": message}
    assert cluster.store.get_job(job.uid).problem == {"stage": "plan", "reason": "InputNotFound", "message": message}


def test_a_csv_that_was_changed(cluster: Cluster) -> None:
    job = cluster.accept(_catalogue(cluster.project))
    cluster.run("plan")
    cluster.open_round()
    path = cluster.project.root / "rows.csv"
    path.write_text(path.read_text().replace("Shirt 1\n", "Skirt 1\n"))
    code, log = cluster.run("shard", 0)
    assert code == 43, log
    assert cluster.why()["reason"] == "InputChanged" and "rows 0 to 4 are not those planned" in cluster.why()["message"]
    assert (cluster.store.get_job(job.uid).problem or {})["stage"] == "shard"
    assert cluster.run("shard", 1)[0] == 0  # other rows are as they were
    path.unlink()
    assert cluster.run("shard", 2)[0] == 43
    assert cluster.why()["reason"] == "InputNotFound"


@needs_setpriv
def test_an_output_that_cannot_be_written_to(cluster: Cluster) -> None:
    cluster.accept(_catalogue(cluster.project))
    cluster.project.root.chmod(0o555)
    code, log = cluster.run("plan", plain=True)
    cluster.project.root.chmod(0o755)
    assert code == 43, log
    assert cluster.why()["reason"] == "InvalidSpec"
    where = f"the folder out/job of the claim 'catalogue' as uid {os.geteuid()} (Permission denied)"
    assert f"cannot write to {where}" in cluster.why()["message"]
    assert (cluster.store.get_job(cluster.job.uid).problem or {}) == {"stage": "plan", **cluster.why()}


def test_functions_that_no_pod_has(cluster: Cluster) -> None:
    cluster.project.file("fn.py", SLOW.encode())
    cluster.project.catalogue(3)
    functions = [{"name": "slow", "file": "fn.py"}]
    cluster.accept(cluster.project.job(functions=functions))
    assert cluster.run("plan")[0] == 43
    assert cluster.why()["reason"] == "InvalidSpec"
    assert cluster.why()["message"].startswith("spec.functions[0].file: 'fn.py' is not in the pods' image")
    cluster.accept(cluster.project.job("other", functions=[{"name": "slow", "module": "no.such"}]))
    assert cluster.run("plan")[0] == 43
    assert "spec.functions[0].module: module no.such: ModuleNotFoundError" in cluster.why()["message"]


@needs_setpriv
def test_users_code_sees_no_credentials(cluster: Cluster) -> None:
    """Neither where the plan imports its module nor where rows run."""
    spy = (
        "import os\n"
        "names = ' '.join(sorted(os.environ))\n"
        "assert 'DATABASE' not in names, names\n"
        "def spy(image, row):\n"
        "    assert 'DATABASE' not in ' '.join(os.environ)\n"
        "    try:\n"
        "        return {'seen': 'DATABASE' in open(f'/proc/{os.getppid()}/environ').read()}\n"
        "    except PermissionError:\n"
        "        return {'seen': False}\n"
    )
    project = cluster.project
    project.file("modules/spy.py", spy.encode())
    project.environment["PYTHONPATH"] = str(project.root / "modules")
    project.catalogue(4)
    cluster.accept(project.job(functions=[{"name": "spy", "module": "spy"}]))
    for stage in ("plan", "shard", "finalize"):
        if stage == "shard":
            cluster.open_round()
        code, log = cluster.run(stage, plain=True)
        assert code == 0, log
    assert [row["seen"] for row in project.table("out/job/metadata.csv")] == ["false"] * 4


def test_a_plan_claims_no_output(cluster: Cluster) -> None:
    _catalogue(cluster.project)
    cluster.accept(cluster.project.job(**SPEC, mode="plan"))
    before = cluster.project.everything()
    assert cluster.run("plan")[0] == 0
    assert cluster.project.everything() == before
    assert cluster.store.get_job(cluster.job.uid).rows_total == ROWS


def test_a_job_of_the_name_of_a_deleted_one(cluster: Cluster, laptop: Laptop) -> None:
    file = _catalogue(cluster.project)
    old = cluster.accept(file)
    cluster.run("plan")
    cluster.open_round()
    cluster.run("shard", 0)
    cluster.store.mark_deleted(old.uid)
    before = cluster.project.tree("out/job")
    new = cluster.accept(file)

    cluster.run("plan")

    assert cluster.project.tree(f"out/job.{old.uid}") == before
    assert cluster.project.tree("out/job") == {}
    assert (cluster.store.get_job(new.uid).input or {})["moved"] == f"out/job.{old.uid}"
    for index in range(cluster.open_round()):
        assert cluster.run("shard", index)[0] == 0
    cluster.finalize()
    assert cluster.project.tree("out/job") == laptop.tree


def test_a_process_of_a_deleted_job_leaves_the_new_ones_output_alone(cluster: Cluster) -> None:
    old = _slow(cluster)
    old_url = cluster.worker_url
    pod = cluster.start("shard")
    _wait(lambda: _published(cluster) >= 5)
    cluster.store.mark_deleted(old.uid)
    cluster.accept("job.yaml")
    assert cluster.run("plan")[0] == 0
    out, _ = pod.communicate(timeout=30)
    assert pod.returncode != 0, out
    assert cluster.project.tree("out/job") == {}
    new, cluster.job, new_url, cluster.worker_url = cluster.job, old, cluster.worker_url, old_url
    connection = psycopg2.connect(cluster.url)
    with connection, connection.cursor() as cursor:  # as if its pod had asked before it was deleted
        cursor.execute("UPDATE pipelinejob.jobs SET deleted_at = NULL, name = 'old', stop = NULL WHERE uid = %s", (old.uid,))
    connection.close()
    for stage in ("shard", "finalize"):
        assert cluster.run(stage)[0] == 43
        assert cluster.why()["reason"] == "OutputConflict" and new.uid in cluster.why()["message"]
    cluster.job, cluster.worker_url, cluster.round = new, new_url, 0
    assert cluster.project.tree("out/job") == {}
    cluster.open_round()
    assert cluster.run("shard")[0] == 0


def test_an_output_of_another_job(cluster: Cluster) -> None:
    _catalogue(cluster.project)
    cluster.accept(cluster.project.job("first", **{**SPEC, "output": {"path": "out/a"}}))
    assert cluster.run("plan")[0] == 0
    for path in ("out/a", "out"):
        cluster.accept(cluster.project.job(f"second-{len(path)}", **{**SPEC, "output": {"path": path}}))
        assert cluster.run("plan")[0] == 43
        assert cluster.why()["reason"] == "OutputConflict" and "'first'" in cluster.why()["message"]
    cluster.project.file("full/of/things", b"")
    cluster.accept(cluster.project.job("third", **{**SPEC, "output": {"path": "full"}}))
    assert cluster.run("plan")[0] == 43
    assert "is not empty" in cluster.why()["message"]


def test_only_a_header(cluster: Cluster) -> None:
    cluster.project.write_csv([])
    cluster.accept(cluster.project.job())
    assert cluster.run("plan")[0] == 0
    assert cluster.store.unfinished_count(cluster.job.uid) == 0
    cluster.finalize()
    assert set(cluster.project.tree("out/job")) == {"failures.csv", "manifest.json", "metadata.csv"}
