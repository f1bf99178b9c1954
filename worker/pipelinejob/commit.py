"""The commit protocol: how a finished batch becomes part of the output, once, whatever dies in between.

    attempt folder ── make durable ──▶ rename to images/<first row>/ ── the commit ──▶ record in the ledger

The same on a laptop and in pods; no Kubernetes, no processes. Everything of ours lives in `<output>/.pipelinejob/`:

    owner.json                      whose output this is
    lock                            held by the processes of a run
    <uid>/open-<round>/<process>/   attempt folders; renaming the round's folder away fences all its processes
    <uid>/marks[-<shard>]/          the rows that processes are at, or died at, in all rounds (deaths.py)
    previous/                       until finalize: what the job made that this one is incremental of (reuse.py)
    records/<first row>.jsonl       after finalize: the batches' records, and those of redrives (records.py)
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelinejob import faults, names
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.records import SUMMARY, read_summary, record_name

OURS = ".pipelinejob"


class RoundClosedError(Exception):
    """The round is over: nothing of it can be published any more."""


class OutputFolder:
    """The output folder of one job, with the steps of the protocol that touch the file system."""

    redrive: int | None = None

    def __init__(self, path: Path, uid: str, owner: str | None = None) -> None:
        self.path = path
        self.images = path / "images"
        self.ours = path / OURS
        self.records = self.ours / "records"
        self._job = self.ours / uid
        self.owner = owner or uid

    def round_folder(self, round_number: int) -> Path:
        """Where the attempt folders of a round are."""
        return self._job / f"open-{round_number}"

    def own_file(self, name: str) -> Path:
        """A file of the job itself, which goes when its rounds are closed for good."""
        return self._job / name

    def open_round(self, round_number: int) -> Path:
        """Makes the folders of a round."""
        self.images.mkdir(exist_ok=True)
        self._job.mkdir(exist_ok=True)
        folder = self.round_folder(round_number)
        folder.mkdir(exist_ok=True)
        return folder

    def open_marks(self, shard: int | None = None) -> Path:
        """Makes the folder for the marks of those who run a shard, or the whole job; a round must be open."""
        folder = self._job / ("marks" if shard is None else f"marks-{shard}")
        folder.mkdir(exist_ok=True)
        return folder

    def check_owner(self) -> None:
        """Makes sure that the folder is still this job's: a process that was cut off may be older than a new owner.

        Raises:
            JobError: OutputConflict.
        """
        owner = read_owner(self.path)
        if owner is None or owner["uid"] != self.owner:
            whose = f"belongs to the job {owner['namespace']}/{owner['name']} (uid {owner['uid']})" if owner else "is gone, or nobody's"
            raise JobError(
                JobReason.OUTPUT_CONFLICT,
                f"the output folder {self.path} {whose}: it was changed from outside; put it back, or start the job anew",
            )

    def close_rounds(self) -> None:
        """Fences all rounds, and removes all that was only for them."""
        if self._job.exists():
            self.fence()
            _remove(self._job)

    def fence(self) -> None:
        """Renames the folders of all rounds away, then removes them until they are gone; marks stay."""
        if not self._job.exists():
            return
        for folder in sorted(self._job.glob("open-*")):
            with suppress(FileNotFoundError):  # another process does the same
                folder.rename(self._job / f"closed-{uuid.uuid4().hex}")
        faults.point("closed")
        for folder in self._job.glob("closed-*"):
            _remove(folder)

    def clear_drafts(self) -> None:
        """Removes files that were not written to their end, as by a process that was killed."""
        for pattern in ("*.part", "owner-*.json"):
            for draft in self.ours.glob(pattern):
                draft.unlink(missing_ok=True)

    def is_open(self) -> bool:
        """Whether there is anything that finalize has not dealt with."""
        return self._job.exists() or next(self.published(), None) is not None

    def finished_attempts(self) -> list[Path]:
        """Attempt folders, of any round, whose batch is complete but not published."""
        return sorted(item.parent for item in self._job.glob(f"open-*/*/*/{SUMMARY}"))

    def publish(self, attempt: Path, *, durable: bool) -> dict[str, Any]:
        """Publishes a finished batch, and returns the summary to record: that of the published folder, whoever
        published it.

        A batch without a succeeded or skipped row has nothing to publish; its record is all there is of it.

        Raises:
            RoundClosedError: the round is over.
        """
        try:
            summary = read_summary(attempt / SUMMARY)
            if summary["succeeded"] == 0 and not summary.get("skipped_keys"):
                return summary
            if durable:
                _sync(attempt)
            faults.point("durable")
            self._commit(attempt, durable=durable)
            faults.point("published")
            return self.summary_of(int(attempt.name))
        except FileNotFoundError:  # gone with its round; or, at the end, collected by who finalized the job meanwhile, and recorded it
            raise RoundClosedError(str(attempt)) from None

    def _commit(self, attempt: Path, *, durable: bool) -> None:
        target = self.images / attempt.name
        try:
            attempt.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            if not (target / SUMMARY).exists():
                raise RoundClosedError(str(attempt)) from None
        if durable:
            sync_folder(self.images)

    def published(self) -> Iterator[int]:
        """The first rows of published batches whose records finalize has not collected."""
        if self.images.exists():
            for folder in sorted(self.images.iterdir()):
                if (folder / SUMMARY).exists():
                    yield int(folder.name)

    def is_published(self, first_row: int) -> bool:
        """Whether that batch is published, and its record not collected by finalize."""
        return self.published_record(first_row).exists()

    def summary_of(self, first_row: int) -> dict[str, Any]:
        """The summary of a published batch."""
        return read_summary(self.published_record(first_row))

    def published_record(self, first_row: int) -> Path:
        """Where publishing puts the record of a batch."""
        return self.images / names.folder(first_row) / SUMMARY

    def record_file(self, first_row: int) -> Path:
        """Where finalize finds the record of a batch."""
        return self.records / record_name(first_row, self.redrive)


def claim_output(path: Path, owner: dict[str, str]) -> None:
    """Makes `owner` ({uid, namespace, name}) the owner of an output folder; it is made if missing.

    The file appears whole or not at all, and only one owner can make it.

    Raises:
        JobError: OutputConflict, when it belongs to another job or holds files that are not ours.
    """
    ours = path / OURS
    if holds_other_files(path):
        raise JobError(
            JobReason.OUTPUT_CONFLICT,
            f"the output folder {path} is not empty and was not made by PipelineJob: choose another spec.output.path, or empty it",
        )
    ours.mkdir(parents=True, exist_ok=True)
    draft = ours / f"owner-{uuid.uuid4().hex}.json"
    try:
        draft.write_text(json.dumps(owner) + "\n")
        os.link(draft, ours / "owner.json")
    except FileExistsError:
        found = read_owner(path)
        if found is not None and found["uid"] != owner["uid"]:
            raise JobError(
                JobReason.OUTPUT_CONFLICT,
                f"the output folder {path} belongs to the job {found['namespace']}/{found['name']} (uid {found['uid']}): "
                "choose another spec.output.path, or delete that job and its output",
            ) from None
    finally:
        draft.unlink(missing_ok=True)


def take_over(path: Path, owner: dict[str, str], previous: str) -> bool:
    """Makes `owner` the owner of the output folder of another job, whose uid is `previous`; False when that job is not its owner.

    Can be done again.
    """
    found = read_owner(path)
    if found is None or found["uid"] not in (owner["uid"], previous):
        return False
    if found["uid"] == previous:
        draft = path / OURS / f"owner-{uuid.uuid4().hex}.json"
        draft.write_text(json.dumps(owner) + "\n")
        os.replace(draft, path / OURS / "owner.json")
    return True


def holds_other_files(path: Path) -> bool:
    """Whether a folder has files and none of ours: somebody else's, that no job may write among. False for one that is missing."""
    try:
        found = os.listdir(path)  # once: a process beside this one may be making our folder
    except FileNotFoundError:
        return False
    return bool(found) and OURS not in found


def move_away(path: Path, uid: str) -> Path | None:
    """Keeps the output of a deleted job under another name, `<path>.<uid>`, and fences that job's processes.

    Returns:
        Where it is now; None when another process moved it first.
    """
    kept = path.with_name(f"{path.name}.{uid}")
    try:
        path.rename(kept)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise
        return None
    OutputFolder(kept, uid).close_rounds()
    return kept


def read_owner(path: Path) -> dict[str, str] | None:
    """Whose output a folder is, or None when it is nobody's."""
    try:
        owner: dict[str, str] = json.loads((path / OURS / "owner.json").read_text())
    except FileNotFoundError:
        return None
    return owner


def _remove(folder: Path) -> None:
    """Removes a folder until it is gone: a process that is not stopped yet may still add to it."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
    shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    """Makes a folder and its files survive the death of the machine."""
    for item in folder.iterdir():
        descriptor = os.open(item, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive the death of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
