"""Work never done twice: results of an earlier job, found by a key of all that they depend on.

A job that is incremental of another one is a job like any other with a store of results at hand: where a row would go into the chain, its
key is looked up, and what is found takes the place of the chain's result. So its output is that of a clean run.

    <output>/.pipelinejob/previous/images/       the images of the job before it
                                   records/      its records
                                   rows.sqlite   key → (url, columns), made of the records; url is null for a row that was skipped
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelinejob import faults
from pipelinejob.records import read_summary, read_urls_and_more

if TYPE_CHECKING:
    from pipelinejob.commit import OutputFolder
    from pipelinejob.store import Job

FOLDER = "previous"
_INDEX = "rows.sqlite"
_VFS = "unix-none"  # one process writes it, before others read it: no locks, which some file servers lack
_LENGTH = 32  # hex digits of a key: 128 bits
_OF_OUTPUT = ("format", "quality", "background")


class Keys:
    """Makes the keys of a job's rows.

    Args:
        spec: of the job, as the resource spells it.
        functions: as they run, with params and digests.
        columns: of the CSV.
    """

    def __init__(self, spec: Mapping[str, Any], functions: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        chain = [[each["name"], each["params"], each.get("digest")] for each in functions]
        output = {key: spec["output"][key] for key in _OF_OUTPUT}
        parts = {"chain": chain, "output": output, "seed": spec["seed"], "maxPixels": spec["source"]["maxPixels"]}
        # Of a row, the built-in functions see its id alone, from which random ones draw.
        self._all_cells = any(not str(each.get("digest", "")).startswith("builtin:") for each in functions)
        if self._all_cells:
            parts["columns"] = list(columns)
        self._chain = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())

    def of(self, id: str, image: str, row: Sequence[str]) -> str:
        """The key of a row: its id, the digest of its image's bytes ("" without one), and its cells where functions can see them."""
        key = self._chain.copy()
        key.update(f"{image} {id}".encode("utf-8", "surrogatepass"))
        if self._all_cells:
            key.update(json.dumps(row).encode())
        return key.hexdigest()[:_LENGTH]


class Found(NamedTuple):
    """What came of a row with the same key."""

    image: Path | None  # its file
    columns: tuple[tuple[int, str, dict[str, object]], ...]
    skipped: bool


class Previous:
    """The results of the job before this one."""

    def __init__(self, folder: Path) -> None:
        import sqlite3  # noqa: PLC0415 - few processes have a use for it

        self._folder = folder
        self._rows = sqlite3.connect(f"file:{folder / _INDEX}?mode=ro&immutable=1&vfs={_VFS}", uri=True, check_same_thread=False)

    @classmethod
    def open(cls, folder: str | None) -> Previous | None:
        """Those in a folder; None where there are none, or none any more: then all rows run."""
        if folder is None or not (Path(folder) / _INDEX).exists():
            return None
        return cls(Path(folder))

    def find(self, key: str) -> Found | None:
        """What came of a row with that key."""
        row = self._rows.execute("SELECT url, columns FROM rows WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        url, columns = row
        image = self._folder / url if url else None
        if image is not None and not image.exists():
            return None
        return Found(image, tuple((at, name, values) for at, name, values in json.loads(columns)), url is None)


def folder_for(job: Job, output: OutputFolder) -> str | None:
    """Where the results are that rows of a job may be taken from; None for one that is not incremental, and for redrives."""
    return str(output.ours / FOLDER) if job.spec.get("incrementalOf") and job.root_uid is None else None


def put_aside(output: Path, folder: Path) -> None:
    """Moves what the job before has made out of the way of the next one, and makes the index of it. Can be done again after any line.

    Args:
        output: the output folder, which belongs to the next job by now.
        folder: where it goes: FOLDER, below the folder that is ours.
    """
    import sqlite3  # noqa: PLC0415 - as above

    folder.mkdir(exist_ok=True)
    if (folder / _INDEX).exists():
        return
    for source in (output / "images", folder.parent / "records"):
        if source.exists() and not (folder / source.name).exists():
            os.rename(source, folder / source.name)
            faults.point("aside")
    for name in ("manifest.json", "metadata.csv", "failures.csv"):
        with suppress(FileNotFoundError):
            os.rename(output / name, folder / name)
    draft = folder / f"{_INDEX}.part"
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(f"file:{draft}?vfs={_VFS}", uri=True)) as made:
        made.execute("PRAGMA journal_mode = OFF")
        made.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, url TEXT, columns TEXT NOT NULL) WITHOUT ROWID")
        made.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", _rows(folder / "records"))
        made.commit()
    faults.point("indexed")
    os.rename(draft, folder / _INDEX)


def _rows(records: Path) -> Iterator[tuple[str, str | None, str]]:
    """(key, url, columns) of all rows that earlier records tell of; those of older versions have no keys."""
    for path in sorted(records.glob("*.jsonl")):
        for key in read_summary(path).get("skipped_keys", ()):
            yield key, None, "[]"
        for url, columns, key in read_urls_and_more(path):
            if key:
                yield key, url, json.dumps(columns)
