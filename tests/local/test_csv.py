"""CSVs as they really come: every record is a row with an outcome, and its cells arrive unchanged."""

from __future__ import annotations

import csv
import io
import json

import pytest

from support.project import Project, Ran

HEADER = "row,id,reason,function,message,attempts\n"


def without_images(project: Project, **spec: object) -> str:
    """A job over rows.csv alone, so that only the reading is looked at."""
    source = {"images": None, **(spec.pop("source", {}) or {})}  # type: ignore[dict-item]
    return project.job(source=source, functions=[], **spec)


def completes(project: Project, *arguments: str) -> Ran:
    ran = project.run("run", *arguments, "--json")
    assert (ran.code, ran.json["phase"], ran.json["reason"]) == (0, "Complete", None), ran.err
    assert sum(count for name, count in ran.json["rows"].items() if name != "total") == ran.json["rows"]["total"]
    return ran


def cells(text: str, delimiter: str = ",") -> list[list[str]]:
    """What Python's csv module reads, without its empty lines: the oracle."""
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]


def metadata(project: Project, output: str = "out/job") -> list[list[str]]:
    """metadata.csv as the csv module reads it, without the url."""
    return [row[:-1] for row in cells(project.text(f"{output}/metadata.csv"))]


WEIRD = {
    "quoted line ends": 'id,name\n1,"two\nlines"\n2,"three\r\nlines\n\n"\n3,plain\n',
    "stray quotes": 'id,name\n1,5" nails\n2,a "quoted" word\n3,"closed"then more\n4,"say ""hi"""\n5,""\n6,x""\n7,"a"b"c"\n',
    "CRLF": 'id,name\r\n1,a\r\n2,"b\r\nc"\r\n3,\r\n',
    "mixed line ends": "id,name\n1,a\r\n2,b\n3,c\r\n",
    "no final line end": "id,name\n1,a\n2,b",
    "no final line end after a quote": 'id,name\n1,a\n2,"b\n"',
    "final carriage return in the last record": 'id,name\n1,a\n2,"b\r"\n',
    "empty lines": "\n\nid,name\n\n1,a\n\n\r\n2,b\n\n\n",
    "spaces kept": "id,name\n 1 ,  a  \n2,\t\n",
    "quoted commas": 'id,name\n1,"a,b"\n2,",,,"\n',
    "header in quotes": '"id","na""me, with\nall"\n1,a\n',
    "unicode": "id,näme\n1,żółć 🎽\n2,e\u0301\n3,\u2028x\u0085y\n",
    "a quote after a space is a character": 'id,name\n1, "a"\n2, "b\n3,c\n',
    "other line separators are characters": "id,name\n1,a\x0bb\x0cc\x1cd\n2,e\n",
}


@pytest.mark.parametrize("text", WEIRD.values(), ids=WEIRD.keys())
def test_cells_arrive_as_the_csv_module_reads_them(project: Project, text: str) -> None:
    project.write(text.encode())
    ran = completes(project, without_images(project, sharding={"batchRows": 2, "rowsPerShard": 2}))

    header, *rows = cells(text)
    assert ran.json["rows"]["succeeded"] == len(rows), project.failed()
    assert metadata(project) == [header, *rows]


def test_a_byte_order_mark_is_dropped(project: Project) -> None:
    project.write(b"\xef\xbb\xbfid,name\n1,a\n")
    completes(project, without_images(project))
    assert project.text("out/job/metadata.csv") == "id,name,url\n1,a,\n"


def test_a_line_of_spaces_is_a_row(project: Project) -> None:
    project.write("id,name\n1,a\n   \n\n2,b\n")
    completes(project, without_images(project))
    assert project.failed() == {1: ("MalformedRow", "expected 2 fields, found 1")}
    assert project.table("out/job/failures.csv")[0]["id"] == ""


@pytest.mark.parametrize("text", ["id,name\n", "id,name", "\n\nid,name\r\n\r\n\n"], ids=["LF", "no line end", "empty lines"])
def test_a_header_alone_is_complete(project: Project, text: str) -> None:
    project.write(text)
    ran = completes(project, project.job())

    assert ran.json["rows"] == {"total": 0, "succeeded": 0, "filtered": 0, "skipped": 0, "failed": 0, "pending": 0}
    assert ran.json["shards"] == {"total": 0, "active": 0, "succeeded": 0, "failed": 0}
    assert project.text("out/job/metadata.csv") == "id,name,url\n"
    assert project.text("out/job/failures.csv") == HEADER
    manifest = json.loads(project.text("out/job/manifest.json"))
    assert (manifest["batches"], manifest["input"]["rows"], manifest["counts"]["total"]) == ([], 0, 0)
    assert project.run("run", "job.yaml", "--json").code == 0


BROKEN = {
    "empty": (b"", "empty"),
    "only a BOM": (b"\xef\xbb\xbf", "empty"),
    "only line ends": (b"\n\r\n\n", "empty"),
    "UTF-16": ("id,name\n1,a\n".encode("utf-16"), "UTF-16"),
    "UTF-16 big-endian": (b"\xfe\xff" + "id,name\n1,a\n".encode("utf-16-be"), "UTF-16"),
    "two columns of one name": (b"id,name,id\n1,a,b\n", "'id'"),
    "a quote never closed": (b'id,name\n1,a\n2,"b\n3,c\n4,d\n', "line 3"),
    "a quote never closed after lines in quotes": (b'id,name\n1,"a\n\n"\n\n2,b\n3,x,"c\n', "line 7"),
    "a quote never closed in the header": (b'id,"name\n1,a\n', "line 1"),
    "CR-only": (b"id,name\r1,a\r2,b\r", "CR"),
}


@pytest.mark.parametrize(("data", "named"), BROKEN.values(), ids=BROKEN.keys())
def test_a_csv_that_cannot_be_read_is_input_invalid(project: Project, data: bytes, named: str) -> None:
    project.write(data)
    job = without_images(project)
    before = project.everything()

    ran = project.run("run", job, "--json")
    assert (ran.code, ran.json["reason"], ran.json["name"]) == (1, "InputInvalid", "job"), ran.err
    assert named in ran.json["message"] and "rows.csv" in ran.json["message"]
    assert str(project.root) not in ran.json["message"]
    planned = project.run("plan", job, "--json")
    assert (planned.code, planned.json["reason"]) == (1, "InputInvalid"), planned.err
    if not (project.root / "out").exists():
        assert project.everything() == before
    project.write("id,name\n1,a\n")  # a mended file runs, whatever the failed start left behind
    completes(project, job)


def test_a_quote_never_closed_far_into_the_file_names_its_line(project: Project) -> None:
    lines = [f'{row},"a\n{row}"' for row in range(60_000)]
    project.write("id,name\n" + "\n".join(lines) + '\n60000,"open\n60001,x\n')
    ran = project.run("run", without_images(project), "--json")
    assert (ran.code, ran.json["reason"]) == (1, "InputInvalid")
    assert "line 120002" in ran.json["message"]


def test_unquoted_commas_are_one_failed_row_each(project: Project) -> None:
    """The real Kaggle styles.csv: the last column holds commas without quotes."""
    project.images(*range(1, 7))
    project.write("id,gender,name\n1,Men,Shirt\n2,Men,Shirt, blue\n3,Men,Shirt\n4,Women,Dress, red, long\n5,Men\n6,Men,\n")
    ran = completes(project, project.job(source={"where": {"gender": "Men"}}, sharding={"batchRows": 2, "rowsPerShard": 2}))

    assert ran.json["rows"] == {"total": 6, "succeeded": 3, "filtered": 0, "skipped": 0, "failed": 3, "pending": 0}
    assert project.text("out/job/failures.csv") == HEADER + (
        '1,,MalformedRow,,"expected 3 fields, found 4",1\n'
        '3,,MalformedRow,,"expected 3 fields, found 5",1\n'
        '4,,MalformedRow,,"expected 3 fields, found 2",1\n'
    )
    assert [row["id"] for row in project.table("out/job/metadata.csv")] == ["1", "3", "6"]


def test_each_oddity_costs_its_own_row_alone(project: Project) -> None:
    project.write(
        b"id,name,note\n"
        b"0,ok,\n"
        b"1,bad \xff byte,\n"
        b"2,nul \0,\n"
        b"3,bare\rreturn,\n"
        b'4,"a\rquoted one",\n'
        b"5," + b"x" * (1 << 20) + b",exactly 1 MiB\n"
        b"6,ok," + b"x" * ((1 << 20) + 1) + b"\n"
        b'7,"\xc3\n\xa9",\n'
        b"8,\xc3\xa9,ok\n"
        b"9," + "é".encode() * (1 << 19) + b",exactly 1 MiB\n"
        b"10,a" + "é".encode() * (1 << 19) + b",over\n"
        b"11,last,\n"
    )
    ran = completes(project, without_images(project, sharding={"batchRows": 7, "rowsPerShard": 7}))

    failed = project.failed()
    assert {row: reason for row, (reason, _) in failed.items()} == dict.fromkeys((1, 2, 3, 6, 7, 10), "MalformedRow")
    assert "'name'" in failed[1][1] and "0xff" in failed[1][1]
    assert "NUL" in failed[2][1]
    assert "carriage return" in failed[3][1]
    assert "'note'" in failed[6][1] and "1 MiB" in failed[6][1]
    assert "'name'" in failed[7][1] and "0xc3" in failed[7][1]
    assert "'name'" in failed[10][1] and "1 MiB" in failed[10][1]
    assert [row["id"] for row in project.table("out/job/failures.csv")] == [""] * 6
    assert ran.json["rows"]["succeeded"] == 6
    kept = {row["id"]: row["name"] for row in project.table("out/job/metadata.csv")}
    assert list(kept) == ["0", "4", "5", "8", "9", "11"]
    assert kept["4"] == "a\rquoted one" and kept["8"] == "é"


@pytest.mark.parametrize("delimiter", [";", "\t", "|"], ids=["semicolon", "tab", "pipe"])
def test_other_delimiters(project: Project, delimiter: str) -> None:
    d = delimiter
    text = f'id{d}name{d}note\n1{d}"a{d}b"{d}c,d\n2{d}x{d}"""q"""\n3{d}{d}\n'
    project.write(text)
    completes(project, without_images(project, source={"delimiter": delimiter}))
    assert metadata(project) == cells(text, delimiter)
    assert project.text("out/job/metadata.csv").startswith("id,name,note,url\n")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "iso-8859-15"])
def test_other_encodings_become_utf_8(project: Project, encoding: str) -> None:
    text = "id,größe\n1,élan\n2,naïve «ß»\n"
    project.write(text.encode(encoding))
    project.images(1, 2)
    completes(project, project.job(source={"encoding": encoding, "where": {"größe": ["élan", "naïve «ß»"]}}))
    assert metadata(project) == cells(text)


def test_latin_1_read_as_utf_8_names_column_and_byte(project: Project) -> None:
    project.write("id,name\n1,élan\n2,ok\n".encode("latin-1"))
    completes(project, without_images(project))
    reason, message = project.failed()[0]
    assert reason == "MalformedRow" and "'name'" in message and "0xe9" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-7", "cp037", "nope", "rot13", "hz", "unicode_escape"])
def test_encodings_that_do_not_extend_ascii_are_refused(project: Project, encoding: str) -> None:
    project.write("id\n1\n")
    ran = project.run("run", without_images(project, source={"encoding": encoding}), "--json")
    assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec"), ran.err
    assert "spec.source.encoding" in ran.json["message"]


def test_a_column_named_url_wants_another_name_for_ours(project: Project) -> None:
    project.images(1)
    project.write("id,url\n1,https://example.org/1\n")
    ran = project.run("run", project.job(), "--json")
    assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec")
    assert "output.urlColumn" in ran.json["message"]

    completes(project, project.job(output={"path": "out/job", "urlColumn": "picture"}))
    assert project.text("out/job/metadata.csv") == "id,url,picture\n1,https://example.org/1,images/000000000/1.jpg\n"


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"idColumn": "sku"}, "spec.source.idColumn"),
        ({"images": "img/{file}.jpg"}, "spec.source.images"),
        ({"where": {"colour": "red"}}, "spec.source.where"),
        ({"idColumn": "ID"}, "spec.source.idColumn"),
    ],
)
def test_columns_that_the_file_lacks_are_listed(project: Project, source: dict[str, object], field: str) -> None:
    project.catalogue(1)
    job = project.job(source=source)
    for command in ("run", "plan"):
        ran = project.run(command, job, "--json")
        assert (ran.code, ran.json["reason"]) == (2, "InvalidSpec"), ran.err
        assert field in ran.json["message"]
        assert "id, gender, season, year, name" in ran.json["message"]
    assert not (project.root / "out").exists()


@pytest.mark.parametrize("batch_rows", [1, 3, 7])
def test_batches_and_shards_lose_no_row(project: Project, batch_rows: int) -> None:
    project.catalogue(23, without=[6], broken=[11])
    with open(project.root / "rows.csv", "a") as file:
        file.write('1023,Men,Fall,2010,"a\n\nb"\n\n1024,x\n')
    project.image("img/1023.jpg")
    sharding = {"batchRows": batch_rows, "rowsPerShard": 2 * batch_rows}
    ran = completes(project, project.job(sharding=sharding, source={"where": {"gender": "Men"}}))

    assert ran.json["rows"] == {"total": 25, "succeeded": 12, "filtered": 11, "skipped": 0, "failed": 2, "pending": 0}
    count = -(-25 // (2 * batch_rows))
    assert ran.json["shards"] == {"total": count, "active": 0, "succeeded": count, "failed": 0}
    for row in project.table("out/job/metadata.csv"):
        first = (int(row["id"]) - 1000) // batch_rows * batch_rows
        assert row["url"] == f"images/{first:09d}/{row['id']}.jpg"
    assert set(project.failed()) == {6, 24}
    manifest = json.loads(project.text("out/job/manifest.json"))
    assert [batch["first"] for batch in manifest["batches"]] == list(range(0, 25, batch_rows))


def test_rows_per_shard_is_rounded_up_to_whole_batches(project: Project) -> None:
    project.catalogue(10)
    ran = completes(project, project.job(sharding={"batchRows": 4, "rowsPerShard": 5}))
    assert ran.json["shards"]["total"] == 2
