"""What marks of dead processes say, and which batches are set aside for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from pipelinejob.batch import Task
from pipelinejob.child import IDLE, Mark
from pipelinejob.deaths import Deaths, read_deaths, set_aside

TASKS = [Task(0, first, 10, 0, 0, 0, {}) for first in range(0, 50, 10)]
LIVES = (
    "import sys, time; from pathlib import Path; from pipelinejob.child import Mark\n"
    "mark = Mark(Path(sys.argv[1]), create=True); mark.set(7, 2); print('set', flush=True); time.sleep(60)"
)


def _split(deaths: dict[int, Deaths]) -> tuple[list[int], list[tuple[int, list[str]]]]:
    others, aside = set_aside(lambda: TASKS, deaths, lambda each: ["FunctionError", "f", f"{each.times} times"])
    return [task.first_row for task in others], [(task.first_row, list(task.doomed)) for task in aside]


def _leave(path: Path, row: int, position: int) -> None:
    mark = Mark(path, create=True)
    mark.set(row, position)


def test_a_mark_counts_when_its_process_is_dead(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", LIVES, str(tmp_path / "mark")], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "set\n"
    assert read_deaths(tmp_path) == {}
    writer.send_signal(signal.SIGSTOP)
    assert read_deaths(tmp_path) == {}
    writer.kill()
    writer.communicate()
    assert read_deaths(tmp_path) == {7: Deaths(1, 2)}


def test_marks_are_counted_by_row(tmp_path: Path) -> None:
    for name, row in (("a", 7), ("b", IDLE), ("c", 7), ("d", 30)):
        _leave(tmp_path / name, row, 1)
    (tmp_path / "e").write_bytes(b"cut")
    assert read_deaths(tmp_path) == {7: Deaths(2, 1), 30: Deaths(1, 1)}


def test_no_deaths_set_nothing_aside() -> None:
    assert _split({}) == ([0, 10, 20, 30, 40], [])
    assert _split({50: Deaths(9, 0)}) == ([0, 10, 20, 30, 40], [])  # a row of another shard, or long recorded


def test_batches_with_deaths_come_last_those_with_most_of_them_first() -> None:
    deaths = {19: Deaths(1, 0), 0: Deaths(1, 0), 9: Deaths(2, 0), 30: Deaths(2, 0)}
    assert _split(deaths) == ([20, 40], [(0, []), (30, []), (10, [])])


def test_a_row_with_enough_deaths_is_not_to_be_run() -> None:
    deaths = {30: Deaths(2, 0), 21: Deaths(3, 0), 22: Deaths(1, 0), 23: Deaths(4, 0)}
    assert _split(deaths) == ([0, 10, 40], [(20, ["21", "23"]), (30, [])])
