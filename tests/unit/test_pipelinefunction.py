"""PipelineFunctions: what is taken, what the pod that loads one is, and how its answer reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelinejob import check, pipelinefunction
from pipelinejob.functions import load
from pipelinejob.reasons import JobError
from pipelinejob_operator import manifests
from pipelinejob_operator.crd import function_crd
from pipelinejob_operator.functions import is_answered, outcome, status_of

HASH = "--hash=sha256:" + 64 * "a"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEFAULTS = manifests.Defaults("IfNotPresent", {"requests": {"cpu": "1"}}, None, 3600, (("PIP_NO_INDEX", "1"),))


def body(name: str = "mark", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pipelinejob.dev/v1alpha1",
        "kind": "PipelineFunction",
        "metadata": {"name": name, "namespace": "shop", "uid": "01234567-89ab", "generation": 2},
        "spec": {"source": {"inline": "def mark(image, row): return image"}, **spec},
    }


BAD = {
    "spec.source: must have one of inline, configMap and module, got 0": {"source": {}},
    "spec.source: must have one of inline, configMap and module, got 2": {"source": {"inline": "", "module": "a:b"}},
    "spec.source.inline: is 65537 bytes": {"source": {"inline": "x" * 65537}},
    "spec.source.module: must be pkg.mod:name, got 'a.b'": {"source": {"module": "a.b"}},
    "spec.source.inlin: unknown field; did you mean 'inline'": {"source": {"inlin": "x"}},
    "spec.requirements: must be pinned with hashes, as name==1.2 --hash=sha256:<64 hex digits>, got 'numpy'": {"requirements": ["numpy"]},
    "got 'numpy==1.2'": {"requirements": ["numpy==1.2"]},
    "got '-r other.txt": {"requirements": [f"-r other.txt {HASH}"]},
    "got 'a @ file:///etc": {"requirements": [f"a @ file:///etc/passwd {HASH}"]},
    "got 'a==1 --index-url": {"requirements": [f"a==1 --index-url=x {HASH}"]},
    "spec.timeoutSeconds: must be at least 1": {"timeoutSeconds": 0},
}


@pytest.mark.parametrize(("message", "spec"), BAD.items(), ids=BAD.keys())
def test_what_is_refused(message: str, spec: dict[str, Any]) -> None:
    with pytest.raises(JobError) as refused:
        pipelinefunction.parse(body(**spec))
    assert message in refused.value.message


def test_what_a_job_keeps_of_it() -> None:
    def texts(wanted: pipelinefunction.ConfigMapKey) -> str:
        return f"# {wanted.name}/{wanted.key}"

    pinned = [f"a-b.c[d]==1.2 ; python_version < '4' {HASH} {HASH}"]
    assert pipelinefunction.parse(body(requirements=pinned, entrypoint="f")).entry(texts) == {
        "source": "def mark(image, row): return image",
        "entrypoint": "f",
        "requirements": pinned,
    }
    assert pipelinefunction.parse(body(source={"configMap": {"name": "a", "key": "b"}})).entry(texts) == {"source": "# a/b"}
    assert pipelinefunction.parse(body(source={"module": "a.b:c"})).entry(texts) == {"module": "a.b", "entrypoint": "c"}


@pytest.mark.parametrize(
    ("name", "source", "entrypoint", "found"),
    [
        ("blur-more", "def blur_more(image, row): ...\ndef other(image, row): ...", "", "blur_more"),
        ("mine", "def f(image, row): ...\ndef _helper(): ...", "", "f"),
        ("mine", "def f(image, row): ...\ndef g(image, row): ...", "g", "g"),
    ],
)
def test_which_function_it_is(name: str, source: str, entrypoint: str, found: str) -> None:
    function = load({"name": name, "source": source, "entrypoint": entrypoint})
    assert (function.name, function.call.__name__) == (name, found)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(image, row)\n  pass", "mine, line 1: SyntaxError: expected ':'"),
        ("import os\n\nx = undefined\n", "mine, line 3: NameError: name 'undefined' is not defined"),
        ("def f(image, row): ...\ndef g(image, row): ...", "mine defines no function 'mine'; expected one of f, g"),
        ("def mine(): ...", "mine: 'mine' must take an image and a row"),
        ("import nosuchmodule", "mine, line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
    ],
)
def test_what_cannot_be_loaded(source: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        load({"name": "mine", "source": source})
    assert str(refused.value).startswith(message)


def test_the_digest_is_of_code_and_requirements() -> None:
    entry: dict[str, Any] = {"name": "mine", "source": "def mine(image, row): ..."}
    digests = {load({**entry, **more}).digest for more in ({}, {"requirements": ["a"]}, {"source": entry["source"] + " "})}
    assert len(digests) == 3 and all(digest.startswith("sha256:") for digest in digests)


def test_the_pod_that_loads_it_has_nothing_to_lose() -> None:
    job = manifests.check_job(body(), "mark-01234-check-1", {"name": "mark", "source": "$(HOME)"}, "worker:1", DEFAULTS)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
    assert pod["volumes"] == [{"name": "tmp", "emptyDir": {}}] and container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [one["name"] for one in container["env"]] == [check.VARIABLE, "PIP_NO_INDEX"]
    assert "$" not in container["env"][0]["value"]
    assert job["metadata"]["ownerReferences"][0]["uid"] == "01234567-89ab" and job["spec"]["backoffLimit"] == 0


def pod(**state: Any) -> dict[str, Any]:
    return {"status": {"phase": "Running", "containerStatuses": [{"state": state}]}}


def test_how_its_answer_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    source = "def mark(image, row, *, strength: float = 1.0):\n    'Marks it.'"
    monkeypatch.setenv(check.VARIABLE, check.encode({"name": "mark", "source": source}))
    assert check.main(told.append) == 0
    found = outcome(pod(terminated={"exitCode": 0, "message": told[0]}))
    assert found is not None and found[:2] == ("True", "Loaded")
    assert found[3]["doc"] == "Marks it." and found[3]["digest"].startswith("sha256:")
    assert found[3]["params"] == [{"name": "strength", "expected": "a number", "required": False, "default": 1.0}]
    monkeypatch.setenv(check.VARIABLE, check.encode({"name": "mark", "source": "1 / 0"}))
    check.main(told.append)
    assert outcome(pod(terminated={"exitCode": 0, "message": told[1]})) == (
        "False", "CannotLoad", "mark, line 1: ZeroDivisionError: division by zero", {},
    )  # fmt: skip


def test_an_answer_is_short_enough_for_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    params = ", ".join(f"parameter_{number}: int = {number}" for number in range(200))
    monkeypatch.setenv(check.VARIABLE, check.encode({"name": "mark", "source": f"def mark(image, row, *, {params}): '{'x' * 5000}'"}))
    check.main(told.append)
    assert len(told[0].encode()) < 4096 and json.loads(told[0])["digest"]


def others() -> Iterator[tuple[dict[str, Any] | None, tuple[str, str] | None]]:
    yield None, None
    yield pod(waiting={"reason": "ContainerCreating"}), None
    yield pod(running={}), None
    yield pod(waiting={"reason": "ImagePullBackOff", "message": "no such image"}), ("Unknown", "ImagePullBackOff")
    yield pod(terminated={"exitCode": 3, "reason": "Error"}), ("False", "CheckFailed")
    yield {"status": {"phase": "Failed", "reason": "DeadlineExceeded"}}, ("False", "CheckFailed")


@pytest.mark.parametrize(("seen", "expected"), list(others()))
def test_a_pod_that_has_no_answer(seen: dict[str, Any] | None, expected: tuple[str, str] | None) -> None:
    found = outcome(seen)
    assert (found[:2] if found else None) == expected


def test_the_status() -> None:
    first = status_of(body(), "Unknown", "Checking", "…", {}, NOW)
    assert first["observedGeneration"] == 2 and first["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    again = status_of({**body(), "status": first}, "Unknown", "ErrImagePull", "…", {"checked": "c"}, datetime(2027, 1, 1, tzinfo=UTC))
    assert again["conditions"][0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert is_answered({**body(), "status": again}, "c")
    assert not is_answered({**body(), "status": again}, "d") and not is_answered({**body(), "status": first}, "c")
    pipelinefunction.FunctionStatus.model_validate(again)


def test_the_columns_that_kubectl_prints() -> None:
    columns = function_crd()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [one["name"] for one in columns if "priority" not in one] == ["Ready", "Reason", "Does", "Age"]
