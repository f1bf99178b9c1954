"""The REST API: /api/v1/pipelinejobs and what belongs to a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from pipelinejob import __version__
from pipelinejob.functions import BUILTINS
from pipelinejob.reasons import Phase
from pipelinejob_gateway import dashboard, pages, result_pages, result_routes, schemas, svc_ml
from pipelinejob_gateway.events import Feed
from pipelinejob_gateway.parameters import LABEL, Backend, InNamespace, Limit, Name, Namespace, Part, after_of, before
from pipelinejob_gateway.problems import add_handlers
from pipelinejob_gateway.schemas import answers

router = APIRouter(prefix="/api/v1")


@router.get("/pipelinejobs", summary="List jobs, the newest first", responses=answers(200, schemas.JobList, 422, 503))
def list_jobs(
    jobs: Backend,
    namespace: InNamespace = None,
    phase: Annotated[list[Phase] | None, Query(description="Only in this phase; may be repeated.")] = None,
    name: Part = None,
    limit: Limit = 50,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> JSONResponse:
    page = jobs.page(namespace=namespace, phases=phase or (), name=name, before=before(after), limit=limit)
    return JSONResponse({"items": page.items, "next": after_of(page)})


@router.post("/pipelinejobs", status_code=201, summary="Create a job", responses=answers(201, schemas.Job, 409, 415, 422, 503))
def create_job(jobs: Backend, document: Annotated[dict[str, Any], Body(examples=[schemas.JOB_EXAMPLE])]) -> JSONResponse:
    created = jobs.submit(document)
    meta = created["metadata"]
    return JSONResponse(created, 201, {"Location": f"/api/v1/pipelinejobs/{meta['name']}?namespace={meta['namespace']}"})


@router.post("/plan", summary="What a job would do; nothing is written", responses=answers(200, None, 415, 422, 501))
def plan(
    jobs: Backend,
    document: Annotated[dict[str, Any], Body(examples=[schemas.JOB_EXAMPLE])],
    count: Annotated[bool, Query(description="Read all rows for exact numbers, not the first 10,000.")] = False,
) -> JSONResponse:
    return JSONResponse(jobs.preview(document, whole=count))


@router.get("/functions", summary="The built-in functions with their params")
def functions() -> JSONResponse:
    return JSONResponse({"functions": [function.described() for function in BUILTINS.values()]})


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
    responses=answers(200, None, 404, 409, 422, 501, 503),
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
    responses={**answers(202, schemas.Job, 404, 409, 415, 422, 501, 503), 204: {"description": "Nothing is left to run again."}},
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


@router.get(
    "/events",
    response_class=StreamingResponse,
    summary="Changes of jobs, as server-sent events",
    description="Each event's type is ADDED, MODIFIED or DELETED, and its data how the job stands then. "
    "Listen first, then list: so nothing is missed.",
)
def events(
    request: Request,
    jobs: Backend,
    namespace: InNamespace = None,
    name: Annotated[str | None, Query(max_length=63, pattern=LABEL, description="Only of this job, and how it stands at first.")] = None,
) -> StreamingResponse:
    sees = jobs.watched(namespace)
    feed: Feed = request.app.state.feed
    return StreamingResponse(feed.stream(namespace, name, sees), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    return pages.reference(request.app.openapi(), "/api/v1/")


def create_app(
    jobs_of: Any, feed: Feed, catalogue: svc_ml.Catalogue, sign_in: Callable[[str], object] | None = None, *, in_cluster: bool = False
) -> FastAPI:
    """The application.

    Args:
        jobs_of: request → the jobs that its caller may see.
        feed: the changes of jobs.
        catalogue: which catalogue the replaced system's endpoints ask.
        sign_in: raises Refused for a token that is nobody's; None: nobody need sign in.
        in_cluster: whether jobs name the claim with their data.
    """
    app = FastAPI(
        title="PipelineJob",
        version=__version__,
        summary="Function pipelines over the rows of a CSV, with every row accounted for",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.jobs_of, app.state.feed, app.state.catalogue = jobs_of, feed, catalogue
    app.state.sign_in, app.state.in_cluster = sign_in, in_cluster
    app.include_router(router, tags=["PipelineJobs"])
    app.include_router(result_routes.router, tags=["Results"])
    app.include_router(svc_ml.router, tags=["The replaced system's endpoints"])
    app.include_router(result_pages.router)
    dashboard.add_pages(app)

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
