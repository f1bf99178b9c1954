"""The checker of the chaos runs: a good output passes, and each thing that is wrong with another is named."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from chaos import checker
from chaos.schedule import schedule

TOTAL, FIRSTS = 8, (0, 4)
FILTERED, FAILED = 3, 6


class Job:
    """The output and the tables of a job of eight rows in two batches, of which one is filtered and one failed."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "out/job"
        (self.output / ".pipelinejob/records").mkdir(parents=True)
        (self.output / ".pipelinejob/owner.json").write_text("{}")
        self.metadata = [
            {"number": str(row), "id": f"P{row}", "url": f"images/{row // 4 * 4:09}/P{row}.jpg"}
            for row in range(TOTAL)
            if row not in (FILTERED, FAILED)
        ]
        for row in self.metadata:
            self.image(row["url"], f"picture {row['id']}")
        failure = {"row": FAILED, "id": f"P{FAILED}", "reason": "ImageNotFound", "function": "", "message": "no file", "attempts": 1}
        self.failed = [failure]
        self.shards = [{"index": 0, "first_row": 0, "rows": TOTAL, "open": False, **self._counts(TOTAL)}]
        self.batches = [self._batch(first) for first in FIRSTS]
        ended = datetime(2026, 1, 1, tzinfo=UTC)
        counts = {f"rows_{kind}": self.shards[0][kind] for kind in checker.KINDS}
        self.job = {"phase": "Complete", "message": None, "finished_at": ended, "rows_total": TOTAL, **counts}
        rows = {"total": TOTAL, "pending": 0, **self._counts(TOTAL)}
        self.statuses: dict[str, Any] = {"status": {"phase": "Complete", "rows": rows}}
        self.write()

    def image(self, url: str, text: str) -> None:
        (self.output / url).parent.mkdir(parents=True, exist_ok=True)
        (self.output / url).write_text(text)

    def write(self) -> None:
        """The three files as they follow from the rest."""
        self._csv("metadata.csv", ["number", "id", "url"], self.metadata)
        self._csv("failures.csv", list(checker.FAILED), self.failed)
        files = {name: (self.output / name).read_bytes() for name in ("metadata.csv", "failures.csv")}
        manifest = {
            "counts": self.statuses["status"]["rows"],
            "files": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()},
            "batches": [{"first": one["first_row"], "images": one["images"], "bytes": one["bytes"]} for one in self.batches],
        }
        (self.output / "manifest.json").write_text(json.dumps(manifest))

    def look(self) -> checker.Results:
        return checker.look(self.output, self.job, self.shards, self.batches, self.failed, self.statuses)

    def _csv(self, name: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
        with open(self.output / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def _batch(self, first: int) -> dict[str, Any]:
        urls = [row["url"] for row in self.metadata if int(row["number"]) // 4 * 4 == first]
        size = sum((self.output / url).stat().st_size for url in urls)
        counts = {"succeeded": len(urls), "filtered": int(first == 0), "skipped": 0, "failed": int(first == 4)}
        digests = {"images_sha256": f"images of {first}", "inputs_sha256": f"inputs of {first}", "columns": []}
        return {"first_row": first, "rows": 4, **counts, "images": len(urls), "bytes": size, **digests}

    @staticmethod
    def _counts(total: int) -> dict[str, int]:
        return {"succeeded": total - 2, "filtered": 1, "skipped": 0, "failed": 1}


@pytest.fixture
def good(tmp_path: Path) -> checker.Results:
    return Job(tmp_path / "good").look()


def test_a_good_output_passes(good: checker.Results, tmp_path: Path) -> None:
    assert checker.check(Job(tmp_path / "again").look(), TOTAL, good) == []
    assert checker.check(good, TOTAL) == []


def _lose_a_row(job: Job) -> None:
    lost = job.metadata.pop(2)
    (job.output / lost["url"]).unlink()
    job.write()


def _double_a_row(job: Job) -> None:
    job.metadata.insert(1, job.metadata[0])
    job.write()


def _double_a_row_as_failed(job: Job) -> None:
    job.failed.append({**job.failed[0], "row": 0, "id": "P0"})
    job.write()


def _give_a_filtered_row_a_result(job: Job) -> None:
    job.metadata.append({"number": str(FILTERED), "id": "P3", "url": ""})
    job.write()


def _change_a_byte(job: Job) -> None:
    job.image(job.metadata[0]["url"], "picture p0")


def _leave_an_image(job: Job) -> None:
    job.image("images/000000004/P99.jpg", "picture of nobody")


def _leave_a_folder(job: Job) -> None:
    (job.output / "images/000000008").mkdir()


def _leave_a_file(job: Job) -> None:
    (job.output / "notes.txt").write_text("mine")


def _leave_an_attempt(job: Job) -> None:
    (job.output / ".pipelinejob/b9c1/open-3").mkdir(parents=True)


def _leave_a_draft(job: Job) -> None:
    (job.output / ".pipelinejob/metadata.csv.1f0.part").write_text("number")


def _leave_another_output(job: Job) -> None:
    job.output.with_name("job.b9c1").mkdir()


def _lose_an_image(job: Job) -> None:
    (job.output / job.metadata[0]["url"]).unlink()


def _lose_a_batch_of_the_ledger(job: Job) -> None:
    job.batches.pop()


def _double_a_batch_of_the_ledger(job: Job) -> None:
    job.batches.append(job.batches[1])


def _a_stale_count_in_the_status(job: Job) -> None:
    job.statuses["status"]["rows"] = {**job.statuses["status"]["rows"], "succeeded": TOTAL - 3}


def _a_stale_count_in_the_job(job: Job) -> None:
    job.job["rows_failed"] = 0


def _a_stale_count_in_a_shard(job: Job) -> None:
    job.shards[0]["filtered"] = 2


def _a_stale_digest_in_the_manifest(job: Job) -> None:
    path = job.output / "manifest.json"
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0', 1))


def _another_message_in_the_ledger(job: Job) -> None:
    job.write()
    job.failed = [{**job.failed[0], "message": "another"}]


def _still_running(job: Job) -> None:
    job.job["phase"] = "Running"


def _running_by_its_status(job: Job) -> None:
    job.statuses["status"]["phase"] = "Running"


def _an_open_shard(job: Job) -> None:
    job.shards[0]["open"] = True


@pytest.mark.parametrize(
    ("spoil", "what", "detail"),
    [
        (_lose_a_row, "lost", "1 rows are in neither file: 2"),
        (_lose_an_image, "lost", "1 images that metadata.csv names are not there: images/000000000/P0.jpg"),
        (_lose_a_batch_of_the_ledger, "lost", "batches end at row 4 of 8"),
        (_double_a_row, "twice", "1 rows are more than once in metadata.csv and failures.csv: 0"),
        (_double_a_row_as_failed, "twice", "1 rows are more than once in metadata.csv and failures.csv: 0"),
        (_double_a_batch_of_the_ledger, "twice", "1 batches are more than once in the ledger: 4"),
        (_give_a_filtered_row_a_result, "twice", "1 rows have a result that should have none: 3"),
        (_change_a_byte, "bytes", "1 files differ: images/000000000/P0.jpg"),
        (_leave_an_image, "orphan", "1 images that no row names: images/000000004/P99.jpg"),
        (_leave_a_folder, "orphan", "1 folders with nothing in them: images/000000008"),
        (_leave_a_file, "orphan", "1 files that nothing names: notes.txt"),
        (_leave_an_attempt, "attempt", "1 left behind: b9c1"),
        (_leave_a_draft, "attempt", "1 left behind: metadata.csv.1f0.part"),
        (_leave_another_output, "attempt", "1 left behind: ../job.b9c1"),
        (_a_stale_count_in_the_status, "counts", "succeeded: status has 5, batches 6"),
        (_a_stale_count_in_the_job, "counts", "failed: jobs has 0, batches 1"),
        (_a_stale_count_in_a_shard, "counts", "filtered: shards has 2, batches 1"),
        (_a_stale_digest_in_the_manifest, "counts", "manifest.json has other bytes or another digest of metadata.csv"),
        (_another_message_in_the_ledger, "counts", "2 failed_rows and failures.csv differ"),
        (_still_running, "stuck", "jobs says Running"),
        (_running_by_its_status, "stuck", "status says Running"),
        (_an_open_shard, "stuck", "1 shards are still open: 0"),
    ],
)
def test_what_is_wrong_is_named(good: checker.Results, tmp_path: Path, spoil: Callable[[Job], None], what: str, detail: str) -> None:
    job = Job(tmp_path / "spoilt")
    spoil(job)
    found = checker.check(job.look(), TOTAL, good)
    assert any(one.what == what and one.detail.startswith(detail) for one in found), found


def test_it_knows_nothing_of_our_code() -> None:
    text = Path(checker.__file__).read_text()
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports and not any("pipelinejob" in line or "support" in line or "chaos" in line for line in imports)


def test_the_same_seed_gives_the_same_faults() -> None:
    kinds = ["kill", "stop", "lock"]
    first, again, other = (list(islice(schedule("laptop", seed, kinds, 4.0), 30)) for seed in (7, 7, 8))
    assert first == again != other
    assert all({one.kind for one in first[at : at + 3]} == set(kinds) for at in range(0, 30, 3))
    assert all(1.6 <= one.after <= 6.4 for one in first)
