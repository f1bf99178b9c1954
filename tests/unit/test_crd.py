"""The CRD: structural, small, described, with a rule for each field that may not change; and what is made from it is current."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from pipelinejob.model import MUTABLE, Model, Spec, parse
from pipelinejob_operator.crd import FIXED, crd, function_crd, immutable_fields, structural

ROOT = Path(__file__).parents[2]


def load_generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root() -> dict[str, Any]:
    schema: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, schema) of every schema in a schema."""
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in node:
            yield from nodes(node[key], path + mark)


def defaulted(node: dict[str, Any], value: Any) -> Any:
    """The value with the defaults of the schema filled in, as the API server does it."""
    if isinstance(value, list):
        return [defaulted(node["items"], one) for one in value]
    if not isinstance(value, dict):
        return value
    fields = node.get("properties", {})
    filled = {**{name: field["default"] for name, field in fields.items() if "default" in field}, **value}
    return {name: defaulted(fields[name], one) if name in fields else one for name, one in filled.items()}


def without_null(value: Any) -> Any:
    return {key: without_null(one) for key, one in value.items() if one is not None} if isinstance(value, dict) else value


def test_what_is_made_from_the_model_is_current() -> None:
    for name, text in load_generate().files().items():
        assert (ROOT / name).read_text() == text, f"{name} has drifted: run .venv/bin/python scripts/generate.py"
    assert list(yaml.safe_load_all((ROOT / "manifests/crd.yaml").read_text())) == [crd(), function_crd()]
    assert len((ROOT / "manifests/crd.yaml").read_bytes()) < 100 * 1024


def test_the_schema_is_structural(root: dict[str, Any]) -> None:
    for path, node in nodes(root):
        assert not {"$ref", "anyOf", "allOf", "oneOf", "const", "title", "exclusiveMinimum", "exclusiveMaximum"} & node.keys(), path
        assert "type" in node or {key: value for key, value in node.items() if key != "description"} == {
            "x-kubernetes-preserve-unknown-fields": True,
            "nullable": True,
        }, path
        assert not {"properties", "additionalProperties"} <= node.keys(), path
        if node.get("type") == "integer":
            assert node["format"] in ("int32", "int64"), path


def test_every_field_is_described(root: dict[str, Any]) -> None:
    for part in ("spec", "status"):
        for path, node in nodes(root["properties"][part], part):
            if not path.endswith(("[]", "{}")):
                assert node.get("description", "").endswith("."), path


def test_every_field_that_may_not_change_has_a_rule_and_no_other_has(root: dict[str, Any]) -> None:
    rules = root["properties"]["spec"]["x-kubernetes-validations"]
    fixed = {rule["fieldPath"].removeprefix(".") for rule in rules if rule["message"] == FIXED}
    assert fixed == set(immutable_fields())
    assert fixed | set(MUTABLE) == set(root["properties"]["spec"]["properties"]) and not fixed & set(MUTABLE)


def test_bounds_and_required(root: dict[str, Any]) -> None:
    spec = root["properties"]["spec"]
    assert root["required"] == ["spec"] and spec["required"] == ["source"]
    assert spec["properties"]["parallelism"] == {
        "description": Spec.model_fields["parallelism"].description,
        "type": "integer",
        "format": "int32",
        "default": 2,
        "minimum": 1,
        "maximum": 10_000,
    }
    seed = spec["properties"]["seed"]
    assert (seed["format"], seed["default"], {"minimum", "maximum"} & seed.keys()) == ("int64", 0, set())
    assert "required" not in root["properties"]["status"]


def test_an_exclusive_bound_becomes_an_inclusive_one() -> None:
    class Sample(Model):
        below: int = Field(lt=10)
        above: int = Field(gt=3)

    fields = structural(Sample)["properties"]
    assert fields["below"]["maximum"] == 9 and fields["above"]["minimum"] == 4


def test_the_api_server_fills_in_what_the_model_does(root: dict[str, Any]) -> None:
    document = {
        "apiVersion": "pipelinejob.dev/v1alpha1",
        "kind": "PipelineJob",
        "metadata": {"name": "job"},
        "spec": {"source": {"csv": "a.csv"}, "functions": [{"name": "resize"}], "output": {"quality": 5}},
    }
    ours = parse(document).spec
    filled = defaulted(root["properties"]["spec"], document["spec"])
    without = without_null(ours.as_dict())
    assert filled == {**without, "functions": [without_null(one) for one in without["functions"]]}
    assert parse({**document, "spec": filled}).spec == ours


def test_columns_and_names() -> None:
    spec = crd()["spec"]
    columns = [(one["name"].upper(), one.get("priority", 0)) for one in spec["versions"][0]["additionalPrinterColumns"]]
    assert [name for name, priority in columns if not priority] == ["PHASE", "PROGRESS", "FAILED", "RATE", "AGE"]
    assert [name for name, priority in columns if priority] == ["SHARDS", "PARALLELISM", "OUTPUT", "ETA"]
    assert spec["names"]["shortNames"] == ["plj"] and spec["names"]["categories"] == ["all"]
    assert spec["versions"][0]["subresources"] == {"status": {}} and spec["scope"] == "Namespaced"


def test_the_reference_names_every_field(root: dict[str, Any]) -> None:
    text = load_generate().files()["docs/reference.md"]
    for part in ("spec", "status"):
        for path, _ in nodes(root["properties"][part]):
            if path and not path.endswith(("[]", "{}")):
                assert f"| `{path.removeprefix('.')}` |" in text, path
