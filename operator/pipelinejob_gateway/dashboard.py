"""Pages for people: the jobs, one job, its failed rows, a new job, and who asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Annotated, Any
from urllib.parse import urlencode

import yaml
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from pipelinejob.functions import BUILTINS
from pipelinejob.insight import Insight, pace, rates
from pipelinejob.reasons import ENDS, Phase, RowReason
from pipelinejob.report import WHAT_TO_DO
from pipelinejob.store import FailedRow
from pipelinejob_gateway.guard import COOKIE
from pipelinejob_gateway.pages import render
from pipelinejob_gateway.parameters import Backend, InNamespace, Name, Namespace, Part, after_of, before
from pipelinejob_gateway.problems import Refused
from pipelinejob_gateway.result_pages import InPath, source_of

JOBS, FAILURES = 50, 50  # on a page
STATIC = FilePath(__file__).parent / "static"
SIGNED_IN_FOR = 8 * 3600  # seconds
SIGNED_IN = "pipelinejob-signed-in"  # tells our script that there is somebody to sign out

_UNSEEN = (RowReason.MALFORMED_ROW, RowReason.INVALID_OUTPUT_NAME, RowReason.IMAGE_NOT_FOUND, RowReason.IMAGE_INVALID)
_BLANK = BeforeValidator(lambda given: given or None)  # a form sends what is not filled in, too

router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse)
def jobs_page(
    jobs: Backend,
    namespace: Annotated[InNamespace, _BLANK] = None,
    phase: Annotated[Phase | None, _BLANK] = None,
    name: Annotated[Part, _BLANK] = None,
    after: str | None = None,
) -> HTMLResponse:
    """The jobs, the newest first."""
    page = jobs.page(namespace=namespace, phases=[phase] if phase else (), name=name, before=before(after), limit=JOBS)
    filters = {key: value for key, value in (("namespace", namespace), ("phase", phase), ("name", name)) if value}
    older = urlencode({**filters, "after": after_of(page)}) if page.after else None
    newest = urlencode(filters) if after else None
    return render("jobs.html", jobs=page.items, filters=filters, phases=list(Phase), older=older, newest=newest, now=datetime.now(UTC))


@router.get("/jobs/{namespace}/{name}", response_class=HTMLResponse)
def job_page(jobs: Backend, namespace: InPath, name: Name) -> HTMLResponse:
    """How a job stands, and what can be done about it."""
    job = jobs.get(namespace, name)
    insight = jobs.insight(namespace, name)
    status = job.get("status") or {}
    phase = status.get("phase") or Phase.PENDING
    if phase == Phase.RUNNING and "rowsPerSecond" not in status:
        status = {**status, **_expected(status, insight)}
    return render(
        "job.html",
        job=job,
        status=status,
        phase=phase,
        ended=phase in ENDS,
        is_redrive=bool(job["spec"]["source"].get("failedRowsOf")),
        insight=insight,
        rates=rates(insight.recorded),
        advice={reason.value: WHAT_TO_DO[reason] for reason in RowReason},
        events=jobs.events(namespace, name),
        spec=yaml.safe_dump({key: job[key] for key in ("apiVersion", "kind", "spec")}, sort_keys=False, allow_unicode=True),
    )


@router.get("/jobs/{namespace}/{name}/failures", response_class=HTMLResponse)
def failures_page(
    jobs: Backend,
    namespace: InPath,
    name: Name,
    reason: Annotated[RowReason | None, _BLANK] = None,
    after: Annotated[int, Query(ge=-1, lt=2**62)] = -1,
) -> HTMLResponse:
    """The rows that failed, with their images where the id finds them."""
    job = jobs.get(namespace, name)
    found = jobs.failures(namespace, name, reason=reason, after=after, limit=FAILURES + 1)
    source = job["spec"]["source"]
    rows = [(row, _picture_of(row, namespace, name, source)) for row in found[:FAILURES]]
    following = urlencode({**({"reason": reason} if reason else {}), "after": found[FAILURES - 1].row}) if len(found) > FAILURES else None
    return render(
        "failures.html",
        namespace=namespace,
        name=name,
        rows=rows,
        reason=reason,
        reasons=list(RowReason),
        following=following,
        first=after < 0,
    )


def _expected(status: Mapping[str, Any], insight: Insight) -> dict[str, Any]:
    """The pace and the end of a run that nobody has written into its status."""
    now = datetime.now(UTC)
    rate = pace(insight.recorded, (now - datetime.fromisoformat(status["startTime"])).total_seconds()) if status.get("startTime") else 0.0
    if not rate:
        return {}
    return {"rowsPerSecond": rate, "estimatedCompletionTime": (now + timedelta(seconds=status["rows"]["pending"] / rate)).isoformat()}


def _picture_of(row: FailedRow, namespace: str, name: str, source: Mapping[str, Any]) -> str | None:
    """Where the picture of a row that failed is; None where there is none to see, or its id does not say which."""
    if row.reason in _UNSEEN:
        return None
    return source_of(namespace, name, source.get("images"), {source.get("idColumn", "id"): row.id})


@router.get("/new", response_class=HTMLResponse)
def new_page(request: Request, namespace: Namespace = "default") -> HTMLResponse:
    """A form that makes a PipelineJob."""
    functions = [function.described() for function in BUILTINS.values()]
    return render("new.html", functions=functions, namespace=namespace, in_cluster=request.app.state.in_cluster)


class Token(BaseModel):
    """What somebody signs in with."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=3_800)  # a browser keeps cookies of 4 KiB


@router.get("/login", response_class=HTMLResponse)
def login_page(request: Request) -> Response:
    """Asks for a token, where one is wanted."""
    if request.app.state.sign_in is None:
        return RedirectResponse("/", 303)
    return render("login.html", in_cluster=request.app.state.in_cluster)


@router.post("/login", status_code=204)
def login(request: Request, given: Token) -> Response:
    """Takes a token into a cookie that no script can read and no other site's page can send."""
    token = given.token.strip()
    if request.app.state.sign_in is None:
        return Response(status_code=204)
    if not token.isascii() or any(char.isspace() or char in ';,"\\' for char in token):
        raise Refused(401, "this is no token: it may hold no spaces and no quotes", "Unauthorized")
    request.app.state.sign_in(token)
    answer = Response(status_code=204)
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    answer.set_cookie(COOKIE, token, max_age=SIGNED_IN_FOR, httponly=True, samesite="strict", secure=secure)
    answer.set_cookie(SIGNED_IN, "yes", max_age=SIGNED_IN_FOR, samesite="strict", secure=secure)
    return answer


@router.post("/logout", status_code=204)
def logout() -> Response:
    """Forgets the token."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    answer.delete_cookie(SIGNED_IN, samesite="strict")
    return answer


def add_pages(app: FastAPI) -> None:
    """Adds the pages and what they are made with."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC))
