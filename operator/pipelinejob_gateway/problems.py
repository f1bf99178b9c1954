"""Errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipelinejob.admission import JobExistsError
from pipelinejob.model import field_path
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.resources import NoJobError, StateError

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


def add_handlers(app: FastAPI) -> None:
    """Turns every error of the application into a problem."""

    @app.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> JSONResponse:
        return problem(error.status, error.detail, error.reason, error.headers)

    @app.exception_handler(JobError)
    def job_error(_: Request, error: JobError) -> JSONResponse:
        if isinstance(error, NoJobError):
            return problem(404, error.message, "NotFound")
        if isinstance(error, JobExistsError):
            return problem(409, error.message, "AlreadyExists")
        if isinstance(error, StateError):
            return problem(409, error.message, "Conflict")
        headers = {"Retry-After": "5"} if error.reason is JobReason.DATABASE_UNAVAILABLE else None
        return problem(_STATUS.get(error.reason, 409), error.message, error.reason, headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        lines = [f"{field_path(tuple(item['loc']))}: {item['msg']}" for item in error.errors()]
        return problem(422, "\n".join(lines), "Invalid")

    @app.exception_handler(HTTPException)
    def http(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    def bug(_: Request, error: Exception) -> JSONResponse:
        return problem(500, f"unexpected {type(error).__name__}: please report this; the server's log has more")
