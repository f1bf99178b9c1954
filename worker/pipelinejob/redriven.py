"""The output folder as a redrive adds to it: the same steps as commit.py, into folders that are there already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipelinejob import faults
from pipelinejob.commit import OutputFolder, RoundClosedError, sync_folder
from pipelinejob.records import SUMMARY

if TYPE_CHECKING:
    from pipelinejob.store import Job


class RedriveFolder(OutputFolder):
    """The output folder of a job, as a redrive of it adds to it: image by image into the folders that there are, then the
    record by a link, which is the commit: the first of two processes wins, and there is nothing to collect."""

    def __init__(self, path: Path, uid: str, owner: str, redrive: int) -> None:
        super().__init__(path, uid, owner)
        self.redrive = redrive

    def open_round(self, round_number: int) -> Path:
        self.records.mkdir(exist_ok=True)
        return super().open_round(round_number)

    def _commit(self, attempt: Path, *, durable: bool) -> None:
        record, home = self.record_file(int(attempt.name)), self.images / attempt.name
        try:
            if not record.exists():
                home.mkdir(exist_ok=True)
                for item in sorted(attempt.iterdir()):
                    if item.name != SUMMARY:
                        item.rename(home / item.name)
                        faults.point("moved")
                if durable:
                    sync_folder(home)
                    sync_folder(self.images)
                with suppress(FileExistsError):
                    os.link(attempt / SUMMARY, record)
            (attempt / SUMMARY).unlink()
        except FileNotFoundError:
            if not record.exists():
                raise RoundClosedError(str(attempt)) from None
        if durable:
            sync_folder(self.records)

    def published(self) -> Iterator[int]:
        if self.records.exists():
            for path in sorted(self.records.glob(f"*.{self.redrive}.jsonl")):
                yield int(path.name.partition(".")[0])

    def published_record(self, first_row: int) -> Path:
        return self.record_file(first_row)


def output_folder(job: Job, root: Path) -> OutputFolder:
    """The output folder of a job.

    Args:
        job: the job, or a redrive of one.
        root: the folder that outputs are below.
    """
    if job.root_uid is None or job.redrive is None:
        return OutputFolder(root / job.output, job.uid)
    return RedriveFolder(root / job.output, job.uid, job.root_uid, job.redrive)
