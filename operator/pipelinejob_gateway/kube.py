"""Calls to the Kubernetes API: as the gateway itself, or with the token of who asks."""

from __future__ import annotations

import json
import os
from copy import copy
from typing import Any

from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from urllib3.exceptions import HTTPError

from pipelinejob_gateway.problems import Refused

CONNECTIONS = 64  # kept; as many requests are worked on at once, and some more
TIMEOUT = (5.0, 20.0)  # seconds to connect, and for an answer
MERGE_PATCH = "application/merge-patch+json"


class Kube:
    """One pool of connections, with the pod's ServiceAccount or, outside a cluster, the current kubeconfig.

    Raises:
        kubernetes.config.ConfigException: there are neither.
    """

    def __init__(self) -> None:
        configuration = Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.connection_pool_maxsize = CONNECTIONS
        self.api = ApiClient(configuration)
        self.api.user_agent = "pipelinejob-gateway"
        stranger = copy(configuration)
        stranger.cert_file = stranger.key_file = None  # a kubeconfig's own certificate would speak for who asks
        self._stranger = ApiClient(stranger)

    def call(
        self, method: str, path: str, *, token: str | None = None, body: object = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """One call, with a caller's token or, without one, as the gateway.

        Raises:
            Refused: with the status and the words of the API server; 503 when it does not answer.
        """
        headers = {"Accept": "application/json", "Content-Type": content_type}
        api = self.api
        if token is not None:
            headers["Authorization"], api = f"Bearer {token}", self._stranger
        auth = ["BearerToken"] if token is None else []
        try:
            request = api.param_serialize(method, path, header_params=headers, body=body, auth_settings=auth)
            answer = api.call_api(*request, _request_timeout=TIMEOUT)
            data = answer.read()  # type: ignore[no-untyped-call]
        except (HTTPError, OSError) as error:
            raise Refused(503, f"the Kubernetes API does not answer ({error})", "NoAnswer", {"Retry-After": "5"}) from None
        if answer.status < 300:
            found: dict[str, Any] = json.loads(data)
            return found
        raise _refused(answer.status, data)


def _refused(status: int, data: bytes) -> Refused:
    """What the API server said, as our own answer: its Status has a reason and a message."""
    try:
        told = json.loads(data)
        message, reason = str(told["message"]), told.get("reason") or None
    except (ValueError, KeyError, TypeError):
        message, reason = data[:200].decode(errors="replace").strip() or "no reason was given", None
    if not 400 <= status < 600:
        status, message = 502, f"the Kubernetes API answered with {status}: {message}"
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return Refused(status, message, reason, headers)
