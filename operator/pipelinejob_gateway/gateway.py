"""The gateway of a cluster, and its readers, as processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from fastapi.responses import JSONResponse

from pipelinejob_gateway import metrics
from pipelinejob_gateway.app import create_app
from pipelinejob_gateway.backend import Jobs
from pipelinejob_gateway.cluster import Cluster, ClusterJobs
from pipelinejob_gateway.events import Feed
from pipelinejob_gateway.guard import ClusterGuard
from pipelinejob_gateway.kube import Kube
from pipelinejob_gateway.passing import add_passing
from pipelinejob_gateway.problems import Refused, problem
from pipelinejob_gateway.reader import create_reader
from pipelinejob_gateway.server import listen, run
from pipelinejob_gateway.settings import Settings, port, required
from pipelinejob_gateway.svc_ml import Catalogue
from pipelinejob_gateway.watched import Watched


def serve_gateway(environment: Mapping[str, str]) -> None:
    """Answers who asks about the cluster's jobs, until told to end.

    Raises:
        SettingsError: a variable is missing or wrong.
        kubernetes.config.ConfigException: neither a ServiceAccount nor a kubeconfig.
    """
    settings = Settings.from_environment(environment)
    kube = Kube()
    watched = Watched(kube)
    cluster = Cluster(settings, kube, watched)
    feed = Feed(watched.outlines)
    data = {"data": {"persistentVolumeClaim": {"claimName": settings.uploads_claim}}}
    kept = None if settings.uploads is None else settings.uploads / "svc_ml.json"

    def jobs_of(request: Request) -> Jobs:
        if request.state.caller is None:
            raise Refused(401, "this page says nothing of jobs without a token", "Unauthorized", {"WWW-Authenticate": "Bearer"})
        return ClusterJobs(cluster, request.state.caller)

    app = create_app(jobs_of, feed, Catalogue(kept, settings.namespace, data), cluster.callers.of, in_cluster=True)
    add_passing(app, settings.reader_token)

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> JSONResponse:
        if watched.is_current():
            return JSONResponse({"status": "ok"})
        return problem(503, "the Kubernetes API has not said yet which jobs there are, or not of late")

    watched.start()
    metrics.serve(settings.metrics_port, feed.listeners)
    run(metrics.Metrics(ClusterGuard(app, cluster.callers.of)), feed, listen("", settings.port))


def serve_reader(environment: Mapping[str, str]) -> None:
    """Reads results for the gateway, until told to end.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    data = Path(environment.get("PIPELINEJOB_DATA") or "/data")
    run(create_reader(data, required(environment, "PIPELINEJOB_READER_TOKEN")), None, listen("", port(environment)))
