"""Corrupt pictures through the command line: each costs its own row at most, within 5 seconds and the memory of a worker.

FUZZ_ROWS and FUZZ_SEED make it a longer run of other files: `make fuzz`. What such a run finds is put into corpus/ as
<the row's reason>-<what it is>.<extension>.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from glob import glob
from pathlib import Path

import pytest
from PIL import Image

from pipelinejob.child import IDLE, Mark
from support import corrupt
from support.project import Project, Ran

ROWS = int(os.environ.get("FUZZ_ROWS", "1500"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
SECONDS_A_ROW = 5.0
MEMORY = (1 << 30) - (96 << 20)  # bytes for the process that runs rows: a worker pod's 1 GiB without its parent
DEAD = "a worker process died"


class Watch:
    """Looks at the child processes of a running job: their peak memory, and how long one step of a row took at most."""

    def __init__(self, parent: int, output: Path) -> None:
        self.memory, self.slowest = 0, (0.0, -1)
        self._parent, self._output, self._over = parent, output, threading.Event()
        self._marks: dict[Path, Mark] = {}
        self._thread = threading.Thread(target=self._look_on)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(0.03):
            for path in glob(str(self._output / ".pipelinejob/*/marks/*")):  # bears folders that go meanwhile
                self._note_step(Path(path))
            for pid in _children(self._parent):
                self._note_memory(pid)

    def _note_step(self, path: Path) -> None:
        try:
            mark = self._marks.setdefault(path, Mark(path)) if path not in self._marks else self._marks[path]
        except (OSError, ValueError):  # not written yet, or just gone
            return
        row, _, began = mark.get()
        if row != IDLE:
            self.slowest = max(self.slowest, (time.monotonic() - began, row))

    def _note_memory(self, pid: str) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        peaks = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")]
        self.memory = max([self.memory, *peaks])


def _children(parent: int) -> list[str]:
    try:
        return Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []


def catalogue(project: Project, files: Mapping[str, bytes]) -> None:
    """rows.csv with a row for each file, which is img/<id>."""
    for name, data in files.items():
        project.file(f"img/{name}", data)
    project.write_csv([(name,) for name in files], ("id",))


def watched(project: Project, name: str = "job", **spec: object) -> tuple[Ran, Watch]:
    """Runs a job over all the files to its end, looking on."""
    spec = {"parallelism": 1, "source": {"images": "img/{id}"}, **spec}
    process = project.start("run", project.job(name, **spec), "--json")
    watch = Watch(process.pid, project.root / f"out/{name}")
    try:
        out, err = process.communicate(timeout=max(90, ROWS / 5))
    finally:
        process.kill()
        watch.stop()
    return Ran(process.returncode, out, err), watch


def accounted(project: Project, ran: Ran, watch: Watch, files: Mapping[str, bytes], name: str = "job") -> dict[str, str]:
    """Checks all that is promised of any catalogue of pictures; returns the reason of each failed row by its id."""
    assert ran.code == 0 and ran.json["phase"] == "Complete", ran
    failed = {row["id"]: row["reason"] for row in project.table(f"out/{name}/failures.csv")}
    done = [row["id"] for row in project.table(f"out/{name}/metadata.csv")]
    assert DEAD not in ran.err, ran.err
    assert set(failed.values()) <= {"ImageInvalid", "ImageTooLarge"}, Counter(failed.values())
    assert sorted([*failed, *done]) == sorted(files)
    assert ran.json["rows"] == {
        "total": len(files), "succeeded": len(done), "filtered": 0, "skipped": 0, "failed": len(failed), "pending": 0,
    }  # fmt: skip
    assert 0 < watch.slowest[0] < SECONDS_A_ROW, f"row {watch.slowest[1]} ({[*files][watch.slowest[1]]}) took {watch.slowest[0]:.1f} s"
    assert watch.memory < MEMORY, f"{watch.memory >> 20} MiB"
    return failed


def test_sound_pictures_of_every_kind_succeed(project: Project) -> None:
    """Else a run over broken ones would show little."""
    files = corrupt.seeds()
    catalogue(project, files)
    ran, watch = watched(project)
    assert accounted(project, ran, watch, files) == {}
    for row in project.table("out/job/metadata.csv"):
        with Image.open(project.root / "out/job" / row["url"]) as image:
            assert (image.format, image.size) == ("JPEG", (16, 16)), row


@pytest.mark.timeout(max(120, ROWS))
def test_broken_pictures_cost_their_own_row(project: Project) -> None:
    files = {f"{number:06d}": data for number, (_, data) in enumerate(corrupt.broken(SEED, ROWS))}
    catalogue(project, files)
    ran, watch = watched(project, parallelism=2)
    failed = accounted(project, ran, watch, files)
    counts = Counter(failed.values())
    told = f"fuzz: seed {SEED}, {len(files)} files: {len(files) - len(failed)} succeeded, {dict(counts)}"
    print(f"{told}; slowest step {watch.slowest[0]:.2f} s, largest process {watch.memory >> 20} MiB, {ran.json['seconds']} s")
    assert min(len(files) - len(failed), counts["ImageInvalid"], counts["ImageTooLarge"]) > len(files) // 50, counts

    ran, watch = watched(project, "copy", functions=[], parallelism=2)
    assert accounted(project, ran, watch, files, "copy") == failed, "copied where they stand, the same ones are refused"
    before = project.tree("out/job")
    again = project.run("run", "job.yaml", "--replace", "--json", timeout=max(90, ROWS / 5))
    assert again.code == 0 and project.tree("out/job") == before


def test_the_same_seed_breaks_the_same_way() -> None:
    assert list(corrupt.broken(7, 50)) == list(corrupt.broken(7, 50)) != list(corrupt.broken(8, 50))


def test_bombs_and_what_was_found_before(project: Project) -> None:
    """Few bytes that promise much, and each file that once broke a promise, with the reason that its name says."""
    files = corrupt.bombs() | {path.name: path.read_bytes() for path in CORPUS}
    catalogue(project, files)
    ran, watch = watched(project)
    failed = accounted(project, ran, watch, files)
    for path in CORPUS:
        assert failed.get(path.name) == path.name.partition("-")[0], path.name
    for name in files:
        if name.startswith(("16383", "65535", "10001")):
            assert failed[name] == "ImageTooLarge", name
