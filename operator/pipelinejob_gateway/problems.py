"""Errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Scope

from pipelinejob.admission import JobExistsError
from pipelinejob.model import field_path
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.resources import NoJobError, StateError
from pipelinejob.store import GoneError
from pipelinejob_gateway.pages import render

MEDIA_TYPE = "application/problem+json"
_STATUS = {
    JobReason.INVALID_SPEC: 422,
    JobReason.INPUT_NOT_FOUND: 422,
    JobReason.INPUT_INVALID: 422,
    JobReason.DATABASE_UNAVAILABLE: 503,
}


class Refused(Exception):
    """A request that is answered with this status and these words.

    Args:
        status: the HTTP status.
        detail: what is wrong, and what to do.
        reason: one word for programs.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, reason: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.reason, self.headers = status, detail, reason, headers


def problem(status: int, detail: str, reason: str | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong: {type, title, status, detail, reason}, and `errors` where there are several."""
    detail = detail.encode("utf-8", "backslashreplace").decode()  # what was sent may hold what no JSON text may
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if reason is not None:
        body["reason"] = reason
    lines = detail.splitlines()
    if len(lines) > 1:
        body["errors"] = lines
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def is_page(scope: Scope) -> bool:
    """Whether a person's browser asks for a page, not a program for an answer."""
    return scope["method"] == "GET" and not scope["path"].startswith("/api/") and "text/html" in Headers(scope=scope).get("accept", "")


def _answer(request: Request, status: int, detail: str, reason: str | None = None, headers: dict[str, str] | None = None) -> Response:
    """A problem, as a page for a person."""
    if is_page(request.scope):
        return render("error.html", status, title=reason or HTTPStatus(status).phrase, detail=detail, status=status)
    return problem(status, detail, reason, headers)


def add_handlers(app: FastAPI) -> None:
    """Turns every error of the application into a problem."""

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        return _answer(request, error.status, error.detail, error.reason, error.headers)

    @app.exception_handler(JobError)
    def job_error(request: Request, error: JobError) -> Response:
        if isinstance(error, NoJobError):
            return _answer(request, 404, error.message, "NotFound")
        if isinstance(error, JobExistsError):
            return _answer(request, 409, error.message, "AlreadyExists")
        if isinstance(error, StateError):
            return _answer(request, 409, error.message, "Conflict")
        headers = {"Retry-After": "5"} if error.reason is JobReason.DATABASE_UNAVAILABLE else None
        return _answer(request, _STATUS.get(error.reason, 409), error.message, error.reason, headers)

    @app.exception_handler(GoneError)
    def gone(request: Request, error: GoneError) -> Response:
        return _answer(request, 404, "the job was deleted just now: list the jobs to see all", "NotFound")

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        lines = [f"{field_path(tuple(item['loc']))}: {item['msg']}" for item in error.errors()]
        return _answer(request, 422, "\n".join(lines), "Invalid")

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        return _answer(request, error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> Response:
        return _answer(request, 500, f"unexpected {type(error).__name__}: please report this; the server's log has more")
