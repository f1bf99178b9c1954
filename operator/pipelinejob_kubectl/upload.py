"""`upload FOLDER`: from a folder here onto a claim, where the job files that are beside the folder find it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from pipelinejob_kubectl import fetch, reading
from pipelinejob_kubectl.errors import ApiError, PluginError
from pipelinejob_kubectl.kube import Kube

NO_IMAGE = "you may not see the operator for the worker image: name one with --image, any that has Python"


class File(NamedTuple):
    """A file that is to be there: its path below the folder, bytes, and the second of its last change."""

    path: str
    bytes: int
    changed: int


class Uploaded(NamedTuple):
    """What was sent, and how many files were there already."""

    files: int
    bytes: int
    kept: int


def files_of(folder: Path) -> list[File]:
    """The plain files below a folder, in order; hidden ones are left out, links are followed.

    Raises:
        PluginError: InvalidSpec, when there is no such folder, nothing in it, or a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise PluginError("InvalidSpec", f"{folder}: expected the folder that holds the CSV and the images")
    found = sorted(_walk(folder))
    if not found:
        raise PluginError("InvalidSpec", f"{folder}: there are no files in it")
    for file in found:
        if not file.path.isprintable():
            raise PluginError("InvalidSpec", f"{folder}: the name {file.path!r} is not UTF-8, or has control characters: rename the file")
    return found


def _walk(folder: Path) -> Iterator[File]:
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                found = path.stat()
                yield File(path.relative_to(folder).as_posix(), found.st_size, int(found.st_mtime))


def place(to: str | None, folder: Path) -> str:
    """Where on the claim the files go: the folder's own name, unless another path is given.

    Raises:
        PluginError: InvalidSpec, when it leads out of the claim.
    """
    if to is None:
        return folder.resolve().name
    path = PurePosixPath(to)
    if path.is_absolute() or ".." in path.parts:
        raise PluginError("InvalidSpec", f"--to: {to!r} is not below the claim's root: expected a path such as shop/2026")
    return str(path)


def upload(kube: Kube, folder: Path, claim: str, to: str, image: str | None) -> Uploaded:
    """Copies files onto a claim, but for those that are there with the same size and date.

    Args:
        folder: here.
        claim: of the namespace.
        to: a folder of the claim.
        image: of the pod that writes; None: the operator's for workers.

    Raises:
        PluginError: there is no such claim, or the copy broke off; what has arrived is whole, and the same command goes on.
    """
    files = files_of(folder)
    _check_claim(kube, claim)
    body = reading.manifest(_like(kube, image), reading.new_name(), kube.namespace, claim)
    with reading.beside(kube, body) as pod:
        there = _held(kube, pod, to)
        missing = [file for file in files if there.get(file.path) != (file.bytes, file.changed)]
        with fetch.bar() as bar:
            task = bar.add_task("upload", total=sum(file.bytes for file in missing))
            if missing:
                command = reading.in_the_pod(kube, kube.namespace, pod, "unpack", to, input=True)
                _send(command, folder, missing, lambda size: bar.advance(task, size))
    return Uploaded(len(missing), sum(file.bytes for file in missing), len(files) - len(missing))


def _check_claim(kube: Kube, claim: str) -> None:
    path = kube.core("persistentvolumeclaims", namespace=kube.namespace)
    names = [one["metadata"]["name"] for one in kube.items(path)]
    if claim not in names:
        there = f"it has {', '.join(sorted(names))}" if names else "it has none; docs/kubectl.md#upload has one to apply"
        raise PluginError("InvalidSpec", f"--claim: the namespace {kube.namespace} has no claim {claim!r}: {there}")


def _like(kube: Kube, image: str | None) -> reading.Like:
    environment: dict[str, str] = {}
    with suppress(ApiError):
        environment = reading.operator_environment(kube)
    found = reading.like_spec({"spec": {"worker": {"image": image} if image else {}}}, environment)
    if found is None:
        raise PluginError("NoImage", NO_IMAGE)
    return found


def _held(kube: Kube, pod: str, to: str) -> dict[str, tuple[int, int]]:
    """(bytes, second of the last change) of what the folder of the claim has."""
    command = reading.in_the_pod(kube, kube.namespace, pod, "held", to)
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if ran.returncode:
        raise _broken_off(ran.stderr)
    return {path: (size, changed) for path, size, changed in map(json.loads, ran.stdout.splitlines())}


class _Digested(io.RawIOBase):
    """A file on its way into the tar."""

    def __init__(self, file: IO[bytes], digest: Any, told: Callable[[int], object]) -> None:
        self._file, self._digest, self._told = file, digest, told

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        self._told(len(data))
        return data


def _send(command: Sequence[str], folder: Path, files: Sequence[File], told: Callable[[int], object]) -> None:
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|", bufsize=1 << 18, format=tarfile.PAX_FORMAT) as tar:
                for file in files:
                    member = tarfile.TarInfo(file.path)
                    member.size, member.mtime = file.bytes, file.changed
                    digest.update(file.path.encode() + b"\0")
                    with open(folder / file.path, "rb") as opened:
                        tar.addfile(member, _Digested(opened, digest, told))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended before, and says why
        except OSError as error:
            process.kill()
            why = error.strerror or "it was changed while it was copied"
            raise PluginError("CopyFailed", f"{folder / file.path}: {why}: run the same command again, and it goes on") from None
        except BaseException:
            process.kill()
            raise
        answer = process.stdout.read()
        code = process.wait()
        said.seek(0)
        if code or not answer:
            raise _broken_off(said.read())
        if json.loads(answer)["sha256"] != digest.hexdigest():
            raise PluginError("CopyFailed", "what arrived is not what was sent: run the same command again")


def _broken_off(said: bytes) -> PluginError:
    text = " ".join(said.decode(errors="replace").split())[-300:] or "the other side did not say why"
    return PluginError("CopyFailed", f"the copy broke off ({text}): run the same command again, and it goes on")
