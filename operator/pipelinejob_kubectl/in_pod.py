"""What runs in a pod beside a claim, sent there as text: a tar of results on standard output, files from a tar on standard input, and the
pod's own life.

It knows nothing but Python's own library, for it runs with whatever a worker image has.
"""

import hashlib
import io
import json
import os
import re
import stat
import sys
import tarfile
import time
from typing import BinaryIO

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


class Life:
    """Touches now and then, as long as it is asked to."""

    def __init__(self) -> None:
        self.touched = 0.0

    def goes_on(self) -> None:
        """Says that somebody reads, at most every 5 seconds."""
        if time.monotonic() - self.touched > 5:
            touch()
            self.touched = time.monotonic()


class Touching(io.RawIOBase):
    """Where the tar goes: each piece that is taken says that somebody reads."""

    def __init__(self, out: io.RawIOBase) -> None:
        self.out, self.life = out, Life()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Hands on all of it."""
        self.life.goes_on()
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


def held(folder: str, out: io.RawIOBase) -> None:
    """Writes a line [path, bytes, seconds of its last change] for each plain file below a folder."""
    lines = io.BufferedWriter(out, 1 << 16)
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            found = os.lstat(os.path.join(parent, name))
            if stat.S_ISREG(found.st_mode):
                path = os.path.relpath(os.path.join(parent, name), folder)
                lines.write(json.dumps([path, found.st_size, int(found.st_mtime)]).encode() + b"\n")
    lines.flush()


def unpack(root: str, folder: str, source: BinaryIO) -> dict[str, object]:
    """Writes the plain files of a tar below a folder, each whole or not at all; returns what came, for the sender to compare."""
    files = size = 0
    digest, life = hashlib.sha256(), Life()
    with tarfile.open(fileobj=source, mode="r|", bufsize=1 << 18) as tar:
        for member in tar:
            given = tar.extractfile(member) if member.isreg() else None
            if given is None or ".." in member.name.split("/"):
                sys.exit(repr(member.name) + " is no plain file")
            path = os.path.join(folder, member.name)
            parent, name = os.path.split(path)
            within(root, parent)
            os.makedirs(parent, exist_ok=True)
            draft = os.path.join(parent, "." + name[:100] + ".part")
            digest.update(member.name.encode("utf-8", "surrogateescape") + b"\0")
            with open(draft, "wb") as file:
                while piece := given.read(1 << 18):
                    life.goes_on()
                    digest.update(piece)
                    file.write(piece)
            os.utime(draft, (member.mtime, member.mtime))
            os.replace(draft, path)
            files, size = files + 1, size + member.size
    return {"files": files, "bytes": size, "sha256": digest.hexdigest()}


def within(root: str, path: str) -> None:
    """Ends where a path leads out of the claim, as by a link."""
    if os.path.commonpath([os.path.realpath(path), os.path.realpath(root)]) != os.path.realpath(root):
        sys.exit("the folder is outside the claim")


def main(arguments: list[str]) -> None:
    """`wait`, `pack ROOT FOLDER yes|no NAME...`, `held ROOT FOLDER`, or `unpack ROOT FOLDER`."""
    verb, *rest = arguments
    if verb == "wait":
        wait()
        return
    root, path, *names = rest
    folder = os.path.realpath(os.path.join(root, path))
    within(root, folder)
    try:
        with open(1, "wb", buffering=0, closefd=False) as out:
            if verb == "pack":
                pack(folder, names[1:], names[0] == "yes", Touching(out))
            elif verb == "held":
                held(folder, Touching(out))
            else:
                out.write(json.dumps(unpack(root, folder, sys.stdin.buffer)).encode())
    except (OSError, tarfile.TarError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
