"""Who may ask: on one machine its own programs, in a cluster who Kubernetes knows; and nothing that a foreign page makes a browser send.

A browser sends a page's requests to loopback, too. Three things tell them apart: the Host that a rebound DNS name shows,
the Origin that a foreign page cannot hide, and a content type that a plain form cannot have.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelinejob_gateway.problems import Refused, is_page, problem

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
JSON_TYPES = ("application/json", "application/merge-patch+json")
MAX_BODY = 1 << 20  # bytes; as Kubernetes takes of a resource
PROBES = ("/healthz", "/readyz")
SIGN_IN = ("/login", "/static/")  # and what is below these
OPEN = (*PROBES, *SIGN_IN, "/api/v1/openapi.json", "/api/v1/docs", "/api/v1/svc_ml/docs", "/api/v1/functions")  # what says nothing of jobs
COOKIE = "pipelinejob-token"  # of who signed in with a browser, which sends it to us alone and from our pages alone
_READS = ("GET", "HEAD", "OPTIONS")
_WITH_BODY = ("POST", "PATCH")


class _Guard:
    """Refuses a request before the application sees any of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self.check(scope, Headers(scope=scope))
            except Refused as error:
                answer: Response = problem(error.status, error.detail, error.reason, error.headers)
                if error.status == 401 and is_page(scope):
                    asked = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
                    answer = RedirectResponse(f"/login?{urlencode({'next': asked})}", 303)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def check(self, scope: Scope, headers: Headers) -> None:
        """Raises Refused for what may not go on."""
        raise NotImplementedError


class LocalGuard(_Guard):
    """Refuses what does not come from this machine's own programs.

    Args:
        app: the application.
        hosts: names under which it may be asked; with a token any.
        token: what requests must carry as `Authorization: Bearer`; None: nothing, which is for loopback alone.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOOPBACK, token: str | None = None) -> None:
        super().__init__(app)
        self._hosts, self._token = hosts, token

    async def check(self, scope: Scope, headers: Headers) -> None:
        """The token or, without one, the Host; then the rest."""
        if self._token is None:
            check_host(headers, self._hosts)
        elif not scope["path"].startswith(SIGN_IN):
            check_token(headers, self._token)
        check_change(scope["method"], headers)


class TokenGuard(_Guard):
    """Refuses all but probes and who knows the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        super().__init__(app)
        self._token = token

    async def check(self, scope: Scope, headers: Headers) -> None:
        """The token alone: nothing can be changed here."""
        if scope["path"] not in PROBES:
            check_token(headers, self._token)


class ClusterGuard(_Guard):
    """Refuses whom Kubernetes does not know; who asks is `request.state.caller`, None where everybody may.

    Args:
        app: the application.
        of: token → who it belongs to; raises Refused for one that is nobody's; called in a thread.
    """

    def __init__(self, app: ASGIApp, of: Callable[[str], object]) -> None:
        super().__init__(app)
        self._of = of

    async def check(self, scope: Scope, headers: Headers) -> None:
        """Who asks; then the rest."""
        token = bearer(headers)
        if token is None and not (scope["path"] in OPEN or scope["path"].startswith(SIGN_IN)):
            detail = "this server wants a token that Kubernetes knows: send the header Authorization: Bearer <token>"
            raise Refused(401, detail, "Unauthorized", {"WWW-Authenticate": "Bearer"})
        unasked = scope["path"] in PROBES or scope["path"].startswith(SIGN_IN)  # a token that has expired must not bar the way to a new one
        caller = None if token is None or unasked else await run_in_threadpool(self._of, token)
        scope.setdefault("state", {})["caller"] = caller
        check_change(scope["method"], headers)


def bearer(headers: Headers) -> str | None:
    """The token of a request, if it has one: a program's in its header, a browser's in its cookie."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip() or None
    return cookie_parser(headers.get("cookie", "")).get(COOKIE) or None


def check_token(headers: Headers, token: str) -> None:
    """Refuses a request without a token.

    Raises:
        Refused: 401.
    """
    check_given(bearer(headers) or "", token)


def check_given(given: str, token: str) -> None:
    """Refuses what is not the token.

    Raises:
        Refused: 401.
    """
    if not secrets.compare_digest(given.encode(), token.encode()):
        detail = "this server wants its token: send the header Authorization: Bearer <token>"
        raise Refused(401, detail, headers={"WWW-Authenticate": "Bearer"})


def check_host(headers: Headers, hosts: Collection[str]) -> None:
    """Refuses a request that asks for another host.

    Raises:
        Refused: 421.
    """
    host = headers.get("host", "")
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name.lower() not in hosts:
        raise Refused(421, f"the Host {host!r} is not this server: ask for {' or '.join(hosts)}")


def check_change(method: str, headers: Headers) -> None:
    """Refuses a change that a foreign page may have sent, and a body that is too large or of unknown length.

    Raises:
        Refused: 403, 411, 413 or 415.
    """
    if method in _READS:
        return
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise Refused(403, f"a page of {origin!r} may not change anything here")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "a page of another site may not change anything here")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method in _WITH_BODY and kind not in JSON_TYPES:
        advice = "send the header Content-Type: application/json"
        raise Refused(415, f"expected the content type application/json, got {kind or 'none'!r}: {advice}")
    if "transfer-encoding" in headers:
        raise Refused(411, "send the body at once, with its Content-Length")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise Refused(413, f"the body may have at most {MAX_BODY} bytes")
