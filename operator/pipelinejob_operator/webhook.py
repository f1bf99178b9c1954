"""The optional validating webhook: what the CRDs cannot see is refused at `kubectl apply`, in the words of the condition Accepted.

It says no only where the operator would. When it is away, or cannot tell, nothing is held up: the operator looks again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from pipelinejob import model, pipelinefunction
from pipelinejob.reasons import JobError
from pipelinejob_operator.accept import accept
from pipelinejob_operator.functions import Functions
from pipelinejob_operator.kube import ApiError, Kube

HOST, PORT = "0.0.0.0", 9443
PATH = "/validate"
MOST = 4 << 20  # bytes of a review; the API server takes objects of 1.5 MiB
RENEW = 60.0  # seconds between looks at the certificate, which cert-manager renews

log = logging.getLogger("pipelinejob.webhook")


@asynccontextmanager
async def serving(certificates: str | None, kube: Kube, functions: Functions) -> AsyncIterator[None]:
    """Answers the API server as long as it lasts; nothing at all without a folder of certificates (tls.crt, tls.key)."""
    if certificates is None:
        yield
        return

    async def validate(request: web.Request) -> web.Response:
        review = await request.json()
        return web.json_response(await answer(review, kube, functions))

    app = web.Application(client_max_size=MOST)
    app.router.add_post(PATH, validate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    folder = Path(certificates)
    _load(context, folder)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    renewing = asyncio.create_task(_renew(context, folder))
    try:
        await web.TCPSite(runner, HOST, PORT, ssl_context=context).start()
        yield
    finally:
        renewing.cancel()
        await runner.cleanup()


async def answer(review: Mapping[str, Any], kube: Kube, functions: Functions) -> dict[str, Any]:
    """The answer to an AdmissionReview."""
    request = review["request"]
    problem = await _problem(request["object"], kube, functions) if request.get("object") else None
    response: dict[str, Any] = {"uid": request["uid"], "allowed": problem is None}
    if problem is not None:
        response["status"] = {"code": 422, "reason": "Invalid", "message": problem}
    return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}


async def _problem(body: Mapping[str, Any], kube: Kube, functions: Functions) -> str | None:
    """What is wrong with an object, None also where that cannot be told."""
    try:
        if body["kind"] == pipelinefunction.KIND:
            pipelinefunction.parse({key: body[key] for key in ("apiVersion", "kind", "metadata", "spec") if key in body})
        elif body["kind"] == model.KIND and "uid" in body["metadata"]:
            accept(body, kube.jobs_in(body["metadata"]["namespace"]), await functions.of(body))
    except JobError as error:
        return error.message
    except ApiError as error:
        log.warning("%s/%s: cannot tell: %s", body["metadata"].get("namespace"), body["metadata"].get("name"), error)
    return None


def _load(context: ssl.SSLContext, folder: Path) -> None:
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")


async def _renew(context: ssl.SSLContext, folder: Path) -> None:
    seen = (folder / "tls.crt").stat().st_mtime_ns
    while True:
        await asyncio.sleep(RENEW)
        try:
            if (now := (folder / "tls.crt").stat().st_mtime_ns) != seen:
                _load(context, folder)
                seen = now
        except (OSError, ssl.SSLError) as error:
            log.warning("the webhook's certificate cannot be read: %s", error)
