"""Calls to the API server as plain JSON: one connection pool, the credentials, errors in one form, a few tries."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import ClientError
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.utils.retry import Backoff, on_retry_after_error  # type: ignore[attr-defined]

NAME = "pipelinejob-operator"
CONNECTIONS = 16  # at once; more calls wait
TIMEOUT = 20.0  # seconds for one try
PAGE = 500  # objects in one answer to a LIST
LONGEST_WAIT = 30.0  # seconds, whatever a Retry-After says
TRIES = Backoff(steps=5, duration=0.2, factor=2.5, jitter=0.5)  # about 5 s in all

JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class ApiError(Exception):
    """The API server refused a call, or did not answer.

    Args:
        status: the HTTP status; 0 when there was no answer.
        reason: Kubernetes' word for it, such as NotFound.
        message: what went wrong, in one line.
        headers: of the answer.
    """

    def __init__(self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        advice = ": check the operator's ClusterRole or Role against the chart's" if status == 403 and "cannot" in message else ""
        super().__init__(f"{message}{advice}")
        self.status, self.reason, self.message, self.headers = status, reason, message, headers or {}


class Client:
    """One pool of connections, with the pod's ServiceAccount or, outside a cluster, the current kubeconfig."""

    def __init__(self) -> None:
        self.configuration = Configuration()
        self.configuration.connection_pool_maxsize = CONNECTIONS
        self.configuration.client_session_kwargs = {"trust_env": False}  # else ~/.netrc is read for each call, and a proxy is asked
        self.before_call: Callable[[], None] = lambda: None  # where a process that no longer leads ends
        self._api: ApiClient | None = None

    async def open(self) -> None:
        """Reads the credentials; nothing is sent yet.

        Raises:
            kubernetes.aio.config.ConfigException: there are none.
        """
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=self.configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=self.configuration)  # type: ignore[no-untyped-call]
        self._api = ApiClient(self.configuration)
        self._api.user_agent = NAME  # and so the name in managedFields

    async def close(self) -> None:
        """Closes the connections."""
        if self._api is not None:
            await self._api.close()  # type: ignore[no-untyped-call]

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, object]] = (),
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        """One call, tried again while the server is away, busy or failing.

        Raises:
            ApiError: it was refused, or the last try failed too.
        """

        async def attempt() -> dict[str, Any]:
            return await self._attempt(method, path, list(query), body, {"Accept": accept, "Content-Type": content_type})

        def can_be_tried_again(error: Exception) -> bool:
            return isinstance(error, ApiError) and (error.status in (0, 429) or error.status >= 500 or _was_overtaken(method, error))

        result: dict[str, Any] = await on_retry_after_error(TRIES, can_be_tried_again, attempt, sleep_func=_sleep)
        return result

    async def list_all(
        self, path: str, *, query: Sequence[tuple[str, object]] = (), accept: str = "application/json"
    ) -> tuple[list[dict[str, Any]], str]:
        """All objects at a path, asked for page by page, and the version of the list."""
        items: list[dict[str, Any]] = []
        more: list[tuple[str, object]] = []
        while True:
            try:
                page = await self.call("GET", path, query=[*query, ("limit", PAGE), *more], accept=accept)
            except ApiError as error:
                if error.status != 410 or not more:
                    raise
                items, more = [], []  # the server has forgotten the list that this is the next page of: from the start
                continue
            items += page.get("items") or []
            if not page["metadata"].get("continue"):
                return items, page["metadata"].get("resourceVersion", "")
            more = [("continue", page["metadata"]["continue"])]

    async def _attempt(
        self, method: str, path: str, query: list[tuple[str, object]], body: object, headers: dict[str, str]
    ) -> dict[str, Any]:
        assert self._api is not None, "open() comes first"
        what = f"{method} {path}"
        try:
            request = await self._api.param_serialize(
                method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            self.before_call()
            response = await self._api.call_api(*request, _request_timeout=TIMEOUT)
            data = await response.read()  # type: ignore[no-untyped-call]
        except (ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, "NoAnswer", f"the API server does not answer to {what} ({str(error) or type(error).__name__})") from error
        if response.status < 300:
            result: dict[str, Any] = json.loads(data)
            return result
        reason, message = _told(data, response.reason or "")
        raise ApiError(response.status, reason, f"{what} was refused with {response.status} {reason}: {message}", response.headers)


def _told(data: bytes, fallback: str) -> tuple[str, str]:
    """The reason and message of a Kubernetes Status, or what else the answer holds."""
    try:
        told = json.loads(data)
        return told.get("reason") or fallback, told.get("message") or ""
    except (ValueError, AttributeError):
        return fallback, data[:200].decode(errors="replace").strip()


def _was_overtaken(method: str, error: ApiError) -> bool:
    """Whether something else that a creation counts in, such as a ResourceQuota, was changed in the same moment.

    Other calls that are overtaken were told what to do from something that is old now, and have to look again.
    """
    return method == "POST" and error.reason == "Conflict"


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(min(seconds, LONGEST_WAIT))
