"""A reader: what is on the claims of one namespace, for the gateway alone. It has no rights, and knows no jobs and no ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from pipelinejob import model
from pipelinejob.resources import Output, Source
from pipelinejob_gateway import result_pages, result_routes
from pipelinejob_gateway.guard import TokenGuard
from pipelinejob_gateway.passing import OUTPUT, SOURCE
from pipelinejob_gateway.problems import Refused, add_handlers


class _Folder:
    """The output folder that the gateway names, below a claim's mount."""

    def __init__(self, data: Path, request: Request) -> None:
        self._data, self._named = data, unquote(request.headers.get(OUTPUT, ""))
        self._source = unquote(request.headers.get(SOURCE, "[]"))

    def output(self, namespace: str, name: str) -> Output:
        claim, _, path = self._named.partition("/")
        root = self._root(claim, namespace)
        return Output(root, path, root, Source(*json.loads(self._source)))

    def preview(self, document: object, *, whole: bool = False) -> dict[str, Any]:
        from pipelinejob import dry_run  # noqa: PLC0415 - pandas: results take half the memory without

        job = model.parse(document)
        claim = self._named.partition("/")[0]
        return dry_run.on_claim(job, self._root(claim, job.metadata.namespace), claim, whole=whole)

    def _root(self, claim: str, namespace: str) -> Path:
        if claim in ("", ".", "..") or not (self._data / claim).is_dir():
            detail = f"the claim {claim!r} is none of the reader's in {namespace!r}: add it to gateway.dataNamespaces of the chart"
            raise Refused(501, detail, "NoReader")
        return self._data / claim


def create_reader(data: Path, token: str) -> ASGIApp:
    """The application.

    Args:
        data: the folder that has a folder for each claim.
        token: what requests must carry as `Authorization: Bearer`.
    """
    app = FastAPI(title="PipelineJob reader", openapi_url=None)
    app.state.jobs_of = lambda request: _Folder(data, request)
    app.include_router(result_routes.router)
    app.include_router(result_pages.router)

    @app.post("/api/v1/plan")
    def plan(request: Request, document: Annotated[dict[str, Any], Body()], count: bool = False) -> JSONResponse:
        return JSONResponse(_Folder(data, request).preview(document, whole=count))

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    add_handlers(app)
    return TokenGuard(app, token)
