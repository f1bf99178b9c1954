"""Job files: YAML with JSON's types, as kubectl would send it, and errors that say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelinejob import jobfile
from pipelinejob.jobfile import load
from pipelinejob.reasons import JobError, JobReason

HEAD = "apiVersion: pipelinejob.dev/v1alpha1\nkind: PipelineJob\nmetadata: {name: men}\n"
SPEC = "spec:\n  source: {csv: rows.csv}\n"
VALID = HEAD + SPEC


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def refusal(file: Path, text: str | bytes) -> str:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(JobError) as caught:
        load(file)
    assert caught.value.reason is JobReason.INVALID_SPEC
    return caught.value.message


def where(file: Path, text: str) -> Any:
    """What a value in a job file is read as; `where` takes strings and numbers as they are."""
    file.write_text(HEAD + f"spec:\n  source:\n    csv: rows.csv\n    where: {{c: {text}}}\n", encoding="utf-8")
    return load(file)[0].spec.source.where["c"]


def test_a_job_and_its_functions(file: Path) -> None:
    (file.parent / "fn.py").write_text("def mark(image, row):\n    return {}\n")
    file.write_text(
        VALID + "  functions:\n  - {name: resize, params: {width: 2, height: 3}}\n  - {name: mark, file: fn.py}\n  parallelism: 4\n"
    )
    job, functions = load(file)
    assert (job.metadata.name, job.spec.source.csv, job.spec.parallelism) == ("men", "rows.csv", 4)
    assert [(step["name"], step["timeoutSeconds"]) for step in functions] == [("resize", 300), ("mark", 300)]
    assert functions[0]["params"] == {"width": 2, "height": 3, "fit": "stretch", "filter": "bilinear", "background": "white"}
    assert functions[1]["path"] == str((file.parent / "fn.py").resolve())


def test_what_users_code_prints_stays_off_standard_output(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "fn.py").write_text("print('loaded')\ndef mark(image, row):\n    return {}\n")
    file.write_text(VALID + "  functions: [{name: mark, file: fn.py}]\n")
    load(file)
    assert capsys.readouterr() == ("", "loaded\n")


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2010-01-01", "2010-01-01"), ("2010-01-01T00:00:00Z", "2010-01-01T00:00:00Z"), ("12:30:00", "12:30:00"), ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("10", 10), ("-7", -7), ("+7", 7), ("010", 8), ("0o17", 15), ("0x10", 16), ("0xFf", 255), ("-0x1F", -31), ("0b11", 3),
        ("1_000", 1000),
        ("0", 0), ("00", 0), ("08", 8), ("09.5", 9.5), ("018446744073709551616", 18446744073709551616), ("18446744073709551615", 2**64 - 1),
        ("1e3", 1000), ("1E3", 1000), ("1e-2", 0.01), (".5", 0.5), ("5.", 5), ("1.0", 1), ("-1.50", -1.5), ("1_0.5", 10.5), ("1.5e+1", 15),
        ("1e400", "1e400"), ("0x", "0x"), ("0b2", "0b2"), ("0x_", "0x_"), ("_1", "_1"), (".", "."), ("+", "+"), ("-", "-"), ("1e", "1e"),
        ("1.2.3", "1.2.3"), (".inf", ".inf"), (".nan", ".nan"), ("=", "="), ("<<", "<<"), ("10 kg", "10 kg"),
        ("0x" + "f" * 40, "0x" + "f" * 40),
        ("'10'", "10"), ('"yes"', "yes"), ("!!str 10", "10"), ("!!str yes", "yes"), ("!!float 10", 10), ("!!int 0x10", 16),
        ("Yes.", "Yes."), ("yEs", "yEs"), ("nul", "nul"), ('"😀 é"', "😀 é"), ('"\\U0001f600"', "😀"), ("|\n      text\n", "text\n"),
    ],
)  # fmt: skip
def test_scalars(file: Path, text: str, value: object) -> None:
    if text.startswith("|"):
        file.write_text(HEAD + f"spec:\n  source:\n    csv: rows.csv\n    where:\n     c: {text}", encoding="utf-8")
        found = load(file)[0].spec.source.where["c"]
    else:
        found = where(file, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], "true"),
        (["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], "false"),
        (["~", "null", "Null", "NULL", ""], "null"),
    ],
)
def test_words_that_are_no_strings(file: Path, words: list[str], value: str) -> None:
    for word in words:
        with pytest.raises(JobError) as caught:
            where(file, word)
        assert caught.value.message == f"spec.source.where.c: must be a string or a number, got {value}: quote it"


def test_a_number_is_the_same_however_it_is_written(file: Path) -> None:
    """JSON knows one kind of number: kubectl sends 4.0 as 4."""
    file.write_text(
        HEAD + "spec:\n  source: {csv: rows.csv, maxPixels: 1e6}\n  parallelism: 4.0\n  failurePolicy: {maxFailedRowsPercent: 5.0}\n"
    )
    spec = load(file)[0].spec
    assert (spec.parallelism, spec.source.max_pixels, spec.failure_policy.max_failed_rows_percent) == (4, 1_000_000, 5)


def test_keys_are_strings(file: Path) -> None:
    file.write_text(HEAD + "spec:\n  source: {csv: rows.csv, where: {2010: a, 1.5: b, y: c, '010': d, 010: e, 2010-01-01: f}}\n")
    assert load(file)[0].spec.source.where == {"2010": "a", "1.5": "b", "true": "c", "010": "d", "8": "e", "2010-01-01": "f"}
    for key, shown in (("~", "None"), ("[a]", "a list"), ("{a: 1}", "a mapping")):
        assert f"a key must be a string, got {shown}" in refusal(file, HEAD + f"spec: {{? {key} : 1}}\n")


@pytest.mark.parametrize(
    "value",
    ["!!float x", "!!int 1.5", "!!int x", "!!bool x", "!!bool 1", "!!null x", "!!timestamp 2010-01-01", "!!timestamp x", "!!binary eA==",
     "!!set {a}",
     "!!omap [a: 1]", "!!pairs [a: 1]", "!!python/name:os.system", "!!python/object/apply:os.system [ls]", "!own x", "!!str [a]",
     "!!map [a]", "!!seq {a: 1}",
     "!!int [1]"],
)  # fmt: skip
def test_tags_that_json_has_no_type_for(file: Path, value: str) -> None:
    message = refusal(file, VALID + f"  functions: [{{name: resize, params: {{a: {value}}}}}]\n")
    assert message.startswith(f"{file}, line 6, column ") and ": no valid YAML: " in message


# --- anchors, merge keys, duplicates ----------------------------------------------------------------------------------


def test_anchors_and_merge_keys(file: Path) -> None:
    file.write_text(
        "defaults: &defaults {csv: rows.csv, delimiter: ';', where: &men {gender: Men, year: 1}}\n---\n" + HEAD + "spec:\n"
        "  source: &source\n"
        "    csv: rows.csv\n"
        "    where: &w {a: 1, b: &list [u, v]}\n"
        "  functions: [{name: resize, params: &size {width: 5, height: 6}}, {name: resize, params: {<<: *size, width: 7}}]\n"
        "  output: {path: out}\n"
    )
    assert [step["params"]["width"] for step in load(file)[1]] == [5, 7]
    file.write_text(
        HEAD + "spec:\n  source:\n    csv: rows.csv\n    where:\n      a: &a {gte: 1, lt: 9}\n      b: &b {<<: *a, lt: 5}\n"
        "      c: {gte: 2, <<: *b}\n      d: {<<: [*b, {ne: 3}]}\n      e: *a\n      <<: {a: dropped, z: kept}\n"
    )
    assert load(file)[0].spec.source.where == {
        "z": "kept",
        "a": {"gte": 1, "lt": 9},
        "b": {"gte": 1, "lt": 5},
        "c": {"gte": 2, "lt": 5},
        "d": {"gte": 1, "lt": 5, "ne": 3},
        "e": {"gte": 1, "lt": 9},
    }


def test_merging_what_stands_above_in_the_same_mapping(file: Path) -> None:
    file.write_text(HEAD + "spec:\n  source:\n    csv: r.csv\n    where: {p: &p {gte: 1}, q: &q {<<: *p, lt: 2}, r: {<<: *q, gte: 3}}\n")
    assert load(file)[0].spec.source.where["r"] == {"gte": 3, "lt": 2}
    merged = HEAD + "spec:\n  source:\n    csv: r.csv\n    where:\n      x: &x {<<: {gte: 1}, gte: 2}\n      z: {<<: *x}\n"
    file.write_text(merged)
    assert load(file)[0].spec.source.where == {"x": {"gte": 2}, "z": {"gte": 2}}


@pytest.mark.parametrize(
    ("text", "place", "key"),
    [
        (VALID + "  seed: 1\n  mode: run\n  seed: 1\n", "line 8, column 3", "seed"),
        (HEAD + "spec:\n  source: {csv: a, csv: b}\n", "line 5, column 20", "csv"),
        (VALID + "kind: PipelineJob\n", "line 6, column 1", "kind"),
        (HEAD + "spec: {source: {csv: a, where: {10: 1, '10': 2}}}\n", "line 4, column 40", "10"),
        (HEAD + "spec: {source: {csv: a, where: {y: 1, on: 2}}}\n", "line 4, column 39", "true"),
        (VALID + "  <<: {seed: 1}\n  <<: {seed: 1}\n", "line 7, column 3", "<<"),
        ("a: 1\na: 2\n---\n" + VALID, "line 2, column 1", "a"),
    ],
)
def test_a_key_that_stands_twice(file: Path, text: str, place: str, key: str) -> None:
    assert refusal(file, text) == f"{file}, {place}: no valid YAML: the key {key!r} stands twice"


def test_keys_that_python_takes_for_equal_are_two(file: Path) -> None:
    file.write_text(HEAD + "spec: {source: {csv: a, where: {1: a, on: b}}}\n")
    assert load(file)[0].spec.source.where == {"1": "a", "true": "b"}


@pytest.mark.parametrize(
    "text",
    [
        "&a {kind: PipelineJob, spec: *a}",
        "&a [*a]",
        "kind: PipelineJob\nspec: &a {x: *a}",
        "kind: PipelineJob\nspec: &a {<<: *a}",
        "kind: PipelineJob\nspec: &a {? *a : 1}",
        "[" * 10_000,
        "[" * 300 + "]" * 300,
        "{a: " * 5000 + "1" + "}" * 5000,
        "a: &a ["
        + "x," * 100
        + "]\n"
        + "".join(f"{c}: &{c} [" + f"*{b}," * 100 + "]\n" for b, c in zip("abcdefg", "bcdefgh", strict=True)),
        "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [" + f"*a{n}," * 10 + "]\n" for n in range(9)) + "? *a9\n: 1\n",
        "a0: &a0 {k: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}], z: 1}}\n" for n in range(40)),
        "a: &a {" + "".join(f"k{n}: 1, " for n in range(9000)) + "}\nb: {<<: [" + "*a, " * 100_000 + "]}\n",
        "spec:\n" + "- a\n" * 100_000,
        "spec: {parallelism: '" + "x" * 1_000_000 + "'}",
        "".join(f"k{n}: 1\n" for n in range(20_000)),
        "x" * 2_000_000,
    ],
    ids=[
        "root",
        "list",
        "inner",
        "merge",
        "key",
        "deep",
        "less-deep",
        "deep-flow",
        "laughs",
        "laughing-key",
        "laughing-merge",
        "merges",
        "values",
        "value",
        "problems",
        "large",
    ],
)
@pytest.mark.timeout(20)
def test_endless_and_deep_documents(file: Path, text: str) -> None:
    """Little time, little memory, and a message that people can read."""
    assert 0 < len(refusal(file, text)) < 12_000


# --- files ------------------------------------------------------------------------------------------------------------


def test_several_documents(file: Path) -> None:
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
    file.write_text(f"---\n{other}---\n---\n{VALID}---\n- 1\n---\ntext\n...\n")
    assert load(file)[0].metadata.name == "men"
    assert refusal(file, f"{VALID}---\n{other}---\n{VALID}") == f"{file}: holds 2 PipelineJobs: put each into a file of its own"


def test_no_pipelinejob(file: Path) -> None:
    message = refusal(file, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {}\n")
    assert message.startswith(f"{file}:\n  apiVersion: must be ") and "\n  kind: must be 'PipelineJob', got 'ConfigMap'\n" in message
    for text in ("- 1\n", "text\n", "7", "[]"):
        assert refusal(file, text) == "expected a mapping with apiVersion, kind, metadata and spec"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "---\n---\n", "null", "\ufeff"])
def test_an_empty_file(file: Path, text: str) -> None:
    assert refusal(file, text) == f"{file}: is empty: expected a PipelineJob"


def test_files_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    advice = "pass the path of a job file"
    for path, why in [
        (tmp_path / "gone.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(JobError) as caught:
            load(path)
        assert (caught.value.reason, caught.value.message) == (JobReason.INVALID_SPEC, f"{path}: cannot be read ({why}): {advice}")
    for data in (b"\xff\xfea\x00", b"a: \xe9\n", VALID.encode("utf-16")):
        assert refusal(file, data) == f"{file}: cannot be read (it is not UTF-8 text): {advice}"


@pytest.mark.parametrize(
    ("text", "place"),
    [("a: [1\n", ", line 2, column 1"), ("a: b: c\n", ", line 1, column 5"), ("\ta: 1\n", ", line 1, column 1"),
     ("a: *x\n", ", line 1, column 4"),
     ("a: 'x\n", ", line 2, column 1"), ("%YAML 9.9\n---\n", ", line 1, column 1"), ("a: \x01\n", ""),
     ('{"a": 1,, }', ", line 1, column 9")],
)  # fmt: skip
def test_what_is_no_yaml(file: Path, text: str, place: str) -> None:
    assert refusal(file, text).startswith(f"{file}{place}: no valid YAML: ")


def test_line_ends_and_a_bom_do_not_matter(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load(file)[0].spec.source.csv == "rows.csv"


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_files(file: Path, indent: int | str | None, ascii_only: bool) -> None:
    document: dict[str, Any] = yaml.safe_load(VALID)
    document["spec"]["source"]["where"] = {"ü😀": "\u2028😀", "n": 1.0, "e": 1e3, "yes": "2010-01-01"}
    file.write_text(json.dumps(document, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    found = load(file)[0].spec.source.where
    assert found == document["spec"]["source"]["where"]
    assert type(found["n"]) is type(found["e"]) is int


def test_json_that_is_wrong(file: Path) -> None:
    assert (
        refusal(file, '{"kind": "PipelineJob",\n "kind": "PipelineJob"}')
        == f"{file}, line 2, column 2: no valid YAML: the key 'kind' stands twice"
    )
    assert "must be a finite number" in refusal(file, '{"kind": "PipelineJob", "spec": {"seed": NaN}}')
    assert "must be text without NUL" in refusal(file, '{"kind": "PipelineJob", "spec": {"mode": "\\ud800"}}')
    assert refusal(file, '{"kind": ' * 100_000)


# --- what the messages say --------------------------------------------------------------------------------------------


def test_one_problem_is_one_line_and_several_name_the_file(file: Path) -> None:
    assert refusal(file, VALID + "  parallelism: 0\n") == "spec.parallelism: must be at least 1, got 0"
    text = VALID + "  parallelism: 0\n  paralelism: 1\n"
    assert (
        refusal(file, text)
        == f"{file}:\n  spec.parallelism: must be at least 1, got 0\n  spec.paralelism: unknown field; did you mean 'parallelism'?"
    )


def test_functions_are_checked_down_to_their_params(file: Path) -> None:
    text = VALID + "  functions:\n  - {name: grayscale}\n  - {name: resize, params: {width: 0, height: 5}}\n"
    assert refusal(file, text) == "spec.functions[1].params.width: must be a positive integer of at most 16384, got 0"
    text = VALID + "  functions:\n  - {name: resiz}\n  - {name: mark, file: gone.py}\n"
    assert refusal(file, text) == (
        f"{file}:\n  spec.functions[0].name: no built-in function 'resiz'; did you mean 'resize'?\n"
        "  spec.functions[1].file: gone.py: No such file or directory"
    )
    text = VALID + "  functions: [{name: center_crop}]\n"
    assert refusal(file, text) == "spec.functions[0].params: expected either ratio, or width and height, got none of them"


# --- nothing but JobError ---------------------------------------------------------------------------------------------

tokens = st.sampled_from(
    ["kind: PipelineJob", "spec:", "source:", "csv", "where", ":", ": ", "- ", "? ", "\n", "\n  ", "\n    ", "[", "]", "{", "}", ",",
     "&a ", "*a", "<<: *a", "!!int ",
     "!!map ", "!!set ", "!!float ", "!!timestamp ", "!!binary ", "! ", "!x ", "|\n", ">-\n", "'", '"', '"\\ud800"', '"\\0"', "#",
     "---\n", "...\n", "%TAG ! x\n", "1:30",
     "2010-01-01", "0x", "0b_", "1e999", "1" * 5000, "~", "y", "=", "<<", "\t", "\0", "\x85", "\u2028", "\ufeff", "é", "@", "`"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.lists(tokens, max_size=14).map("".join), st.text(max_size=30)), placed=st.booleans())
@example("&a {kind: PipelineJob, ? *a : *a}", False)
@example("!!int [1]", True)
@example("{? !!float x : 1}", True)
def test_any_text_is_a_job_or_a_job_error(tmp_path_factory: pytest.TempPathFactory, text: str, placed: bool) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    whole = VALID + f"  functions: [{{name: resize, params: {{width: {text}, height: 1}}}}]\n" if placed else text
    file.write_bytes(whole.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobfile, "MAX_VALUES", 1000)
        try:
            load(file)
        except JobError as error:
            assert error.reason is JobReason.INVALID_SPEC and error.message
