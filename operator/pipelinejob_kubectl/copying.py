"""Results on this machine: out of a tar into a folder, checked against their manifest, and there whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

from pipelinejob_kubectl.errors import PluginError

FILES = ("manifest.json", "metadata.csv", "failures.csv")  # the manifest first: it says how much there is to come
CHUNK = 1 << 18
_MEMBER = re.compile(r"manifest\.json|metadata\.csv|failures\.csv|images/[0-9]{9,}/(?!\.)[^/\\\x00-\x1f]+")
_MOST_CELL = 1 << 30  # a cell may have a MiB

Told = Callable[[int, Mapping[str, Any] | None], None]  # bytes so far, and the manifest once it is there


class Copied(NamedTuple):
    """What was copied."""

    files: int
    bytes: int


@contextmanager
def target(folder: Path) -> Iterator[Path]:
    """A folder to fill beside `folder`, which it becomes at the end; nothing is left of it if the end is not reached.

    Raises:
        PluginError: InvalidSpec, when something is there, or it cannot be made.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise PluginError("InvalidSpec", f"--to: {folder} is there already: choose another folder, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise PluginError("InvalidSpec", f"--to: cannot write {folder} ({error.strerror}): choose another folder") from None
    try:
        yield draft
        draft.chmod(0o755)
        os.rename(draft, folder)
    except OSError as error:
        raise PluginError("CannotWrite", f"{folder}: {error.strerror}: make room, or choose another folder with --to") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def unpack(stream: IO[bytes], folder: Path, told: Told = lambda *_: None) -> Copied:
    """Writes the files of a tar below a new folder: plain files with the names of results, and nothing else.

    Raises:
        PluginError: a member is something else, which no results hold.
        tarfile.TarError: it is no tar, or broken off.
    """
    files = size = 0
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:
        for member in tar:
            if not member.isreg() or not _MEMBER.fullmatch(member.name):
                raise PluginError("ResultsDamaged", f"{member.name!r} is no file of results: nothing was copied")
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None  # of a plain file
            with open(path, "xb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            files, size = files + 1, size + member.size
            told(size, manifest_of(folder) if member.name == "manifest.json" else None)
    return Copied(files, size)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of results.

    Raises:
        PluginError: there is none that can be read.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise PluginError("NoResults", "the output folder has no manifest.json: it was moved, or nothing was written there") from None
    except ValueError:
        raise _damaged("manifest.json") from None
    return found


def expected_bytes(manifest: Mapping[str, Any], images: bool) -> int:
    """How much a manifest says that there is, besides itself."""
    tables = sum(one["bytes"] for one in manifest["files"].values())
    return int(tables + (sum(batch["bytes"] for batch in manifest["batches"]) if images else 0))


def verify(folder: Path, url_column: str, *, tables: Iterable[str] = ("metadata.csv", "failures.csv"), images: bool = True) -> None:
    """Compares copied results with their manifest: each table, and each image of each batch.

    Args:
        folder: where they are.
        url_column: of metadata.csv.
        tables: those that were copied.
        images: whether images were copied.

    Raises:
        PluginError: something differs, or is missing.
    """
    manifest = manifest_of(folder)
    for name in tables:
        said = manifest["files"][name]
        if _digest(folder / name) != (said["bytes"], said["sha256"]):
            raise _damaged(name)
    if not images:
        return
    expected = {int(batch["first"]): batch for batch in manifest["batches"] if batch["images"]}
    for first, urls in groupby(_urls(folder / "metadata.csv", url_column), key=lambda url: int(url.split("/")[1])):
        batch, digest, count, size = expected.pop(first, None), hashlib.sha256(), 0, 0
        for url in urls:
            length, sha256 = _digest(folder / url)
            digest.update(f"{sha256}  {url.rpartition('/')[2]}\n".encode())
            count, size = count + 1, size + length
        found = (count, size, digest.hexdigest())
        if batch is None or found != (batch["images"], batch["bytes"], batch["imagesSha256"]):
            raise _damaged(f"the images of the batch at row {first}")
    if expected:
        raise _damaged(f"the images of the batch at row {min(expected)}")


def _urls(metadata: Path, column: str) -> Iterator[str]:
    csv.field_size_limit(_MOST_CELL)
    with open(metadata, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if url := row[column]:
                if not _MEMBER.fullmatch(url):
                    raise _damaged("metadata.csv")
                yield url


def _digest(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
                size += len(piece)
    except FileNotFoundError:
        raise _damaged(path.name) from None
    return size, digest.hexdigest()


def _damaged(what: str) -> PluginError:
    advice = "the results were changed while they were copied, or by hand: try again"
    return PluginError("ResultsDamaged", f"{what} does not agree with manifest.json: {advice}")
