"""Publishing into folders that are there: the first of two attempts wins, whole, and a closed round publishes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelinejob.commit import RoundClosedError
from pipelinejob.records import SUMMARY
from pipelinejob.redriven import RedriveFolder


def _attempt(folder: Path, name: str, **files: bytes) -> Path:
    attempt = folder / name / "000000200"
    attempt.mkdir(parents=True)
    for stem, data in files.items():
        (attempt / f"{stem}.jpg").write_bytes(data)
    (attempt / SUMMARY).write_text(json.dumps({"attempt": name, "succeeded": len(files)}) + "\n")
    return attempt


@pytest.fixture
def output(tmp_path: Path) -> RedriveFolder:
    made = RedriveFolder(tmp_path, "uid", "root", 3)
    made.ours.mkdir()
    made.open_round(1)
    (made.images / "000000200").mkdir()
    (made.images / "000000200" / "old.jpg").write_bytes(b"old")
    return made


def _files(output: RedriveFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output.images / "000000200").iterdir()}


@pytest.mark.parametrize("durable", [False, True])
def test_the_first_of_two_attempts_wins(output: RedriveFolder, durable: bool) -> None:
    first = _attempt(output.round_folder(1), "first", a=b"1")
    second = _attempt(output.round_folder(1), "second", a=b"2", b=b"2")
    assert output.publish(first, durable=durable)["attempt"] == "first"
    assert output.publish(second, durable=durable)["attempt"] == "first"
    assert _files(output) == {"old.jpg": b"old", "a.jpg": b"1"}
    assert list(output.published()) == [200] and output.is_published(200) and output.finished_attempts() == []
    assert (output.records / "000000200.3.jsonl").exists()


def test_an_attempt_that_was_cut_off_is_published_by_the_next_process(output: RedriveFolder) -> None:
    attempt = _attempt(output.round_folder(1), "first", a=b"1", b=b"1")
    (attempt / "a.jpg").rename(output.images / "000000200" / "a.jpg")
    assert output.finished_attempts() == [attempt]
    assert output.publish(attempt, durable=False)["attempt"] == "first"
    assert _files(output) == {"old.jpg": b"old", "a.jpg": b"1", "b.jpg": b"1"}


def test_a_closed_round_publishes_nothing(output: RedriveFolder) -> None:
    attempt = _attempt(output.round_folder(1), "first", a=b"1")
    output.close_rounds()
    with pytest.raises(RoundClosedError):
        output.publish(attempt, durable=False)
    assert _files(output) == {"old.jpg": b"old"} and not output.is_published(200)
