"""The REST API: /api/v1/pipelinejobs and what belongs to a job."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from pipelinejob import __version__, objects
from pipelinejob.functions import BUILTINS
from pipelinejob.model import NAME_PATTERN
from pipelinejob.reasons import Phase
from pipelinejob.resources import NO_FOLDER, parse
from pipelinejob_gateway import pages, results, schemas, svc_ml
from pipelinejob_gateway.backend import Jobs
from pipelinejob_gateway.events import Feed
from pipelinejob_gateway.problems import Refused, add_handlers
from pipelinejob_gateway.schemas import answers

MAX_PAGE = 1_000

router = APIRouter(prefix="/api/v1")


def jobs_of(request: Request) -> Jobs:
    """The jobs that the caller may see."""
    jobs: Jobs = request.app.state.jobs_of(request)
    return jobs


Backend = Annotated[Jobs, Depends(jobs_of)]
_LABEL = f"^{NAME_PATTERN}$"
Name = Annotated[str, Path(max_length=63, pattern=_LABEL, description="The job's name.", examples=["men-fall-2010"])]
Namespace = Annotated[str, Query(max_length=63, pattern=_LABEL, description="The job's namespace.")]
Part = Annotated[str | None, Query(max_length=63, pattern="^[-a-z0-9]*$", description="Only with this in their name.")]
InNamespace = Annotated[str | None, Query(max_length=63, pattern=_LABEL, description="Only of this namespace.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="How many at most.")]


@router.get("/pipelinejobs", summary="List jobs, the newest first", responses=answers(200, schemas.JobList, 422, 503))
def list_jobs(
    jobs: Backend,
    namespace: InNamespace = None,
    phase: Annotated[list[Phase] | None, Query(description="Only in this phase; may be repeated.")] = None,
    name: Part = None,
    limit: Limit = 50,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> JSONResponse:
    page = jobs.page(namespace=namespace, phases=phase or (), name=name, before=_before(after), limit=limit)
    return JSONResponse({"items": page.items, "next": page.after and f"{page.after[0].isoformat()}_{page.after[1]}"})


@router.post("/pipelinejobs", status_code=201, summary="Create a job", responses=answers(201, schemas.Job, 409, 415, 422, 503))
def create_job(jobs: Backend, document: Annotated[dict[str, Any], Body(examples=[schemas.JOB_EXAMPLE])]) -> JSONResponse:
    created = jobs.create(parse(document), NO_FOLDER)
    meta = created["metadata"]
    return JSONResponse(created, 201, {"Location": f"/api/v1/pipelinejobs/{meta['name']}?namespace={meta['namespace']}"})


@router.post("/plan", summary="What a job would do; nothing is written", responses=answers(200, None, 415, 422))
def plan(
    jobs: Backend,
    document: Annotated[dict[str, Any], Body(examples=[schemas.JOB_EXAMPLE])],
    count: Annotated[bool, Query(description="Read all rows for exact numbers, not the first 10,000.")] = False,
) -> JSONResponse:
    return JSONResponse(jobs.plan(parse(document), NO_FOLDER, whole=count))


@router.get("/functions", summary="The built-in functions with their params")
def functions() -> JSONResponse:
    return JSONResponse({"functions": [objects.of_function(function) for function in BUILTINS.values()]})


@router.get("/pipelinejobs/{name}", summary="How a job stands", responses=answers(200, schemas.Job, 404, 422, 503))
def get_job(jobs: Backend, name: Name, namespace: Namespace = "default") -> JSONResponse:
    return JSONResponse(jobs.get(namespace, name))


@router.patch("/pipelinejobs/{name}", summary="Change fields that may change", responses=answers(200, schemas.Job, 404, 409, 415, 422, 503))
def patch_job(jobs: Backend, name: Name, patch: schemas.Patch, namespace: Namespace = "default") -> JSONResponse:
    return JSONResponse(jobs.patch(namespace, name, patch.spec))


@router.delete(
    "/pipelinejobs/{name}",
    status_code=204,
    response_class=Response,
    summary="Delete a job; its output stays unless asked for",
    responses=answers(200, None, 404, 409, 422, 503),
)
def delete_job(
    jobs: Backend,
    name: Name,
    namespace: Namespace = "default",
    output: Annotated[bool, Query(description="Delete its output folder, too.")] = False,
) -> Response:
    jobs.delete(namespace, name, output=output)
    return Response(status_code=204)


@router.post(
    "/pipelinejobs/{name}/cancel",
    summary="Cancel a job for good; what is done is kept",
    responses=answers(200, schemas.Job, 404, 409, 415, 422, 503),
)
def cancel_job(jobs: Backend, name: Name, namespace: Namespace = "default") -> JSONResponse:
    return JSONResponse(jobs.cancel(namespace, name))


@router.post(
    "/pipelinejobs/{name}/suspend",
    summary="Stop a job until it is resumed; what is done is kept",
    responses=answers(200, schemas.Job, 404, 409, 415, 422, 503),
)
def suspend_job(jobs: Backend, name: Name, namespace: Namespace = "default") -> JSONResponse:
    return JSONResponse(jobs.suspend(namespace, name))


@router.post(
    "/pipelinejobs/{name}/resume",
    summary="Go on with a job that was suspended or interrupted",
    responses=answers(200, schemas.Job, 404, 409, 415, 422, 503),
)
def resume_job(jobs: Backend, name: Name, namespace: Namespace = "default") -> JSONResponse:
    return JSONResponse(jobs.resume(namespace, name))


@router.post(
    "/pipelinejobs/{name}/redrive",
    status_code=202,
    summary="Run the failed rows of a job again",
    responses={**answers(202, schemas.Job, 404, 409, 415, 422, 503), 204: {"description": "Nothing is left to run again."}},
)
def redrive_job(jobs: Backend, name: Name, wanted: schemas.Redrive, namespace: Namespace = "default") -> Response:
    made = jobs.redrive(namespace, name, reasons=wanted.reasons, pending=wanted.pending)
    return Response(status_code=204) if made is None else JSONResponse(made, 202)


@router.get("/pipelinejobs/{name}/failures", summary="Rows that failed", responses=answers(200, schemas.FailurePage, 404, 422, 503))
def failures(
    jobs: Backend,
    name: Name,
    namespace: Namespace = "default",
    reason: Annotated[str | None, Query(description="Only rows that failed for this reason.")] = None,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=-1, lt=2**62, description="`next` of the page before.")] = -1,
) -> JSONResponse:
    found = jobs.failures(namespace, name, reason=reason, after=after, limit=limit + 1)
    items = [row._asdict() for row in found[:limit]]
    return JSONResponse({"items": items, "next": items[-1]["row"] if len(found) > limit else None})


@router.get("/pipelinejobs/{name}/rows", summary="Rows that succeeded", responses=answers(200, schemas.RowPage, 404, 410, 422, 503))
def rows(
    jobs: Backend,
    name: Name,
    namespace: Namespace = "default",
    limit: Limit = 100,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> JSONResponse:
    page = results.row_page(jobs.output(namespace, name), after, limit)
    return JSONResponse({"items": page.rows, "next": page.after})


@router.get(
    "/pipelinejobs/{name}/results/metadata",
    response_class=StreamingResponse,
    summary="All rows that succeeded, as CSV, JSON or Parquet",
    responses=answers(200, None, 404, 422, 503),
)
def metadata(
    jobs: Backend,
    name: Name,
    namespace: Namespace = "default",
    format: Annotated[str, Query(pattern="^(csv|json|parquet)$", description="csv, json or parquet.")] = "csv",
) -> StreamingResponse:
    output = jobs.output(namespace, name)
    if format == "json":
        return _download(results.metadata_json(output), "application/json", f"{name}.json")
    if format == "parquet":
        return _download(results.metadata_parquet(output), "application/vnd.apache.parquet", f"{name}.parquet")
    size, pieces = results.whole(output, "metadata.csv")
    return _download(pieces, "text/csv; charset=utf-8", f"{name}.csv", size)


@router.get(
    "/pipelinejobs/{name}/results/{file}",
    response_class=StreamingResponse,
    summary="metadata.csv, failures.csv or manifest.json, as it is; images.zip",
    responses=answers(200, None, 404, 413, 422, 503),
)
def result_file(
    jobs: Backend,
    name: Name,
    file: str,
    namespace: Namespace = "default",
    first: Annotated[int, Query(ge=0, lt=2**62, description="Of images.zip: the first row.")] = 0,
    rows: Annotated[int, Query(ge=1, le=2**62, description="Of images.zip: how many rows, in whole batches.")] = 2**62,
) -> StreamingResponse:
    output = jobs.output(namespace, name)
    if file == "images.zip":
        return _download(results.images_zip(output, first, rows), "application/zip", f"{name}.zip")
    if file not in results.FILES:
        raise Refused(404, f"there is no file {file!r}: expected one of {', '.join(results.FILES)} or images.zip", "NotFound")
    size, pieces = results.whole(output, file)
    return _download(pieces, results.FILES[file], file, size)


@router.get(
    "/pipelinejobs/{name}/results/images/{folder}/{image}",
    response_class=Response,
    summary="One image, by the url of its row",
    responses=answers(200, None, 404, 422, 503),
)
def image(jobs: Backend, name: Name, folder: str, image: str, namespace: Namespace = "default") -> Response:
    kind, data = results.image(jobs.output(namespace, name), folder, image)
    return Response(data, media_type=kind, headers={"Content-Security-Policy": "default-src 'none'; sandbox"})


@router.get(
    "/events",
    response_class=StreamingResponse,
    summary="Changes of jobs, as server-sent events",
    description="Each event's type is ADDED, MODIFIED or DELETED, and its data how the job stands then. "
    "Listen first, then list: so nothing is missed.",
)
def events(
    request: Request,
    namespace: InNamespace = None,
    name: Annotated[str | None, Query(max_length=63, pattern=_LABEL, description="Only of this job, and how it stands at first.")] = None,
) -> StreamingResponse:
    feed: Feed = request.app.state.feed
    return StreamingResponse(feed.stream(namespace, name), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def docs(request: Request) -> str:
    return pages.reference(request.app.openapi(), "/api/v1/")


def create_app(jobs_of: Any, feed: Feed, catalogues: svc_ml.Catalogues) -> FastAPI:
    """The application.

    Args:
        jobs_of: request → the jobs that its caller may see.
        feed: the changes of jobs.
        catalogues: keeps which catalogue the replaced system's endpoints ask.
    """
    app = FastAPI(
        title="PipelineJob",
        version=__version__,
        summary="Function pipelines over the rows of a CSV, with every row accounted for",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.jobs_of, app.state.feed, app.state.catalogues = jobs_of, feed, catalogues
    app.include_router(router, tags=["PipelineJobs"])
    app.include_router(svc_ml.router, tags=["The replaced system's endpoints"])

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def start(request: Request) -> str:
        return pages.start(jobs_of(request).page(limit=20).items)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    add_handlers(app)
    _document_problems(app)
    return app


def _document_problems(app: FastAPI) -> None:
    """Puts the schema of a problem where the routes' documentation looks for it."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas_ = document.setdefault("components", {}).setdefault("schemas", {})
        schemas_.setdefault("Problem", schemas.Problem.model_json_schema(ref_template="#/components/schemas/{model}"))
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _download(pieces: Iterator[bytes], kind: str, name: str, size: int | None = None) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    if size is not None:
        headers["Content-Length"] = str(size)
    return StreamingResponse(pieces, media_type=kind, headers=headers)


def _before(after: str | None) -> tuple[datetime, str] | None:
    if after is None:
        return None
    at, _, uid = after.rpartition("_")
    try:
        return datetime.fromisoformat(at).astimezone(UTC), str(UUID(uid))
    except (ValueError, OverflowError):
        raise Refused(422, "after: is not what a page before this one gave", "Invalid") from None
