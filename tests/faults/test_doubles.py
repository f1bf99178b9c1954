"""Processes that stood still while others did their work, and two of what there should be one of: nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from support.ledger import contents
from support.pods import Pods
from support.project import Project

ROWS = 30
SLOW = "import time\ndef slow(image, row):\n    time.sleep(0.1)\n    return image\n"
# Once, at one row: asks to be ended, and says that all is well as it ends.
POLITE = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
def polite(image, row):
    mark = Path(row["mark"])
    if row["id"] == "1007" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGTERM)
    return image
"""


@pytest.fixture
def pods(project: Project, database: str) -> Iterator[Pods]:
    made = Pods(project, database)
    yield made
    made.close()


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def _children(parent: int) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if "pipelinejob.child" in line]


def _module(project: Project, name: str, code: str) -> list[dict[str, Any]]:
    project.file(f"modules/{name}ly.py", code.encode())
    project.environment["PYTHONPATH"] = str(project.root / "modules")
    return [{"name": name, "module": f"{name}ly"}]


@pytest.mark.parametrize("who", ["a child", "the parent", "all"])
def test_a_pod_that_stood_still_until_the_job_was_finalized(pods: Pods, who: str) -> None:
    pods.project.catalogue(ROWS)
    pods.accept(pods.project.job(functions=_module(pods.project, "slow", SLOW), sharding={"batchRows": 5}))
    assert pods.run("plan")[0] == 0
    pods.open_round()
    old = pods.start("shard")
    _wait(lambda: any((pods.project.root / "out/job/images").glob("*")))
    children = _children(old.pid)
    assert len(children) == 2
    stopped = {"a child": children[:1], "the parent": [old.pid], "all": [old.pid, *children]}[who]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    code, log = pods.run("shard")  # another pod of the same index
    assert code == 0, log
    pods.finalize()
    files, ledger = pods.project.everything("out/job"), contents(pods.url)
    assert ledger["jobs"][0][7:] == (ROWS, 0, 0, 0)

    for pid in stopped:
        with suppress(ProcessLookupError):  # the parent of a stopped child may see before us that its shard is done, and end it
            os.kill(pid, signal.SIGCONT)
    out, _ = old.communicate(timeout=30)

    assert old.returncode in (0, 75), out
    assert pods.project.everything("out/job") == files
    assert contents(pods.url) == ledger


def test_a_function_that_ends_its_process_with_exit_code_0_on_sigterm(project: Project) -> None:
    mark = project.root / "mark"
    project.write_csv([(1000 + row, mark) for row in range(ROWS)], columns=("id", "mark"))
    project.images(*range(1000, 1000 + ROWS))
    ran = project.run("run", project.job(functions=_module(project, "polite", POLITE), sharding={"batchRows": 5}), "--json")
    assert ran.code == 0, ran.err
    assert "a worker process died at row 7 (the process ended with exit code 0)" in ran.err
    assert ran.json["rows"]["succeeded"] == ROWS
    assert [int(row["id"]) for row in project.table("out/job/metadata.csv")] == list(range(1000, 1000 + ROWS))


def test_two_jobs_on_one_output(project: Project) -> None:
    project.catalogue(ROWS)
    functions = _module(project, "slow", SLOW)
    first = project.start("run", project.job("first", functions=functions, output={"path": "out/shared"}), "--json")
    _wait(lambda: any((project.root / "out/shared/images").glob("*")))
    for path in ("out/shared", "out/shared/below", "out"):
        second = project.run("run", project.job("second", functions=functions, output={"path": path}), "--json")
        assert second.code == 2 and second.json["reason"] == "InvalidSpec", second
        assert "first" in second.json["message"] and "choose another folder" in second.json["message"]
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert len(project.table("out/shared/metadata.csv")) == ROWS
