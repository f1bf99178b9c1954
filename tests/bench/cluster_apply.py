"""From an applied PipelineJob to its first Job, beside a bare loop that creates such Jobs with the Python client.

500 are applied at 20 a second; their pods go to fake nodes. A fake pod completes without a plan in the ledger, so the jobs stay in
Planning: enough for this. Times are of this process's clock: when the call began, when it was answered, and when a watch
brought the Job.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cluster_common import CLAIM, Arena, arena, at_rate, fake_nodes, percentiles, spec_of, wait_until

from cluster import images
from pipelinejob_operator.manifests import JOB_LABEL, Defaults, Target, plan_job

COUNT, RATE = 500, 20.0
PATIENCE = 120.0  # seconds after the last call until all Jobs must have been seen


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The bare loop, then ours, each in a namespace of its own."""
    count = 5 if quick else COUNT
    found: dict[str, Any] = {"count": count, "rate": RATE}
    for way in ("bare", "ours"):
        with arena(f"apply-{way}", say) as place, fake_nodes(place.cluster):
            found[way] = _series(place, count, ours=way == "ours")
            kept = found[way]["answered"]
            say(f"cluster-apply, {way}: Job seen p50 {kept['p50']:.3f} s, p99 {kept['p99']:.3f} s after the answer")
    return found


def _series(place: Arena, count: int, *, ours: bool) -> dict[str, Any]:
    """Seconds until the Job is seen, since the call began and since it was answered."""
    began: dict[str, float] = {}
    answered: dict[str, float] = {}
    seen: dict[str, float] = {}

    def told(when: float, kind: str, job: dict[str, Any]) -> None:
        if kind == "ADDED":
            labels = job["metadata"].get("labels", {})
            seen.setdefault(labels[JOB_LABEL] if ours else job["metadata"]["name"], when)

    def create(number: int) -> None:
        name = f"job-{number}"
        began[name] = time.monotonic()
        place.create(name) if ours else place.create_job(_bare(place.namespace, name))
        answered[name] = time.monotonic()

    with place.watch("jobs", told):
        at_rate(create, count, RATE)
        wait_until(lambda: len(seen) >= count, PATIENCE, f"{count} Jobs seen")
    return {
        "answered": percentiles([seen[name] - answered[name] for name in seen]),
        "called": percentiles([seen[name] - began[name] for name in seen]),
        "call": percentiles([answered[name] - began[name] for name in seen]),
    }


def _bare(namespace: str, name: str) -> dict[str, Any]:
    """The Job that the operator would make, with nothing in it that says whose it is."""
    resources = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}  # as the chart has it
    defaults = Defaults(worker_image=images.WORKER, pull_policy="IfNotPresent", resources=resources, fs_group=None, job_ttl=3600)
    spec = {**spec_of(), "data": {"persistentVolumeClaim": {"claimName": CLAIM}}}
    target = Target(namespace=namespace, name=name, uid="0" * 32, spec=spec, image=images.WORKER, queue=None)
    job = plan_job(target, defaults)
    labels = {"bench": "bare"}
    job["metadata"] = {"name": name, "namespace": namespace, "labels": labels}
    job["spec"]["template"]["metadata"]["labels"] = labels
    return job
