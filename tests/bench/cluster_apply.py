"""From an applied PipelineJob to its first Job, beside a bare loop that creates such Jobs with the Python client.

500 are applied at 20 a second; their pods go to fake nodes. A fake pod completes without a plan in the ledger, so the jobs stay in
Planning: enough for this. Times are of this process's clock: when the call began, when it was answered, and when a watch
brought the Job.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cluster_common import Arena, arena, at_rate, fake_nodes, percentiles, wait_until

from pipelinejob_operator.manifests import JOB_LABEL, Manifest

COUNT, RATE = 500, 20.0
PATIENCE = 120.0  # seconds after the last call until all Jobs must have been seen


def measure(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Ours, then the bare loop with the same Jobs, each in a namespace of its own."""
    count = 5 if quick else COUNT
    found: dict[str, Any] = {"count": count, "rate": RATE}
    jobs: list[Manifest] = []
    with arena("apply-ours", say) as place, fake_nodes(place.cluster):
        found["ours"] = _series(place, count, jobs, lambda number: place.create(f"job-{number}"))
        say(f"cluster-apply, ours: {_shown(found['ours'])}")
    with arena("apply-bare", say) as place, fake_nodes(place.cluster):
        pattern = _bare(jobs[0])
        found["bare"] = _series(place, count, [], lambda number: place.create_job(_named(pattern, f"job-{number}")))
        say(f"cluster-apply, bare: {_shown(found['bare'])}")
    return found


def _shown(found: dict[str, Any]) -> str:
    return f"Job seen p50 {found['answered']['p50']:.3f} s, p99 {found['answered']['p99']:.3f} s after the answer"


def _series(place: Arena, count: int, jobs: list[Manifest], create: Callable[[int], object]) -> dict[str, Any]:
    """Seconds until the Job is seen, since the call began and since it was answered; the Jobs are added to `jobs`."""
    began: dict[str, float] = {}
    answered: dict[str, float] = {}
    seen: dict[str, float] = {}

    def told(when: float, kind: str, job: Manifest) -> None:
        if kind == "ADDED":
            seen.setdefault(job["metadata"]["labels"].get(JOB_LABEL, job["metadata"]["name"]), when)
            jobs.append(job)

    def one(number: int) -> None:
        name = f"job-{number}"
        began[name] = time.monotonic()
        create(number)
        answered[name] = time.monotonic()

    with place.watch("jobs", told):
        at_rate(one, count, RATE)
        wait_until(lambda: len(seen) >= count, PATIENCE, f"{count} Jobs seen")
    return {
        "answered": percentiles([seen[name] - answered[name] for name in answered]),
        "called": percentiles([seen[name] - began[name] for name in answered]),
        "call": percentiles([answered[name] - began[name] for name in answered]),
    }


def _bare(job: Manifest) -> Manifest:
    """The Job that the operator made, without anything that says whose it is."""
    spec = {key: value for key, value in job["spec"].items() if key != "selector"}
    template = {"metadata": {"labels": {"bench": "bare"}}, "spec": spec["template"]["spec"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {**spec, "template": template}}


def _named(job: Manifest, name: str) -> Manifest:
    return {**job, "metadata": {"name": name, "labels": {"bench": "bare"}}}
