"""A build that is wrong on purpose: a batch is recorded first, and renamed into place afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelinejob import commit
from pipelinejob.committer import Committer

_rename = commit.OutputFolder._commit
_record = Committer._record
_published: list[tuple[Any, Path, bool]] = []


def _only_noted(self: Any, attempt: Path, *, durable: bool) -> None:
    _published.append((self, attempt, durable))


def _recorded_then_renamed(self: Any, ready: Any) -> None:
    _record(self, ready)
    while _published:
        output, attempt, durable = _published.pop()
        _rename(output, attempt, durable=durable)


def _summary_before_the_rename(self: Any, first_row: int) -> dict[str, Any]:
    paths = [attempt for _, attempt, _ in _published if int(attempt.name) == first_row]
    return commit.read_summary(paths[-1] / commit.SUMMARY if paths else self.published_record(first_row))


commit.OutputFolder._commit = _only_noted
commit.OutputFolder.summary_of = _summary_before_the_rename
Committer._record = _recorded_then_renamed
