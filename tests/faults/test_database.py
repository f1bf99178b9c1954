"""A database that fails under a job: connections cut around a commit, a failover, silence, no room; and errors that no waiting mends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from support.ledger import contents, execute, fresh_database
from support.pods import Pods
from support.project import Project
from support.proxy import Choice, Proxy, at_random, once_each

ROWS = 60
SPEC: dict[str, Any] = {
    "source": {"where": {"year": {"gte": 2009}}},
    "sharding": {"batchRows": 5, "rowsPerShard": 20},
    "output": {"path": "out/job"},
}


SLOW = "import time\ndef slow(image, row):\n    time.sleep(0.1)\n    return image\n"


def _job(project: Project, **spec: Any) -> str:
    project.catalogue(ROWS, without=[3, 21], broken=[22])
    return project.job(**{**SPEC, **spec})


def _slow(project: Project) -> str:
    """The same job with a function more, which takes its time and changes nothing; pods have it as a module."""
    project.file("modules/slowly.py", SLOW.encode())
    project.environment["PYTHONPATH"] = str(project.root / "modules")
    functions = [
        {"name": "slow", "module": "slowly"},
        {"name": "random_crop", "params": {"ratio": 0.8}},
        {"name": "resize", "params": {"width": 16, "height": 16}},
    ]
    return _job(project, functions=functions)


class Undisturbed:
    """The job's files and its ledger, of a run that nobody disturbed."""

    def __init__(self, root: Path, url: str) -> None:
        project = Project(root, url)
        ran = project.run("run", _job(project), "--json")
        assert ran.code == 0, ran.err
        self.tree, self.ledger = project.tree("out/job"), contents(url)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, server: str) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"), fresh_database(server))


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


WRITES = ("COMMIT", "INSERT INTO pipelinejob.jobs", "record_batches", "close_round", "SET phase = 'Complete'")
CUTS = [lambda: once_each("before", *WRITES), lambda: once_each("after", *WRITES), lambda: at_random(5, 0.1, skip=20)]
cut = pytest.mark.parametrize("choice", CUTS, ids=["before", "after", "at-random"])


@cut
def test_a_runs_connection_is_cut_around_commits(
    project: Project, database: str, undisturbed: Undisturbed, choice: Callable[[], Choice]
) -> None:
    """Each statement must bear to be sent again, whether the server carried it out or not."""
    with Proxy(database, choice()) as proxy:
        ran = project.run("run", _job(project), "--json", "--database", proxy.url())
    assert ran.code == 0, ran.err
    assert len(proxy.cuts) >= 3
    assert project.tree("out/job") == undisturbed.tree
    assert contents(database) == undisturbed.ledger


@cut
def test_a_pods_connection_is_cut_around_commits(pods: Pods, undisturbed: Undisturbed, choice: Callable[[], Choice]) -> None:
    pods.accept(_job(pods.project))
    with Proxy(pods.url, choice()) as proxy:
        for stage in ("plan", "shard", "finalize"):
            count = pods.open_round() if stage == "shard" else 1
            started = [pods.start(stage, index, {"PIPELINEJOB_DATABASE_URL": proxy.url(pods.worker_url)}) for index in range(count)]
            logs = [pod.communicate(timeout=60)[0] for pod in started]
            assert [pod.returncode for pod in started] == [0] * count, logs
    assert len(proxy.cuts) >= 3
    assert pods.project.tree("out/job") == undisturbed.tree
    pods.store.update_counts(pods.job.uid)
    assert contents(pods.url) == undisturbed.ledger


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, server: str) -> tuple[dict[str, str], object]:
    """Files and ledger of the slow job, of a run that nobody disturbed."""
    project = Project(tmp_path_factory.mktemp("slow"), fresh_database(server))
    ran = project.run("run", _slow(project), "--json")
    assert ran.code == 0, ran.err
    return project.tree("out/job"), contents(project.environment["PIPELINEJOB_DATABASE_URL"])


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def _recorded(url: str) -> int:
    try:
        return len(execute(url, "SELECT 1 FROM pipelinejob.batches"))
    except psycopg2.errors.UndefinedTable:
        return 0


def _started(project: Project, url: str) -> subprocess.Popen[str]:
    """A run of the slow job that has recorded its first batches."""
    process = project.start("run", _slow(project), "--json")
    _wait(lambda: _recorded(url))
    return process


def _said(process: subprocess.Popen[str], words: str) -> str:
    """Waits for a line with these words."""
    stream = process.stderr or process.stdout
    assert stream is not None
    line = next((line for line in stream if words in line), "")
    assert line, f"it never said {words!r}"
    return line


@contextmanager
def _read_only(server: str) -> Iterator[None]:
    """As a server is that was the primary until a failover."""
    try:
        execute(server, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        yield
    finally:
        execute(server, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


def _sessions(url: str) -> set[int]:
    return {
        pid for (pid,) in execute(url, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    }


def test_a_failover_to_a_server_that_only_reads(project: Project, server: str, database: str, slow: tuple[object, object]) -> None:
    process = _started(project, database)
    with _read_only(server):
        before = _sessions(database)
        line = _said(process, "the database is away")
        assert "read-only transaction" in line and "waiting up to 600 s" in line
        _wait(lambda: not before & _sessions(database))  # who said so is not asked again
        execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        time.sleep(1)
        assert process.poll() is None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "the database is back: going on" in err and "is away" not in err
    assert (project.tree("out/job"), contents(database)) == slow


def test_a_failover_under_a_pod(pods: Pods, server: str, slow: tuple[object, object]) -> None:
    pods.accept(_slow(pods.project))
    assert pods.run("plan")[0] == 0
    pods.open_round()
    with _read_only(server):
        started = [pods.start("shard", index) for index in range(3)]
        assert "read-only transaction" in _said(started[1], "the database is away")
    logs = [pod.communicate(timeout=60)[0] for pod in started]
    assert [pod.returncode for pod in started] == [0, 0, 0], logs
    pods.finalize()
    pods.store.update_counts(pods.job.uid)
    assert (pods.project.tree("out/job"), contents(pods.url)) == slow


def test_a_database_without_a_free_connection(pods: Pods, database: str) -> None:
    name = execute(database, "SELECT current_database()")[0][0]
    pods.accept(_job(pods.project))
    execute(database, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    pod = pods.start("plan")
    assert "too many connections" in _said(pod, "the database is away")
    execute(database, f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    out, _ = pod.communicate(timeout=30)
    assert pod.returncode == 0 and "the database is back: going on" in out


@contextmanager
def _silent(url: str) -> Iterator[None]:
    """A server that keeps all connections and answers nothing."""
    folder = Path(execute(url, "SHOW data_directory")[0][0])
    stopped = [*_sessions(url), int((folder / "postmaster.pid").read_text().splitlines()[0])]
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_stands_still(project: Project, database: str, slow: tuple[object, object]) -> None:
    process = _started(project, database)
    with _silent(database):
        time.sleep(3)
        assert process.poll() is None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (project.tree("out/job"), contents(database)) == slow


def test_told_to_end_while_the_server_stands_still(project: Project, database: str, slow: tuple[object, object]) -> None:
    process = _started(project, database)
    with _silent(database):
        began = time.monotonic()
        process.terminate()
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130 and time.monotonic() - began < 10
        assert "interrupted" in out, err
    assert project.run("run", "job.yaml", "--json").code == 0
    assert (project.tree("out/job"), contents(database)) == slow


def test_an_error_that_no_waiting_mends(project: Project, database: str, slow: tuple[object, object]) -> None:
    process = _started(project, database)
    execute(database, "ALTER FUNCTION pipelinejob.record_batches_v1 RENAME TO gone")
    began = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1 and time.monotonic() - began < 10
    assert "record_batches_v1" in out and "waiting" not in err
    execute(database, "ALTER FUNCTION pipelinejob.gone RENAME TO record_batches_v1")
    assert project.run("run", "job.yaml", "--json").code == 0
    assert (project.tree("out/job"), contents(database)) == slow
