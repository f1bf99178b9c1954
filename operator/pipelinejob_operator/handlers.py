"""The operator's run: wait until it leads, open the ledger, then hand what kopf watches on; the only place that knows kopf.

Watch events go into the cache and their keys into the queue: what is to be done about them is decided in reconcile.py.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import kopf
import psycopg2
from aiohttp import web

from pipelinejob.model import GROUP, VERSION
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.store import Database, Store, roles, take_epoch
from pipelinejob_operator import metrics
from pipelinejob_operator.client import Client
from pipelinejob_operator.functions import Functions
from pipelinejob_operator.kube import FUNCTIONS, PLURAL, ApiError, Kind, Kube
from pipelinejob_operator.lease import Lease, step_down
from pipelinejob_operator.manifests import JOB_LABEL, UID_LABEL
from pipelinejob_operator.reconcile import Reconciler
from pipelinejob_operator.settings import Settings
from pipelinejob_operator.webhook import serving

PROBE_HOST, PROBE_PATH = "0.0.0.0", "/healthz"
LONGEST_LAG = 60.0  # seconds; kopf mends a silent watch sooner than that
PATIENCE = 2.0  # seconds for a database that is away: whoever asked says so in the job's status and comes again
ADVICE = "look at the Postgres that the operator's Secret names; nothing is lost, and all goes on when it is back"
RIGHTS = "the user of the operator's database URL must own the database and have CREATEROLE"
LOOK_AGAIN = 5.0  # seconds until another look for the CRD
OURS = f"{JOB_LABEL},{UID_LABEL}"

log = logging.getLogger("pipelinejob.operator")


async def run(settings: Settings) -> None:
    """Runs the operator until it is told to end, or a watch cannot go on; as long as another one leads it only waits."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # until kopf has its own
    kube = Kube(settings.namespaces)
    await kube.open()
    try:
        await _wait_for_crd(kube)
        async with serving(settings.webhook, kube, Functions(settings, kube)), _leading(settings, kube) as lease:
            await _reconcile(settings, kube, lease)
    finally:
        await kube.close()


async def _reconcile(settings: Settings, kube: Kube, lease: Lease | None) -> None:
    reconciler = Reconciler(settings, kube, _connector(settings.database_url, lease))
    await reconciler.start()
    metrics.QUEUE.set_function(lambda: len(reconciler.queue))
    metrics.LEADING.set(1)
    try:
        await kopf.operator(
            registry=_registry(kube, reconciler),
            settings=_kopf_settings(),
            identity=f"pipelinejob@{socket.gethostname()}",  # type: ignore[arg-type]  # its default asks for a user's name
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            liveness_endpoint=f"http://{PROBE_HOST}:{settings.probe_port}{PROBE_PATH}",
        )
    finally:
        await reconciler.stop()


@asynccontextmanager
async def _leading(settings: Settings, kube: Kube) -> AsyncIterator[Lease | None]:
    """Begins when this process leads, and ends with the Lease released; nothing at all where there is no Lease."""
    if settings.lease is None:
        yield None
        return
    client = Client()  # not the one whose calls need the Lease
    await client.open()
    try:
        lease = Lease(client, settings.lease, os.environ.get("POD_NAME") or socket.gethostname())
        async with _standby_probe(settings.probe_port):
            await lease.acquire()
        kube.client.before_call = lease.check
        keeping = asyncio.create_task(lease.keep())
        keeping.add_done_callback(_must_not_end)
        try:
            yield lease
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await lease.release()
    finally:
        await client.close()


def _must_not_end(keeping: asyncio.Task[Any]) -> None:
    if not keeping.cancelled():
        step_down(f"the Lease is not kept ({keeping.exception()!r})")


@asynccontextmanager
async def _standby_probe(port: int) -> AsyncIterator[None]:
    """A standby is alive and ready: it could lead at once. Closed before kopf opens the same port."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"standby": "another operator leads"})

    app = web.Application()
    app.router.add_get(PROBE_PATH, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, PROBE_HOST, port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()


def _registry(kube: Kube, reconciler: Reconciler) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    def tell(kind: Kind, event: kopf.RawEvent) -> None:
        body = event["object"]
        if kube.see(kind, body, event["type"] == "DELETED"):
            metadata = body["metadata"]
            name = metadata["name"] if kind == "pipelinejobs" else metadata["labels"][JOB_LABEL]
            reconciler.queue.add((metadata["namespace"], name))

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def pipelinejob(event: kopf.RawEvent, **_: Any) -> None:
        tell("pipelinejobs", event)

    @kopf.on.event(GROUP, VERSION, FUNCTIONS, registry=registry)
    async def function(event: kopf.RawEvent, **_: Any) -> None:
        reconciler.functions.see(event["object"], event["type"] == "DELETED")

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def job(event: kopf.RawEvent, **_: Any) -> None:
        tell("jobs", event)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: kopf.RawEvent, **_: Any) -> None:
        tell("pods", event)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await _credentials(kube)

    @kopf.on.probe(registry=registry, id="reconcile")
    async def alive(**_: Any) -> str:
        return check(reconciler, kube)

    return registry


def check(reconciler: Reconciler, kube: Kube) -> str:
    """What the probe answers.

    Raises:
        kopf.PermanentError: the operator is to be started again.
    """
    going, details = reconciler.alive()
    if not going:
        raise kopf.PermanentError(f"the reconcile loop stands still: {details}")
    lag = kube.watch_lag()
    if lag > LONGEST_LAG:
        raise kopf.PermanentError(f"the watch is dead: {lag:.0f} s behind what the API server has")
    return details


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # our Events come from the reconciler
    settings.scanning.disabled = True  # needs rights on CRDs and namespaces
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.watching.inactivity_timeout = 70  # a bookmark comes once a minute: a watch that says nothing for longer is dead
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["batch", "v1", "jobs"] = OURS
    settings.watching.label_selectors["", "v1", "pods"] = OURS
    settings.networking.error_backoffs = _Backoffs()
    settings.process.ultimate_exiting_timeout = 9
    return settings


class _Backoffs:
    """Seconds between tries at an API server that is away: without an end, as starting anew would help nobody."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 1, 2, 3, 5, 8), itertools.repeat(10))


async def _credentials(kube: Kube) -> kopf.ConnectionInfo:
    """kopf goes in by the same door as our own calls; asked again when the API server refuses them."""
    known = kube.client.configuration
    scheme, _, token = (await known.get_api_key_with_prefix("BearerToken") or "").partition(" ")
    return kopf.ConnectionInfo(
        server=known.host,
        ca_path=known.ssl_ca_cert,
        insecure=not known.verify_ssl,
        scheme=scheme or None,
        token=token.strip() or None,
        certificate_path=known.cert_file,
        private_key_path=known.key_file,
        proxy_url=known.proxy,
    )


async def _wait_for_crd(kube: Kube) -> None:
    """kopf looks for its resources once, and would stay blind to one that comes later."""
    while True:
        try:
            if await kube.is_served():
                return
            log.warning(
                "the API server does not know %s and %s of %s: install the CRDs (manifests/crd.yaml, or the chart's crds.install)",
                PLURAL,
                FUNCTIONS,
                GROUP,
            )
        except ApiError as error:
            log.warning("%s", error)
        await asyncio.sleep(LOOK_AGAIN)


def _connector(url: str, lease: Lease | None) -> Callable[[], Database]:
    """Gives connections to the ledger; the first that comes through brings it up to date, and begins an epoch where there is a Lease."""

    def database(epoch: int | None) -> Database:
        return Database(lambda: url, patience=PATIENCE, say=log.warning, advice=ADVICE, epoch=epoch)

    first = database(None)
    lock, ready = threading.Lock(), threading.Event()
    epoch: int | None = None

    def connect() -> Database:
        nonlocal epoch
        with lock:
            if not ready.is_set():
                try:
                    Store(first)
                    if lease is not None and epoch is None:  # once: one that has a successor must not come back by a newer one
                        epoch = take_epoch(first)
                        lease.check()  # a process that stood still since it took the Lease ends here, before it writes
                        log.info("the ledger's epoch is %d", epoch)
                    fenced_first = database(epoch)
                    roles.setup(fenced_first)
                    fenced_first.close()
                except psycopg2.Error as error:
                    raise JobError(JobReason.DATABASE_UNAVAILABLE, f"{str(error).splitlines()[0]}: {RIGHTS}") from error
                first.close()
                ready.set()
        return database(epoch)

    return connect
