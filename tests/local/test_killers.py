"""A row that kills not its process alone but all of its pod, or run, as when memory runs out: it fails by itself, and nothing else does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from support.pods import Pods
from support.project import Project

ROWS = 24
PODS = 1 + 3  # the first, and the retries of a shard by default
CODE = """
import os, signal, time

def end_of_all(image, row, *, killers: list = (), beside: int = -1, once: list = (), seconds: float = 0, folder: str = ""):
    time.sleep(seconds)
    number, seen = int(row["id"]) - 1000, f"{folder}/seen-{row['id']}"
    if number in killers or (number in once and not os.path.exists(seen)):
        if folder:
            open(seen, "w").close()
        while beside >= 0 and not os.path.exists(f"{folder}/beside"):  # until another process is at that row
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if number == beside:
        open(f"{folder}/beside", "w").close()
        time.sleep(1)
    while number in once:
        time.sleep(1)
    return {"n": len(row["name"])}
"""


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


def _planned(pods: Pods, params: dict[str, object], timeout: float = 30) -> None:
    """A job of one shard, of six batches, with a function that ends all of its pod at some rows."""
    project = pods.project
    project.file("modules/killing.py", CODE.encode())
    project.environment["PYTHONPATH"] = str(project.root / "modules")
    project.catalogue(ROWS)
    entry = {"name": "end_of_all", "module": "killing", "params": params, "timeoutSeconds": timeout}
    pods.accept(project.job(functions=[entry], sharding={"batchRows": 4}, output={"path": "out/job"}))
    code, log = pods.run("plan")
    assert code == 0, log
    assert pods.open_round() == 1


def _failed(pods: Pods) -> dict[int, tuple[str, str, str]]:
    connection = psycopg2.connect(pods.url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT row, reason, function, message FROM pipelinejob.failed_rows")
        found = {row: (reason, function, message) for row, reason, function, message in cursor.fetchall()}
    connection.close()
    return found


def _succeeded(pods: Pods) -> int:
    return pods.store.update_counts(pods.job.uid)[0].succeeded


def _marks(pods: Pods) -> list[Path]:
    return list((pods.project.root / "out/job/.pipelinejob" / pods.job.uid).glob("marks-0/*"))


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def test_a_row_that_kills_its_whole_pod_fails_alone_before_the_retries_are_used_up(pods: Pods) -> None:
    _planned(pods, {"killers": [9], "beside": 12, "folder": str(pods.project.root)})
    assert [pods.run("shard")[0] for _ in range(PODS - 1)] == [-signal.SIGKILL] * (PODS - 1)
    assert _succeeded(pods) == ROWS - 8  # all but its batch, and the one that the first pod was at as well

    code, log = pods.run("shard")

    assert code == 0, log
    assert "earlier processes died at row 9, 12:" in log
    message = "the process was killed, and the whole pod with it, 3 times: most likely it ran out of memory"
    assert _failed(pods) == {9: ("FunctionError", "end_of_all", message)}
    pods.finalize()
    assert _succeeded(pods) == ROWS - 1
    assert [row["id"] for row in pods.project.table("out/job/metadata.csv")] == [str(1000 + row) for row in range(ROWS) if row != 9]


def test_several_in_one_shard_and_in_one_batch_each_fail_by_themselves(pods: Pods) -> None:
    """As with the rounds of a cluster: one whose shards got on is followed by another."""
    _planned(pods, {"killers": [5, 6, 18]})
    code, rounds = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        before = _succeeded(pods) + len(_failed(pods))
        for _ in range(PODS):
            code, log = pods.run("shard")
            if code != -signal.SIGKILL:
                break
        rounds += 1
        pods.store.update_counts(pods.job.uid)
        assert _succeeded(pods) + len(_failed(pods)) > before, "a round that did not get on would be the last"
        if code == -signal.SIGKILL:
            pods.open_round()
    assert code == 0, log
    assert {row: reason for row, (reason, _, _) in _failed(pods).items()} == dict.fromkeys((5, 6, 18), "FunctionError")
    assert _succeeded(pods) == ROWS - 3
    assert rounds <= 3


def test_pods_that_are_killed_by_others_cost_no_row(pods: Pods) -> None:
    _planned(pods, {"seconds": 0.03})
    kills = 0
    for done in (1, 5, 9, 13, 17):
        pod = pods.start("shard")
        _wait(lambda done=done, pod=pod: _succeeded(pods) >= done or pod.poll() is not None)  # type: ignore[misc]
        kills += pod.poll() is None
        pod.kill()
        pod.communicate()
    code, log = pods.run("shard")
    assert code == 0, log
    assert kills >= 2
    assert _failed(pods) == {} and _succeeded(pods) == ROWS


def test_what_ends_by_our_own_will_or_lives_on_leaves_no_suspicion(pods: Pods) -> None:
    _planned(pods, {"seconds": 0.15})
    first = pods.start("shard")
    _wait(lambda: _succeeded(pods) >= 4)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=20)
    assert first.returncode == 75 and _marks(pods) == []

    stopped = pods.start("shard")
    _wait(lambda: len(_marks(pods)) == 2)
    stopped.send_signal(signal.SIGSTOP)
    code, log = pods.run("shard")  # as where a node is lost while its processes live on
    stopped.kill()
    stopped.communicate()
    assert code == 0, log
    assert "earlier processes died" not in log


def test_a_row_that_ends_its_pod_once_and_hangs_then_overruns_its_time(pods: Pods) -> None:
    _planned(pods, {"once": [9], "folder": str(pods.project.root)}, timeout=1)
    assert pods.run("shard")[0] == -signal.SIGKILL
    code, log = pods.run("shard")
    assert code == 0, log
    assert _failed(pods) == {9: ("FunctionTimeout", "end_of_all", "the function took longer than 1 s")}


def test_on_a_laptop_the_same_command_goes_on_until_the_row_has_failed(project: Project) -> None:
    project.catalogue(ROWS)
    project.file("killing.py", CODE.encode())
    entry = {"name": "end_of_all", "file": "killing.py", "params": {"killers": [9]}}
    job = project.job(functions=[entry], sharding={"batchRows": 4}, parallelism=2, output={"path": "out/job"})
    codes = [project.run("run", job, "--json").code for _ in range(3)]
    assert codes == [-signal.SIGKILL] * 3

    ran = project.run("run", job, "--json")

    assert ran.code == 0, ran.err
    assert project.failed() == {9: ("FunctionError", project.failed()[9][1])}
    assert "and the whole run with it, 3 times" in project.failed()[9][1]
    assert ran.json["rows"]["succeeded"] == ROWS - 1
    assert not list((project.root / "out/job/.pipelinejob").glob("*/marks*"))
