"""The spec: its defaults, what is refused and in which words, budgets, shards and digests."""

from __future__ import annotations

import copy
import encodings.aliases
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinejob import model
from pipelinejob.model import FailurePolicy, PipelineJob, Rows, budget_breach, job_digest, parse
from pipelinejob.reasons import JobError, JobReason

MINIMAL: dict[str, Any] = {
    "apiVersion": "pipelinejob.dev/v1alpha1",
    "kind": "PipelineJob",
    "metadata": {"name": "men-fall-2010"},
    "spec": {"source": {"csv": "fashion/styles.csv"}},
}
FULL: dict[str, Any] = {
    "apiVersion": "pipelinejob.dev/v1alpha1",
    "kind": "PipelineJob",
    "metadata": {"name": "full", "namespace": "shop", "labels": {"a": "b"}, "uid": "1-2"},
    "spec": {
        "source": {
            "csv": "a.csv", "images": "img/{id}.jpg", "idColumn": "sku", "where": {"year": {"gte": 2010}, "name": ["x", 1]},
            "delimiter": ";", "encoding": "cp1252", "maxPixels": 5, "maxBytes": 6,
            "failedRowsOf": {"name": "old", "reasons": ["ImageNotFound"]},
        },
        "functions": [{"name": "mark", "params": {"a": [1, {"b": None}]}, "file": "fn.py", "module": None, "timeoutSeconds": 9}],
        "output": {"path": "out/x", "format": "png", "quality": 90, "background": "#00ff00", "urlColumn": "link", "fsync": "never"},
        "sharding": {"rowsPerShard": 7, "batchRows": 3},
        "parallelism": 4,
        "backoffLimitPerIndex": 0,
        "failurePolicy": {"maxFailedRowsPercent": 0.5, "maxFailedRows": 0},
        "seed": -5,
        "suspend": True,
        "cancel": True,
        "mode": "plan",
        "incrementalOf": "earlier",
        "ttlSecondsAfterFinished": 0,
        "data": {"persistentVolumeClaim": {"claimName": "catalogue"}},
        "worker": {
            "image": "i", "resources": {"limits": {"cpu": 2}}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "x"}],
            "imagePullSecrets": [{"name": "s"}], "priorityClassName": "p",
        },
    },
    "status": {"phase": "Running"},
}  # fmt: skip


def document(path: str = "", value: object = None, base: dict[str, Any] = FULL) -> dict[str, Any]:
    """The full document with one field changed; `...` takes it away."""
    result = copy.deepcopy(base)
    place: Any = result
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return result


def refusal(doc: object) -> list[str]:
    with pytest.raises(JobError) as caught:
        parse(doc)
    assert caught.value.reason is JobReason.INVALID_SPEC
    return caught.value.message.split("\n")


def accepted(path: str, value: object) -> PipelineJob:
    return parse(document(path, value))


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_every_default() -> None:
    job = parse(MINIMAL)
    assert (job.metadata.name, job.metadata.namespace) == ("men-fall-2010", "default")
    assert job.spec.as_dict() == {
        "source": {
            "csv": "fashion/styles.csv", "images": None, "idColumn": "id", "where": {}, "delimiter": ",", "encoding": "utf-8",
            "maxPixels": 100_000_000, "maxBytes": 67_108_864, "failedRowsOf": None,
        },
        "functions": [],
        "output": {"path": None, "format": "jpeg", "quality": 75, "background": "white", "urlColumn": "url", "fsync": "auto"},
        "sharding": {"rowsPerShard": None, "batchRows": 200},
        "parallelism": 2,
        "backoffLimitPerIndex": 3,
        "failurePolicy": {"maxFailedRowsPercent": 5, "maxFailedRows": None},
        "seed": 0,
        "suspend": False,
        "cancel": False,
        "mode": "run",
        "incrementalOf": None,
        "ttlSecondsAfterFinished": None,
        "data": None,
        "worker": None,
    }  # fmt: skip
    function = parse(document("spec.functions", [{"name": "f"}])).spec.functions[0]
    assert function.model_dump(by_alias=True) == {"name": "f", "params": {}, "file": None, "module": None, "timeoutSeconds": 300}


def test_every_field_is_kept() -> None:
    assert parse(FULL).spec.as_dict() == FULL["spec"]
    assert parse({**FULL, "spec": parse(FULL).spec.as_dict()}).spec == parse(FULL).spec
    assert parse({**MINIMAL, "spec": parse(MINIMAL).spec.as_dict()}).spec == parse(MINIMAL).spec


def test_output_path() -> None:
    assert parse(MINIMAL).output_path == "output/default/men-fall-2010"
    assert parse(document("metadata.namespace", "shop", base=MINIMAL)).output_path == "output/shop/men-fall-2010"
    assert parse(FULL).output_path == "out/x"


# --- unknown, missing and wrong fields --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("sped", "sped: unknown field; did you mean 'spec'?"),
        ("spec.paralelism", "spec.paralelism: unknown field; did you mean 'parallelism'?"),
        ("spec.max_failed_rows", None),
        ("spec.source.wher", "spec.source.wher: unknown field; did you mean 'where'?"),
        ("spec.source.id_column", "spec.source.id_column: unknown field; did you mean 'idColumn'?"),
        ("spec.functions.0.parms", "spec.functions[0].parms: unknown field; did you mean 'params'?"),
        ("spec.output.qualty", "spec.output.qualty: unknown field; did you mean 'quality'?"),
        ("spec.sharding.rowsPerShards", "spec.sharding.rowsPerShards: unknown field; did you mean 'rowsPerShard'?"),
        (
            "spec.failurePolicy.maxFailedRowPercent",
            "spec.failurePolicy.maxFailedRowPercent: unknown field; did you mean 'maxFailedRowsPercent'?",
        ),
        (
            "spec.data.persistentVolumeClaim.claimname",
            "spec.data.persistentVolumeClaim.claimname: unknown field; did you mean 'claimName'?",
        ),
        ("spec.data.pvc", "spec.data.pvc: unknown field: expected one of persistentVolumeClaim"),
        ("spec.worker.nodeselector", "spec.worker.nodeselector: unknown field; did you mean 'nodeSelector'?"),
        ("spec.sharding.zzz", "spec.sharding.zzz: unknown field: expected one of rowsPerShard, batchRows"),
    ],
)
def test_unknown_fields(path: str, message: str | None) -> None:
    (line,) = refusal(document(path, 1))
    assert line == message or (message is None and line.startswith(f"{path}: unknown field: expected one of source, "))


@pytest.mark.parametrize(
    "path",
    [
        "apiVersion", "kind", "metadata", "metadata.name", "spec", "spec.source", "spec.source.csv", "spec.functions.0.name",
        "spec.data.persistentVolumeClaim", "spec.data.persistentVolumeClaim.claimName",
    ],
)  # fmt: skip
def test_missing_fields(path: str) -> None:
    assert refusal(document(path, ...)) == [f"{path.replace('.0', '[0]')}: is required"]


INTEGERS = [
    ("spec.source.maxPixels", 1, None), ("spec.source.maxBytes", 1, None), ("spec.functions.0.timeoutSeconds", 1, 86_400),
    ("spec.output.quality", 1, 100), ("spec.sharding.rowsPerShard", 1, None), ("spec.sharding.batchRows", 1, 100_000),
    ("spec.parallelism", 1, 10_000), ("spec.backoffLimitPerIndex", 0, 1_000), ("spec.failurePolicy.maxFailedRows", 0, None),
    ("spec.seed", -(2**63), 2**63 - 1), ("spec.ttlSecondsAfterFinished", 0, None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "low", "high"), INTEGERS)
def test_whole_numbers(path: str, low: int, high: int | None) -> None:
    shown = path.replace(".0.", "[0].")
    for value, found in (("5", "'5'"), (1.5, "1.5"), (True, "True"), ([1], "[1]")):
        assert refusal(document(path, value)) == [f"{shown}: must be a whole number, got {found}"]
    assert refusal(document(path, low - 1)) == [f"{shown}: must be at least {low}, got {low - 1}"]
    for value in (low, low + 1) if high is None else (low, high):
        accepted(path, value)
    if high is not None:
        assert len(refusal(document(path, high + 1))) == 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("apiVersion", "pipelinejob.dev/v1", "apiVersion: must be 'pipelinejob.dev/v1alpha1', got 'pipelinejob.dev/v1'"),
        ("kind", "Job", "kind: must be 'PipelineJob', got 'Job'"),
        ("spec", None, "spec: must be a mapping, got null"),
        ("spec.source", "x.csv", "spec.source: must be a mapping, got 'x.csv'"),
        ("spec.source.csv", 7, "spec.source.csv: must be a string, got 7: quote it"),
        ("spec.source.idColumn", True, "spec.source.idColumn: must be a string, got True: quote it"),
        ("spec.source.where", ["x"], "spec.source.where: must be a mapping, got ['x']"),
        ("spec.source.where.year.gte", True, "spec.source.where.year.gte: must be a string or a number, got true: quote it"),
        ("spec.source.where.name.1", None, "spec.source.where.name[1]: must be a string or a number, got null: quote it"),
        ("spec.functions", {"name": "f"}, "spec.functions: must be a list, got {'name': 'f'}"),
        ("spec.functions.0", "resize", "spec.functions[0]: must be a mapping, got 'resize'"),
        ("spec.functions.0.name", "", "spec.functions[0].name: must not be empty, got ''"),
        ("spec.functions.0.params", [], "spec.functions[0].params: must be a mapping, got []"),
        ("spec.output.format", "jpg", "spec.output.format: must be 'jpeg', 'png' or 'webp', got 'jpg'"),
        ("spec.output.fsync", False, "spec.output.fsync: must be 'auto', 'always' or 'never', got False"),
        ("spec.output.urlColumn", "", "spec.output.urlColumn: must not be empty, got ''"),
        ("spec.output.background", "blurple", "spec.output.background: must be a colour name or #rrggbb, got 'blurple'"),
        ("spec.output.background", "#ff000080", "spec.output.background: must be an opaque colour, as #rrggbb, got '#ff000080'"),
        ("spec.suspend", "yes", "spec.suspend: must be true or false, got 'yes'"),
        ("spec.cancel", 1, "spec.cancel: must be true or false, got 1"),
        ("spec.mode", "dry", "spec.mode: must be 'run' or 'plan', got 'dry'"),
        ("spec.failurePolicy.maxFailedRowsPercent", "5", "spec.failurePolicy.maxFailedRowsPercent: must be a number, got '5'"),
        ("spec.failurePolicy.maxFailedRowsPercent", True, "spec.failurePolicy.maxFailedRowsPercent: must be a number, got True"),
        (
            "spec.failurePolicy.maxFailedRowsPercent",
            float("nan"),
            "spec.failurePolicy.maxFailedRowsPercent: must be a finite number, got nan",
        ),
        ("spec.worker.imagePullSecrets", [{"name": 1}], "spec.worker.imagePullSecrets[0].name: must be a string, got 1: quote it"),
        ("spec.functions.0.params", {"a": [float("inf")]}, "spec.functions[0].params.a[0]: must be a finite number, got inf"),
        ("spec.functions.0.params", {"a": 10**400}, "spec.functions[0].params.a: must be a number below 1e300"),
        ("spec.functions.0.params", {"a": "x\0"}, "spec.functions[0].params.a: must be text without NUL and lone surrogates, got 'x\\x00'"),
        ("spec.source.where", {"c": "\ud800"}, "spec.source.where.c: must be text without NUL and lone surrogates, got '\\ud800'"),
        ("spec.source.where", {"a\0b": True}, "spec.source.where: has a key with a NUL or a lone surrogate: 'a\\x00b'"),
        ("spec.source.where", {"a\x01b": True}, "spec.source.where.a\x01b: must be a string or a number, got true: quote it"),
        ("spec.source.where", {7: 1}, "spec.source.where: must have strings as keys, got 7: quote it"),
        ("spec.functions.0.params", {"a": b"x"}, "spec.functions[0].params.a: must be a value that JSON has, got b'x'"),
    ],
)
def test_wrong_values(path: str, value: object, message: str) -> None:
    assert refusal(document(path, value)) == [message]


def test_several_problems_are_told_at_once() -> None:
    doc = document("spec.parallelism", 0)
    doc["kind"] = "Job"
    doc["spec"]["functions"].append({"nam": "f", "timeoutSeconds": 0})
    doc["spec"]["source"]["where"] = {"a": None, "b": {"gtt": 1}}
    assert refusal(doc) == [
        "kind: must be 'PipelineJob', got 'Job'",
        "spec.source.where.a: must be a string or a number, got null: quote it",
        "spec.source.where.b.gtt: unknown operator; did you mean 'gt'?",
        "spec.functions[1].name: is required",
        "spec.functions[1].timeoutSeconds: must be at least 1, got 0",
        "spec.functions[1].nam: unknown field; did you mean 'name'?",
        "spec.parallelism: must be at least 1, got 0",
    ]


def test_no_mapping_and_too_deep() -> None:
    wrong: list[object] = [None, [], "x", 7]
    for doc in wrong:
        assert refusal(doc) == ["expected a mapping with apiVersion, kind, metadata and spec"]
    deep: Any = 1
    for _ in range(3000):
        deep = [deep]
    assert refusal(document("spec.functions.0.params", {"a": deep})) == ["spec.functions[0].params.a: is nested deeper than 100 levels"]


@pytest.mark.parametrize("name", ["a", "7", "a-b", "a--b", "0-0", "x" * 40])
def test_names(name: str) -> None:
    assert accepted("metadata.name", name).metadata.name == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "-a", "a-", "é", "a b", "a\n", "x" * 41])
def test_names_that_are_no_dns_label(name: str) -> None:
    assert refusal(document("metadata.name", name)) == [
        f"metadata.name: must be a DNS label (a-z, 0-9 and '-') of at most 40 characters, got {name!r}"
    ]
    if name != "x" * 41:
        assert "of at most 63 characters" in refusal(document("metadata.namespace", name))[0]


# --- paths ------------------------------------------------------------------------------------------------------------

PATHS = ["spec.source.csv", "spec.source.images", "spec.output.path"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_stay_below_the_data_root(path: str) -> None:
    for value in ("a", "a/b.csv", "./a", "a b/ä", "..a/b..", "a/...", "a//b"):
        accepted(path, value)
    for value in ("..", "../a", "a/../b", "a/..", "./../a"):
        assert refusal(document(path, value)) == [f"{path}: must stay below the data root, got {value!r}: '..' is not allowed"]
    for value in ("/a", "/", "//a/b"):
        assert refusal(document(path, value)) == [
            f"{path}: must be relative to the data root, got the absolute path {value!r}: pass the folder that holds it with --data"
        ]
    for value in ("", " ", " a", "a\n"):
        assert refusal(document(path, value)) == [f"{path}: must be a path below the data root, got {value!r}"]


def test_the_template_of_images() -> None:
    for value in ("http://x/{id}.jpg", "https://x/{id}", "HTTPS:{id}"):
        assert "addresses (http://, https://) are not supported yet" in refusal(document("spec.source.images", value))[0]
    accepted("spec.source.images", "{url}")
    accepted("spec.source.images", "http{id}")
    (line,) = refusal(document("spec.source.images", "img/{id.jpg"))
    assert line == "spec.source.images: has a single '{': write '{{' for the character itself"
    assert accepted("spec.source.images", None).spec.source.images is None


# --- delimiter and encoding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", ":", "~", "'", "\\"])
def test_delimiters(delimiter: str) -> None:
    assert accepted("spec.source.delimiter", delimiter).spec.source.delimiter == delimiter


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n", "\r", "\0", "a", "7", "é", "\x7f", "\u3000"])
def test_delimiters_that_cannot_be_one(delimiter: str) -> None:
    (line,) = refusal(document("spec.source.delimiter", delimiter))
    assert line.startswith("spec.source.delimiter: must be ")


@pytest.mark.parametrize(
    ("encoding", "kept"),
    [
        ("utf-8", "utf-8"), ("UTF8", "utf-8"), ("utf-8-sig", "utf-8"), ("UTF_8_SIG", "utf-8"), ("utf 8 sig", "utf-8"), ("U8", "utf-8"),
        ("latin-1", "latin-1"), ("cp1252", "cp1252"), ("shift_jis", "shift_jis"), ("gbk", "gbk"), ("euc-jp", "euc-jp"), ("big5", "big5"),
        ("ascii", "ascii"), ("koi8-r", "koi8-r"), ("gb18030", "gb18030"), ("mac_roman", "mac_roman"),
    ],
)  # fmt: skip
def test_encodings(encoding: str, kept: str) -> None:
    assert accepted("spec.source.encoding", encoding).spec.source.encoding == kept


@pytest.mark.parametrize(
    "encoding",
    [
        "utf-16", "utf-16-le", "utf-7", "utf-32", "iso2022_jp", "iso2022_jp_2", "iso-2022-kr", "hz", "punycode", "idna", "Puny_code",
        "unicode_escape", "raw_unicode_escape", "cp037", "rot13", "hex", "base64", "undefined", "no-such", "", " ", "os.path", "aliases",
        "x" * 300, "ü",
    ],
)  # fmt: skip
def test_encodings_that_do_not_extend_ascii(encoding: str) -> None:
    (line,) = refusal(document("spec.source.encoding", encoding))
    assert line == f"spec.source.encoding: must name an encoding that extends ASCII, as utf-8, latin-1 or cp1252, got {encoding!r}"


@pytest.mark.parametrize(
    ("encoding", "delimiter", "good"),
    [("shift_jis", "|", False), ("shift_jis", "\\", False), ("gbk", "~", False), ("big5", "@", False), ("johab", ";", False),
     ("gbk", ";", True), ("euc-jp", "|", True), ("latin-1", "|", True), ("utf-8", "|", True)],
)  # fmt: skip
def test_a_delimiter_may_be_no_second_byte(encoding: str, delimiter: str, good: bool) -> None:
    doc = document("spec.source.encoding", encoding)
    doc["spec"]["source"]["delimiter"] = delimiter
    if good:
        parse(doc)
    else:
        (line,) = refusal(doc)
        assert line.startswith(f"spec.source.encoding: {encoding!r} has characters whose second byte is {delimiter!r}: choose another ")


def test_every_encoding_of_python_is_read_bytewise_or_refused() -> None:
    """Of those accepted, no byte of a character that is not ASCII is a quote, a line end or the default delimiter."""
    taken = 0
    for encoding in sorted(set(encodings.aliases.aliases.values())):
        try:
            accepted("spec.source.encoding", encoding)
        except JobError:
            continue
        taken += 1
        for lead in range(128, 256):
            for second in b'",;\n\r':
                for middle in (b"", b"\x81", b"0"):
                    raw = bytes((lead, *middle, second))
                    text = raw.decode(encoding, "replace")
                    if "\ufffd" not in text:
                        assert text.endswith(chr(second)), (encoding, raw)
        for byte in range(128, 256):  # nor does any other byte stand for one
            assert not set(bytes((byte,)).decode(encoding, "replace")) & set('",;\t|\n\r'), (encoding, byte)
    assert taken > 60


# --- the failure budget -----------------------------------------------------------------------------------------------


def breach(failed: int, ran: int, filtered: int = 0, **policy: Any) -> str | None:
    """Whether `failed` of `ran` rows are too many; some of the others were skipped, filtered ones do not count."""
    skipped = (ran - failed) // 3
    rows = Rows(total=ran + filtered, succeeded=ran - failed - skipped, skipped=skipped, failed=failed, filtered=filtered)
    return budget_breach(FailurePolicy.model_validate(policy), rows)


@pytest.mark.parametrize(
    ("percent", "failed", "ran"),
    [(5, 50, 1000), (0.1, 1, 1000), (0.57, 57, 10_000), (1.1, 11, 1000), (100, 7, 7), (0, 0, 5), (0.29, 29, 10_000)],
)
def test_equal_is_not_broken(percent: float, failed: int, ran: int) -> None:
    assert breach(failed, ran, maxFailedRowsPercent=percent) is None
    assert breach(failed, ran, 10**6, maxFailedRowsPercent=percent) is None
    if percent < 100:
        assert breach(failed + 1, ran, 10**6, maxFailedRowsPercent=percent) is not None


@settings(max_examples=300, deadline=None)
@given(hundredths=st.integers(0, 10_000), ran=st.integers(1, 10**7), share=st.floats(0, 1), near=st.booleans())
def test_the_budget_is_exact(hundredths: int, ran: int, share: float, near: bool) -> None:
    failed = min(ran, ran * hundredths // 10_000 + (share > 0.5)) if near else int(ran * share)
    broken = breach(failed, ran, maxFailedRowsPercent=hundredths / 100) is not None
    assert broken is (10_000 * failed > hundredths * ran)


def test_while_rows_are_pending_the_percentage_is_judged_from_1000_rows() -> None:
    def during(failed: int, ran: int, **policy: Any) -> bool:
        rows = Rows(total=10**6, succeeded=ran - failed, failed=failed, pending=10**6 - ran)
        return budget_breach(FailurePolicy.model_validate(policy), rows) is not None

    assert not during(999, 999)
    assert not during(50, 1000) and during(51, 1000)
    assert not during(3, 3, maxFailedRows=3) and during(4, 4, maxFailedRows=3)


def test_max_failed_rows() -> None:
    policy = {"maxFailedRowsPercent": 100, "maxFailedRows": 3}
    assert breach(3, 10, **policy) is None
    message = breach(4, 10, **policy)
    assert message and message.startswith("4 of 10 rows failed, more than spec.failurePolicy.maxFailedRows 3: ")
    assert breach(1, 10, maxFailedRowsPercent=100, maxFailedRows=0) is not None
    assert breach(0, 0, maxFailedRowsPercent=0, maxFailedRows=0) is None


def test_the_message_names_the_field_to_raise() -> None:
    message = breach(51, 1000)
    assert message and message.startswith("51 of 1000 rows failed (5.10%), more than spec.failurePolicy.maxFailedRowsPercent 5: ")


# --- shards and digests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "parallelism", "expected"),
    [
        (0, 2, 10_000),
        (44_441, 2, 10_000),
        (80_000, 2, 10_000),
        (80_008, 2, 10_001),
        (100_000, 2, 12_500),
        (400_000, 2, 50_000),
        (10**9, 4, 50_000),
        (10**6, 10, 25_000),
    ],
)
def test_rows_per_shard(rows: int, parallelism: int, expected: int) -> None:
    doc = document("spec.sharding.rowsPerShard", None)
    doc["spec"]["parallelism"] = parallelism
    assert parse(doc).spec.rows_per_shard(rows) == expected
    assert accepted("spec.sharding.rowsPerShard", 7).spec.rows_per_shard(rows) == 7


def digest(doc: dict[str, Any], functions: list[str] | None = None) -> str:
    return job_digest(parse(doc).spec, ["d1"] if functions is None else functions)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.parallelism", 9), ("spec.suspend", False), ("spec.cancel", False), ("spec.failurePolicy", {}),
        ("spec.ttlSecondsAfterFinished", 5), ("spec.data", None), ("spec.worker", None), ("spec.sharding.rowsPerShard", 100),
        ("metadata.name", "other"), ("metadata.namespace", "other"),
    ],
)  # fmt: skip
def test_digest_stays(path: str, value: object) -> None:
    assert digest(document(path, value)) == digest(FULL)
    ours, theirs = parse(document(path, value)).spec.immutable(), parse(FULL).spec.immutable()
    assert (ours == theirs) is (path.split(".")[1] in model.MUTABLE or path.startswith("metadata"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.source.csv", "b.csv"), ("spec.source.images", None), ("spec.source.idColumn", "id"), ("spec.source.where", {}),
        ("spec.source.where.year.gte", "2010"), ("spec.source.delimiter", ","), ("spec.source.encoding", "utf-8"),
        ("spec.source.maxPixels", 6), ("spec.source.maxBytes", 7), ("spec.functions", []), ("spec.functions.0.name", "m"),
        ("spec.functions.0.params", {}),
        ("spec.functions.0.file", "x.py"), ("spec.functions.0.module", "m"), ("spec.functions.0.timeoutSeconds", 10),
        ("spec.output.path", None), ("spec.output.format", "webp"), ("spec.output.quality", 91), ("spec.output.background", "white"),
        ("spec.output.urlColumn", "u"),
        ("spec.output.fsync", "auto"), ("spec.seed", 5), ("spec.sharding.batchRows", 4),
    ],
)  # fmt: skip
def test_digest_changes(path: str, value: object) -> None:
    assert digest(document(path, value)) != digest(FULL)
    assert parse(document(path, value)).spec.immutable() != parse(FULL).spec.immutable()


def test_digest_is_of_the_functions_code_and_the_same_everywhere() -> None:
    assert digest(FULL, ["d2"]) != digest(FULL) != digest(FULL, [])
    reordered = document("spec.source", dict(reversed(FULL["spec"]["source"].items())))
    assert digest(reordered) == digest(FULL)
    reordered = document("spec.source.where", dict(reversed(FULL["spec"]["source"]["where"].items())))
    assert digest(reordered) == digest(FULL)  # the ledger keeps no order of keys
    explicit = {**MINIMAL, "spec": parse(MINIMAL).spec.as_dict()}
    assert digest(explicit) == digest(MINIMAL)


# --- nothing but JobError ---------------------------------------------------------------------------------------------

texts = st.one_of(st.text(max_size=8), st.sampled_from(["{", "..", "/x", "utf-16", "a\x01b", "\ud800", "\0", "2010", "gte", "rgb(", "#12"]))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.just(2**70), st.floats(), texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8)


def paths(value: object, here: str = "") -> list[str]:
    """The path of every field of a document."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [path for key, item in items for path in paths(item, f"{here}.{key}" if here else str(key))]
    return [*([here] if here else []), *below]


def survives(check: Callable[[], PipelineJob]) -> None:
    try:
        job = check()
    except JobError as error:
        assert error.reason is JobReason.INVALID_SPEC and error.message
    else:
        assert len(job_digest(job.spec, [])) == 64  # what is accepted can be stored


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(paths(FULL)), values), min_size=1, max_size=2))
def test_a_wrong_field_is_a_job_error_and_nothing_else(changes: list[tuple[str, object]]) -> None:
    doc = FULL
    for path, value in changes:
        try:
            doc = document(path, value, base=doc)
        except (KeyError, TypeError, IndexError):  # the first change took the place of the second away
            continue
    survives(lambda: parse(doc))


@settings(max_examples=200, deadline=None)
@given(place=st.sampled_from(["", *paths(FULL)]), key=texts, value=values)
def test_an_unknown_field_is_a_job_error_and_nothing_else(place: str, key: str, value: object) -> None:
    doc = copy.deepcopy(FULL)
    target: Any = doc
    for part in filter(None, place.split(".")):
        target = target[int(part) if part.isdigit() else part]
    if isinstance(target, dict):
        target[key] = value
        survives(lambda: parse(doc))


@settings(max_examples=200, deadline=None)
@given(doc=values)
def test_any_document_is_a_job_error(doc: object) -> None:
    with pytest.raises(JobError):
        parse(doc)
