"""The PipelineJob: its spec and its status as pydantic models, the single source of the CRD and of every check.

What a field may hold stands here once, with the words a user reads when it holds something else.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from collections.abc import Iterator
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from pipelinejob import template, where
from pipelinejob.reasons import JobError, JobReason, Phase, RowReason

GROUP, VERSION, KIND = "pipelinejob.dev", "v1alpha1", "PipelineJob"
API_VERSION = f"{GROUP}/{VERSION}"
NAME_PATTERN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
MAX_NAME = 40
MAX_SHARDS = 50_000
MAX_DEPTH = 100  # of the document
MAX_LINES, MAX_LINE = 20, 500  # of what is told of its problems
JUDGED_FROM = 1000  # rows that ran, for a percentage of failures to mean something before the end
_ESCAPES = ("punycode", "idna", "unicode-escape", "raw-unicode-escape")  # codecs that give ASCII another meaning now and then
MUTABLE = ("parallelism", "suspend", "cancel", "failurePolicy", "ttlSecondsAfterFinished")


M = TypeVar("M", bound=BaseModel)


class _WhereError(ValueError):
    """Several problems at once, each with its path below the field."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__()
        self.problems = problems


class Model(BaseModel):
    """A part of the resource: camelCase outside, unknown fields refused, no silent conversions."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True, frozen=True)


class FailedRowsOf(Model):
    """Which rows of which job a redrive runs again."""

    name: str = Field(min_length=1, description="The PipelineJob, in the same namespace, whose failed rows run again; it must have ended.")
    reasons: list[Annotated[str, Field(json_schema_extra={"enum": [reason.value for reason in RowReason]})]] = Field(
        [], description="Only rows that failed for one of these reasons. Empty: all that failed."
    )

    @field_validator("reasons")
    @classmethod
    def _reasons(cls, value: list[str]) -> list[str]:
        for reason in value:
            if reason not in tuple(RowReason):
                raise ValueError(f"must be of {', '.join(RowReason)}, got {reason!r}")
        return value


class Source(Model):
    """Where the rows come from: a CSV with a header, and optionally an image for each row."""

    csv: str = Field(description="Path of the CSV, relative to the data root.")
    images: str | None = Field(
        None,
        description="Path of a row's image, relative to the data root, with columns in braces, as in images/{id}.jpg; "
        "{{ and }} are the braces themselves. Unset: the rows have no images.",
    )
    id_column: str = Field("id", description="The column that names a row; its cell becomes the name of the row's image in the output.")
    where: dict[str, Any] = Field(
        {},
        description="Which rows are run; the others are counted as filtered. {column: value}, {column: [values]} or "
        "{column: {gte, lte, gt, lt, ne, in, notIn, contains: ...}}; all must hold. A number compares with the cell as a number, "
        "a string with the cell as it stands. Unset: all rows.",
    )
    delimiter: str = Field(",", description="What stands between two cells: one ASCII character that is no letter, digit or quote.")
    encoding: str = Field(
        "utf-8", description="The CSV's encoding by Python's name for it; one that extends ASCII, as utf-8, latin-1 or cp1252."
    )
    max_pixels: int = Field(
        100_000_000, ge=1, description="An image with more pixels than this fails as ImageTooLarge before it is decoded."
    )
    max_bytes: int = Field(
        67_108_864, ge=1, description="An image file with more bytes than this fails as ImageTooLarge before it is read."
    )
    failed_rows_of: FailedRowsOf | None = Field(
        None,
        description="Makes this a redrive: the failed rows of another PipelineJob run again, into its output. All else must be as in that "
        "one, but for functions, worker and the fields that may change. On one machine: `pipelinejob redrive`.",
    )

    @field_validator("csv")
    @classmethod
    def _csv(cls, value: str) -> str:
        return _relative_path(value)

    @field_validator("images")
    @classmethod
    def _images(cls, value: str | None) -> str | None:
        if value is None:
            return value
        literal = template.parse(value)
        start = literal.pieces[0][1] if literal.pieces and not literal.pieces[0][0] else ""
        if re.match(r"https?:", start, re.IGNORECASE):
            raise ValueError("must be a path below the data root; addresses (http://, https://) are not supported yet")
        _relative_path(value)
        return value

    @field_validator("delimiter")
    @classmethod
    def _delimiter(cls, value: str) -> str:
        if len(value) != 1 or not (value == "\t" or " " <= value <= "~") or value.isalnum() or value == '"':
            raise ValueError(f"must be one ASCII character that is no letter, digit or quote, got {value!r}")
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str, info: ValidationInfo) -> str:
        return _ascii_encoding(value, info.data.get("delimiter", ","))

    @field_validator("where")
    @classmethod
    def _where(cls, value: dict[str, Any]) -> dict[str, Any]:
        found = list(where.problems(value))
        if found:
            raise _WhereError(found)
        return value


class FunctionRef(Model):
    """One step of the chain: a built-in function, or one of the user's own from a file or a module."""

    name: str = Field(
        min_length=1, description="The function's name; `pipelinejob functions` lists those that are built in, with their params."
    )
    params: dict[str, Any] = Field({}, description="The function's parameters by name; those left out have the function's own defaults.")
    file: str | None = Field(
        None, description="The Python file that has the function, relative to the job file. On one machine only: a cluster needs `module`."
    )
    module: str | None = Field(
        None, description="The Python module that has the function, as pkg.mod; in a cluster it must be in the worker image."
    )
    timeout_seconds: int = Field(300, ge=1, le=86_400, description="Seconds that one call may take; then its row fails as FunctionTimeout.")


class Output(Model):
    """Where the results go, and in which form."""

    path: str | None = Field(
        None,
        description="The folder for the results, relative to the data root; for this job alone. Unset: output/<namespace>/<name>.",
    )
    format: Literal["jpeg", "png", "webp"] = Field("jpeg", description="The format of the images that the functions make.")
    quality: int = Field(75, ge=1, le=100, description="The quality of JPEG and WebP; PNG has none.")
    background: str = Field(
        "white", description="The opaque colour, by name or as #rrggbb, under transparent pixels where the format has no transparency."
    )
    url_column: str = Field(
        "url",
        min_length=1,
        description="The column of metadata.csv with the path of the row's image; rename it where the CSV has such a column.",
    )
    fsync: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether what is recorded is on disk first. auto: in a cluster it survives the death of the node, on one machine "
        "the death of every process. always: it survives a power cut. never: faster, for storage that needs none.",
    )

    @field_validator("path")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        return value if value is None else _relative_path(value)

    @field_validator("background")
    @classmethod
    def _background(cls, value: str) -> str:
        from PIL import ImageColor  # noqa: PLC0415 - only where a spec is checked

        try:
            colour = ImageColor.getrgb(value)
        except ValueError:
            raise ValueError(f"must be a colour name or #rrggbb, got {value!r}") from None
        if len(colour) != len("rgb"):
            raise ValueError(f"must be an opaque colour, as #rrggbb, got {value!r}")
        return value


class Sharding(Model):
    """How the rows are cut: into shards, each run by one pod, and those into batches, each recorded at once."""

    rows_per_shard: int | None = Field(
        None,
        ge=1,
        description="Rows of a shard, rounded up to whole batches; at most 50,000 shards a job. "
        "Unset: rows / (4 · parallelism), held to 10,000-50,000.",
    )
    batch_rows: int = Field(
        200, ge=1, le=100_000, description="Rows of a batch, and of a folder in the output; a killed pod redoes at most one batch."
    )


class FailurePolicy(Model):
    """The failure budget: with more failed rows than this the job ends as Failed; raising it lets the job go on."""

    max_failed_rows_percent: float = Field(
        5, ge=0, le=100, description="Most failed rows in percent of the rows that ran; judged from 1,000 such rows on, and at the end."
    )
    max_failed_rows: int | None = Field(None, ge=0, description="Most failed rows, judged at once. Unset: no such limit.")


class PersistentVolumeClaim(Model):
    """A claim in the job's namespace."""

    claim_name: str = Field(min_length=1, description="The claim's name.")


class Data(Model):
    """The volume with the CSV and the images, which takes the results as well; required in a cluster. On one machine it is --data."""

    persistent_volume_claim: PersistentVolumeClaim


class Worker(Model):
    """What of the worker pods a user may choose."""

    image: str | None = Field(None, description="The image, with the modules of the functions in it. Unset: the chart's `image.worker`.")
    resources: dict[str, Any] | None = Field(
        None, description="Requests and limits, as of a container; a pod runs one process for each whole CPU. Unset: the chart's."
    )
    node_selector: dict[str, str] | None = Field(None, description="Labels that a node must have, as of a pod.")
    tolerations: list[dict[str, Any]] | None = Field(None, description="Taints that the pods bear, as of a pod.")
    image_pull_secrets: list[dict[str, str]] | None = Field(
        None, description="Secrets of the job's namespace for pulling the image, each as {name: ...}."
    )
    priority_class_name: str | None = Field(None, description="The pods' priority class.")


class Spec(Model):
    """What the user wants."""

    source: Source
    functions: list[FunctionRef] = Field(
        [], description="The chain that each row goes through, in order. Empty: the images are copied as they are."
    )
    output: Output = Output()
    sharding: Sharding = Sharding()
    parallelism: int = Field(
        2, ge=1, le=10_000, description="How many shards run at a time, each in a pod; on one machine, how many processes."
    )
    backoff_limit_per_index: int = Field(3, ge=0, le=1_000, description="How often a shard is tried again when its pod fails.")
    failure_policy: FailurePolicy = FailurePolicy()
    seed: int = Field(
        0, ge=-(2**63), lt=2**63, description="What random functions draw from, with the row's id; the same seed gives the same results."
    )
    suspend: bool = Field(False, description="true: the pods go and nothing recorded is lost; false: the job goes on.")
    cancel: bool = Field(
        False, description="true: the job stops for good, and results of what is done are written. It cannot be taken back."
    )
    mode: Literal["run", "plan"] = Field("run", description="plan: rows and shards are counted and nothing is run.")
    incremental_of: str | None = Field(
        None,
        min_length=1,
        description="A job of the same namespace that has ended: this one takes its output over, and runs only rows that it has no result "
        "for by the same row, image and functions.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        description="Seconds after the end at which the PipelineJob is deleted with its Jobs and pods; results stay. Unset: never.",
    )
    data: Data | None = None
    worker: Worker | None = None

    def rows_per_shard(self, rows: int) -> int:
        """Rows of a shard for a CSV of that many rows: as asked, else rows/(4*parallelism) held to 10,000-50,000."""
        if self.sharding.rows_per_shard is not None:
            return self.sharding.rows_per_shard
        return min(max(rows // (4 * self.parallelism), 10_000), 50_000)

    def immutable(self) -> dict[str, Any]:
        """The fields that may not change once the job exists, as the resource spells them, defaults filled in."""
        return {key: value for key, value in self.as_dict().items() if key not in MUTABLE}

    def as_dict(self) -> dict[str, Any]:
        """The spec as the resource spells it, defaults filled in."""
        return self.model_dump(mode="json", by_alias=True)


class Metadata(BaseModel):
    """The parts of ObjectMeta that matter here; Kubernetes owns the others."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)
    name: Annotated[str, Field(max_length=MAX_NAME, pattern=f"^{NAME_PATTERN}$")]
    namespace: Annotated[str, Field(max_length=63, pattern=f"^{NAME_PATTERN}$")] = "default"


class PipelineJob(Model):
    """The resource, as a user writes it."""

    api_version: Literal["pipelinejob.dev/v1alpha1"]
    kind: Literal["PipelineJob"]
    metadata: Metadata
    spec: Spec
    status: dict[str, Any] | None = None

    @property
    def output_path(self) -> str:
        """The output folder below the data root."""
        return self.spec.output.path or f"output/{self.metadata.namespace}/{self.metadata.name}"


class Rows(Model):
    """How many rows ended in which way; the five behind the first sum to it."""

    total: int = Field(0, description="Rows of the CSV.")
    succeeded: int = Field(0, description="Rows whose results are in the output.")
    filtered: int = Field(0, description="Rows that `where` does not match.")
    skipped: int = Field(0, description="Rows for which a function returned None.")
    failed: int = Field(0, description="Rows that failed; failures.csv has each with its reason.")
    pending: int = Field(0, description="Rows that were not run yet; 0 when the job is complete.")
    reused: int | None = Field(None, description="Of an incremental job: those of the succeeded whose results are of the job before it.")

    def counts(self) -> dict[str, int]:
        """The numbers by name, without those that do not apply."""
        counts: dict[str, int] = self.model_dump(exclude_none=True)
        return counts


class Shards(Model):
    """How many shards there are, and how they stand."""

    total: int = Field(0, description="Shards of the job.")
    active: int = Field(0, description="Shards that run now.")
    succeeded: int = Field(0, description="Shards with every row in a final state.")
    failed: int = Field(0, description="Shards that were given up.")


class TopFailure(Model):
    """A reason with its count and one example."""

    reason: str = Field(description="Why these rows failed.")
    count: int = Field(description="How many rows failed so.")
    example: str = Field(description="What went wrong with one of them.")


class Condition(Model):
    """A metav1.Condition."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)  # made by us, read by anyone

    type: Literal["Accepted", "Planned", "Complete", "Failed", "Suspended"] = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(description="Why, in one word.")
    message: str = Field(description="Why, in a sentence that says what to do.")
    last_transition_time: datetime = Field(description="When `status` last changed.")


class PlanReport(Model):
    """What a look at the first rows, and a run of a few of them, say of a job that is only planned."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    rows: int = Field(description="Rows that were looked at: the first 10,000, or all.")
    matching: int = Field(description="Those of them that would run.")
    filtered: int = Field(description="Those that `where` does not match.")
    malformed: int = Field(description="Those that would fail as MalformedRow.")
    exact: bool = Field(description="Whether these are all rows of the CSV.")
    sampled: int = Field(0, description="Rows that were run to take the time; nothing of them is kept.")
    estimated_seconds: float | None = Field(None, description="How long all rows would take at `parallelism`, without the start of pods.")


class Status(Model):
    """What became of it so far; `phase` is a summary for people."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    observed_generation: int = Field(1, description="The metadata.generation of the spec that this status answers.")
    conditions: list[Condition] = Field(description="How the job stands, one condition of each type.")
    phase: Phase = Field(description="A summary of the conditions for people.")
    rows: Rows
    shards: Shards
    progress: str = Field(description="The rows in a final state of all rows, as in 34500/44441.")
    plan: PlanReport | None = Field(None, description="Of a job with mode plan: what is to be expected.")
    rows_per_second: float | None = Field(None, description="Rows a second of late while it runs, on the whole afterwards.")
    estimated_completion_time: datetime | None = Field(None, description="When the last row is done at this rate.")
    start_time: datetime | None = Field(None, description="When the first row was run.")
    completion_time: datetime | None = Field(None, description="When the job ended.")
    output: str = Field(description="The folder of the results; in a cluster relative to the data root.")
    input_digest: str | None = Field(None, description="The sha256 of the CSV as it was planned.")
    top_failures: list[TopFailure] = Field([], max_length=5, description="The commonest reasons of failed rows.")

    def as_dict(self) -> dict[str, Any]:
        """The status as the resource spells it; fields without a value are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def budget_breach(policy: FailurePolicy, rows: Rows) -> str | None:
    """Says which limit the failed rows are above, or None; percent = 100*failed/(succeeded+skipped+failed).

    While rows are pending, the percentage is judged from 1,000 rows on; the number always.
    """
    ran = rows.succeeded + rows.skipped + rows.failed
    if policy.max_failed_rows is not None and rows.failed > policy.max_failed_rows:
        return (
            f"{rows.failed} of {ran} rows failed, more than spec.failurePolicy.maxFailedRows {policy.max_failed_rows}: "
            "mend the cause, or raise it to go on"
        )
    limit = policy.max_failed_rows_percent
    if rows.pending and ran < JUDGED_FROM:
        return None
    if ran and 100 * rows.failed / ran > limit:  # the quotient is exact where it equals the limit; limit * ran is not
        return (
            f"{rows.failed} of {ran} rows failed ({100 * rows.failed / ran:.2f}%), more than "
            f"spec.failurePolicy.maxFailedRowsPercent {limit:g}: mend the cause, or raise it to go on"
        )
    return None


def job_digest(spec: Spec, function_digests: list[str]) -> str:
    """The sha256 of everything that the output's bytes depend on besides the input: source, functions, output, seed,
    batchRows."""
    fields = spec.as_dict()
    parts = {key: fields[key] for key in ("source", "functions", "output", "seed")}
    parts["source"].pop("failedRowsOf")  # which rows run says nothing of what becomes of them
    parts["batchRows"] = spec.sharding.batch_rows
    parts["functionDigests"] = function_digests
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def parse(document: object) -> PipelineJob:
    """Checks a document, as read from YAML or JSON, and fills in the defaults.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    return validate(document, PipelineJob)


def validate(document: object, kind: type[M]) -> M:
    """The same for any kind of document.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    if not isinstance(document, dict):
        raise JobError(JobReason.INVALID_SPEC, "expected a mapping with apiVersion, kind, metadata and spec")
    if unfit := list(_unfit(document, ())):
        raise JobError(JobReason.INVALID_SPEC, told([f"{path}: {message}" for path, message in unfit]))
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        lines = [line for detail in error.errors() for line in _lines(detail, kind)]
        raise JobError(JobReason.INVALID_SPEC, told(list(dict.fromkeys(lines)))) from None


def told(problems: list[str]) -> str:
    """Problems as people can read them: a line for each of the first twenty, cut where what was found is long."""
    lines = [line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…" for line in problems[:MAX_LINES]]
    return "\n".join(lines + [f"and {len(problems) - MAX_LINES} more problems"] * (len(problems) > MAX_LINES))


def _unfit(value: object, location: tuple[int | str, ...]) -> Iterator[tuple[str, str]]:
    """Yields (path, message) for what no JSON, no ledger or no file name can hold, anywhere in a document."""
    if len(location) > MAX_DEPTH:
        yield field_path(location[:5]), f"is nested deeper than {MAX_DEPTH} levels"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield field_path(location) or "the document", f"must have strings as keys, got {key!r}: quote it"
            elif not _storable(key):
                yield field_path(location) or "the document", f"has a key with a NUL or a lone surrogate: {key!r}"
            else:
                yield from _unfit(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unfit(item, (*location, index))
    elif isinstance(value, str):
        if not _storable(value):
            yield field_path(location), f"must be text without NUL and lone surrogates, got {value!r}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield field_path(location), f"must be a finite number, got {value!r}"
    elif isinstance(value, int) and value.bit_length() > 1000:
        yield field_path(location), "must be a number below 1e300"
    elif value is not None and not isinstance(value, bool | int | float):
        yield field_path(location), f"must be a value that JSON has, got {value!r}"


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _lines(detail: Any, model: type[BaseModel]) -> list[str]:
    """One of pydantic's errors in our words: the field's path, what was expected, what was found."""
    path = field_path(detail["loc"])
    kind, context, found = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "value_error":
        if isinstance(context["error"], _WhereError):
            return [f"{path}.{sub}: {message}" for sub, message in context["error"].problems]
        return [f"{path}: {context['error']}"]
    if kind == "extra_forbidden":
        return [f"{path}: unknown field{_suggestion(detail['loc'], model)}"]
    if kind == "missing":
        return [f"{path}: is required"]
    if path in ("metadata.name", "metadata.namespace") and isinstance(found, str):
        limit = MAX_NAME if path == "metadata.name" else 63
        return [f"{path}: must be a DNS label (a-z, 0-9 and '-') of at most {limit} characters, got {found!r}"]
    expected = {
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": "must be a string",
        "list_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping",
        "string_too_short": "must not be empty",
        "literal_error": f"must be {context.get('expected')}",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "less_than": f"must be less than {context.get('lt')}",
        "finite_number": "must be a finite number",
    }.get(kind, detail["msg"])
    hint = ": quote it" if kind == "string_type" and isinstance(found, bool | int | float) else ""
    return [f"{path}: {expected}, got {'null' if found is None else repr(found)}{hint}"]


def field_path(location: tuple[int | str, ...]) -> str:
    """('spec', 'functions', 1, 'name') → spec.functions[1].name"""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _suggestion(location: tuple[int | str, ...], model: Any) -> str:
    """What an unknown field may have been meant to be, among the fields that stand at its place."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        annotation = fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel))
    names = [field.alias or name for name, field in model.model_fields.items()]
    close = get_close_matches(str(location[-1]), names, 1)
    return f"; did you mean {close[0]!r}?" if close else f": expected one of {', '.join(names)}"


def _relative_path(value: str) -> str:
    if not value or value.strip() != value or "\x00" in value:
        raise ValueError(f"must be a path below the data root, got {value!r}")
    if value.startswith("/"):
        raise ValueError(f"must be relative to the data root, got the absolute path {value!r}: pass the folder that holds it with --data")
    if ".." in value.split("/"):
        raise ValueError(f"must stay below the data root, got {value!r}: '..' is not allowed")
    return value


def _ascii_encoding(value: str, delimiter: str) -> str:
    """Encodings whose ASCII bytes always mean ASCII: only there are delimiters, quotes and line ends single bytes."""
    ascii_text = "".join(map(chr, range(128))) + "\x1b$B!!\x1b(B"  # with an escape to Japanese, where there is one
    try:
        codec = codecs.lookup(value).name
        extends = codec not in _ESCAPES and ascii_text.encode("ascii").decode(value) == ascii_text
    except (LookupError, UnicodeError, ValueError):
        extends = False
    if not extends:
        raise ValueError(f"must name an encoding that extends ASCII, as utf-8, latin-1 or cp1252, got {value!r}")
    for mark in ('"', "\n", "\r", delimiter):
        if any(_is_second_byte(mark, lead, value) for lead in range(128, 256)):
            raise ValueError(f"{value!r} has characters whose second byte is {mark!r}: choose another delimiter, or save the file as UTF-8")
    return "utf-8" if codec in ("utf-8", "utf-8-sig") else value


def _is_second_byte(char: str, lead: int, encoding: str) -> bool:
    try:
        return not bytes((lead, ord(char))).decode(encoding).endswith(char)
    except UnicodeDecodeError:
        return False
