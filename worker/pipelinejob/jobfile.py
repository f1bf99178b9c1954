"""Reading a job file: YAML with JSON's types, as kubectl would send it, checked down to each function's params."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pipelinejob import model
from pipelinejob.functions import resolve_functions
from pipelinejob.model import PipelineJob
from pipelinejob.reasons import JobError, JobReason

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_INT = re.compile(r"^[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_BOOL = re.compile(r"^(y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")


class _JsonTypesLoader(yaml.SafeLoader):
    """YAML as Kubernetes' tools read it: no dates, no base-60 numbers, `1e3` is a number, a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.MarkedYAMLError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=True)


_JsonTypesLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rsplit(":", 1)[1] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_JsonTypesLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_JsonTypesLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_JsonTypesLoader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO"))
_JsonTypesLoader.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


def _octal(loader: _JsonTypesLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "").lower()
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    for prefix, base in (("0b", 2), ("0o", 8), ("0x", 16), ("0", 8)):
        if digits.startswith(prefix) and len(digits) > len(prefix):
            return sign * int(digits[len(prefix) :], base)
    return sign * int(digits)


_JsonTypesLoader.add_constructor("tag:yaml.org,2002:int", _octal)


def load(path: Path) -> tuple[PipelineJob, list[dict[str, Any]]]:
    """Reads a job file: (the job, its functions as they will run, params with their defaults and digests).

    Raises:
        JobError: InvalidSpec, naming the file, the field, what was expected and what was found.
    """
    document = _document(path)
    try:
        job = model.parse(document)
    except JobError as error:
        raise JobError(error.reason, _in_file(path, error.message)) from None
    entries = [function.model_dump(by_alias=True) for function in job.spec.functions]
    functions, problems = resolve_functions(entries, path.resolve().parent)
    if problems:
        text = "\n".join(f"spec.{field}: {message}" for field, message in problems)
        raise JobError(JobReason.INVALID_SPEC, _in_file(path, text))
    return job, functions


def _document(path: Path) -> object:
    """The one PipelineJob in a file that may hold other resources too."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(JobReason.INVALID_SPEC, f"{path}: cannot be read ({reason}): pass the path of a job file") from None
    try:
        documents = [item for item in yaml.load_all(text, Loader=_JsonTypesLoader) if item is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise JobError(JobReason.INVALID_SPEC, f"{path}{where}: no valid YAML: {getattr(error, 'problem', None) or error}") from None
    jobs = [item for item in documents if isinstance(item, dict) and item.get("kind") == model.KIND]
    if len(jobs) > 1:
        raise JobError(JobReason.INVALID_SPEC, f"{path}: holds {len(jobs)} PipelineJobs: put each into a file of its own")
    if jobs:
        return jobs[0]
    if not documents:
        raise JobError(JobReason.INVALID_SPEC, f"{path}: is empty: expected a PipelineJob")
    return documents[0]


def _in_file(path: Path, text: str) -> str:
    return text if "\n" not in text else f"{path}:\n" + "\n".join(f"  {line}" for line in text.splitlines())
