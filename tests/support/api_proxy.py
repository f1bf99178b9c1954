"""A TLS proxy between an operator and the API server, which does to its calls what a test tells it to."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from cluster.pki import Authority

T = TypeVar("T")

_OWN = {"connection", "transfer-encoding", "keep-alive", "host"}  # headers of one connection
_MOST = 1 << 20  # bytes of a line of a watch


@dataclass(frozen=True)
class Refusal:
    """An answer in the API server's place; the call never reaches it."""

    status: int
    reason: str
    retry_after: int | None = None


What = Refusal | Literal["cut", "drop"] | None  # cut: done, but its answer breaks off half-way; drop: no answer, and not done
Fault = Callable[[web.Request], What]


def is_watch(request: web.Request) -> bool:
    """Whether a call is a watch."""
    return request.query.get("watch") == "true"


def is_write(request: web.Request) -> bool:
    """Whether a call changes something."""
    return request.method not in ("GET", "HEAD")


def every_other(*whats: What, of: Callable[[web.Request], bool] = lambda _: True) -> Fault:
    """Of the calls of one method to one path, the first goes wrong, the second is well, and so on; in each of these ways in turn."""
    calls: Counter[tuple[str, str, bool]] = Counter()

    def fault(request: web.Request) -> What:
        if not of(request):
            return None
        call = (request.method, request.path, is_watch(request))
        calls[call] += 1
        return whats[calls[call] // 2 % len(whats)] if calls[call] % 2 else None

    return fault


class Proxy:
    """Serves on a free port of 127.0.0.1, in a thread of its own, until it is closed.

    Args:
        kubeconfig: of the cluster; its address and authority are used, and no credentials: callers bring theirs.
        folder: gets certificates, and `kubeconfig`'s result.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        (cluster,) = (one["cluster"] for one in yaml.safe_load(kubeconfig.read_text())["clusters"])
        self._server = cluster["server"]
        self._upstream = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        Authority(folder).certificate("proxy", "/CN=proxy", "IP:127.0.0.1")
        self._own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._own.load_cert_chain(folder / "proxy.crt", folder / "proxy.key")
        self._folder = folder
        self.fault: Fault = lambda _: None
        self.spoilt: list[str] = []  # method and path of each call that went wrong
        self.is_silent = False  # watches that are open, and those that are begun meanwhile, bring nothing more, ever
        self._open: dict[asyncio.Task[Any], tuple[web.Request, web.StreamResponse]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._call(self._start())

    def kubeconfig(self, token: str) -> Path:
        """Writes a kubeconfig that leads through the proxy."""
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self._folder / "ca.crt")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": cluster}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
            "current-context": "proxy",
        }
        file = self._folder / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(document))
        return file

    def well(self) -> None:
        """All goes through again; watches that fell silent stay so."""
        self.fault, self.is_silent = lambda _: None, False

    def drop_watches(self, last: dict[str, Any] | None = None) -> int:
        """Breaks the connections of all open watches, after a last event if there is one; returns how many."""
        return self._call(self._drop_watches(last))

    def close(self) -> None:
        """Ends it, with all connections."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> int:
        connector = aiohttp.TCPConnector(ssl=self._upstream, limit=0)
        never = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=never, read_bufsize=_MOST)
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._own)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        await self._drop_watches(None)
        await self._runner.cleanup()
        await self._session.close()

    async def _drop_watches(self, last: dict[str, Any] | None) -> int:
        found = list(self._open.items())
        for task, (request, response) in found:
            if last is not None:
                await response.write(json.dumps(last).encode() + b"\n")
                await response.write_eof()
            elif request.transport is not None:
                request.transport.abort()
            task.cancel()
        return len(found)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        what = self.fault(request)
        if what is not None:
            self.spoilt.append(f"{request.method} {request.path}")
        if isinstance(what, Refusal):
            return _refused(what)
        if what == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
        url = self._server + request.raw_path
        body = await request.read()
        async with self._session.request(request.method, URL(url, encoded=True), headers=headers, data=body or None) as answer:
            if is_watch(request) and answer.status == 200:
                return await self._watch(request, answer)
            data = await answer.read()
            made = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_kept(answer))
            made.content_length = len(data)
            await made.prepare(request)
            if what == "cut":
                await made.write(data[: len(data) // 2])
                assert request.transport is not None
                request.transport.close()
                return made
            await made.write(data)
            await made.write_eof()
            return made

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        task, made = asyncio.current_task(), web.StreamResponse(headers=_kept(answer))
        assert task is not None
        await made.prepare(request)
        self._open[task] = (request, made)
        silent = False
        try:
            async for event in answer.content:
                silent = silent or self.is_silent
                if not silent:
                    await made.write(event)
            if silent:
                await asyncio.Event().wait()  # a connection that broke without a word
        finally:
            del self._open[task]
        return made


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in _OWN | {"content-length"}}


def _refused(what: Refusal) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": what.reason, "code": what.status}
    headers = {"Retry-After": str(what.retry_after)} if what.retry_after is not None else {}
    return web.json_response({**status, "metadata": {}, "message": f"a test says {what.reason}"}, status=what.status, headers=headers)
