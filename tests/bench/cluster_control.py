"""How soon a running job on a real node obeys: its failure budget, suspend, resume, another parallelism.

Times are from the patch, or from the status that first shows more failed rows than allowed, to what the API server tells of pods and
counts, by a look every 50 ms.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import Any

from cluster_common import Arena, arena, wait_until
from common import BenchError, catalogue
from pools import QUALITY

SLOW = [{"name": "resize", "params": {"width": 1500, "height": 2000}}]  # so that a run lasts long enough to be disturbed
ROWS, LIMIT = 4_000, 40


def measure(*, quick: bool, repeat: int, say: Callable[[str], None]) -> dict[str, Any]:
    """`repeat` jobs of each kind, one after the other."""
    rows = 1_500 if quick else ROWS
    runs = []
    with arena("control", say) as place:
        shutil.copytree(catalogue("60x80", rows, 50, "--missing", "50%"), place.data, copy_function=shutil.copyfile, dirs_exist_ok=True)
        place.data.chmod(0o777)
        for number in range(repeat):
            found = {**_rests(place, f"rests-{number}"), **_breaks(place, f"breaks-{number}")}
            say(f"cluster-control, {number + 1} of {repeat}: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.items()))
            runs.append(found)
    return {"rows": rows, "runs": runs}


def _rests(place: Arena, name: str) -> dict[str, float]:
    """A job that is suspended, resumed, and given 2, 8 and 1 pods."""
    _create(place, name, {"maxFailedRowsPercent": 100})
    _until(lambda: _done(place, name) > 0, "rows are done")
    found = {"suspend to no pod": _after(lambda: place.patch(name, suspend=True), lambda: _rests_now(place, name))}
    before = _done(place, name)
    found["resume to a new batch"] = _after(lambda: place.patch(name, suspend=False), lambda: _done(place, name) > before)
    found["2 to 8 pods made"] = _after(lambda: place.patch(name, parallelism=8), lambda: len(_pods(place, name)) == 8)
    found["8 to 1 pods"] = _after(lambda: place.patch(name, parallelism=1), lambda: len(_pods(place, name)) == 1)
    found["cancel to no pod of the run"] = _after(lambda: place.patch(name, cancel=True), lambda: _rests_now(place, name))
    _until(lambda: _status(place, name).get("phase") == "Cancelled", "it is cancelled")
    _remove(place, name)
    return found


def _breaks(place: Arena, name: str) -> dict[str, float]:
    """A job of which every other row fails, and that may have no more than a few of them."""
    _create(place, name, {"maxFailedRows": LIMIT, "maxFailedRowsPercent": 100})
    began = _until(lambda: _status(place, name).get("rows", {}).get("failed", 0) > LIMIT, "the budget is broken")
    ended = _until(lambda: _rests_now(place, name), "no pod is left")
    _until(lambda: _status(place, name).get("phase") == "Failed", "it has failed")
    status = _status(place, name)
    if not any(one.get("reason") == "FailureBudgetExceeded" for one in status["conditions"]):
        raise BenchError(f"{name}: {status}")
    _remove(place, name)
    return {"broken budget to no pod of the run": ended - began}


def _create(place: Arena, name: str, policy: dict[str, int]) -> None:
    sharding, output = {"rowsPerShard": 100, "batchRows": 10}, {"path": name, "quality": QUALITY}
    place.create(name, functions=SLOW, parallelism=2, failurePolicy=policy, output=output, worker=None, sharding=sharding)


def _after(change: Callable[[], None], check: Callable[[], bool]) -> float:
    began = time.monotonic()
    change()
    return _until(check, "what the patch asks for") - began


def _until(check: Callable[[], bool], what: str) -> float:
    return wait_until(check, 120, what)


def _pods(place: Arena, name: str) -> list[str]:
    """The pods of a job's run that are there and have not ended."""
    return [pod["metadata"]["name"] for pod in _of_run(place, name, "pods") if pod["status"].get("phase") not in ("Succeeded", "Failed")]


def _rests_now(place: Arena, name: str) -> bool:
    """Whether there is no pod of a job's run, and no Job that could make one: between two shards there may be none for a moment."""
    return not any("completionTime" not in job["status"] for job in _of_run(place, name, "jobs")) and not _pods(place, name)


def _of_run(place: Arena, name: str, kind: str) -> list[dict[str, Any]]:
    selector = f"pipelinejob.dev/job={name},pipelinejob.dev/stage=shard"
    told = place.cluster.kubectl("get", kind, "-n", place.namespace, "-l", selector, "-o", "json")
    found: list[dict[str, Any]] = json.loads(told)["items"]
    return found


def _status(place: Arena, name: str) -> dict[str, Any]:
    found: dict[str, Any] = place.cluster.get("pipelinejob", name, place.namespace)
    return found.get("status", {})


def _done(place: Arena, name: str) -> int:
    rows = _status(place, name).get("rows", {})
    return int(rows.get("total", 0) - rows.get("pending", 0))


def _remove(place: Arena, name: str) -> None:
    place.delete(name)
    shutil.rmtree(place.data / name, ignore_errors=True)
