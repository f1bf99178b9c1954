"""Which PipelineJobs the operator takes on, and what it says of the others."""

from __future__ import annotations

from typing import Any

import pytest

from pipelinejob.model import Spec
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.store import Job
from pipelinejob_operator.accept import accept, current_spec, is_answered, is_settled


def body(name: str = "men", created: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    full = {"source": {"csv": "rows.csv"}, "data": {"persistentVolumeClaim": {"claimName": "catalogue"}}, **spec}
    return {
        "apiVersion": "pipelinejob.dev/v1alpha1",
        "kind": "PipelineJob",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-of-{name}", "creationTimestamp": created, "generation": 1},
        "spec": {key: value for key, value in full.items() if value is not None},
    }


def refusal(*arguments: Any) -> str:
    with pytest.raises(JobError) as error:
        accept(*arguments)
    assert error.value.reason is JobReason.INVALID_SPEC
    return error.value.message


def test_a_good_job_is_taken_with_its_defaults() -> None:
    job, functions = accept(body(functions=[{"name": "resize", "params": {"width": 8, "height": 8}}]), [])
    assert functions == [{"name": "resize", "params": {"width": 8, "height": 8}, "file": None, "module": None, "timeoutSeconds": 300}]
    assert (job.spec.parallelism, job.output_path) == (2, "output/shop/men")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"functions": [{"name": "resize", "params": {"width": 8, "height": 8}}, {"name": "rezise"}]}, "spec.functions[1].name"),
        ({"functions": [{"name": "resize", "params": {"width": "x", "height": 8}}]}, "spec.functions[0].params.width"),
        ({"functions": [{"name": "mine", "module": "m"}, {"name": "resize", "params": {"width": 0, "height": 8}}]}, "[1].params.width"),
        ({"functions": [{"name": "mine", "file": "fn.py"}]}, "spec.functions[0].file"),
        ({"data": None}, "spec.data.persistentVolumeClaim.claimName"),
        ({"source": {"csv": "rows.csv", "where": {"year": {"gtt": 3}}}}, "spec.source.where.year"),
        ({"output": {"background": "blu"}}, "spec.output.background"),
    ],
)
def test_a_refusal_names_the_field(spec: dict[str, Any], field: str) -> None:
    assert field in refusal(body(**spec), [])


def test_the_younger_of_two_jobs_with_overlapping_outputs_is_refused() -> None:
    older, younger = body("old", output={"path": "out/a"}), body("new", "2026-01-02T00:00:00Z", output={"path": "out/a/b"})
    assert "'old'" in refusal(younger, [older, younger])
    accept(older, [older, younger])
    accept(body("other", "2026-01-02T00:00:00Z", output={"path": "out/ab"}), [older])
    elsewhere = {"persistentVolumeClaim": {"claimName": "other"}}
    accept(body("new", "2026-01-02T00:00:00Z", output={"path": "out/a"}, data=elsewhere), [older])


def test_a_redrive_shares_an_output_and_has_no_budget() -> None:
    older = body("old", output={"path": "out/a"})
    again = body("again", "2026-01-02T00:00:00Z", source={"csv": "rows.csv", "failedRowsOf": {"name": "old"}}, output={"path": "out/a"})
    assert accept(again, [older])[0].spec.failure_policy.max_failed_rows_percent == 100
    accept(body("new", "2026-01-03T00:00:00Z", output={"path": "out/b"}), [older, again])
    assert "'old'" in refusal(body("new", "2026-01-03T00:00:00Z", output={"path": "out/a"}), [again, older])
    wrong = body("again", source={"csv": "rows.csv", "failedRowsOf": {"name": "old", "reasons": ["Nonsense"]}})
    assert "spec.source.failedRowsOf.reasons: must be of MalformedRow" in refusal(wrong, [older])


def test_a_job_that_only_plans_is_in_nobodys_way() -> None:
    older = body("old", output={"path": "out/a"}, mode="plan")
    younger = body("new", "2026-01-02T00:00:00Z", output={"path": "out/a"})
    accept(younger, [older])
    accept(body("third", "2026-01-03T00:00:00Z", output={"path": "out/a"}, mode="plan"), [older, younger])


def test_a_refused_job_holds_no_output() -> None:
    older = body("old", output={"path": "out/a"})
    older["status"] = {"conditions": [{"type": "Accepted", "status": "False"}]}
    accept(body("new", "2026-01-02T00:00:00Z", output={"path": "out/a"}), [older])


def test_the_mutable_fields_follow_the_resource_and_the_others_stay_as_accepted() -> None:
    accepted, _ = accept(body(parallelism=2, seed=7, worker={"image": "mine:1"}), [])
    fields: dict[str, Any] = dict.fromkeys(Job._fields)
    job = Job(**{**fields, "spec": accepted.spec.as_dict()})
    spec = current_spec(job, body(parallelism=9, seed=8, suspend=True, failurePolicy={"maxFailedRows": 3}))
    assert (spec.parallelism, spec.seed, spec.suspend, spec.failure_policy.max_failed_rows) == (9, 7, True, 3)
    assert spec.immutable() == Spec.model_validate({**accepted.spec.as_dict()}).immutable()


def test_a_job_is_settled_when_its_end_answers_its_newest_spec() -> None:
    done = body() | {"status": {"phase": "Complete", "observedGeneration": 1}}
    assert is_settled(done)
    assert not is_settled(body())
    planned = {"phase": "Pending", "observedGeneration": 1, "conditions": [{"type": "Complete", "status": "False", "reason": "PlanOnly"}]}
    assert is_settled(body() | {"status": planned})
    assert not is_settled(body(ttlSecondsAfterFinished=5) | {"status": planned})
    assert not is_settled(done | {"status": {"phase": "Complete", "observedGeneration": 0}})
    assert not is_settled(body(ttlSecondsAfterFinished=5) | {"status": {"phase": "Complete", "observedGeneration": 1}})


def test_a_plan_that_is_approved_is_run() -> None:
    accepted, _ = accept(body(mode="plan"), [])
    job = Job(**{**dict.fromkeys(Job._fields), "spec": accepted.spec.as_dict()})
    planned = body(mode="plan") | {
        "status": {"phase": "Pending", "observedGeneration": 1, "conditions": [{"type": "a", "reason": "PlanOnly"}]}
    }
    planned["metadata"]["generation"] = 1
    assert current_spec(job, planned).mode == "plan" and is_answered(planned)
    planned["metadata"]["annotations"] = {"pipelinejob.dev/approve": "true"}
    assert current_spec(job, planned).mode == "run" and not is_answered(planned)


def known(seconds: int, resources: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"source": "def mark(image, row): ...", "limits": {"timeoutSeconds": seconds, "resources": resources}}


def test_a_job_gets_the_code_and_the_limits_of_the_functions_that_it_names() -> None:
    calls = [{"name": "mark", "timeoutSeconds": 20}, {"name": "grayscale"}, {"name": "big-model"}, {"name": "mark", "module": "a.b"}]
    functions = {
        "mark": known(10, {"requests": {"cpu": "500m", "memory": "1Gi"}}),
        "big-model": known(86_400, {"requests": {"cpu": "2"}, "limits": {"memory": "3Gi"}}),
        "grayscale": known(1),
    }
    job, entries = accept(body(functions=calls), [], functions)
    assert [entry.get("source") for entry in entries] == ["def mark(image, row): ...", None, "def mark(image, row): ...", None]
    assert all("limits" not in entry for entry in entries)
    assert [call.timeout_seconds for call in job.spec.functions] == [10, 300, 300, 300]
    assert job.spec.worker is not None
    assert job.spec.worker.resources == {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "3Gi"}}
    chosen, _ = accept(body(functions=calls, worker={"resources": {"limits": {"cpu": "1"}}}), [], functions)
    assert chosen.spec.worker is not None and chosen.spec.worker.resources == {"limits": {"cpu": "1"}}


def test_a_function_that_is_nowhere() -> None:
    with pytest.raises(JobError, match=r"spec.functions\[1\].name: no built-in function 'marc'.*no PipelineFunction of this namespace"):
        accept(body(functions=[{"name": "mark"}, {"name": "marc"}]), [], {"mark": known(10)})
