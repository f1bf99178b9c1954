"""Users' functions in processes that they share, and what these processes may have: lists of rows, memory, forks, what is printed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.project import Project, Ran

ROWS = 12
HEAD = "import ctypes, os, signal, socket, subprocess, time\n"


def runs(
    project: Project, code: str, *, memory: int | None = None, entry: dict[str, object] | None = None, draw: bool = True, **spec: Any
) -> Ran:
    """Runs a job of the function `mark` over small images, ids 0 to 11."""
    if draw:
        project.images(*range(ROWS))
    project.write_csv([(id, f"n{id}") for id in range(ROWS)], ("id", "name"))
    project.write(HEAD + code, "fn.py")
    spec = {"sharding": {"batchRows": 6}, "parallelism": 1, "failurePolicy": {"maxFailedRowsPercent": 100}, **spec}
    job = project.job(functions=[{"name": "mark", "file": "fn.py", **(entry or {})}], **spec)
    return project.run("run", job, "--json", env={"PIPELINEJOB_PROCESS_MEMORY": str(memory)} if memory else None)


def of_each(body: str) -> str:
    """A function that takes lists: `body` does something at a row."""
    return (
        "def mark(images: list[Image], rows: list[Row]) -> list:\n    found = []\n    for image, row in zip(images, rows):\n"
        f"        number = int(row['id'])\n        {body}\n        found.append((image, {{'together': len(rows)}}))\n    return found\n"
    )


def failures(project: Project, ran: Ran) -> dict[int, str]:
    assert ran.code == 0, ran.err
    assert ran.json["rows"]["total"] == ROWS == sum(count for key, count in ran.json["rows"].items() if key != "total")
    return {row: f"{reason}: {message}" for row, (reason, message) in project.failed().items()}


def together(project: Project) -> list[str]:
    return [row["together"] for row in project.table("out/job/metadata.csv")]


def test_lists_of_rows_give_what_rows_give(project: Project) -> None:
    body = "{}image.rotate(90, expand=True), {{'n': row['name'], 'k': strength}}"
    single = "def mark(image: Image, row: Row, *, strength: float = 1.0):\n    if row['id'] == '3': return None\n    return " + body.format(
        ""
    )
    assert failures(project, runs(project, single)) == {}
    tree, table = project.tree("out/job"), project.table("out/job/metadata.csv")
    several = (
        "def mark(images: list[Image], rows: list[Row], *, strength: float = 1.0) -> list:\n"
        f"    return [None if row['id'] == '3' else ({body.format('')}) for image, row in zip(images, rows)]\n"
    )
    ran = runs(project, several, output={"path": "out/lists"}, entry={"name": "mark"})
    assert ran.code == 2  # another job of that name
    project.run("delete", "job")
    ran = runs(project, several, output={"path": "out/lists"})
    assert ran.json["rows"]["skipped"] == 1
    assert project.table("out/lists/metadata.csv") == table
    assert {k: v for k, v in project.tree("out/lists").items() if k != "manifest.json"} == {
        k: v for k, v in tree.items() if k != "manifest.json"
    }


def test_one_bad_row_of_a_list(project: Project) -> None:
    code = of_each("if number == 2:\n            found.append(ValueError('no shoe'))\n            continue")
    assert failures(project, runs(project, code)) == {2: "FunctionError: ValueError: no shoe"}
    assert together(project) == ["6"] * 11


def test_a_list_that_raises_is_done_row_by_row(project: Project) -> None:
    assert failures(project, runs(project, of_each("assert number != 8, 'eight'"))) == {8: "FunctionError: AssertionError: eight"}
    assert together(project) == ["6"] * 6 + ["1"] * 5


@pytest.mark.parametrize(("result", "told"), [("found[:-1]", "a list of 0 for a list of 1 row"), ("dict()", "returned dict")])
def test_a_list_of_another_length(project: Project, result: str, told: str) -> None:
    ran = runs(project, of_each("pass").replace("return found", f"return found if number < 6 else {result}"))
    found = failures(project, ran)
    assert set(found) == set(range(6, 12)) and all(told in message for message in found.values()), found


def test_a_class_says_how_many_rows_it_takes(project: Project) -> None:
    code = "class mark:\n    def __init__(self, *, size: int = 4):\n        self.batch_size = size\n"
    code += "    def __call__(self, images: list[Image], rows: list[Row]) -> list:\n"
    code += "        return [{'together': len(rows)} for row in rows]\n"
    assert failures(project, runs(project, code)) == {}
    assert together(project) == (["4"] * 4 + ["2"] * 2) * 2


@pytest.mark.parametrize(
    ("deed", "told"),
    [("os._exit(3)", "exit code 3"), ("ctypes.string_at(0)", "signal 11"), ("time.sleep(60)", "FunctionTimeout: the function took longer")],
)
def test_the_row_of_a_list_that_kills_the_process_is_found(project: Project, deed: str, told: str) -> None:
    found = failures(project, runs(project, of_each(f"if number == 8: {deed}"), entry={"timeoutSeconds": 1}))
    assert list(found) == [8] and told in found[8], found


def test_a_row_that_asks_for_too_much_memory_fails_by_itself(project: Project) -> None:
    code = "def mark(image, row):\n    if row['id'] == '4': bytearray(1 << 30)\n    return {'pid': os.getpid()}\n"
    found = failures(project, runs(project, code, memory=300))
    assert list(found) == [4] and "MemoryError: more than a process here may use" in found[4]
    assert len({row["pid"] for row in project.table("out/job/metadata.csv")}) == 1


def test_a_process_that_leaks_is_replaced_and_no_row_fails(project: Project) -> None:
    code = "kept = []\ndef mark(image, row):\n    kept.append(bytearray(30 << 20))\n    return {'pid': os.getpid()}\n"
    assert failures(project, runs(project, code, memory=350)) == {}
    assert len({row["pid"] for row in project.table("out/job/metadata.csv")}) == 2


def test_a_leak_that_the_next_picture_meets_costs_no_row(project: Project) -> None:
    code = "kept = []\ndef mark(image, row):\n    kept.append(bytearray(22 << 20))\n    return {'pid': os.getpid()}\n"
    for id in range(ROWS):
        project.image(f"img/{id}.jpg", size=(4000, 3000))  # 36 MB decoded, more than a row leaks
    assert failures(project, runs(project, code, memory=300, draw=False)) == {}
    assert len({row["pid"] for row in project.table("out/job/metadata.csv")}) > 1


def test_rows_that_leak_more_than_a_batch_can_have_fail_and_the_job_ends(project: Project) -> None:
    code = "kept = []\ndef mark(image, row):\n    kept.append(bytearray(90 << 20))\n    return image\n"
    found = failures(project, runs(project, code, memory=350))
    assert 0 < len(found) < ROWS and all("refused memory beyond its share" in message for message in found.values()), found


def test_a_function_that_prints_a_gigabyte(project: Project) -> None:
    code = "def mark(image, row):\n    if row['id'] == '3':\n        for _ in range(1024): print('x' * ((1 << 20) - 1))\n    return image\n"
    assert failures(project, runs(project, code)) == {}
    (log,) = project.root.glob("**/logs/*.log")
    text = log.read_text()
    assert 64 << 10 <= len(text) < 66 << 10
    assert f"... {(1 << 30) - (64 << 10)} bytes more were printed, and are not kept" in text


FORKS: Sequence[str] = (
    "subprocess.Popen(['sleep', '987'])",
    "os.fork() or (os.setsid(), time.sleep(987))",
    "os.fork() or (os.setsid(), os.fork() or time.sleep(987), os._exit(0))",
)


@pytest.mark.parametrize("after", ["pass", "os._exit(1)"], ids=["goes on", "dies"])
@pytest.mark.parametrize("fork", FORKS, ids=["a command", "a session", "a daemon"])
def test_what_a_function_forks_ends_with_the_batch(project: Project, fork: str, after: str) -> None:
    code = f"def mark(image, row):\n    if row['id'] == '3':\n        {fork}\n        {after}\n    return {{'pid': os.getpid()}}\n"
    began = time.monotonic()
    ran = runs(project, code)
    assert failures(project, ran) == ({} if after == "pass" else {3: "FunctionError: the process ended with exit code 1"})
    assert time.monotonic() - began < 30
    left = [entry for entry in _processes(project) if after == "pass" or "setsid" not in fork]
    assert not left, left


def _processes(project: Project) -> list[str]:
    """What still runs in the project's folder, but for its database."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if (entry / "cwd").resolve() == project.root and "postgres" not in command:
                    found.append(command)
            except OSError:
                continue
    return found


def test_a_function_that_listens_harms_nobody(project: Project) -> None:
    code = "def mark(image, row):\n    made = socket.create_server(('127.0.0.1', 0))\n    return {'port': made.getsockname()[1] > 0}\n"
    assert failures(project, runs(project, code)) == {}


def test_the_environment_leads_to_no_database(project: Project) -> None:
    project.environment |= {"PGPASSWORD": "secret", "PGHOST": "nowhere", "OWN_SETTING": "stays"}
    code = "def mark(image, row):\n    return {'seen': sorted(k for k in os.environ if k.startswith('PG') or 'DATABASE' in k), "
    code += "'own': os.environ['OWN_SETTING']}\n"
    assert failures(project, runs(project, code)) == {}
    assert {(row["seen"], row["own"]) for row in project.table("out/job/metadata.csv")} == {("[]", "stays")}
