"""The endpoints of the system that this one replaces: each is a thin translation into a PipelineJob."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse

from pipelinejob import model
from pipelinejob.reasons import ENDS
from pipelinejob.resources import NO_FOLDER, parse
from pipelinejob_gateway import pages, schemas
from pipelinejob_gateway.backend import Jobs
from pipelinejob_gateway.problems import Refused
from pipelinejob_gateway.schemas import answers

FILTERS = ("gender", "masterCategory", "subCategory", "articleType", "season", "year", "usage")
NAMESPACE = "default"
TRANSFORM = [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 256, "height": 256}}]
_TASK = re.compile(r"(query|transformedquery)-[0-9a-f]{16}")

router = APIRouter(prefix="/api/v1/svc_ml")


class Catalogues(Protocol):
    """Keeps which catalogue is asked."""

    def read(self) -> dict[str, str] | None:
        """{csv, images}, if one was inserted."""

    def write(self, catalogue: dict[str, str]) -> None:
        """Keeps it in place of the one before."""


class CatalogueFile:
    """The catalogue in a file, written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, str] | None:
        """{csv, images}, if one was inserted."""
        try:
            catalogue: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return catalogue

    def write(self, catalogue: dict[str, str]) -> None:
        """Keeps it in place of the one before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
        draft.write_text(json.dumps(catalogue), encoding="utf-8")
        os.replace(draft, self._path)


def _jobs_of(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs_of(request)
    return jobs


def _catalogues_of(request: Request) -> Catalogues:
    catalogues: Catalogues = request.app.state.catalogues
    return catalogues


Backend = Annotated[Jobs, Depends(_jobs_of)]
Kept = Annotated[Catalogues, Depends(_catalogues_of)]
Filters = Annotated[dict[str, Any], Body(examples=[{"gender": "Men", "season": ["Fall", "Winter"], "year": 2010}])]


@router.post("/insert2db", summary="Choose the catalogue", responses=answers(200, schemas.Inserted, 415, 422, 503))
def insert2db(jobs: Backend, catalogues: Kept, catalogue: schemas.Insert) -> JSONResponse:
    chosen = catalogue.model_dump()
    seen = jobs.plan(parse(_document("insert2db", chosen, {}, [])), NO_FOLDER, whole=True)
    catalogues.write(chosen)
    return JSONResponse({"rows": seen["rows"]["total"], "malformed": seen["sample"]["malformed"]})


@router.post(
    "/query",
    status_code=202,
    summary="Copy the images of matching rows",
    responses=answers(202, schemas.Task, 409, 415, 422, 503),
)
def query(jobs: Backend, catalogues: Kept, filters: Filters) -> JSONResponse:
    return _begin(jobs, catalogues, "query", filters, [])


@router.post(
    "/transformedquery",
    status_code=202,
    summary="Crop and resize the images of matching rows",
    responses=answers(202, schemas.Task, 409, 415, 422, 503),
)
def transformedquery(jobs: Backend, catalogues: Kept, filters: Filters) -> JSONResponse:
    return _begin(jobs, catalogues, "transformedquery", filters, TRANSFORM)


@router.get(
    "/result/{task_id}",
    summary="How a task stands, and where its results are",
    responses={**answers(200, schemas.TaskResult, 404, 422, 503), **answers(202, schemas.TaskResult)},
)
def result(jobs: Backend, task_id: str) -> JSONResponse:
    if not _TASK.fullmatch(task_id):
        raise Refused(404, f"there is no task {task_id!r}", "NotFound")
    status = jobs.get(NAMESPACE, task_id)["status"]
    if status["phase"] not in ENDS:
        return JSONResponse({"task_id": task_id, "status": status["phase"]}, 202)
    failed = next((one["reason"] for one in status["conditions"] if one["type"] == "Failed"), None)
    return JSONResponse({"task_id": task_id, "status": status["phase"], "path": status["output"], "rows": status["rows"], "reason": failed})


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def docs(request: Request) -> str:
    return pages.reference(request.app.openapi(), router.prefix)


def _begin(jobs: Jobs, catalogues: Catalogues, kind: str, filters: dict[str, Any], functions: list[dict[str, Any]]) -> JSONResponse:
    if unknown := [key for key in filters if key not in FILTERS]:
        raise Refused(422, f"{unknown[0]}: unknown filter: expected one of {', '.join(FILTERS)}", "Invalid")
    catalogue = catalogues.read()
    if catalogue is None:
        raise Refused(409, "there is no catalogue yet: POST /api/v1/svc_ml/insert2db first", "NoCatalogue")
    where = {key: _value(key, value) for key, value in filters.items()}
    created = jobs.create(parse(_document(f"{kind}-{uuid.uuid4().hex[:16]}", catalogue, where, functions)), NO_FOLDER)
    return JSONResponse({"task_id": created["metadata"]["name"]}, 202)


def _value(key: str, value: Any) -> Any:
    """A filter is a value or a list of values; what `where` can do besides is not among them."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise Refused(422, f"{key}: expected a string, a number, or a list of these, got {one!r}", "Invalid")
    return value


def _document(name: str, catalogue: dict[str, str], where: dict[str, Any], functions: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"source": {**catalogue, "where": where}, "functions": functions, "failurePolicy": {"maxFailedRowsPercent": 100}}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": spec}
