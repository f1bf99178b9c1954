"""What the API's documentation says of bodies and answers: examples of real ones, and the schemas around them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelinejob.model import Status

JOB_EXAMPLE: dict[str, Any] = {
    "apiVersion": "pipelinejob.dev/v1alpha1",
    "kind": "PipelineJob",
    "metadata": {"name": "men-fall-2010"},
    "spec": {
        "source": {
            "csv": "fashion/styles.csv",
            "images": "fashion/images/{id}.jpg",
            "where": {"gender": "Men", "season": ["Fall", "Winter"], "year": {"gte": 2010}},
        },
        "functions": [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 256, "height": 256}}],
    },
}


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Problem(_Answer):
    """What is wrong with a request (RFC 9457)."""

    type: str
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["spec.functions[0].params.width: must be a whole number, got 'wide'"])
    reason: str | None = Field(None, examples=["InvalidSpec"])
    errors: list[str] | None = None


class JobMetadata(_Answer):
    """Of ObjectMeta what matters here."""

    name: str
    namespace: str
    uid: str
    creationTimestamp: str
    annotations: dict[str, str] = {}


class Job(_Answer):
    """A PipelineJob, as Kubernetes would hold it."""

    apiVersion: str = "pipelinejob.dev/v1alpha1"
    kind: Literal["PipelineJob"] = "PipelineJob"
    metadata: JobMetadata
    spec: dict[str, Any]
    status: Status | None = None


class JobList(BaseModel):
    """A page of jobs, the newest first."""

    items: list[Job]
    next: str | None = Field(description="Give it as `after` for the next page; null: this was the last.")


class FailedRow(BaseModel):
    """A row that failed."""

    row: int
    id: str
    reason: str = Field(examples=["ImageNotFound"])
    function: str
    message: str
    attempts: int


class FailurePage(BaseModel):
    """A page of failed rows, in the order of the CSV."""

    items: list[FailedRow]
    next: int | None = Field(description="Give it as `after` for the next page; null: this was the last.")


class RowPage(BaseModel):
    """A page of the rows that succeeded, in the order of the CSV: a cell for each column of metadata.csv."""

    items: list[dict[str, str]]
    next: str | None = Field(description="Give it as `after` for the next page; null: this was the last.")


class Redrive(BaseModel):
    """Which rows to run again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reasons": ["ImageNotFound"]}})

    reasons: list[str] = Field([], max_length=20, description="Only rows that failed for one of these; empty: all that failed.")
    pending: bool = Field(False, description="Rows that a failed or cancelled job never reached, too.")


class Patch(BaseModel):
    """A merge patch of the fields that may change."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"spec": {"parallelism": 8}}})

    spec: dict[str, Any] = Field(description="Any of parallelism, suspend, cancel, failurePolicy, ttlSecondsAfterFinished.")


class Insert(BaseModel):
    """A catalogue: paths below the data root."""

    model_config = ConfigDict(extra="forbid")

    csv: str = Field("styles.csv", description="The CSV, relative to the data root.")
    images: str = Field("images/{id}.jpg", description="The image of a row, with columns in braces.")


class Inserted(BaseModel):
    """What a catalogue holds."""

    rows: int = Field(description="All rows of the CSV.")
    malformed: int = Field(description="Those of them that are malformed.")


class Task(BaseModel):
    """A task that was accepted."""

    task_id: str


class TaskResult(BaseModel):
    """How a task stands."""

    task_id: str
    status: str = Field(examples=["Complete"])
    path: str | None = Field(None, description="The output folder.")
    rows: dict[str, int] | None = Field(None, description="total, succeeded, filtered, skipped, failed, pending.")
    reason: str | None = None


def answers(status: int, model: type[BaseModel] | None, *problems: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer, for its documentation: what it is asked for, and problems; a body brings more of them."""
    problems = (*problems, 401, 403, 421, *((400, 411, 413) if 415 in problems else ()))
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    wrong: dict[int | str, dict[str, Any]] = {problem: {"description": "A problem.", "content": content} for problem in problems}
    return wrong if model is None else {status: {"model": model}, **wrong}
