"""The mark of a child, read while it is written: no step may ever look older than it is."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pipelinejob.child import Mark

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
    assert 0 <= time.monotonic() - began < 1


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
