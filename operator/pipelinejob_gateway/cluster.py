"""The jobs of a cluster, as somebody who asks may see and change them.

What the Kubernetes API can answer or do goes there with the caller's own token: it says what they may. Pages, failed rows and results
come from elsewhere, after a SubjectAccessReview.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import psycopg2.extensions

from pipelinejob import insight, jobfile, model
from pipelinejob.insight import Insight
from pipelinejob.model import MUTABLE, PipelineJob
from pipelinejob.reasons import ENDS, JobError, JobReason
from pipelinejob.resources import Event, Output, Page, Source, StateError, check_reasons
from pipelinejob.specs import redrive_of
from pipelinejob.store import Database, FailedRow, Store
from pipelinejob_gateway.callers import GROUP, PLURAL, Caller, Callers
from pipelinejob_gateway.kube import MERGE_PATCH, Kube
from pipelinejob_gateway.passing import Elsewhere
from pipelinejob_gateway.problems import Refused
from pipelinejob_gateway.settings import Settings
from pipelinejob_gateway.watched import VERSION, Watched, shown

CONNECTIONS = 4  # to the database
PATIENCE = 3.0  # seconds to wait for one of them, and for a database that is away, before an answer says so
MOST_REDRIVES = 1_000
MOST_EVENTS = 100


class Cluster:
    """What all requests share.

    Args:
        settings: of this gateway.
        kube: the way to the Kubernetes API.
        watched: all jobs as they stand.
    """

    def __init__(self, settings: Settings, kube: Kube, watched: Watched) -> None:
        self.settings, self.kube, self.watched = settings, kube, watched
        self.callers = Callers(kube)
        self._stores: queue.LifoQueue[Store] = queue.LifoQueue()
        url = psycopg2.extensions.make_dsn(settings.database_url, options="-c default_transaction_read_only=on")
        for _ in range(CONNECTIONS):
            database = Database(lambda: url, patience=PATIENCE, say=lambda _: None, advice="ask again later")
            self._stores.put(Store(database, migrated=True))

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The ledger, read only, for a moment: the database's connections are for the workers.

        Raises:
            Refused: 503, when many ask at once.
        """
        try:
            store = self._stores.get(timeout=PATIENCE)
        except queue.Empty:
            raise Refused(503, "too many ask the ledger at once: ask again later", "Busy", {"Retry-After": "5"}) from None
        try:
            yield store
        finally:
            self._stores.put(store)


class ClusterJobs:
    """The jobs that a caller may see; each method is as that of pipelinejob.service.LocalJobs.

    Args:
        cluster: what all requests share.
        caller: who asks.
    """

    def __init__(self, cluster: Cluster, caller: Caller) -> None:
        self._cluster, self._caller = cluster, caller
        self._callers, self._settings = cluster.callers, cluster.settings

    # Questions.

    def page(
        self,
        *,
        namespace: str | None = None,
        phases: Sequence[str] = (),
        name: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of the jobs in the namespaces whose jobs the caller may list."""
        return self._cluster.watched.page(self._listable(namespace), phases, name, before, limit)

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        """A job as it stands now."""
        return self._call("GET", namespace, name)

    def output(self, namespace: str, name: str) -> Output:
        """Where the results are: on a claim that only pods of its namespace can read.

        Raises:
            Elsewhere: the reader there answers.
            Refused: 403 without the right to get pipelinejobs/results; 404 before there are any; 501 where there is no reader.
        """
        job = self.get(namespace, name)
        self._callers.check(self._caller, "get", namespace, name, subresource="results")
        reader = self._settings.readers.get(namespace)
        if reader is None:
            raise Refused(
                501,
                f"no reader stands in the namespace {namespace!r}: 'kubectl pipelinejob results {name} -n {namespace}' gets the results, "
                "or an administrator adds the namespace to gateway.dataNamespaces of the chart",
                "NoReader",
            )
        path = (job.get("status") or {}).get("output")
        if not path:
            raise Refused(404, f"{name!r} has no results yet", "NotFound")
        raise Elsewhere(reader, job["spec"]["data"]["persistentVolumeClaim"]["claimName"], path, Source.of(job["spec"]))

    def failures(self, namespace: str, name: str, *, reason: str | None = None, after: int = -1, limit: int = 100) -> list[FailedRow]:
        """At most `limit` failed rows behind the row `after`, in the order of the CSV."""
        check_reasons([] if reason is None else [reason])
        uid = self.get(namespace, name)["metadata"]["uid"]
        with self._cluster.store() as store:
            return store.failures_page(uid, reason=reason, after=after, limit=limit)

    def insight(self, namespace: str, name: str) -> Insight:
        """How a job came to stand as it does, from the ledger."""
        uid = self.get(namespace, name)["metadata"]["uid"]
        with self._cluster.store() as store:
            return insight.look(store, uid)

    def events(self, namespace: str, name: str) -> list[Event]:
        """The Events of a job, the newest first, as the caller may see them; none where they may not."""
        query = urlencode({"fieldSelector": f"involvedObject.kind={model.KIND},involvedObject.name={name}", "limit": MOST_EVENTS})
        try:
            found = self._cluster.kube.call("GET", f"/api/v1/namespaces/{namespace}/events?{query}", token=self._caller.token)
        except Refused as error:
            if error.status != 403:
                raise
            return []
        told = [
            Event(at, one.get("type", ""), one.get("reason", ""), one.get("message", ""), one.get("count") or 1)
            for one in sorted(found.get("items", []), key=lambda one: one["metadata"]["name"], reverse=True)  # by the operator's clock
            if (at := one.get("lastTimestamp") or one.get("eventTime") or one["metadata"]["creationTimestamp"])
        ]
        return sorted(told, key=lambda event: event.at, reverse=True)

    def watched(self, namespace: str | None) -> Callable[[str], bool] | None:
        """Of which namespaces the caller may hear of changes: None for all that are asked for, else whether of this one.

        Raises:
            Refused: 403, when a namespace is asked for that is not the caller's to watch.
        """
        if namespace is not None or self._callers.may(self._caller, "watch", None):
            self._callers.check(self._caller, "watch", namespace)
            return None
        return lambda one: self._callers.may(self._caller, "watch", one)

    def preview(self, document: object, *, whole: bool = False) -> dict[str, Any]:
        """What a job would do; nothing is written.

        Raises:
            Elsewhere: the reader in its namespace answers.
            Refused: 403 without the right to create PipelineJobs there; 501 where there is no reader.
        """
        job = self._checked(document)
        assert job.spec.data is not None  # or it could not run in a cluster
        namespace, claim = job.metadata.namespace, job.spec.data.persistent_volume_claim.claim_name
        self._callers.check(self._caller, "create", namespace)
        if self._settings.data is not None and (namespace, claim) == (self._settings.namespace, self._settings.uploads_claim):
            from pipelinejob import dry_run  # noqa: PLC0415 - pandas, which nothing else here needs, takes half a second to load

            return dry_run.on_claim(job, self._settings.data, claim, whole=whole)
        if (reader := self._settings.readers.get(namespace)) is None:
            advice = (
                "'kubectl pipelinejob plan FILE' plans it in the cluster, or an administrator adds the namespace to gateway.dataNamespaces"
            )
            raise Refused(501, f"no reader stands in the namespace {namespace!r}: {advice} of the chart", "NoReader")
        raise Elsewhere(reader, claim, "", Source.of(job.spec.as_dict()), document)

    def _checked(self, document: object) -> PipelineJob:
        """A job that can run in the cluster, with the PipelineFunctions that it names and the caller can see."""
        job = model.parse(document)
        names = {entry.name for entry in job.spec.functions if jobfile.is_named(entry.model_dump())}
        return jobfile.for_cluster(document, {name for name in names if self._has_function(job.metadata.namespace, name)})

    def _has_function(self, namespace: str, name: str) -> bool:
        try:
            path = f"/apis/{model.API_VERSION}/namespaces/{namespace}/pipelinefunctions/{quote(name, safe='')}"
            self._cluster.kube.call("GET", path, token=self._caller.token)
        except Refused as error:
            if error.status != 404:
                raise
            return False
        return True

    # Changes, all with the caller's own token.

    def submit(self, document: object) -> dict[str, Any]:
        """Creates a PipelineJob; the API server checks it, too."""
        job = self._checked(document)
        assert isinstance(document, Mapping)  # or it would not have been one
        body = {**document, "metadata": {**document["metadata"], "namespace": job.metadata.namespace}}
        return self._call("POST", job.metadata.namespace, body=body)

    def patch(self, namespace: str, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Changes fields of the spec that may change."""
        if fixed := [f"spec.{key}" for key in changes if key not in MUTABLE]:
            allowed = ", ".join(MUTABLE)
            raise JobError(JobReason.INVALID_SPEC, f"{', '.join(fixed)}: may not change once the job exists; these may: {allowed}")
        return self._call("PATCH", namespace, name, body={"spec": dict(changes)}, content_type=MERGE_PATCH)

    def cancel(self, namespace: str, name: str) -> dict[str, Any]:
        """Cancels a job for good."""
        return self._change(namespace, name, {"cancel": True}, "cancel")

    def suspend(self, namespace: str, name: str) -> dict[str, Any]:
        """Stops a job until it is resumed."""
        return self._change(namespace, name, {"suspend": True}, "suspend")

    def resume(self, namespace: str, name: str) -> dict[str, Any]:
        """Goes on with a job that was suspended."""
        return self._change(namespace, name, {"suspend": False}, "resume")

    def redrive(self, namespace: str, name: str, *, reasons: Sequence[str] = (), pending: bool = False) -> dict[str, Any] | None:
        """Makes a PipelineJob NAME-redrive-N that runs the failed rows of a job again."""
        check_reasons(reasons)
        root = self.get(namespace, name)
        if pending:
            raise Refused(501, "pending: not in a cluster: raise the failurePolicy of a job that failed for its budget, and it goes on")
        if of := root["spec"]["source"].get("failedRowsOf"):
            raise StateError(JobReason.INVALID_SPEC, f"{name!r} is a redrive itself: ask for one of {of['name']!r}")
        status = root.get("status") or {}
        if status.get("phase") not in ENDS:
            raise StateError(JobReason.INVALID_SPEC, f"{name!r} has not ended ({status.get('phase') or 'Pending'}): wait for its end")
        if not status.get("rows", {}).get("failed"):
            return None
        for number in range(1, MOST_REDRIVES):
            try:
                return self._call("POST", namespace, body=redrive_of(root, reasons, number))
            except Refused as error:
                if error.reason != "AlreadyExists":
                    raise
        raise Refused(409, f"{name!r} has {MOST_REDRIVES} redrives: delete old ones", "Conflict")

    def delete(self, namespace: str, name: str, *, output: bool = False) -> None:
        """Deletes a PipelineJob; its output stays on its claim."""
        if output:
            raise Refused(501, "output: the gateway deletes nothing from claims: remove the folder status.output of the claim yourself")
        self._call("DELETE", namespace, name)

    def _change(self, namespace: str, name: str, spec: dict[str, Any], verb: str) -> dict[str, Any]:
        phase = (self.get(namespace, name).get("status") or {}).get("phase")
        if phase in ENDS:
            raise StateError(JobReason.INVALID_SPEC, f"the job {name!r} has ended ({phase}): there is nothing to {verb}")
        return self.patch(namespace, name, spec)

    def _listable(self, namespace: str | None) -> set[str] | None:
        if namespace is not None:
            self._callers.check(self._caller, "list", namespace)
            return {namespace}
        if self._callers.may(self._caller, "list", None):
            return None
        return {one for one in self._cluster.watched.namespaces() if self._callers.may(self._caller, "list", one)}

    def _call(self, method: str, namespace: str, name: str | None = None, **options: Any) -> dict[str, Any]:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}" + (f"/{name}" if name else "")
        answer = self._cluster.kube.call(method, path, token=self._caller.token, **options)
        return shown(answer) if answer.get("kind") == model.KIND else answer
