"""The operator's probe: red when it is to be started again, green while it only has to wait."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import kopf
import pytest

from pipelinejob_operator import handlers
from pipelinejob_operator.kube import Kube
from pipelinejob_operator.reconcile import Reconciler
from pipelinejob_operator.settings import Settings

SETTINGS = Settings.from_environment({"PIPELINEJOB_DATABASE_URL": "postgresql://host/db", "PIPELINEJOB_WORKER_IMAGE": "worker:1"})


class Cluster(Kube):
    """One in which nothing runs, and that a live look finds a pod in which the watch has never told of."""

    async def list_runs(self) -> dict[str, int]:
        return {}

    def find(self) -> None:
        self._found("pods", {"metadata": {"uid": "p", "name": "p", "resourceVersion": "5", "labels": {"pipelinejob.dev/uid": "u"}}})


def no_database() -> Any:
    raise AssertionError("not asked for")


def test_it_is_red_when_the_watch_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = Cluster()
    reconciler = Reconciler(SETTINGS, kube, no_database)
    assert "0 jobs queued" in handlers.check(reconciler, kube)
    kube.find()
    handlers.check(reconciler, kube)  # not told yet, which is no sign
    later = time.monotonic() + handlers.LONGEST_LAG + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    with pytest.raises(kopf.PermanentError, match="the watch is dead"):
        handlers.check(reconciler, kube)


def test_it_is_red_when_a_loop_has_ended() -> None:
    async def story() -> None:
        kube = Cluster()
        reconciler = Reconciler(SETTINGS, kube, no_database)
        await reconciler.start()
        handlers.check(reconciler, kube)
        reconciler._tasks[0].cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(kopf.PermanentError, match="stands still"):
            handlers.check(reconciler, kube)
        await reconciler.stop()

    asyncio.run(story())
