"""The mark of a child, read while it is written: no step may ever look older than it is."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pipelinejob.batch import DECODE
from pipelinejob.child import IDLE, Mark

WRITER = """
import sys, time
from pathlib import Path
from pipelinejob.child import Mark
mark = Mark(Path(sys.argv[1]))
end = time.monotonic() + 1.5
row = 0
while time.monotonic() < end:
    row += 1
    mark.set(row, row % 7)
"""


def test_what_was_set_is_read_by_another_process(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "mark", create=True)
    mark.set(7, -2)
    row, position, began = Mark(tmp_path / "mark").get()
    assert (row, position) == (7, -2)
    assert 0 <= time.monotonic() - began < 30


def test_a_reader_never_sees_an_old_time(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "mark", create=True)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "mark")]) for _ in range(3)]
    oldest = reads = 0.0
    while any(writer.poll() is None for writer in writers):
        oldest = max(oldest, time.monotonic() - mark.get()[2])
        reads += 1
    assert reads > 10_000
    assert mark.get()[0] > 1_000
    assert oldest < 5


RESTING = """
import sys, time
from pathlib import Path
from pipelinejob.batch import DECODE, ENCODE
from pipelinejob.child import Mark
mark = Mark(Path(sys.argv[1]))
end = time.monotonic() + 1.5
row = 0
while time.monotonic() < end:
    row += 1
    mark.set(row, DECODE)
    mark.set(row, ENCODE)
    mark.rest()
"""


def test_half_of_a_rest_is_no_function_of_a_job_without_any(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "mark", create=True)
    assert mark.get()[:2] == (IDLE, DECODE)
    writer = subprocess.Popen([sys.executable, "-c", RESTING, str(tmp_path / "mark")])
    rows, positions = set(), set()
    while writer.poll() is None:
        row, position, _ = mark.get()
        rows.add(row)
        positions.add(position)
    assert len(rows) > 100 and IDLE in rows
    assert all(position < 0 for position in positions)
