"""What runs in a pod beside a claim, sent there as text: a tar of results on standard output, and the pod's own life.

It knows nothing but Python's own library, for it runs with whatever a worker image has.
"""

import io
import os
import re
import stat
import sys
import tarfile
import time

ALIVE = "/tmp/alive"
WAITS = 120.0  # seconds
FOLDER = re.compile(r"[0-9]{9,}")


def wait() -> None:
    """Lives as long as somebody reads, and two minutes more: a pod that was forgotten ends by itself."""
    touch()
    while time.time() - os.stat(ALIVE).st_mtime < WAITS:
        time.sleep(2)


def touch() -> None:
    """Says that somebody reads."""
    with open(ALIVE, "w"):
        pass


class Touching(io.RawIOBase):
    """Where the tar goes: each piece that is taken says that somebody reads."""

    def __init__(self, out: io.RawIOBase) -> None:
        self.out, self.touched = out, 0.0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Hands on all of it."""
        if time.monotonic() - self.touched > 5:
            touch()
            self.touched = time.monotonic()
        view = memoryview(data)
        while view:
            view = view[self.out.write(view) or 0 :]
        return len(data)


def pack(output: str, names: list[str], images: bool, out: io.RawIOBase) -> None:
    """Writes a tar of files of a results folder, and of its images; links are left out."""
    with tarfile.open(fileobj=out, mode="w|", bufsize=1 << 18, format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            add(tar, output, name)
        if images and os.path.isdir(os.path.join(output, "images")):
            for folder in sorted(filter(FOLDER.fullmatch, os.listdir(os.path.join(output, "images")))):
                if not os.path.islink(os.path.join(output, "images", folder)):
                    for name in sorted(os.listdir(os.path.join(output, "images", folder))):
                        add(tar, output, "images/" + folder + "/" + name)


def add(tar: tarfile.TarFile, output: str, name: str) -> None:
    """Adds a file if it is a plain one, without its owner."""
    try:
        file = os.open(os.path.join(output, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(opened.fileno())
        if stat.S_ISREG(found.st_mode):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = found.st_size, int(found.st_mtime), 0o644
            tar.addfile(member, opened)


def main(arguments: list[str]) -> None:
    """`wait`, or `pack ROOT OUTPUT yes|no NAME...`."""
    if arguments[0] == "wait":
        wait()
        return
    root, path, images, *names = arguments[1:]
    output = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([output, os.path.realpath(root)]) != os.path.realpath(root):
        sys.exit("the output folder is outside the claim")
    with open(1, "wb", buffering=0, closefd=False) as out:
        pack(output, names, images == "yes", Touching(out))


if __name__ == "__main__":
    main(sys.argv[1:])
