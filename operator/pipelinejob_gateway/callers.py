"""Who asks a gateway in a cluster, and what they may: Kubernetes says both, by TokenReview and SubjectAccessReview."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from pipelinejob_gateway.kube import Kube
from pipelinejob_gateway.problems import Refused

GROUP, PLURAL = "pipelinejob.dev", "pipelinejobs"
KNOWN_FOR = 60.0  # seconds, for which who a token belongs to is remembered
UNKNOWN_FOR = 5.0  # seconds, for which it is remembered that a token is nobody's
MAY_FOR = 30.0  # seconds, for which it is remembered what a user may
MOST = 10_000  # answers remembered


@dataclass(frozen=True)
class Caller:
    """Somebody who asks.

    Args:
        token: their bearer token.
        user: as the TokenReview says: username, uid, groups, extra.
    """

    token: str = field(repr=False)
    user: dict[str, Any]


class Callers:
    """Asks Kubernetes, and remembers the answers for a moment; safe to share between threads."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._answers: dict[Hashable, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def of(self, token: str) -> Caller:
        """Who a token belongs to.

        Raises:
            Refused: 401, when nobody's.
        """
        key = ("token", hashlib.sha256(token.encode()).digest())  # the token itself is not kept
        user = self._remembered(key, lambda: self._review(token), lambda found: KNOWN_FOR if found else UNKNOWN_FOR)
        if user is None:
            detail = "this token is nobody's, or has expired: a new one comes from 'kubectl create token SERVICEACCOUNT'"
            raise Refused(401, detail, "Unauthorized", {"WWW-Authenticate": "Bearer"})
        return Caller(token, user)

    def may(self, caller: Caller, verb: str, namespace: str | None, name: str | None = None, *, subresource: str | None = None) -> bool:
        """Whether somebody may do something with a PipelineJob, or all of a namespace, or, without one, of all namespaces."""
        asked = {"group": GROUP, "resource": PLURAL, "verb": verb, "namespace": namespace, "name": name, "subresource": subresource}
        attributes = {key: value for key, value in asked.items() if value is not None}
        key = ("may", hashlib.sha256(caller.token.encode()).digest(), *asked.values())
        return bool(self._remembered(key, lambda: self._access(caller, attributes), lambda _: MAY_FOR))

    def check(self, caller: Caller, verb: str, namespace: str | None, name: str | None = None, *, subresource: str | None = None) -> None:
        """Refuses what somebody may not do.

        Raises:
            Refused: 403, naming the right that is missing.
        """
        if not self.may(caller, verb, namespace, name, subresource=subresource):
            what = f"{PLURAL}/{subresource}" if subresource else PLURAL
            where = f"in the namespace {namespace!r}" if namespace else "in all namespaces; name one that you may see"
            who = caller.user.get("username", "")
            raise Refused(403, f"{who!r} may not {verb} {what} in the API group {GROUP!r} {where}", "Forbidden")

    def _review(self, token: str) -> dict[str, Any] | None:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        status = self._kube.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=body).get("status", {})
        return status.get("user", {}) if status.get("authenticated") else None

    def _access(self, caller: Caller, attributes: dict[str, Any]) -> bool:
        user = caller.user
        spec = {"resourceAttributes": attributes, "user": user.get("username", ""), "uid": user.get("uid", "")}
        spec |= {"groups": user.get("groups", []), "extra": user.get("extra", {})}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        status = self._kube.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=body).get("status", {})
        return bool(status.get("allowed"))

    def _remembered(self, key: Hashable, ask: Callable[[], Any], seconds: Callable[[Any], float]) -> Any:
        now = time.monotonic()
        with self._lock:
            until, answer = self._answers.get(key, (0.0, None))
        if until > now:
            return answer
        answer = ask()
        with self._lock:
            if len(self._answers) >= MOST:
                self._answers = {one: kept for one, kept in self._answers.items() if kept[0] > now}
            if len(self._answers) >= MOST:  # all of them fresh: somebody tries tokens
                self._answers.clear()
            self._answers[key] = now + seconds(answer), answer
        return answer
