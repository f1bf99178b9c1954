"""The only calls to the Kubernetes API, with the kubeconfig that kubectl would use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from pipelinejob.model import API_VERSION
from pipelinejob_kubectl.errors import PluginError, no_answer, refused

Object = dict[str, Any]
Query = Sequence[tuple[str, object]]

TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
PAGE = 500
MERGE_PATCH = "application/merge-patch+json"
IN_A_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Options:
    """Which cluster and namespace, as kubectl's own options say it."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    def words(self) -> list[str]:
        """The same cluster, for a kubectl of ours."""
        given = (("--context", self.context), ("--kubeconfig", self.kubeconfig))
        return [word for name, value in given if value for word in (name, value)]


class Kube:
    """A cluster, and the namespace of which is spoken.

    Args:
        options: of the command line.

    Raises:
        PluginError: no kubeconfig, or none of that context.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        configuration = Configuration()
        current = _load(options, configuration)
        configuration.retries = Retry(0, redirect=3)  # who watches asks again; who does not wants to know
        self.namespace = options.namespace or current or "default"
        self.host = str(configuration.host)
        self._api = ApiClient(configuration)
        self._api.user_agent = "kubectl-pipelinejob"

    def call(self, method: str, path: str, *, query: Query = (), body: object = None, content_type: str = "application/json") -> Object:
        """One call; what it answers is an object.

        Raises:
            ApiError: the API server refuses.
            NoAnswerError: it does not answer.
        """
        found: Object = json.loads(self._send(method, path, query, body, content_type, "application/json").data)
        return found

    def text(self, path: str, query: Query = ()) -> str:
        """What is no object: logs. Raises as `call`."""
        data: bytes = self._send("GET", path, query, None, "application/json", "*/*").data
        return data.decode(errors="replace")

    def lines(self, path: str, query: Query = ()) -> Iterator[str]:
        """The lines of an answer, as they come. Raises as `call`."""
        response = self._send("GET", path, query, None, "application/json", "*/*", (TIMEOUT[0], None))
        rest = b""
        try:
            for piece in response.stream(decode_content=True):
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        except (HTTPError, OSError) as error:
            raise no_answer(self.host, error) from None
        finally:
            response.close()
        if rest:
            yield rest.decode(errors="replace")

    def items(self, path: str, query: Query = ()) -> list[Object]:
        """All of a list, page by page. Raises as `call`."""
        found: list[Object] = []
        more = ""
        while True:
            page = self.call("GET", path, query=[*query, ("limit", PAGE), *([("continue", more)] if more else [])])
            found += page["items"]
            more = page["metadata"].get("continue") or ""
            if not more:
                return found

    def core(self, kind: str, name: str = "", namespace: str | None = None) -> str:
        """The path of a kind of core/v1 in a namespace."""
        return f"/api/v1/namespaces/{namespace or self.namespace}/{kind}{'/' + name if name else ''}"

    def ours(self, name: str = "", kind: str = "pipelinejobs", namespace: str | None = None) -> str:
        """The path of PipelineJobs, or PipelineFunctions, in a namespace."""
        return f"/apis/{API_VERSION}/namespaces/{namespace or self.namespace}/{kind}{'/' + name if name else ''}"

    def _send(self, method: str, path: str, query: Query, body: object, content_type: str, accept: str, timeout: Any = TIMEOUT) -> Any:
        headers = {"Accept": accept, "Content-Type": content_type}
        try:
            request = self._api.param_serialize(
                method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = self._api.call_api(*request, _request_timeout=timeout).response
            if response.status < 300:
                return response
            data = response.data
        except (HTTPError, OSError) as error:
            raise no_answer(self.host, error) from None
        raise refused(response.status, data, path)


def _load(options: Options, configuration: Configuration) -> str | None:
    """Fills in the configuration; returns the namespace of the context, where it has one."""
    known = options.kubeconfig or os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    there = [path for path in known.split(os.pathsep) if path and os.path.exists(path)]
    try:
        if not there and not options.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return IN_A_POD.read_text() if IN_A_POD.exists() else None
        if not there:
            raise PluginError("NoKubeconfig", f"no kubeconfig: there is no file {known}: log in to a cluster, or pass --kubeconfig")
        contexts, active = config.list_kube_config_contexts(known)  # type: ignore[no-untyped-call]
        config.load_kube_config(known, options.context, configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split()).removeprefix("Invalid kube-config file. ") or type(error).__name__
        raise PluginError("NoKubeconfig", f"the kubeconfig {known} cannot be used ({said}): check it, and --context") from None
    chosen = next((one for one in contexts if one["name"] == options.context), active) if options.context else active
    namespace: str | None = (chosen.get("context") or {}).get("namespace")
    return namespace
