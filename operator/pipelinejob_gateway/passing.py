"""Passing a request for what is on a claim on to the reader in the job's namespace, and its answer back, piece by piece."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from pipelinejob.resources import Source
from pipelinejob_gateway.problems import problem

OUTPUT = "X-PipelineJob-Output"  # claim/path of the output folder; only the gateway says it, and only to a reader that knows its token
SOURCE = "X-PipelineJob-Source"  # how rows find their images, as JSON
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
AT_ONCE = 200
_ANSWERED = ("content-type", "content-length", "content-disposition", "content-security-policy", "x-content-type-options", "cache-control")


class Elsewhere(Exception):
    """The results are read elsewhere.

    Args:
        url: of the reader.
        claim: the claim that they are on.
        path: their folder there.
        source: how rows find their images.
        body: what is sent along, to be made JSON; None: nothing.
    """

    def __init__(self, url: str, claim: str, path: str, source: Source, body: object = None) -> None:
        super().__init__(url)
        self.url, self.claim, self.path, self.source, self.body = url, claim, path, source, body


def add_passing(app: FastAPI, token: str) -> None:
    """Lets routes that raise `Elsewhere` be answered by that reader; the caller's own token is not told to it."""
    client = httpx.AsyncClient(timeout=TIMEOUT, limits=httpx.Limits(max_connections=AT_ONCE), trust_env=False)

    @app.exception_handler(Elsewhere)
    async def passed(request: Request, error: Elsewhere) -> Response:
        raw: bytes = request.scope["raw_path"]
        query: bytes = request.scope["query_string"]
        url = httpx.URL(error.url).copy_with(raw_path=raw + (b"?" + query if query else b""))
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity", "Accept": request.headers.get("accept", "*/*")}
        headers |= {OUTPUT: quote(f"{error.claim}/{error.path}"), SOURCE: quote(json.dumps(error.source))}
        try:
            answer = await client.send(client.build_request(request.method, url, headers=headers, json=error.body), stream=True)
        except httpx.HTTPError as failure:
            detail = f"the reader of the namespace does not answer ({type(failure).__name__}): ask again later, or look at its pod"
            return problem(503, detail, "NoReader", {"Retry-After": "5"})
        kept = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
        if answer.status_code == 401:
            await answer.aclose()
            return problem(502, "the reader of the namespace does not take the gateway's token: upgrade the release, and restart both")
        return StreamingResponse(_pieces(answer), answer.status_code, kept)


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()
