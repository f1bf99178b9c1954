"""The endpoints of the system that this one replaces: each is a thin translation into a PipelineJob."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse

from pipelinejob import model
from pipelinejob.reasons import ENDS, Phase
from pipelinejob_gateway import pages, schemas
from pipelinejob_gateway.parameters import Backend
from pipelinejob_gateway.problems import Refused
from pipelinejob_gateway.schemas import answers

FILTERS = ("gender", "masterCategory", "subCategory", "articleType", "season", "year", "usage")
TRANSFORM = [{"name": "random_crop", "params": {"ratio": 0.8}}, {"name": "resize", "params": {"width": 256, "height": 256}}]
_TASK = re.compile(r"(query|transformedquery)-[0-9a-f]{16}")

router = APIRouter(prefix="/api/v1/svc_ml")


class Catalogue:
    """Which catalogue is asked, in a file that is written whole or not at all.

    Args:
        path: the file; None: this server has no place for it.
        namespace: of the jobs that ask it.
        spec: what their spec has besides, such as the claim.
    """

    def __init__(self, path: Path | None, namespace: str = "default", spec: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self.namespace, self.spec = namespace, dict(spec or {})

    def read(self) -> dict[str, str]:
        """{csv, images}.

        Raises:
            Refused: 409, when none was inserted; 501, when there is no place for one.
        """
        try:
            catalogue: dict[str, str] = json.loads(self._there().read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Refused(409, "there is no catalogue yet: POST /api/v1/svc_ml/insert2db first", "NoCatalogue") from None
        return catalogue

    def write(self, catalogue: dict[str, str]) -> None:
        """Keeps it in place of the one before."""
        path = self._there()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        draft.write_text(json.dumps(catalogue), encoding="utf-8")
        os.replace(draft, path)

    def document(
        self, name: str, catalogue: Mapping[str, str], where: Mapping[str, Any], functions: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """A job over it."""
        source = {**catalogue, "where": dict(where)}
        spec = {"source": source, "functions": functions, "failurePolicy": {"maxFailedRowsPercent": 100}, **self.spec}
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": spec}

    def _there(self) -> Path:
        if self._path is None:
            raise Refused(
                501, "this gateway keeps no catalogue: set gateway.uploads.claim of the chart to a claim of its namespace", "NoUploads"
            )
        return self._path


def _catalogue_of(request: Request) -> Catalogue:
    catalogue: Catalogue = request.app.state.catalogue
    return catalogue


Kept = Annotated[Catalogue, Depends(_catalogue_of)]
Filters = Annotated[dict[str, Any], Body(examples=[{"gender": "Men", "season": ["Fall", "Winter"], "year": 2010}])]


@router.post("/insert2db", summary="Choose the catalogue", responses=answers(200, schemas.Inserted, 415, 422, 501, 503))
def insert2db(jobs: Backend, kept: Kept, catalogue: schemas.Insert) -> JSONResponse:
    chosen = catalogue.model_dump()
    seen = jobs.preview(kept.document("insert2db", chosen, {}, []), whole=True)
    kept.write(chosen)
    return JSONResponse({"rows": seen["rows"]["total"], "malformed": seen["sample"]["malformed"]})


@router.post(
    "/query",
    status_code=202,
    summary="Copy the images of matching rows",
    responses=answers(202, schemas.Task, 409, 415, 422, 501, 503),
)
def query(jobs: Backend, kept: Kept, filters: Filters) -> JSONResponse:
    return _begin(jobs, kept, "query", filters, [])


@router.post(
    "/transformedquery",
    status_code=202,
    summary="Crop and resize the images of matching rows",
    responses=answers(202, schemas.Task, 409, 415, 422, 501, 503),
)
def transformedquery(jobs: Backend, kept: Kept, filters: Filters) -> JSONResponse:
    return _begin(jobs, kept, "transformedquery", filters, TRANSFORM)


@router.get(
    "/result/{task_id}",
    summary="How a task stands, and where its results are",
    responses={**answers(200, schemas.TaskResult, 404, 422, 503), **answers(202, schemas.TaskResult)},
)
def result(jobs: Backend, kept: Kept, task_id: str) -> JSONResponse:
    if not _TASK.fullmatch(task_id):
        raise Refused(404, f"there is no task {task_id!r}", "NotFound")
    status = jobs.get(kept.namespace, task_id).get("status") or {"phase": Phase.PENDING}
    if status["phase"] not in ENDS:
        return JSONResponse({"task_id": task_id, "status": status["phase"]}, 202)
    failed = next((one["reason"] for one in status["conditions"] if one["type"] == "Failed"), None)
    return JSONResponse({"task_id": task_id, "status": status["phase"], "path": status["output"], "rows": status["rows"], "reason": failed})


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    return pages.reference(request.app.openapi(), router.prefix)


def _begin(jobs: Backend, kept: Catalogue, kind: str, filters: dict[str, Any], functions: list[dict[str, Any]]) -> JSONResponse:
    if unknown := [key for key in filters if key not in FILTERS]:
        raise Refused(422, f"{unknown[0]}: unknown filter: expected one of {', '.join(FILTERS)}", "Invalid")
    catalogue = kept.read()
    where = {key: _value(key, value) for key, value in filters.items()}
    created = jobs.submit(kept.document(f"{kind}-{uuid.uuid4().hex[:16]}", catalogue, where, functions))
    return JSONResponse({"task_id": created["metadata"]["name"]}, 202)


def _value(key: str, value: Any) -> Any:
    """A filter is a value or a list of values; what `where` can do besides is not among them."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise Refused(422, f"{key}: expected a string, a number, or a list of these, got {one!r}", "Invalid")
    return value
