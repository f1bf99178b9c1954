"""The routes that read a job's results; of a cluster's jobs, a reader answers them where the claim is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse

from pipelinejob_gateway import results, schemas
from pipelinejob_gateway.parameters import Backend, Limit, Name, Namespace
from pipelinejob_gateway.problems import Refused
from pipelinejob_gateway.schemas import answers

router = APIRouter(prefix="/api/v1")


@router.get("/pipelinejobs/{name}/rows", summary="Rows that succeeded", responses=answers(200, schemas.RowPage, 404, 410, 422, 501, 503))
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
    responses=answers(200, None, 404, 422, 501, 503),
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
    responses=answers(200, None, 404, 413, 422, 501, 503),
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
    responses=answers(200, None, 404, 422, 501, 503),
)
def image(jobs: Backend, name: Name, folder: str, image: str, namespace: Namespace = "default") -> Response:
    kind, data = results.image(jobs.output(namespace, name), folder, image)
    return Response(data, media_type=kind, headers={"Content-Security-Policy": "default-src 'none'; sandbox"})


def _download(pieces: Iterator[bytes], kind: str, name: str, size: int | None = None) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    if size is not None:
        headers["Content-Length"] = str(size)
    return StreamingResponse(pieces, media_type=kind, headers=headers)
