"""Looks at what a job left behind, files and tables, and says what is wrong with it.

It knows the promises of the documentation and none of the project's code: it reads files, Postgres and JSON, and imports
nothing of what it judges. The CSV of a job that it is to judge has a column `number`, in which each row has its own number.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import psycopg2.extras

KINDS = ("succeeded", "filtered", "skipped", "failed")
BATCH = ("first_row", "rows", *KINDS, "images", "bytes", "images_sha256", "inputs_sha256", "columns")
FAILED = ("row", "id", "reason", "function", "message", "attempts")
STAYS = {"owner.json", "lock", "records"}  # what may be in .pipelinejob/ when a job has ended
Rows = list[dict[str, Any]]


class Finding(NamedTuple):
    """Something that is wrong.

    Args:
        what: stuck, lost, twice, bytes, orphan, attempt or counts.
        detail: where, with examples.
    """

    what: str
    detail: str


class Results(NamedTuple):
    """What a job left behind.

    Args:
        files: path in the output → (bytes, sha256), without `.pipelinejob/`.
        empty: folders with nothing in them.
        ours: what is in `.pipelinejob/`, and beside the output.
        metadata, failures: the two CSVs, as dicts.
        manifest: the third file; {} if there is none.
        job, shards, batches, failed: the rows of the tables.
        statuses: who was asked → {phase, rows} as answered.
    """

    files: dict[str, tuple[int, str]]
    empty: list[str]
    ours: list[str]
    metadata: Rows
    failures: Rows
    manifest: dict[str, Any]
    job: dict[str, Any]
    shards: Rows
    batches: Rows
    failed: Rows
    statuses: dict[str, dict[str, Any]]


def collect(output: Path, url: str, name: str, statuses: Mapping[str, dict[str, Any]], namespace: str = "default") -> Results:
    """Reads the output folder and the tables of a job.

    Args:
        output: the folder; what lies beside it in its own folder should be nothing.
        url: of the database.
        name: of the job.
        statuses: what those answered who were asked how the job stands.
        namespace: of the job.
    """
    with psycopg2.connect(url) as connection, connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute("SELECT * FROM pipelinejob.jobs WHERE namespace = %s AND name = %s", (namespace, name))
        job = dict(cursor.fetchone())
        tables: dict[str, Rows] = {}
        for table, order in (("shards", "index"), ("batches", "first_row"), ("failed_rows", "row")):
            cursor.execute(f"SELECT * FROM pipelinejob.{table} WHERE job_uid = %s ORDER BY {order}", (job["uid"],))
            tables[table] = [dict(row) for row in cursor.fetchall()]
    connection.close()
    in_table = {"jobs.status": job["status"]} if job["status"] else {}  # a cluster's job has its status in the resource
    return look(output, job, tables["shards"], tables["batches"], tables["failed_rows"], {**statuses, **in_table})


def look(output: Path, job: dict[str, Any], shards: Rows, batches: Rows, failed: Rows, statuses: Mapping[str, dict[str, Any]]) -> Results:
    """Reads the output folder; the tables are given."""
    files, empty = _tree(output)
    ours = [path.name for path in sorted((output / ".pipelinejob").glob("*")) if path.name not in STAYS]
    ours += [f"../{path.name}" for path in sorted(output.parent.iterdir()) if path != output]
    manifest = json.loads((output / "manifest.json").read_text()) if "manifest.json" in files else {}
    tables = (job, shards, batches, failed)
    return Results(files, empty, ours, _csv(output / "metadata.csv"), _csv(output / "failures.csv"), manifest, *tables, dict(statuses))


def count_rows(path: Path) -> int:
    """The rows of a CSV, without its header and without empty lines."""
    with open(path, newline="", encoding="utf-8") as file:
        return sum(1 for record in csv.reader(file) if record) - 1


def check(found: Results, total: int, undisturbed: Results | None = None) -> list[Finding]:
    """What is wrong; nothing: [].

    Args:
        found: what is judged.
        total: how many rows the CSV has.
        undisturbed: what a run left behind that nobody disturbed; None for a job that ended early, of which there is no such run:
            it is then asked only whether all that it left agrees.
    """
    own = [*_attempts(found), *_each_row_once(found), *_images_and_urls(found), *_counts(found, total), *_covered(found, total)]
    if undisturbed is not None:
        own += [*_ended(found), *_same_rows(found, undisturbed), *_same_files(found, undisturbed), *_same_tables(found, undisturbed)]
    return own


def _ended(found: Results) -> Iterator[Finding]:
    for who, phase in {"jobs": found.job["phase"], **{who: status.get("phase") for who, status in found.statuses.items()}}.items():
        if phase != "Complete":
            yield Finding("stuck", f"{who} says {phase}: {found.job.get('message')}")
    if found.job["finished_at"] is None:
        yield Finding("stuck", "the job has no finished_at")
    yield from _some("stuck", "shards are still open", (shard["index"] for shard in found.shards if shard["open"]))


def _attempts(found: Results) -> Iterator[Finding]:
    yield from _some("attempt", "left behind", found.ours)


def _numbers(found: Results) -> Counter[int]:
    """How often each row is in the files."""
    return Counter([int(row["number"]) for row in found.metadata] + [int(row["row"]) for row in found.failures])


def _each_row_once(found: Results) -> Iterator[Finding]:
    yield from _some("twice", "rows are more than once in metadata.csv and failures.csv", _repeated(_numbers(found)))
    yield from _some(
        "twice", "images are named by more than one row", _repeated(Counter(row["url"] for row in found.metadata if row["url"]))
    )
    in_tables = Counter(row["row"] for row in found.failed)
    yield from _some("twice", "rows are more than once in failed_rows", _repeated(in_tables))
    yield from _some("twice", "batches are more than once in the ledger", _repeated(Counter(one["first_row"] for one in found.batches)))


def _images_and_urls(found: Results) -> Iterator[Finding]:
    named = {row["url"] for row in found.metadata if row["url"]}
    images = {path for path in found.files if path.startswith("images/")}
    yield from _some("lost", "images that metadata.csv names are not there", sorted(named - images))
    yield from _some("orphan", "images that no row names", sorted(images - named))
    yield from _some("orphan", "folders with nothing in them", found.empty)
    known = {"metadata.csv", "failures.csv", "manifest.json"}
    yield from _some("orphan", "files that nothing names", sorted(set(found.files) - images - known))


def _counts(found: Results, total: int) -> Iterator[Finding]:
    """The counts of the files, tables, manifest and statuses are the same."""
    sums = {kind: sum(batch[kind] for batch in found.batches) for kind in KINDS}
    told: dict[str, Mapping[str, Any]] = {
        "files": {"succeeded": len(found.metadata), "failed": len(found.failures)},
        "jobs": {"total": found.job["rows_total"], **{kind: found.job[f"rows_{kind}"] for kind in KINDS}},
        "shards": {kind: sum(shard[kind] for shard in found.shards) for kind in KINDS},
        "failed_rows": {"failed": len(found.failed)},
        "manifest.json": found.manifest.get("counts", {"total": None}),
        **{who: status.get("rows", {"total": None}) for who, status in found.statuses.items()},
    }
    wanted = {"total": total, **sums, "pending": total - sum(sums.values())}
    for who, counts in told.items():
        for kind, number in counts.items():
            if number != wanted[kind]:
                yield Finding("counts", f"{kind}: {who} has {number}, batches {wanted[kind]}")
    yield from _counts_of_images(found)
    for name, file in found.manifest.get("files", {}).items():
        if (file["bytes"], file["sha256"]) != found.files.get(name):
            yield Finding("counts", f"manifest.json has other bytes or another digest of {name}")


def _counts_of_images(found: Results) -> Iterator[Finding]:
    images: dict[int, int] = defaultdict(int)
    sizes: dict[int, int] = defaultdict(int)
    for path, (size, _) in found.files.items():
        if path.startswith("images/"):
            first = int(path.split("/")[1])
            images[first] += 1
            sizes[first] += size
    for who, batches in (("batches", found.batches), ("manifest.json", found.manifest.get("batches", []))):
        firsts = {batch.get("first_row", batch.get("first")): (batch["images"], batch["bytes"]) for batch in batches}
        wrong = [first for first in sorted({*firsts, *images}) if firsts.get(first, (0, 0)) != (images[first], sizes[first])]
        yield from _some("counts", f"{who} has another number or size of images than the folder of the batch", wrong)


def _covered(found: Results, total: int) -> Iterator[Finding]:
    """Batches and the ranges that are said to be pending cover all rows, and none twice."""
    ranges = [(batch["first_row"], batch["rows"]) for batch in found.batches]
    ranges += [(one["first"], one["rows"]) for one in found.manifest.get("pending", [])]
    for what, given in (("batches", ranges), ("shards", [(shard["first_row"], shard["rows"]) for shard in found.shards])):
        at = 0
        for first, rows in sorted(given):
            if first != at:
                yield Finding("lost" if first > at else "twice", f"{what}: after row {at} comes row {first}")
            at = first + rows
        if at != total:
            yield Finding("lost", f"{what} end at row {at} of {total}")
    table = [tuple(str(row[name]) for name in FAILED) for row in found.failed]
    file = [tuple(row[name] for name in FAILED) for row in found.failures]
    yield from _some("counts", "failed_rows and failures.csv differ", sorted(set(table) ^ set(file)))


def _same_rows(found: Results, undisturbed: Results) -> Iterator[Finding]:
    wanted, is_there = _numbers(undisturbed), _numbers(found)
    yield from _some("lost", "rows are in neither file", sorted(wanted.keys() - is_there.keys()))
    yield from _some("twice", "rows have a result that should have none", sorted(is_there.keys() - wanted.keys()))


def _same_files(found: Results, undisturbed: Results) -> Iterator[Finding]:
    yield from _some("lost", "files are missing", sorted(undisturbed.files.keys() - found.files.keys()))
    yield from _some("orphan", "files that the undisturbed run lacks", sorted(found.files.keys() - undisturbed.files.keys()))
    both = undisturbed.files.keys() & found.files.keys()
    yield from _some("bytes", "files differ", sorted(path for path in both if undisturbed.files[path] != found.files[path]))


def _same_tables(found: Results, undisturbed: Results) -> Iterator[Finding]:
    for name, columns, ours, theirs in (
        ("batches", BATCH, found.batches, undisturbed.batches),
        ("failed_rows", FAILED, found.failed, undisturbed.failed),
    ):
        mine = {json.dumps([row[column] for column in columns]) for row in ours}
        wanted = {json.dumps([row[column] for column in columns]) for row in theirs}
        yield from _some("counts", f"rows of {name} differ from those of the undisturbed run", sorted(mine ^ wanted))


def _tree(output: Path) -> tuple[dict[str, tuple[int, str]], list[str]]:
    files, empty = {}, []
    for folder, folders, names in os.walk(output):
        if ".pipelinejob" in folders:
            folders.remove(".pipelinejob")
        path = Path(folder).relative_to(output)
        if not folders and not names and path.name != "images":
            empty.append(path.as_posix())
        for name in names:
            data = Path(folder, name).read_bytes()
            files[(path / name).as_posix()] = (len(data), hashlib.sha256(data).hexdigest())
    return files, empty


def _csv(path: Path) -> Rows:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _repeated(counter: Counter[Any]) -> list[Any]:
    return sorted(key for key, times in counter.items() if times > 1)


def _some(what: str, detail: str, items: Iterable[object]) -> Iterator[Finding]:
    """One finding for all items of a kind, with a few of them as examples."""
    listed = list(items)
    if listed:
        yield Finding(what, f"{len(listed)} {detail}: {', '.join(map(str, listed[:3]))}")
