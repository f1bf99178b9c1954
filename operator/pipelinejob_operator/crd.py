"""The CustomResourceDefinition, made from the model: what the API server checks and fills in, and what kubectl shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pipelinejob import pipelinefunction
from pipelinejob.model import GROUP, KIND, MAX_NAME, MUTABLE, NAME_PATTERN, VERSION, Spec, Status
from pipelinejob.pipelinefunction import FunctionSpec, FunctionStatus

PLURAL = "pipelinejobs"
INT32 = 2**31 - 1
EXACT = 2**53  # bounds are doubles: the API server refuses those of int64, which become more than an int64 holds
# Nullable, for a condition `{column: null}` that the API server drops would run all rows, where the model says what is wrong.
ANYTHING = {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}
PATHS = ("spec.source.csv", "spec.source.images", "spec.output.path")
MAX_PATH = 4096  # as on Linux; the API server estimates what a rule may cost from such limits
MAX_FUNCTIONS = 100
FIXED = "cannot be changed after creation: make a job with another name"
_KEPT = (
    "description", "type", "format", "default", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "maxProperties", "required",
)  # fmt: skip


def crd() -> dict[str, Any]:
    """The manifest of the CustomResourceDefinition."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": list(_columns()),
        "schema": {"openAPIV3Schema": _root()},
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["plj"],
        "categories": ["all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def function_crd() -> dict[str, Any]:
    """The manifest of the CustomResourceDefinition of PipelineFunctions."""
    kind, plural = pipelinefunction.KIND, "pipelinefunctions"
    rows = (
        ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
        ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
        ("Does", "string", ".status.doc", 0),
        ("Age", "date", ".metadata.creationTimestamp", 0),
        ("Digest", "string", ".status.digest", 1),
        ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1),
    )
    columns = [{"name": name, "type": type_, "jsonPath": path, **({"priority": 1} if wide else {})} for name, type_, path, wide in rows]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": _function_root()},
    }
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": ["plf"],
        "categories": ["all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _function_root() -> dict[str, Any]:
    strings = {key: {"type": "string"} for key in ("apiVersion", "kind")}
    status = _without_defaults(structural(FunctionStatus, written=True))
    del status["required"]
    spec = structural(FunctionSpec)
    schema: dict[str, Any] = {
        "description": "A function of one's own, which the PipelineJobs of the namespace can name.",
        "type": "object",
        "required": ["spec"],
        "properties": {**strings, "metadata": {"type": "object"}, "spec": spec, "status": status},
    }
    schema["x-kubernetes-validations"] = [_name_rule()]
    _at(schema, "spec.source.inline")["maxLength"] = pipelinefunction.MAX_SOURCE
    _at(schema, "spec.source")["x-kubernetes-validations"] = [
        _rule(
            "[has(self.inline), has(self.configMap), has(self.module)].filter(given, given).size() == 1",
            "must have one of inline, configMap and module",
        )
    ]
    _at(schema, "status.conditions").update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    return schema


def _columns() -> Iterator[dict[str, Any]]:
    """What kubectl prints; kubectl puts the headings in capitals."""
    rows = (
        ("Phase", "string", ".status.phase", 0),
        ("Progress", "string", ".status.progress", 0),
        ("Failed", "integer", ".status.rows.failed", 0),
        ("Rate", "number", ".status.rowsPerSecond", 0),
        ("Age", "date", ".metadata.creationTimestamp", 0),
        ("Shards", "integer", ".status.shards.total", 1),
        ("Parallelism", "integer", ".spec.parallelism", 1),
        ("Output", "string", ".status.output", 1),
        ("ETA", "string", ".status.estimatedCompletionTime", 1),  # a date column counts back from now: "<invalid>"
    )
    for name, kind, path, priority in rows:
        yield {"name": name, "type": kind, "jsonPath": path, **({"priority": priority} if priority else {})}


def _root() -> dict[str, Any]:
    strings = {key: {"type": "string"} for key in ("apiVersion", "kind")}
    status = _without_defaults(structural(Status, written=True))  # what the operator did not say is not so
    del status["required"]  # a status that lacks a field is better than one that is refused
    schema = {
        "description": "Runs a chain of functions over the rows of a CSV and their images, with every row accounted for.",
        "type": "object",
        "required": ["spec"],
        "properties": {**strings, "metadata": {"type": "object"}, "spec": structural(Spec), "status": status},
    }
    for path in PATHS:
        _at(schema, path)["maxLength"] = MAX_PATH
    _at(schema, "spec.functions")["maxItems"] = MAX_FUNCTIONS
    for path, rules in _rules().items():
        _at(schema, path)["x-kubernetes-validations"] = rules
    _at(schema, "status.conditions").update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    return schema


def _without_defaults(node: dict[str, Any]) -> dict[str, Any]:
    result = {key: value for key, value in node.items() if key != "default"}
    if "properties" in node:
        result["properties"] = {name: _without_defaults(field) for name, field in node["properties"].items()}
    if "items" in node:
        result["items"] = _without_defaults(node["items"])
    return result


def _at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """The schema of a field; a list's name stands for its items where a further field follows."""
    for part in path.split(".") if path else ():
        schema = schema.get("items", schema)["properties"][part]
    return schema


# --- the model's schema, in the form that Kubernetes calls structural -------------------------------------------------


def structural(model: type[BaseModel], *, written: bool = False) -> dict[str, Any]:
    """The schema of a model without references, alternatives and exclusive bounds; as it is written, where defaults are there."""
    schema = model.model_json_schema(mode="serialization" if written else "validation")
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    node = _resolved(node, defs)
    if "type" not in node:
        return {**ANYTHING, **{key: node[key] for key in ("description",) if key in node}}
    result = {key: node[key] for key in _KEPT if key in node and node[key] is not None}
    if node["type"] == "integer":
        if "exclusiveMaximum" in node:
            result["maximum"] = node["exclusiveMaximum"] - 1
        if "exclusiveMinimum" in node:
            result["minimum"] = node["exclusiveMinimum"] + 1
        for bound in ("minimum", "maximum"):
            if abs(result.get(bound, 0)) > EXACT:
                del result[bound]  # the format says it
        result["format"] = "int32" if result.get("maximum", INT32 + 1) <= INT32 else "int64"
    if node["type"] == "object":
        if "default" in result:
            result["default"] = {}  # the fields have their own
        if "properties" in node:
            result["properties"] = {name: _structural(field, defs) for name, field in node["properties"].items()}
        else:
            values = node.get("additionalProperties", True)
            # Not a plain preserve-unknown object: CEL takes two of those for equal that differ in a key's name.
            result["additionalProperties"] = dict(ANYTHING) if values is True else _structural(values, defs)
    if node["type"] == "array":
        result["items"] = _structural(node["items"], defs)
    return result


def _resolved(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node with its reference followed; of `X or null`, X: in a resource a field without a value is left out."""
    if "anyOf" in node:
        [inner] = [one for one in node["anyOf"] if one != {"type": "null"}]
        node = {**inner, **{key: value for key, value in node.items() if key != "anyOf"}}
    if "$ref" in node:
        node = {**defs[node["$ref"].rpartition("/")[2]], **{key: value for key, value in node.items() if key != "$ref"}}
    return node


# --- rules in CEL: what a schema cannot say ---------------------------------------------------------------------------


def _rules() -> dict[str, list[dict[str, str]]]:
    """The rules by the path of the field that they look at."""
    return {
        "": [_name_rule()],
        "spec": [
            *(_fixed(field) for field in immutable_fields()),
            _rule("!oldSelf.cancel || self.cancel", "cannot be taken back: make a job with another name", ".cancel", "FieldValueForbidden"),
            _rule(
                "has(self.data)",
                "name the claim with the CSV and the images in spec.data.persistentVolumeClaim.claimName",
                ".data",
                "FieldValueRequired",
            ),
        ],
        **{path: _path_rules() for path in PATHS},
        "spec.source.images": [_no_address(), *_path_rules()],
        "spec.source.delimiter": [
            _rule(r"self.matches('^[\\t !#-/:-@\\[-`{-~]$')", "must be one ASCII character that is no letter, digit or quote")
        ],
        "spec.functions": [_rule("self.all(f, !has(f.file) || !has(f.module))", "'module' stands beside 'file': give one of them")],
    }


def _name_rule() -> dict[str, str]:
    name = f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^{NAME_PATTERN}$')"
    return _rule(name, f"metadata.name must be a DNS label (a-z, 0-9 and '-') of at most {MAX_NAME} characters")


def immutable_fields() -> list[str]:
    """The fields of the spec that stay as they are created."""
    names = [field.alias or name for name, field in Spec.model_fields.items()]
    return [name for name in names if name not in MUTABLE]


def _fixed(field: str) -> dict[str, str]:
    # Stands at the spec, as a rule at the field itself is not asked when the field is added or taken away.
    rule = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return _rule(rule, FIXED, f".{field}", "FieldValueForbidden")


def _path_rules() -> list[dict[str, str]]:
    return [
        _rule("self != '' && self == self.trim()", "must be a path below the data root, without spaces around it"),
        _rule("!self.startsWith('/')", "must be relative to the data root, the folder of the claim: leave the '/' at its start out"),
        _rule("!self.matches('(^|/)[.][.](/|$)')", "must stay below the data root: '..' is not allowed"),
    ]


def _no_address() -> dict[str, str]:
    message = "must be a path below the data root; addresses (http://, https://) are not supported yet"
    return _rule("!self.matches('^[hH][tT][tT][pP][sS]?:')", message)


def _rule(rule: str, message: str, field: str = "", reason: str = "") -> dict[str, str]:
    place = {key: value for key, value in (("fieldPath", field), ("reason", reason)) if value}
    return {"rule": rule, "message": message, **place}
