"""The plan against Python's csv module, rule by rule and at random, with blocks so small that every carry occurs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinejob import boundaries, header, plan
from pipelinejob.checksum import checksum
from pipelinejob.header import read_header
from pipelinejob.plan import CsvIndex, Shard, scan, shards
from pipelinejob.reasons import JobError, JobReason
from support.csv_oracle import csv_rows, quote_left_open

HEADER = b"id,name\n"


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "in.csv"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refusal(path: Path, data: bytes, **options: object) -> JobError:
    """The error that scan raises, which read_header may not contradict."""
    with pytest.raises(JobError) as caught:
        scan(write(path, data), **options)  # type: ignore[arg-type]
    assert str(path) in caught.value.message
    return caught.value


def ranges(index: CsvIndex) -> list[tuple[int, int]]:
    ends = [index.header.byte_end, *(end for end, _ in index.batches())]
    return list(pairwise(ends))


def check_against_csv(path: Path, data: bytes, batch_rows: int, delimiter: str = ",", limit: int | None = None) -> None:
    """Every batch, parsed alone, holds exactly its rows; counts and digests are right."""
    oracle = csv_rows(data, delimiter)[1:]
    wanted = oracle[:limit]
    index = scan(write(path, data), delimiter=delimiter, encoding="latin-1", batch_rows=batch_rows, limit=limit)
    assert (index.total_rows, index.rows) == (len(oracle), len(wanted))
    assert (index.bytes, index.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert index.mtime_ns == path.stat().st_mtime_ns
    batches = [csv_rows(b"\n" + data[start:end], delimiter) for start, end in ranges(index)]
    assert batches == [wanted[at : at + batch_rows] for at in range(0, len(wanted), batch_rows)]
    assert [found for _, found in index.batches()] == [checksum(data[start:end]) for start, end in ranges(index)]
    for start, end in ranges(index):
        assert data[end - 1 : end] == b"\n" or end == len(data)
        assert start < end


pieces = st.sampled_from(['"', '""', '"""', ",", ";", "\n", "\r\n", "\r", "a", " ", "é", '"a"', ',"', '",', '"\n', '\n"', "\n\n"])
wild = st.lists(pieces, max_size=40).map("".join)
cells = st.one_of(
    st.sampled_from(["", "a", '5" pipe', '""', '"a""b"', '"x,y"', '"x\ny"', '"a"b"c"', '""""', '"\r"', '"""', "é", " "]),
    st.text('a,"\n\ré', max_size=6).map(lambda text: '"' + text.replace('"', '""') + '"'),
)
rows = st.lists(cells, min_size=1, max_size=4).map(",".join)
tables = st.lists(st.one_of(rows, st.just("")), max_size=12).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n"]).map(lambda end: end.join(lines))
)


@settings(max_examples=600, deadline=None)
@given(
    text=st.one_of(wild, tables),
    bom=st.booleans(),
    block=st.integers(1, 7),
    batch_rows=st.integers(1, 4),
    limit=st.one_of(st.none(), st.integers(0, 5)),
    delimiter=st.sampled_from(",,;"),
)
def test_agrees_with_csv(
    tmp_path_factory: pytest.TempPathFactory,
    text: str, bom: bool, block: int, batch_rows: int, limit: int | None, delimiter: str,
) -> None:  # fmt: skip
    data = (b"\xef\xbb\xbf" if bom else b"") + b"\r\n" + HEADER.replace(b",", delimiter.encode()) + text.encode()
    path = tmp_path_factory.getbasetemp() / "random.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundaries, "BLOCK_BYTES", block)
        if quote_left_open(data, delimiter):
            assert refusal(path, data, delimiter=delimiter).reason is JobReason.INPUT_INVALID
        else:
            check_against_csv(path, data, batch_rows, delimiter, limit)


@settings(max_examples=200, deadline=None)
@given(text=tables, block=st.integers(1, 7))
def test_header_agrees_with_csv(tmp_path_factory: pytest.TempPathFactory, text: str, block: int) -> None:
    data = text.encode()
    path = write(tmp_path_factory.getbasetemp() / "header.csv", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boundaries, "BLOCK_BYTES", block)
        try:
            header = read_header(path, delimiter=",", encoding="latin-1")
        except JobError as error:
            first = csv_rows(data)[:1]
            bare_cr = "carriage return" in error.message and b"\r" in data
            assert not first or len(set(first[0])) < len(first[0]) or bare_cr or quote_left_open(data), error.message
        else:
            record = csv_rows(data[: header.byte_end])
            assert record == csv_rows(data)[:1]
            assert [cell.replace("\r", "r") for cell in header.columns] == [cell.replace("\r", "r") for cell in record[0]]
            assert data[: header.byte_end].endswith(b"\n") or header.byte_end == len(data)


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 19])
@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 0),
        (b"\n\r\n", 0),
        (b"\r", 0),
        (b"1,a\n\r", 1),
        (b"1,a", 1),
        (b"1,a\n", 1),
        (b"1,a\r", 1),
        (b"1,a\r\n2,b\r\n", 2),
        (b"\n1,a\n\n\r\n2,b\n\n", 2),
        (b"   \n", 1),
        (b"\r\r\n", 1),
        (b'1,5" pipe\n2,6" pipe\n', 2),
        (b'1,"a\nb"\n2,c\n', 2),
        (b'1,"a""\nb"\n', 1),
        (b'1,"""\n"""\n', 1),
        (b'1,"""a"""\n2,""\n', 2),
        (b'1,"a"b"\n2,c\n', 2),
        (b'1,"a"b,"c\nd"\n', 1),
        (b'1, "a\n2,b"\n', 2),
        (b"1,a\rb\n2,c\n", 2),
        (b'1,\r"a\n2,b"\n', 2),
        (b'\xef\xbb\xbf"a\n2,b"\n', 2),
        (b'"1","a"', 1),
        (b'1,"\n\n\r\n"\n2,b\n', 2),
        (b'""\n""\n', 2),
    ],
)
def test_rules(csv_file: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, count: int, block: int) -> None:
    monkeypatch.setattr(boundaries, "BLOCK_BYTES", block)
    for batch_rows in (1, 2, 200):
        check_against_csv(csv_file, HEADER + body, batch_rows)
    assert scan(csv_file, encoding="latin-1").total_rows == count


def test_bom_blank_lines_and_quotes_before_the_header(csv_file: Path) -> None:
    data = b'\xef\xbb\xbf\n\r\n"id,1","na\nme"\r\n1,a\n'
    header = read_header(write(csv_file, data), delimiter=",", encoding="utf-8")
    assert header == (("id,1", "na\nme"), data.index(b"1,a"))
    assert scan(csv_file).header == header


def test_header_without_line_end_and_no_rows(csv_file: Path) -> None:
    index = scan(write(csv_file, b"id,name"))
    assert (index.rows, index.header.byte_end, list(index.batches()), list(shards(index, 10))) == (0, 7, [], [])


def test_blank_lines_after_the_last_row_belong_to_no_batch(csv_file: Path) -> None:
    for batch_rows in (1, 2, 3):
        index = scan(write(csv_file, HEADER + b"1,a\n\n2,b\n\n\r\n\r"), batch_rows=batch_rows)
        assert ranges(index)[-1][1] == len(HEADER + b"1,a\n\n2,b\n")


def test_shards_are_whole_batches(csv_file: Path) -> None:
    lines = [b"%d,x\n" % number for number in range(10)]
    index = scan(write(csv_file, HEADER + b"".join(lines)), batch_rows=3)
    found = list(shards(index, 4))
    ends = [len(HEADER) + 4 * rows for rows in (3, 6, 9, 10)]
    checksums = [checksum(b"".join(lines[at : at + 3])) for at in (0, 3, 6, 9)]
    assert found == [
        Shard(0, 0, 6, len(HEADER), ends[1], tuple(ends[:2]), tuple(checksums[:2])),
        Shard(1, 6, 4, ends[1], ends[3], tuple(ends[2:]), tuple(checksums[2:])),
    ]
    assert [shard.rows for shard in shards(index, 1)] == [3, 3, 3, 1]
    assert [shard.rows for shard in shards(index, 100)] == [10]
    one, two = shards(index, 3), shards(index, 3)
    assert [next(one), next(two), next(one), next(two)] == [a for a in list(shards(index, 3))[:2] for _ in "ab"]
    with pytest.raises(ValueError, match="rows_per_shard"):
        next(shards(index, 0))


@pytest.mark.parametrize(("limit", "rows"), [(0, 0), (1, 1), (3, 3), (4, 4), (10, 10), (99, 10), (None, 10)])
def test_limit(csv_file: Path, limit: int | None, rows: int) -> None:
    data = HEADER + b"".join(b"%d,x\n" % number for number in range(10))
    index = scan(write(csv_file, data), batch_rows=3, limit=limit)
    assert (index.rows, index.total_rows, index.bytes) == (rows, 10, len(data))
    assert index.sha256 == hashlib.sha256(data).hexdigest()
    assert sum(shard.rows for shard in shards(index, 3)) == rows
    assert [shard.byte_end for shard in shards(index, 99)] == ([len(HEADER) + 4 * rows] if rows else [])


def test_batches_beyond_memory_go_to_disk(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SPOOL_BYTES", 100)
    data = HEADER + b"".join(b"%d,x\n" % number for number in range(10_000))
    index = scan(write(csv_file, data), batch_rows=1)
    assert index._spool._rolled  # type: ignore[attr-defined]
    assert b"".join(data[start:end] for start, end in ranges(index)) == data[len(HEADER) :]
    assert sum(shard.rows for shard in shards(index, 7)) == 10_000


@pytest.mark.parametrize("data", [b"", b"\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\r"])
def test_empty(csv_file: Path, data: bytes) -> None:
    error = refusal(csv_file, data)
    assert error.reason is JobReason.INPUT_INVALID
    assert "is empty" in error.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("id,a\n1,b\n".encode("utf-16"), "is UTF-16: save the file as UTF-8"),
        (b"\xfe\xff" + "id,a\n1,b\n".encode("utf-16-be"), "is UTF-16"),
        ("id,a\n1,b\n".encode("utf-16-le"), "is UTF-16"),
        ("id,a\n1,b\n".encode("utf-16-be"), "is UTF-16"),
        (b"id,a\0b\n1,b\n", "NUL byte in its header"),
        (b"id,a,id\n1,b,c\n", "columns 1 and 3 are called 'id': rename"),
        (b"id,\xff\n", "byte 0xff at position 3 of the header is not valid utf-8: save the file as UTF-8"),
        (b"id,name\r1,a\r2,b\r", "carriage return in its header outside quotes: save it with LF or CRLF"),
        (b'id,name\r1,"a\r2,b\r', "carriage return in its header"),
        (b"id,name\r\r\n1,a\r\n", "carriage return in its header"),
        (b'id,"name\n1,a\n', "never closed: it opens on line 1: close the quote"),
        (b'\n\n"id"\n1,"a\n2,b\n', "never closed: it opens on line 4: close the quote"),
        (HEADER + b'1,"x\ny"\n2,a\n3,"b""\n4,c\n', "opens on line 5"),
        (HEADER + b'1,"', "opens on line 2"),
        (HEADER + b'1,"\n\n', "opens on line 2"),
        (HEADER + b'1,"""', "opens on line 2"),
        (HEADER + b'1,"a"\n2,"b"c"\n"', "opens on line 4"),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 5, 1 << 19])
def test_invalid(csv_file: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str, block: int) -> None:
    monkeypatch.setattr(boundaries, "BLOCK_BYTES", block)
    error = refusal(csv_file, data)
    assert error.reason is JobReason.INPUT_INVALID
    assert words in error.message


def test_a_quoted_carriage_return_in_the_header_is_a_character(csv_file: Path) -> None:
    write(csv_file, b'id,"na\rme","b\r\nc"\r\n1,a,b\r\n')
    assert read_header(csv_file, delimiter=",", encoding="utf-8").columns == ("id", "na\rme", "b\r\nc")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a" * 3000, "header over"),
        (b'a,"' + b"b\n" * 1500, "the quote that opens on line"),
        (b"id,name\r" + b"1,a\r" * 900, "carriage return in its header"),
    ],
)
def test_header_too_long(csv_file: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str) -> None:
    monkeypatch.setattr(header, "MAX_HEADER_BYTES", 2000)
    monkeypatch.setattr(boundaries, "BLOCK_BYTES", 64)
    assert words in refusal(csv_file, data).message


def test_not_found(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no.csv", "does not exist"), (tmp_path, "is a folder")):
        for call in (scan, lambda path: read_header(path, delimiter=",", encoding="utf-8")):
            with pytest.raises(JobError, match=words) as caught:
                call(path)
            assert caught.value.reason is JobReason.INPUT_NOT_FOUND


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(csv_file: Path) -> None:
    write(csv_file, HEADER).chmod(0)
    with pytest.raises(JobError, match="Permission denied"):
        scan(csv_file)


def test_label_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^input/styles\.csv does not exist"):
        scan(tmp_path / "x.csv", label="input/styles.csv")


def test_a_file_that_changes_meanwhile(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PROGRESS_BYTES", 8)

    def append(_: int) -> None:
        with csv_file.open("ab") as file:
            file.write(b"3,c\n")

    with pytest.raises(JobError, match="changed while it was read") as caught:
        scan(write(csv_file, HEADER + b"1,a\n2,b\n"), progress=append)
    assert caught.value.reason is JobReason.INPUT_CHANGED


def test_progress(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PROGRESS_BYTES", 100)
    monkeypatch.setattr(boundaries, "BLOCK_BYTES", 10)
    told: list[int] = []
    scan(write(csv_file, HEADER + b"1,a\n" * 100), progress=told.append)
    assert told == [100, 200, 300, 400]


def test_errors_of_the_hashing_thread_surface(csv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundaries, "BLOCK_BYTES", 10)

    class Broken:
        def update(self, data: memoryview) -> None:
            if len(data):
                raise OSError("no hashing today")

    monkeypatch.setattr(hashlib, "sha256", lambda _: Broken())
    with pytest.raises(OSError, match="no hashing today"):
        scan(write(csv_file, HEADER + b"1,a\n" * 1000))


MEASURE = """
import resource, sys
from pathlib import Path
from pipelinejob import plan
from pipelinejob.reasons import JobError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    plan.scan(Path(sys.argv[1]), batch_rows=int(sys.argv[2]))
except JobError as error:
    print(error.message)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("data", "batch_rows"),
    [
        pytest.param(b"a" * (40 << 20), 200, id="a header that does not end"),
        pytest.param(HEADER + b"a" * (100 << 20), 200, id="one giant row"),
        pytest.param(HEADER + b'"a' * (20 << 20), 200, id="quotes"),
        pytest.param(HEADER + b'"\n' * (20 << 20), 200, id="quoted line ends"),
        pytest.param(HEADER + b"\n" * (40 << 20), 200, id="empty lines"),
        pytest.param(HEADER + b",\n" * (1 << 20), 1, id="a million batches"),
    ],
)
def test_memory(csv_file: Path, data: bytes, batch_rows: int) -> None:
    command = [sys.executable, "-c", MEASURE, str(write(csv_file, data)), str(batch_rows)]
    environment = {**os.environ, "PYTHONPATH": str(Path(plan.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout.split()[-1]) < 64 << 10, done.stdout
    csv_file.unlink()
