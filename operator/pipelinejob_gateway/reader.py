"""A reader: the results on the claims of one namespace, for the gateway alone. It has no rights, and knows no jobs and no ledger."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

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
        if claim in ("", ".", "..") or not (self._data / claim).is_dir():
            detail = f"the claim {claim!r} is none of the reader's in {namespace!r}: add it to gateway.dataNamespaces of the chart"
            raise Refused(501, detail, "NoReader")
        return Output(self._data / claim, path, self._data / claim, Source(*json.loads(self._source)))


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

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    add_handlers(app)
    return TokenGuard(app, token)
