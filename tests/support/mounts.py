"""Storage that fails for real: a small disk that fills up, files whose reading is an I/O error. Both are mounts, which root makes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = os.sysconf("SC_PAGE_SIZE")


class Disk:
    """A file system in memory that is full when its test wants it to be."""

    def __init__(self, path: Path) -> None:
        self.path, self._filler = path, path / "filler"

    def fill(self, leaving: int = 0) -> None:
        """Leaves room for that many pages; a small file takes one."""
        status = os.statvfs(self.path)
        with open(self._filler, "ab") as file:
            file.write(bytes(PAGE * max(0, status.f_bavail - leaving)))

    def clear(self) -> None:
        """Makes room again."""
        self._filler.unlink()


@contextmanager
def small_disk(path: Path, size: str = "2m") -> Iterator[Disk]:
    """A disk of its own in this folder."""
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """This file can be opened, and reading it is an I/O error: it is this process's memory, which has nothing at its start."""
    _mount("--bind", f"/proc/{os.getpid()}/mem", str(path))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _mount(*arguments: str) -> None:
    ran = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if ran.returncode:
        message = f"no right to mount here: {ran.stderr.strip()}"
        if os.environ.get("REQUIRE_CLUSTER"):
            pytest.fail(message)
        pytest.skip(message)
