"""Corrupt CSVs through the command line: a job over what Python's csv module reads, or a file that is named as invalid."""

from __future__ import annotations

import os
import random

import pytest

from support import corrupt
from support.csv_oracle import csv_rows, quote_left_open
from support.project import Project

FILES = int(os.environ.get("FUZZ_ROWS", "1500")) // 150
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CATALOGUE = (corrupt.SAMPLES.parent / "styles.csv").read_bytes()
PIECES = [
    b'"',
    b'""',
    b",",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b'\n"',
    b'",',
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\x1a",
    b"=1+1",
    b"\n" * 50,
]
WAYS = [way for way in corrupt.WAYS if way.__name__ in ("_cut", "_flip_bits", "_remove", "_repeat", "_noise", "_garbage_behind")]


def broken(seed: int) -> bytes:
    """The sample catalogue with some of what CSVs suffer from."""
    rng = random.Random(seed)
    data = CATALOGUE
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        data = rng.choice(WAYS)(data, rng) if rng.random() < 0.4 else data[:at] + rng.choice(PIECES) + data[at:]
    return data


@pytest.mark.parametrize("seed", range(SEED * 100_000, SEED * 100_000 + FILES))
def test_a_broken_csv(project: Project, seed: int) -> None:
    data = broken(seed)
    project.write(data)
    ran = project.run("run", project.job(source={"images": None}, functions=[], sharding={"batchRows": 7}), "--json", timeout=30)
    assert "Traceback" not in ran.err and "please report" not in ran.err, ran
    if ran.code != 0:
        assert (ran.code, ran.json["reason"]) in ((1, "InputInvalid"), (2, "InvalidSpec")), ran
        assert quote_left_open(data) or data[:200] != CATALOGUE[:200], f"the header is sound, and every quote is closed: {ran}"
        return
    rows = ran.json["rows"]
    expected = len(csv_rows(data)) - 1
    assert rows["total"] == expected == rows["succeeded"] + rows["failed"] and rows["pending"] == 0
    assert {row["reason"] for row in project.table("out/job/failures.csv")} <= {"MalformedRow"}
    assert len(project.table("out/job/metadata.csv")) == rows["succeeded"]
