"""What `doctor` and `version` look at in the cluster; what somebody may not see is a finding of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from pipelinejob_kubectl import doctor
from pipelinejob_kubectl.doctor import OPERATOR_RIGHTS, OWN_RIGHTS, Finding
from pipelinejob_kubectl.errors import ApiError, PluginError
from pipelinejob_kubectl.kube import Kube, Object
from pipelinejob_operator.crd import crd, function_crd

REVIEWS = "/apis/authorization.k8s.io/v1"
_OPERATOR = "app.kubernetes.io/name=pipelinejob-operator"
_LOG_LINES = 3


def examine(kube: Kube) -> list[Finding]:
    """All findings, in the order in which one depends on the other.

    Raises:
        PluginError: the cluster does not answer, or knows nobody of that name.
    """
    findings = [doctor.cluster(kube.call("GET", "/version"), kube.host)]
    findings += list(_crds(kube))
    if any(one.what == "CRD" and "is not there" in one.message for one in findings):
        return findings  # nothing else would say more
    seen = _Seen(kube)
    for step in (seen.operator, seen.operator_rights, seen.own_rights, seen.database, seen.storage, seen.images, seen.jobs):
        findings += _tried(step)
    return findings


def operator_version(kube: Kube) -> str | None:
    """The version of the operator, None where there is none to be seen."""
    with suppress(ApiError):
        for one in _deployments(kube):
            return (one["metadata"].get("labels") or {}).get("app.kubernetes.io/version")
    return None


def _tried(step: Callable[[], Iterator[Finding]]) -> list[Finding]:
    name = step.__name__.replace("_", " ").replace("operator rights", "operator's rights").replace("own rights", "your rights")
    try:
        return list(step())
    except ApiError as error:
        return [doctor.unseen(name, error.message if error.status != 403 else "you may not")]


def _crds(kube: Kube) -> Iterator[Finding]:
    for expected in (crd(), function_crd()):
        name = expected["metadata"]["name"]
        found: Object | None = None
        try:
            found = kube.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        except ApiError as error:
            if error.status == 403:
                yield _discovered(kube, name)
                continue
            if error.status != 404:
                raise
        yield doctor.crd(name, found, expected)


def _discovered(kube: Kube, name: str) -> Finding:
    """What everybody may know of a CRD."""
    plural = name.partition(".")[0]
    try:
        served = [one["name"] for one in kube.call("GET", kube.ours().partition("/namespaces/")[0])["resources"]]
    except ApiError as error:
        if error.status != 404:
            raise
        served = []
    if plural in served:
        return doctor.ok("CRD", f"{name} is served (its fields are not yours to see)")
    return doctor.crd(name, None, {})


def _deployments(kube: Kube) -> list[Object]:
    return kube.items("/apis/apps/v1/deployments", [("labelSelector", f"{_OPERATOR},app.kubernetes.io/component=operator")])


class _Seen:
    """What several checks need, looked up once.

    Args:
        kube: the cluster.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._operators: list[Object] = []
        self._jobs: list[Object] = []
        with suppress(ApiError):
            self._operators = _deployments(kube)
        self._no_jobs: ApiError | None = None
        try:
            self._jobs = kube.items(kube.ours().partition("/namespaces/")[0] + "/pipelinejobs")
        except ApiError:
            try:
                self._jobs = kube.items(kube.ours())
            except ApiError as error:
                self._no_jobs = error

    def operator(self) -> Iterator[Finding]:
        found = _deployments(self._kube)
        log: list[str] = []
        for one in found:
            if not (one.get("status") or {}).get("readyReplicas"):
                log = self._last_lines(one)
        yield from doctor.operator(found, log, self._kube.namespace)

    def _last_lines(self, deployment: Object) -> list[str]:
        namespace = deployment["metadata"]["namespace"]
        labels = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
        with suppress(PluginError):
            for pod in self._kube.items(self._kube.core("pods", namespace=namespace), [("labelSelector", labels)]):
                text = self._kube.text(self._kube.core("pods", f"{pod['metadata']['name']}/log", namespace), [("tailLines", _LOG_LINES)])
                return text.splitlines()
        return []

    def operator_rights(self) -> Iterator[Finding]:
        for one in self._operators:
            namespace = one["metadata"]["namespace"]
            account = one["spec"]["template"]["spec"].get("serviceAccountName", "default")
            user = f"system:serviceaccount:{namespace}:{account}"
            places = doctor.watched(one) or [""]  # "": all of them
            missing = [f"{told} in {place}" if place else told for place in places for told in self._missing(OPERATOR_RIGHTS, place, user)]
            yield doctor.operator_rights(f"{namespace}/{account}", missing)

    def own_rights(self) -> Iterator[Finding]:
        namespace = self._kube.namespace
        yield from doctor.own_rights({what: self._missing(rights, namespace, None) for what, rights in OWN_RIGHTS.items()}, namespace)

    def _missing(self, rights: Sequence[tuple[str, str, str]], namespace: str, user: str | None) -> list[str]:
        """What a user, or the caller, may not: 'patch pods/status', ..."""
        return [
            f"{verb} {resource}"
            for group, resource, verbs in rights
            for verb in verbs.split()
            if not self._may(verb, group, resource, namespace, user)
        ]

    def _may(self, verb: str, group: str, resource: str, namespace: str, user: str | None) -> bool:
        plural, _, sub = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": plural, "subresource": sub, "namespace": namespace}
        kind = "SelfSubjectAccessReview" if user is None else "SubjectAccessReview"
        spec: Object = {"resourceAttributes": asked}
        if user is not None:  # with the groups that the API server would give it
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}", "system:authenticated"]
            spec |= {"user": user, "groups": groups}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        return bool(self._kube.call("POST", f"{REVIEWS}/{kind.lower()}s", body=body)["status"].get("allowed"))

    def database(self) -> Iterator[Finding]:
        query = [("labelSelector", f"{_OPERATOR},app.kubernetes.io/component=postgres")]
        yield from doctor.database(self._kube.items("/apis/apps/v1/statefulsets", query), self._jobs)

    def storage(self) -> Iterator[Finding]:
        claims = self._kube.items(self._kube.core("persistentvolumeclaims"))
        classes: list[Object] | None = None
        with suppress(ApiError):
            classes = self._kube.items("/apis/storage.k8s.io/v1/storageclasses")
        yield from doctor.storage(claims, self._jobs, classes, self._kube.namespace)

    def images(self) -> Iterator[Finding]:
        mine = self._kube.items(
            self._kube.core("pods"), [("labelSelector", "app.kubernetes.io/managed-by in (pipelinejob,pipelinejob-kubectl)")]
        )
        for namespace in sorted({one["metadata"]["namespace"] for one in self._operators}):
            with suppress(ApiError):
                mine += self._kube.items(self._kube.core("pods", namespace=namespace), [("labelSelector", _OPERATOR)])
        yield from doctor.images(mine)

    def jobs(self) -> Iterator[Finding]:
        if self._no_jobs is not None:
            raise self._no_jobs
        yield from doctor.waiting(self._jobs)
