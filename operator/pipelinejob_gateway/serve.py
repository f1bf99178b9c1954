"""`pipelinejob serve`: the API on one machine."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from pipelinejob.reasons import JobError, JobReason
from pipelinejob_gateway.app import create_app
from pipelinejob_gateway.events import Feed
from pipelinejob_gateway.guard import LOOPBACK, LocalGuard, check_given
from pipelinejob_gateway.local import ServedJobs
from pipelinejob_gateway.server import listen, run
from pipelinejob_gateway.svc_ml import Catalogue

TOKEN = "PIPELINEJOB_SERVE_TOKEN"
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def serve(host: str, port: int, home: Path, data: Path, outputs: Path, database: str | None, at_once: int) -> None:
    """Serves until it is told to end; jobs that run then go on, and those that wait begin when it is started again.

    Args:
        host: the address to listen on.
        port: the port; 0: any free one.
        home: the folder of everything of ours.
        data: the data root of new jobs.
        outputs: the folder that outputs of new jobs are below.
        database: a Postgres URL; None: the embedded server.
        at_once: how many jobs run at a time.

    Raises:
        JobError: InvalidSpec, for an address that others can reach without a token, or that is taken.
    """
    token = os.environ.get(TOKEN) or None
    if host not in _LOOPBACK_HOSTS and token is None:
        raise JobError(
            JobReason.INVALID_SPEC,
            f"--host {host}: others can reach this address: set {TOKEN} to a secret of at least 16 characters, which requests then "
            "carry as 'Authorization: Bearer', or listen on 127.0.0.1",
        )
    if token is not None and len(token) < 16:
        raise JobError(JobReason.INVALID_SPEC, f"{TOKEN}: has {len(token)} characters: expected at least 16")
    listening = listen(host, port)
    jobs = ServedJobs(home, data, outputs, database, at_once)
    feed = Feed(jobs.outlines)
    sign_in = None if token is None else partial(check_given, token=token)
    app = create_app(lambda _: jobs, feed, Catalogue(home / "svc_ml.json"), sign_in)
    guarded = LocalGuard(app, LOOPBACK, token)
    waiting = jobs.begin_waiting()
    shown = f"[{host}]" if ":" in host else host
    _say(f"PipelineJob on http://{shown}:{listening.getsockname()[1]}/ with the data of {data}; Ctrl-C ends it")
    if waiting:
        _say(f"{waiting} jobs were waiting: they begin now, {at_once} at a time")
    try:
        run(guarded, feed, listening)
    finally:
        jobs.close()
    _say("jobs that run go on; 'pipelinejob list' shows them")


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
