"""The chart's files agree with one another and with the code; what they render to is for the tests on a cluster."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipelinejob
from pipelinejob import logs
from pipelinejob.model import parse

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/pipelinejob"
TEMPLATES = {path: path.read_text() for path in sorted((CHART / "templates").rglob("*.*"))}
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = yaml.safe_load((CHART / "values.schema.json").read_text())
INSTALL: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "manifests/install.yaml").read_text()))
POD_OWNERS = [body for body in INSTALL if body["kind"] in ("Deployment", "StatefulSet")]


def _properties(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield prefix + name
        yield from _properties(inner, f"{prefix}{name}.")


def _keys(values: object, known: set[str], prefix: str = "") -> Iterator[str]:
    """The keys of the values, down to where the schema says no more."""
    if isinstance(values, dict):
        for name, inner in values.items():
            yield prefix + name
            if any(path.startswith(f"{prefix}{name}.") for path in known):
                yield from _keys(inner, known, f"{prefix}{name}.")


def _objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "properties" in schema:
        yield schema
    for inner in schema.get("properties", {}).values():
        yield from _objects(inner)


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (pipelinejob.__version__, pipelinejob.__version__)


def test_every_value_is_in_the_schema_and_no_other() -> None:
    known = set(_properties(SCHEMA))
    unset = {path for path in known if re.search(r"resources\.(requests|limits|claims)$", path)} | {"global"}
    assert known - unset == set(_keys(VALUES, known)) - unset
    assert all(schema["additionalProperties"] is False for schema in _objects(SCHEMA))


def test_templates_use_every_value_and_no_other() -> None:
    # (.Values.new).key is written where an upgrade with --reuse-values may have no such key
    plain = [re.sub(r"\((\.Values\.[A-Za-z.]+)\)", r"\1", text) for text in TEMPLATES.values()]
    used = {match.rstrip(".") for text in plain for match in re.findall(r"\.Values\.([A-Za-z.]+)", text)}
    known = {path for path in _properties(SCHEMA) if ".resources." not in path and path != "global"}
    leaves = {path for path in known if not any(other.startswith(f"{path}.") for other in known)}
    leaves = {re.sub(r"\.resources\..*", ".resources", path) for path in leaves}
    assert used <= known
    assert leaves - used - {path for path in leaves if path.endswith(".resources")} == set()


def test_the_operator_has_these_rights_and_no_more() -> None:
    text = TEMPLATES[CHART / "templates/rbac.yaml"]
    rules = yaml.safe_load(text.split('define "pipelinejob.rules" -}}')[1].split("{{- end -}}")[0])
    assert {f"{rule['apiGroups'][0]}/{resource}": rule["verbs"] for rule in rules for resource in rule["resources"]} == {
        "pipelinejob.dev/pipelinejobs": ["get", "list", "watch", "delete"],
        "pipelinejob.dev/pipelinejobs/status": ["patch"],
        "pipelinejob.dev/pipelinejobs/finalizers": ["update"],
        "pipelinejob.dev/pipelinefunctions": ["get", "list", "watch"],
        "pipelinejob.dev/pipelinefunctions/status": ["patch"],
        "pipelinejob.dev/pipelinefunctions/finalizers": ["update"],
        "/configmaps": ["get"],
        "batch/jobs": ["get", "list", "watch", "create", "patch", "delete"],
        "/pods": ["get", "list", "watch"],
        "/pods/status": ["patch"],
        "/events": ["get", "list", "watch", "create"],
        "/secrets": ["create"],
        "networking.k8s.io/networkpolicies": ["create"],
    }
    assert {verb for rule in rules for verb in rule["verbs"]}.isdisjoint({"*"})
    assert len(rules) == 13


def test_the_gateway_has_these_rights_and_no_more() -> None:
    text = TEMPLATES[CHART / "templates/gateway.yaml"].split("kind: ClusterRole\n")[1]
    rules = yaml.safe_load(text.split("rules:\n")[1].split("---")[0])
    assert {f"{rule['apiGroups'][0]}/{resource}": rule["verbs"] for rule in rules for resource in rule["resources"]} == {
        "authentication.k8s.io/tokenreviews": ["create"],
        "authorization.k8s.io/subjectaccessreviews": ["create"],
        "pipelinejob.dev/pipelinejobs": ["get", "list", "watch"],
    }
    assert len(rules) == 3 and all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in rules)


def test_the_gateway_is_given_the_environment_that_it_reads() -> None:
    settings = (ROOT / "operator/pipelinejob_gateway/settings.py").read_text()
    helpers = TEMPLATES[CHART / "templates/_helpers.tpl"].split('define "pipelinejob.databaseEnv"')[1].split("{{- end -}}")[0]
    text = TEMPLATES[CHART / "templates/gateway.yaml"] + helpers
    outside = {"PIPELINEJOB_PORT", "PIPELINEJOB_DATA", "PIPELINEJOB_UPLOADS"}  # for one that runs outside its pod
    elsewhere = {"PIPELINEJOB_READER_TOKEN", logs.VARIABLE}
    assert set(re.findall(r"\bPIPELINEJOB_[A-Z_]+", text)) | outside == set(re.findall(r'"(PIPELINEJOB_[A-Z_]+)"', settings)) | elsewhere
    assert "mountPath: /data, readOnly: true" in text and "mountPath: /uploads, subPath: uploads" in text


def test_the_operator_is_given_the_environment_that_it_reads() -> None:
    settings = (ROOT / "operator/pipelinejob_operator/settings.py").read_text()
    text = TEMPLATES[CHART / "templates/operator.yaml"] + TEMPLATES[CHART / "templates/_helpers.tpl"]
    outside = {"PIPELINEJOB_PROBE_PORT"}  # for an operator that runs outside its pod
    read = set(re.findall(r'"(PIPELINEJOB_[A-Z_]+)"', settings)) | {logs.VARIABLE}
    assert set(re.findall(r"\bPIPELINEJOB_[A-Z_]+", text)) == read - outside


def test_the_job_in_the_notes_is_valid() -> None:
    notes = TEMPLATES[CHART / "templates/NOTES.txt"]
    data, job = re.findall(r"<<'YAML'\n(.*?)^YAML$", notes, re.DOTALL | re.MULTILINE)
    assert parse(yaml.safe_load(job)).metadata.name == "pipelinejob-try"
    script = data.split("args:\n        - |\n")[1].split("      volumes:")[0]
    compile(textwrap.dedent(script), "NOTES.txt", "exec")


def test_install_yaml_holds_the_crd_and_no_secret() -> None:
    crds = [yaml.safe_load((CHART / f"files/{name}.yaml").read_text()) for name in ("pipelinefunctions", "pipelinejobs")]
    installed = [body for body in INSTALL if body["kind"] == "CustomResourceDefinition"]
    assert sorted((body["metadata"]["name"], body["spec"]) for body in installed) == [
        (body["metadata"]["name"], body["spec"]) for body in crds
    ]
    assert "Secret" not in {body["kind"] for body in INSTALL}
    assert INSTALL[0]["kind"] == "Namespace"
    assert INSTALL[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("body", POD_OWNERS, ids=lambda body: body["metadata"]["name"])
def test_pods_are_restricted(body: dict[str, Any]) -> None:
    pod = body["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is body["metadata"]["name"].endswith("-operator")
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_the_operator_may_touch_its_own_lease_alone() -> None:
    (role,) = [body for body in INSTALL if body["kind"] == "Role" and body["metadata"]["name"].endswith("-leases")]
    (operator,) = [body for body in INSTALL if body["kind"] == "Deployment" and body["metadata"]["name"].endswith("-operator")]
    environment = {one["name"]: one.get("value") for one in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    namespace, _, name = environment["PIPELINEJOB_LEASE"].partition("/")
    assert namespace == role["metadata"]["namespace"]
    create, own = role["rules"]
    assert create["verbs"] == ["create"]
    assert (own["resourceNames"], own["verbs"]) == ([name], ["get", "update"])
