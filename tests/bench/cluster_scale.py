"""Two thousand PipelineJobs of which fifty are active: what the operator uses, what it writes, and how soon it is current after a restart.

The others have ended. Pods of active jobs run on fake nodes, in name only: this process enters their plans into the ledger and records
a batch a second for each, as their pods would. `churn` makes and deletes jobs for a long time and looks at the operator's memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

from cluster_common import Arena, arena, at_rate, fake_nodes, operator_pid, status_writes, usage, wait_until
from common import BenchError
from ledger_load import batch_at

from pipelinejob.store import Database, Store
from pipelinejob_operator.manifests import JOB_LABEL, STAGE_LABEL

JOBS, ACTIVE, CANARIES = 2000, 50, 10
WINDOW = 60.0  # seconds
BATCH_ROWS, SHARD_ROWS, SHARDS = 200, 1_000_000, 2
CHURN_RATE, CHURN_LIFE, CHURN_SAMPLE = 2.0, 20.0, 10.0  # jobs a second, seconds that each lives, seconds between two looks


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Fills the cluster, lets it run, and restarts the operator."""
    jobs, active, window = (20, 3, 10.0) if quick else (JOBS, ACTIVE, WINDOW)
    with arena("scale", say) as place, fake_nodes(place.cluster, running_shards=True), place.cluster.database() as url:
        found: dict[str, Any] = {"jobs": jobs, "active": active, "before": usage(_operator(place)).resident}
        with _statuses(place) as statuses:
            began = time.monotonic()
            _fill(place, jobs - active)
            wait_until(lambda: statuses.count("Cancelled") >= jobs - active, 1200, f"{jobs - active} jobs have ended")
            found["filled"] = time.monotonic() - began
            say(f"cluster-scale: {jobs - active} jobs taken on and ended in {found['filled']:.0f} s")
            with _workers(place, url, active) as recorded:
                wait_until(lambda: statuses.count("Running") >= active, 300, f"{active} jobs run")
                wait_until(lambda: len(recorded) >= active, 60, "their workers record")
                time.sleep(5)
                found |= _steady(place, window, recorded)
                say(f"cluster-scale: {found['resident'] / 2**20:.0f} MiB, {found['processor']:.1%} of a processor, "
                    f"{found['writes']:.1f} status writes/s")  # fmt: skip
                found["restart"] = _restart(place, statuses, [f"ended-{number}" for number in range(min(CANARIES, jobs - active))])
                say(f"cluster-scale: restart {found['restart']}")
    return found


# --- A full cluster ----------------------------------------------------------------------------------------------------


def _fill(place: Arena, count: int) -> None:
    """Jobs that end at once: cancelled before any row was run, without a pod."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: place.create(f"ended-{number}", cancel=True), range(count)))


class _Seen:
    """What a watch told of the PipelineJobs of a namespace."""

    def __init__(self) -> None:
        self.phases: dict[str, str] = {}
        self.written: dict[str, float] = {}  # when a status with other counts than before came
        self.deleted: dict[str, float] = {}
        self._rows: dict[str, Any] = {}

    def tell(self, when: float, kind: str, job: dict[str, Any]) -> None:
        """One event."""
        name, status = job["metadata"]["name"], job.get("status", {})
        self.phases[name] = "deleted" if kind == "DELETED" else status.get("phase", "")
        if kind == "DELETED":
            self.deleted[name] = when
        if status.get("rows") != self._rows.get(name):
            self._rows[name] = status.get("rows")
            self.written[name] = when

    def count(self, phase: str) -> int:
        """How many are in a phase."""
        return sum(1 for each in list(self.phases.values()) if each == phase)


@contextmanager
def _statuses(place: Arena) -> Iterator[_Seen]:
    seen = _Seen()
    with place.watch("pipelinejobs", seen.tell):
        yield seen


def _operator(place: Arena) -> int:
    pid = operator_pid(place.cluster)
    if pid is None:
        raise BenchError("the operator's process is not on this machine: memory and processor time cannot be read")
    return pid


def _steady(place: Arena, seconds: float, recorded: dict[str, int]) -> dict[str, Any]:
    """What the operator uses and writes while the active jobs run."""
    pid = _operator(place)
    before, writes, batches = usage(pid), status_writes(place.cluster), sum(recorded.values())
    time.sleep(seconds)
    after = usage(pid)
    return {
        "resident": after.resident,
        "peak": after.peak,
        "processor": (after.processor - before.processor) / seconds,
        "writes": (status_writes(place.cluster) - writes) / seconds,
        "batches": (sum(recorded.values()) - batches) / seconds,
    }


def _restart(place: Arena, statuses: _Seen, canaries: Sequence[str]) -> dict[str, float]:
    """Seconds from the deletion of the operator's pod, while it is away, ended jobs get a time to live of 0.

    Current: all of these are deleted, and each active job has a status with new counts.
    """
    cluster, old = place.cluster, _operator(place)
    active = [name for name, phase in statuses.phases.items() if phase == "Running"]
    began = time.monotonic()
    cluster.kubectl("delete", "pod", "-n", cluster.namespace, "-l", "app.kubernetes.io/component=operator", "--wait=false")
    wait_until(lambda: usage_or_none(old) is None, 60, "the old operator ends")
    gone = time.monotonic()
    for name in canaries:
        place.patch(name, ttlSecondsAfterFinished=0)
    started = wait_until(lambda: operator_pid(cluster) is not None, 120, "a new operator starts")
    current = wait_until(lambda: all(statuses.written[name] > started for name in active), 300, "each active job has new counts")
    seen = wait_until(lambda: all(name in statuses.deleted for name in canaries), 300, "jobs that were patched meanwhile are deleted")
    time.sleep(10)
    after = usage(_operator(place))  # its pid was another one while its container was made
    times = {"ended": gone - began, "started": started - began, "active": current - started, "ended_jobs": seen - started}
    return {**times, "current": max(current, seen) - started, "resident": after.resident, "peak": after.peak}


def usage_or_none(pid: int) -> object:
    """What a process uses; None when it is gone."""
    with suppress(OSError, TypeError):
        return usage(pid)
    return None


# --- Simulated pods ----------------------------------------------------------------------------------------------------


@contextmanager
def _workers(place: Arena, url: str, count: int) -> Iterator[dict[str, int]]:
    """Active jobs: a plan as soon as the plan Job is there, then a batch a second; counts the batches of each job."""
    store = Store(Database(lambda: url, patience=60, say=print), migrated=True)
    recorded: dict[str, int] = {}
    uids: dict[str, str] = {}
    planned: set[str] = set()
    running: set[str] = set()
    over = threading.Event()

    def told(_: float, kind: str, job: dict[str, Any]) -> None:
        labels = job["metadata"].get("labels", {})
        stage = labels.get(STAGE_LABEL)
        if kind == "ADDED" and stage in ("plan", "shard"):
            (planned if stage == "plan" else running).add(labels[JOB_LABEL])

    def work() -> None:
        while not over.wait(max(0.01, 1 - time.monotonic() % 1)):
            for name in [name for name in planned if name in uids]:
                planned.discard(name)
                _plan(store, uids[name])
            for name in sorted(running):
                store.record(uids[name], 0, 1, [batch_at(recorded.get(name, 0) * BATCH_ROWS)])
                recorded[name] = recorded.get(name, 0) + 1

    worker = threading.Thread(target=work, daemon=True)
    with place.watch("jobs", told):
        worker.start()
        try:
            for number in range(count):
                name = f"active-{number}"
                uids[name] = place.create(name, parallelism=1)["metadata"]["uid"]
            yield recorded
        finally:
            over.set()
            worker.join(30)
            store.close()


def _plan(store: Store, uid: str) -> None:
    common = {"rows": SHARD_ROWS, "byte_start": 0, "byte_end": 1, "batch_ends": [1], "batch_checksums": [0]}
    shards = [SimpleNamespace(index=number, first_row=number * SHARD_ROWS, **common) for number in range(SHARDS)]
    store.save_plan(uid, {"sha256": "0" * 64, "rows": SHARD_ROWS * SHARDS}, SHARD_ROWS * SHARDS, lambda: iter(shards))


# --- Churn -------------------------------------------------------------------------------------------------------------


def churn(*, quick: bool, minutes: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Jobs come and go: each has its Secret, its role and its plan Job, whose pod is on a fake node."""
    seconds = 30.0 if quick else minutes * 60
    life, every = (5.0, 2.0) if quick else (CHURN_LIFE, CHURN_SAMPLE)
    count = int(seconds * CHURN_RATE)
    samples: list[dict[str, float]] = []
    with arena("churn", say) as place, fake_nodes(place.cluster):
        pid, began = _operator(place), time.monotonic()
        over = threading.Event()

        def sample() -> None:
            while not over.wait(every):
                with suppress(OSError, TypeError):
                    samples.append({"at": time.monotonic() - began, **usage(pid)._asdict()})
                if len(samples) % 6 == 1:
                    say(f"cluster-churn: {samples[-1]['at']:.0f} s, {samples[-1]['resident'] / 2**20:.1f} MiB")

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        delay = int(life * CHURN_RATE)

        def turn(number: int) -> None:
            if number < count:
                place.create(f"job-{number}")
            if number >= delay:
                place.delete(f"job-{number - delay}")

        try:
            at_rate(turn, count + delay, CHURN_RATE)
        finally:
            over.set()
            sampler.join(30)
        restarted = operator_pid(place.cluster) != pid
    return {"jobs": count, "seconds": seconds, "rate": CHURN_RATE, "life": life, "restarted": restarted, "samples": samples}


def parts(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    """Resident bytes: the middle of the second tenth of the time, and of the last; the first tenth is warming up."""
    end = samples[-1]["at"]

    def middle(low: float, high: float) -> float:
        values = sorted(each["resident"] for each in samples if low * end <= each["at"] <= high * end)
        return values[len(values) // 2]

    first, last = middle(0.1, 0.2), middle(0.9, 1)
    return {"first": first, "last": last, "most": max(each["resident"] for each in samples), "growth": last / first}


def processor_share(samples: Sequence[dict[str, float]]) -> float:
    """Processor seconds a second."""
    return (samples[-1]["processor"] - samples[0]["processor"]) / (samples[-1]["at"] - samples[0]["at"])
