"""Who may ask, on one machine: programs of this machine, and nothing that a foreign page makes a browser send.

A browser sends a page's requests to loopback, too. Three things tell them apart: the Host that a rebound DNS name shows,
the Origin that a foreign page cannot hide, and a content type that a plain form cannot have.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelinejob_gateway.problems import problem

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
JSON_TYPES = ("application/json", "application/merge-patch+json")
MAX_BODY = 1 << 20  # bytes; as Kubernetes takes of a resource
_READS = ("GET", "HEAD", "OPTIONS")
_WITH_BODY = ("POST", "PATCH")


class LocalGuard:
    """Refuses what does not come from this machine's own programs.

    Args:
        app: the application.
        hosts: names under which it may be asked; with a token any.
        token: what requests must carry as `Authorization: Bearer`; None: nothing, which is for loopback alone.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK, token: str | None = None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if scope["type"] == "http":
            refused = refusal(scope["method"], Headers(scope=scope), self._hosts, self._token)
        if refused is not None:
            status, detail = refused
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            await problem(status, detail, headers=headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def refusal(method: str, headers: Headers, hosts: Collection[str], token: str | None) -> tuple[int, str] | None:
    """(status, what is wrong) of a request that is refused, from its method and headers alone."""
    host = headers.get("host", "")
    if token is None:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name.lower() not in hosts:
            return 421, f"the Host {host!r} is not this server: ask for {' or '.join(hosts)}"
    else:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
            return 401, "this server wants its token: send the header Authorization: Bearer <token>"
    if method in _READS:
        return None
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        return 403, f"a page of {origin!r} may not change anything here"
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return 403, "a page of another site may not change anything here"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method in _WITH_BODY and kind not in JSON_TYPES:
        return 415, f"expected the content type application/json, got {kind or 'none'!r}: send the header Content-Type: application/json"
    if "transfer-encoding" in headers:
        return 411, "send the body at once, with its Content-Length"
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        return 413, f"the body may have at most {MAX_BODY} bytes"
    return None
