"""The Jobs and the Secret of a PipelineJob, beside what they are known to be.

`UPDATE_GOLDEN=1 pytest tests/unit/test_manifests.py` writes the files anew; `git diff` then shows what a change does.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelinejob.model import API_VERSION, KIND, MAX_NAME, MAX_SHARDS, parse
from pipelinejob_operator.manifests import (
    QUEUE_LABEL,
    Defaults,
    Network,
    Target,
    final_job,
    final_job_name,
    installing_policy,
    labels,
    network_policy,
    plan_job,
    plan_job_name,
    run_job,
    run_job_name,
    secret,
    secret_name,
)

GOLDEN = Path(__file__).parent / "golden"
UID = "0a1b2c3d-1111-4222-8333-444455556666"
URL = "postgresql://host/db"
IMAGE = "example.com/pipelinejob-worker:1.0.0"
DEFAULTS = Defaults(
    pull_policy="IfNotPresent",
    resources={"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
    fs_group=None,
    job_ttl=3600,
)


def target(**spec: Any) -> Target:
    """A PipelineJob with that in its spec."""
    fields = {"source": {"csv": "rows.csv"}, "data": {"persistentVolumeClaim": {"claimName": "catalogue"}}, **spec}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "men"}, "spec": fields}
    return Target("default", "men", UID, parse(body).spec.as_dict(), IMAGE, None, URL)


def rendered(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifests for a golden input."""
    body, number, shards = case["pipelinejob"], case.get("round", 1), case.get("shards", 5)
    job = parse({"apiVersion": API_VERSION, "kind": KIND, **body})
    defaults = replace(DEFAULTS, **case.get("defaults", {}))
    queue = body["metadata"].get("labels", {}).get(QUEUE_LABEL)
    image = (job.spec.worker.image if job.spec.worker else None) or IMAGE
    it = Target(job.metadata.namespace, job.metadata.name, body["metadata"]["uid"], job.spec.as_dict(), image, queue, URL)
    run = run_job(it, number, shards, min(job.spec.parallelism, shards), defaults, suspend=queue is not None)
    policies = [network_policy(it, Network(**case["network"])), installing_policy(it)] if "network" in case else []
    return [secret(it), *policies, plan_job(it, defaults), run, final_job(it, number, defaults)]


@pytest.mark.parametrize("case", sorted(path.name.removesuffix(".in.yaml") for path in GOLDEN.glob("*.in.yaml")))
def test_manifests_are_as_they_were(case: str) -> None:
    made = rendered(yaml.safe_load((GOLDEN / f"{case}.in.yaml").read_text()))
    out = GOLDEN / f"{case}.out.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        out.write_text(yaml.dump_all(made, sort_keys=False, width=140, Dumper=_Plain))
    assert made == list(yaml.safe_load_all(out.read_text()))


class _Plain(yaml.SafeDumper):
    """Writes what is there twice twice, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def test_names_are_labels_for_the_longest_name_and_a_late_round() -> None:
    name = "n" * MAX_NAME
    longest = replace(target(), name=name)
    names = [plan_job_name(name, UID), run_job_name(name, UID, 999), final_job_name(name, UID, 999), secret_name(longest)]
    assert names[0] == f"{name}-0a1b2-plan"
    assert all(len(one) <= 63 for one in names)
    assert len(f"{run_job_name(name, UID, 999)}-{MAX_SHARDS - 1}") <= 63  # the host name of a pod


def test_another_job_of_the_same_name_has_other_names() -> None:
    other = "9" + UID[1:]
    assert run_job_name("men", UID, 1) != run_job_name("men", other, 1)
    assert secret_name(target()) != secret_name(replace(target(), uid=other))


def test_another_address_of_the_database_makes_another_secret_that_later_pods_use() -> None:
    it, moved = target(), replace(target(), url="postgresql://elsewhere/db")
    assert secret(it)["metadata"]["name"] != secret(moved)["metadata"]["name"]
    (reference,) = [
        one["valueFrom"] for one in final_job(moved, 1, DEFAULTS)["spec"]["template"]["spec"]["containers"][0]["env"] if "valueFrom" in one
    ]
    assert reference["secretKeyRef"]["name"] == secret(moved)["metadata"]["name"]


@pytest.mark.parametrize("stage", ["plan", "shard", "finalize"])
def test_a_job_and_its_pods_have_the_same_labels(stage: str) -> None:
    it = target()
    made = {
        "plan": plan_job(it, DEFAULTS),
        "shard": run_job(it, 1, 5, 2, DEFAULTS, suspend=False),
        "finalize": final_job(it, 1, DEFAULTS),
    }[stage]
    assert made["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"] == labels(it, stage)
    assert made["spec"]["template"]["spec"]["containers"][0]["args"] == [stage]


def test_only_run_jobs_wait_in_a_queue() -> None:
    it = replace(target(), queue="nightly")
    run = run_job(it, 1, 5, 2, DEFAULTS, suspend=True)
    assert run["metadata"]["labels"][QUEUE_LABEL] == "nightly"
    assert run["spec"]["suspend"] is True
    assert QUEUE_LABEL not in run["spec"]["template"]["metadata"]["labels"]
    for other in (plan_job(it, DEFAULTS), final_job(it, 1, DEFAULTS), run_job(target(), 1, 5, 2, DEFAULTS, suspend=False)):
        assert QUEUE_LABEL not in other["metadata"]["labels"]
        assert "suspend" not in other["spec"]


@pytest.mark.parametrize(
    ("resources", "children"),
    [
        ({}, "1"),
        ({"limits": {"cpu": "500m"}}, "1"),
        ({"limits": {"cpu": "2"}}, "2"),
        ({"limits": {"cpu": 1.5}}, "1"),
        ({"limits": {"cpu": "3900m"}, "requests": {"cpu": "8"}}, "3"),
        ({"limits": {"memory": "1Gi"}, "requests": {"cpu": 4}}, "4"),
        ({"limits": None, "requests": {"cpu": "4000m"}}, "4"),
        ({"limits": {"cpu": "two"}}, "1"),
        ({"limits": {"cpu": None}}, "1"),
        ({"limits": {"cpu": "inf"}}, "1"),
    ],
)
def test_a_pod_has_a_child_for_each_whole_processor(resources: dict[str, Any], children: str) -> None:
    made = run_job(target(worker={"resources": resources}) if resources else target(), 1, 5, 2, DEFAULTS, suspend=False)
    env = {one["name"]: one.get("value") for one in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["PIPELINEJOB_CHILDREN"] == children


def test_making_a_manifest_leaves_what_it_is_made_of_as_it_is() -> None:
    it = replace(target(worker={"tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"}}), queue="q")
    before = repr((it, DEFAULTS))
    assert run_job(it, 1, 5, 2, DEFAULTS, suspend=True) == run_job(it, 1, 5, 2, DEFAULTS, suspend=True)
    assert repr((it, DEFAULTS)) == before
