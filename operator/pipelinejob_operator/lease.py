"""One operator leads: it holds a Lease and renews it; the others wait until it is released, or has not changed for its duration.

Clocks of two machines are never compared: each goes by how long it has itself seen the Lease unchanged. A leader stops before
anybody else may begin, and its process ends: what it did goes on in another one. The epoch in the ledger fences what was under way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from pipelinejob_operator.client import ApiError, Client

DURATION = 15  # seconds without a change, after which a Lease is free
DEADLINE = 10.0  # seconds after the last renewal, when its holder stops
RENEW = 3.0  # seconds between renewals
LOOK = 1.0  # seconds between looks of a standby
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"

log = logging.getLogger("pipelinejob.lease")


def may_write(spec: Mapping[str, Any] | None, identity: str, unchanged: float, leads: bool) -> bool:
    """Whether `identity` may put itself into a Lease.

    Args:
        spec: of the Lease; None: there is none.
        unchanged: seconds for which it has been seen to stay the same.
        leads: whether this process leads by it; then it renews what is its own and takes nothing.
    """
    holder = (spec or {}).get("holderIdentity")
    if leads or holder == identity:
        return bool(holder == identity)
    return not holder or unchanged > float((spec or {}).get("leaseDurationSeconds") or DURATION)


def step_down(why: str) -> NoReturn:
    """Ends the process at once, so that nothing more is written; Kubernetes starts it again, as a standby."""
    log.error("%s: this operator ends, and starts again as a standby", why)
    logging.shutdown()
    os._exit(1)


class Lease:
    """A Lease of the API coordination.k8s.io/v1, for one identity.

    Args:
        name: namespace/name.
        identity: of this pod: a container that starts again in the same pod takes up its own Lease at once.
    """

    def __init__(self, client: Client, name: str, identity: str) -> None:
        self._client, self._identity = client, identity
        self._namespace, _, self._name = name.partition("/")
        self._leads = False
        self._version, self._since = "", 0.0  # as last seen, and since when
        self._renewed = 0.0  # before the call that renewed it was sent

    async def acquire(self) -> None:
        """Waits until this process leads."""
        told = ""
        while True:
            try:
                if await self._write():
                    self._leads = True
                    log.info("%s leads", self._identity)
                    return
                said = "another operator leads: waiting as a standby"
            except ApiError as error:
                said = str(error)
            if said != told:
                log.info("%s", said)
                told = said
            await asyncio.sleep(LOOK)

    async def keep(self) -> NoReturn:
        """Renews the Lease; ends the process when it is lost."""
        while True:
            await asyncio.sleep(RENEW)
            self.check()
            try:
                async with asyncio.timeout(DEADLINE - (_now() - self._renewed)):
                    mine = await self._write()
            except TimeoutError:
                continue  # check() tells
            except ApiError as error:
                log.warning("the Lease was not renewed: %s", error)
                continue
            if not mine:
                step_down("the Lease has another holder")

    def check(self) -> None:
        """Ends the process if the Lease may be another's by now; comes before each call to the API server."""
        late = _now() - self._renewed
        if late > DEADLINE:
            step_down(f"the Lease was last renewed {late:.0f} s ago")

    async def release(self) -> None:
        """Gives the Lease up, so that a standby need not wait."""
        try:
            async with asyncio.timeout(2 * LOOK):
                await self._write(release=True)
        except (ApiError, TimeoutError) as error:
            log.warning("the Lease was not released, and is free in %d s: %s", DURATION, str(error) or "no answer")

    async def _write(self, *, release: bool = False) -> bool:
        """Creates, takes, renews or releases it; False when it is another's. A race is lost by its version."""
        at, path = _now(), LEASES.format(self._namespace)
        try:
            found = await self._client.call("GET", f"{path}/{self._name}")
        except ApiError as error:
            if error.status != 404:
                raise
            found = {}
        spec, version = found.get("spec"), found.get("metadata", {}).get("resourceVersion", "")
        if version != self._version:
            self._version, self._since = version, _now()
        if not may_write(spec, self._identity, _now() - self._since, self._leads):
            return False
        body = self._body(found, release)
        try:
            if found:
                made = await self._client.call("PUT", f"{path}/{self._name}", body=body)
            else:
                made = await self._client.call("POST", path, body=body)
        except ApiError as error:
            if error.status != 409:
                raise
            made = await self._client.call("GET", f"{path}/{self._name}")
            if not _is_written(made["spec"], body["spec"]):
                if self._leads:
                    raise  # another holder, or a write that was overtaken: the next look tells
                return False
        self._version, self._since, self._renewed = made["metadata"]["resourceVersion"], _now(), at
        return True

    def _body(self, found: Mapping[str, Any], release: bool) -> dict[str, Any]:
        spec, now = dict(found.get("spec") or {}), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        if not self._leads:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (1 if found else 0)}
        spec |= {"holderIdentity": "" if release else self._identity, "leaseDurationSeconds": 1 if release else DURATION, "renewTime": now}
        metadata = found.get("metadata") or {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _is_written(found: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether our own write came through, and only its answer was lost: a second try meets it as a conflict."""
    return (found.get("holderIdentity"), found.get("renewTime")) == (ours["holderIdentity"], ours["renewTime"])


def _now() -> float:
    """Seconds that also pass while the process is stopped or the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
