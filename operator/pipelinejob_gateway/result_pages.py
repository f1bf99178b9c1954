"""Pages for people that read a job's results; of a cluster's jobs, a reader answers them where the claim is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse, Response

from pipelinejob import template
from pipelinejob.resources import Output
from pipelinejob_gateway import columns as columns_
from pipelinejob_gateway import results
from pipelinejob_gateway.pages import render
from pipelinejob_gateway.parameters import LABEL, Backend, Name
from pipelinejob_gateway.thumbnails import Thumbnails

ROWS = 24  # on a page
InPath = Annotated[str, Path(max_length=63, pattern=LABEL)]

router = APIRouter(prefix="/jobs/{namespace}/{name}", include_in_schema=False)
_thumbnails = Thumbnails()


@router.get("/rows", response_class=HTMLResponse)
def rows(jobs: Backend, namespace: InPath, name: Name, after: str | None = None) -> HTMLResponse:
    """Rows that succeeded, each with its image before and after."""
    output = jobs.output(namespace, name)
    page = results.row_page(output, after, ROWS)
    shown = [_shown(namespace, name, output, row) for row in page.rows]
    names = [column for column in (page.rows[0] if page.rows else ()) if column != output.source.url_column]
    return render("rows.html", namespace=namespace, name=name, rows=shown, columns=names, first=after is None, after=page.after)


@router.get("/columns", response_class=HTMLResponse)
def columns(jobs: Backend, namespace: InPath, name: Name) -> HTMLResponse:
    """What the columns of the results hold."""
    with results.open_below(jobs.output(namespace, name), "metadata.csv") as file:
        found = columns_.sample(file, os.fstat(file.fileno()).st_size)
    return render("columns.html", namespace=namespace, name=name, sample=found)


@router.get("/thumbnails/{folder}/{image}", response_class=Response)
def thumbnail(jobs: Backend, namespace: InPath, name: Name, folder: str, image: str) -> Response:
    """An image of the results, small."""
    return _picture(_thumbnails.of_result(jobs.output(namespace, name), folder, image))


@router.get("/source", response_class=Response)
def source(jobs: Backend, namespace: InPath, name: Name, path: Annotated[str, Query(max_length=4096)]) -> Response:
    """The image that a row was made from, small."""
    return _picture(_thumbnails.of_source(jobs.output(namespace, name), path))


def _picture(data: bytes) -> Response:
    headers = {"Cache-Control": "private, max-age=300", "Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(data, media_type="image/jpeg", headers={**headers, "X-Content-Type-Options": "nosniff"})


def _shown(namespace: str, name: str, output: Output, row: Mapping[str, str]) -> dict[str, Any]:
    """A row with the addresses of its pictures; None where it has none."""
    url, base = row.get(output.source.url_column, ""), f"/jobs/{namespace}/{name}"
    before = source_of(namespace, name, output.source.images, row) if url else None
    after = f"{base}/thumbnails/{quote(url.removeprefix('images/'))}" if url.startswith("images/") else None
    whole = f"/api/v1/pipelinejobs/{name}/results/{quote(url)}?{urlencode({'namespace': namespace})}" if after else None
    return {"cells": row, "before": before, "after": after, "whole": whole}


def source_of(namespace: str, name: str, images: str | None, row: Mapping[str, str]) -> str | None:
    """Where the picture of a row before its functions is; None where the row does not say."""
    if images is None:
        return None
    parsed = template.parse(images)
    if any(column not in row for column in parsed.columns):
        return None
    return f"/jobs/{namespace}/{name}/source?{urlencode({'path': parsed.fill(row)})}"
