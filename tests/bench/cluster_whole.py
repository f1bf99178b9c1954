"""A whole job on a real node, beside a Job that one writes by hand: same image, same image code, same shards, same pods.

The hand-written one is an Indexed Job whose pods each take their part of the CSV and run the reference chain through the
`bare` pool's code (pools.py, from a ConfigMap); it keeps no record of rows. Times are from the call that creates it to the
event that says Complete. Both take turns.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

from cluster_common import CLAIM, Arena, arena
from common import HERE, BenchError, catalogue, settle
from pools import FUNCTIONS, QUALITY

from cluster import images

ROWS, DISTINCT, PARALLELISM = 20_000, 2_000, 2
LONGEST = 900.0  # seconds
BATCH = 200
BY_HAND = """
import os, sys
from itertools import islice
from pathlib import Path
sys.path.insert(0, "/bench")
from pools import rows_of, run_bare, start_bare
index, rows, out = int(os.environ["JOB_COMPLETION_INDEX"]), int(sys.argv[1]), Path(sys.argv[2])
start_bare("/data")
out.mkdir(parents=True, exist_ok=True)
mine, first = islice(rows_of(Path("/data")), index * rows, (index + 1) * rows), index * rows
while piece := list(islice(mine, int(sys.argv[3]))):
    run_bare((f"{out}/{first:09d}", piece))
    first += len(piece)
"""


def measure(*, quick: bool, repeat: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Pairs of ours and the other, `repeat` of them."""
    rows, distinct = (400, 50) if quick else (ROWS, DISTINCT)
    source = catalogue("60x80", rows, distinct)
    runs = []
    with arena("whole", say) as place:
        shutil.copytree(source, place.data, copy_function=shutil.copyfile, dirs_exist_ok=True)
        place.data.chmod(0o777)  # the copy gave it the mode of its source
        files = {"pools.py": (HERE / "pools.py").read_text()}
        metadata = {"name": "pools", "namespace": place.namespace}
        place.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files})
        for number in range(repeat):
            ours, shards, stages = _ours(place, f"ours-{number}", rows)
            theirs = _by_hand(place, f"by-hand-{number}", rows, shards)
            runs.append({"ours": ours, "by_hand": theirs, "shards": shards, "stages": stages})
            say(f"cluster-whole, pair {number + 1} of {repeat}: ours {ours:.1f} s, by hand {theirs:.1f} s, {shards} shards; {stages}")
    return {"rows": rows, "parallelism": PARALLELISM, "runs": runs}


def _ours(place: Arena, name: str, rows: int) -> tuple[float, int, dict[str, float]]:
    """(seconds, shards, the seconds after which each phase was first seen) of a PipelineJob."""
    phases: dict[str, float] = {}
    last: dict[str, Any] = {}
    ended = threading.Event()

    def told(when: float, _: str, job: dict[str, Any]) -> None:
        status = job.get("status", {})
        if job["metadata"]["name"] != name or "phase" not in status:
            return
        last.update(status)
        phases.setdefault(status["phase"], when)
        if status["phase"] in ("Complete", "Failed"):
            ended.set()

    spec = {"functions": FUNCTIONS, "parallelism": PARALLELISM, "output": {"path": name, "quality": QUALITY}, "worker": None}
    settle()
    with place.watch("pipelinejobs", told):
        began = time.monotonic()
        place.create(name, **spec, sharding={"batchRows": BATCH})
        ended.wait(LONGEST)
    if last.get("phase") != "Complete" or last["rows"]["succeeded"] != rows:
        raise BenchError(f"{place.namespace}/{name}: {last.get('conditions')}")
    shutil.rmtree(place.data / name, ignore_errors=True)
    stages = {phase: round(when - began, 2) for phase, when in phases.items()}
    return phases["Complete"] - began, int(last["shards"]["total"]), stages


def _by_hand(place: Arena, name: str, rows: int, shards: int) -> float:
    """Seconds of an Indexed Job with as many completions as ours has shards."""
    ended = threading.Event()
    times: dict[str, float] = {}

    def told(when: float, _: str, job: dict[str, Any]) -> None:
        for condition in job.get("status", {}).get("conditions", []):
            if job["metadata"]["name"] == name and condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
                times.setdefault(condition["type"], when)
                ended.set()

    command = ["python", "-c", BY_HAND, str(-(-rows // shards)), f"/data/{name}", str(BATCH)]
    settle()
    with place.watch("jobs", told):
        began = time.monotonic()
        place.create_job(_job(name, command, shards))
        ended.wait(LONGEST)
    done = sum(1 for _ in (place.data / name).glob("*/*.jpg"))
    if "Complete" not in times or done != rows:
        raise BenchError(f"{place.namespace}/{name}: {done} of {rows} rows, {times or 'not at its end'}")
    shutil.rmtree(place.data / name, ignore_errors=True)
    return times["Complete"] - began


def _job(name: str, command: list[str], shards: int) -> dict[str, Any]:
    resources = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}  # as the chart has them
    container = {"name": "worker", "image": images.WORKER, "imagePullPolicy": "IfNotPresent", "command": command, "resources": resources}
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "bench", "mountPath": "/bench"}]
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}},
        {"name": "bench", "configMap": {"name": "pools"}},
    ]
    pod = {"restartPolicy": "Never", "containers": [{**container, "volumeMounts": mounts}], "volumes": volumes}
    spec = {"completionMode": "Indexed", "completions": shards, "parallelism": PARALLELISM, "backoffLimit": 0, "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
