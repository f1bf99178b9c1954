"""Reading a job file: YAML with JSON's types, as kubectl would send it, checked down to each function's params."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from collections.abc import Container, Hashable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from pipelinejob import model, packages, pipelinefunction
from pipelinejob.functions import BUILTINS, loading, resolve_functions
from pipelinejob.model import PipelineJob
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.store import Job

Entry = Mapping[str, Any]  # what a job keeps of a PipelineFunction, see PipelineFunction.entry
_NONE: Mapping[str, Entry] = {}

MAX_BYTES = 1 << 20  # of a job file; Kubernetes takes little more
MAX_VALUES = 1_000_000  # with aliases, a small file can hold any number
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_INT = re.compile(r"[-+]?(0b[01]+|0x[0-9a-f]+|0o?[0-7]+|0|[1-9][0-9]*)", re.IGNORECASE)
_OCTAL = re.compile(r"([-+]?0)([0-7]+)")  # as YAML 1.1 writes it
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TAG = "tag:yaml.org,2002:"


class _JsonTypesLoader(yaml.SafeLoader):
    """YAML as Kubernetes' tools turn it into JSON: no dates, no base-60 numbers, `1e3` and `1000` are one number, keys
    are strings; and a key stands once."""

    _merged = 0  # values put in by merges so far

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is not yaml.ScalarNode or not implicit[0]:
            tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
            return tag
        return _TAG + ("merge" if value == "<<" else _JSON_TYPES[type(_json_value(value))])

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key_node, _ in node.value:
            key = "<<" if key_node.tag == _TAG + "merge" else self._key(key_node)
            if key in seen:
                raise _error(f"the key {key!r} stands twice", key_node)
            seen.add(key)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _error("expected a mapping", node)
        self.flatten_mapping(node)
        return {self._key(key): self.construct_object(value, deep=True) for key, value in node.value}

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts in what `<<` names, which is counted: mappings that merge others twice would double with each."""
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in parts:
                    if isinstance(part, yaml.MappingNode):
                        self.flatten_mapping(part)
                        self._merged += len(part.value)
                        if self._merged > MAX_VALUES:
                            raise _error(f"merges more than {MAX_VALUES} values", key)
        super().flatten_mapping(node)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _error(f"a key must be a string, got a {'list' if isinstance(node, yaml.SequenceNode) else 'mapping'}", node)
        value = self.construct_object(node, deep=True)
        if not isinstance(value, str | bool | int | float):
            raise _error(f"a key must be a string, got {value!r}", node)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def construct_json(self, node: yaml.ScalarNode) -> Any:
        """The value of a scalar, which an explicit tag may contradict."""
        text = self.construct_scalar(node)
        value = _json_value(text)
        if node.tag != _TAG + _JSON_TYPES[type(value)] and not (node.tag == _TAG + "float" and type(value) is int):
            raise _error(f"{text!r} is no {node.tag.removeprefix(_TAG)}", node)
        return value


def _json_value(text: str) -> str | int | float | bool | None:
    """What a plain scalar stands for; a number that 64 bits cannot hold is text, or inexact, as it is for kubectl."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    plain = text.replace("_", "") if text[0] in "+-.0123456789" else ""
    if len(plain) <= 100 and _INT.fullmatch(plain):
        octal = _OCTAL.fullmatch(plain)
        number = int(octal.expand(r"\1o\2") if octal else plain, 0)
        if -(2**63) <= number < 2**64:
            return number
    if _FLOAT.fullmatch(plain):
        real = float(plain)
        if math.isfinite(real):
            return int(real) if real.is_integer() and abs(real) < 1e21 else real
    return text


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, node.start_mark)


_JSON_TYPES: dict[type, str] = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}
_JsonTypesLoader.yaml_constructors = {
    **{f"{_TAG}{name}": _JsonTypesLoader.construct_json for name in ("null", "bool", "int", "float")},
    **{f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"] for name in ("str", "seq", "map")},
    f"{_TAG}merge": yaml.SafeLoader.yaml_constructors[f"{_TAG}str"],  # where it is no key
    None: yaml.SafeLoader.yaml_constructors[None],  # an error for every other tag
}


def reopen(job: Job, **fields: object) -> tuple[PipelineJob, list[dict[str, Any]]]:
    """A job of the ledger as `load` gives one, with other values of mutable fields.

    Raises:
        JobError: InvalidSpec, when the code of a function is gone.
    """
    metadata = {"name": job.name, "namespace": job.namespace}
    spec = {**job.spec, **fields}
    document = model.parse({"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": spec})
    functions = []
    for index, entry in enumerate(job.functions):
        try:
            with redirect_stdout(sys.stderr):  # users' code may print when it is loaded
                functions.append({**entry, "digest": loading.load(entry).digest_with(entry["params"], Path(job.data_root))})
        except ValueError as error:
            raise JobError(JobReason.INVALID_SPEC, f"spec.functions[{index}]: {error}") from None
    return document, functions


def load(path: Path, root: Path | None = None) -> tuple[PipelineJob, list[dict[str, Any]]]:
    """Reads a job file: (the job, its functions as they will run, params with their defaults and digests).

    Args:
        path: the file.
        root: the data root, where the files are that functions read, such as models; None: they are not looked at.

    PipelineFunctions in the same file, and ConfigMaps with their code, count as those of a namespace do in a cluster.

    Raises:
        JobError: InvalidSpec, naming the file, the field, what was expected and what was found.
    """
    documents = read_all(path)
    try:
        job = model.parse(_job_in(documents, path))
        return job, resolve(job, path.resolve().parent, _functions_in(documents), root)
    except JobError as error:
        raise JobError(error.reason, _in_file(path, error.message)) from None


def resolve(job: PipelineJob, folder: Path, functions: Mapping[str, Entry] = _NONE, root: Path | None = None) -> list[dict[str, Any]]:
    """The functions of a job as they will run, params with their defaults and digests.

    Args:
        job: the job.
        folder: where its functions' files are looked up from.
        functions: what is known of PipelineFunctions, by name.
        root: the data root, where the files are that functions read; None: they are not looked at.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    entries = entries_of(job, functions)
    with redirect_stdout(sys.stderr):  # users' code may print when it is loaded; standard output is for the results
        resolved, problems = resolve_functions(entries, folder, root)
    if problems:
        raise JobError(JobReason.INVALID_SPEC, model.told([f"spec.{field}: {message}" for field, message in problems]))
    return resolved


def entries_of(job: PipelineJob, functions: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """The functions of a job, with what is known of those that are PipelineFunctions."""
    entries = [function.model_dump(by_alias=True) for function in job.spec.functions]
    return [{**entry, **functions[entry["name"]]} if is_named(entry) and entry["name"] in functions else entry for entry in entries]


def is_named(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of spec.functions names a PipelineFunction: it has no place, and no built-in function has its name."""
    return not entry.get("file") and not entry.get("module") and entry.get("name") not in BUILTINS


def for_cluster(document: object, functions: Container[str] = ()) -> PipelineJob:
    """A job that can run in a cluster.

    Args:
        document: the resource.
        functions: the PipelineFunctions of its namespace, as far as it names them.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    job = model.parse(document)
    if lines := list(_cluster_problems(job, functions)):
        raise JobError(JobReason.INVALID_SPEC, "\n".join(lines))
    return job


def _cluster_problems(job: PipelineJob, functions: Container[str]) -> Iterator[str]:
    if job.spec.incremental_of is not None and job.spec.source.failed_rows_of is not None:
        yield "spec.incrementalOf: stands beside source.failedRowsOf: give one of them"
    if job.spec.incremental_of is not None and job.spec.mode == "plan":
        yield "spec.incrementalOf: not with mode plan, which has no output: leave mode out"
    if job.spec.data is None:
        yield "spec.data.persistentVolumeClaim.claimName: is required in a cluster: it names the claim with the CSV and the images"
    here = []
    for index, function in enumerate(job.spec.functions):
        if function.file is not None:
            yield (
                f"spec.functions[{index}].file: {function.file!r} is a file beside a job file, which a cluster does not have: "
                "make it a PipelineFunction of the namespace, or put it into the worker image and name it with 'module'"
            )
        elif function.module is None and (function.name in BUILTINS or function.name not in functions):
            here.append((index, function))  # of others, the code is loaded where it may run
    entries = [function.model_dump(mode="json", by_alias=True) for _, function in here]
    _, problems = resolve_functions(entries, Path("/nonexistent"))
    for field, message in problems:
        position, _, rest = field.removeprefix("functions[").partition("]")
        more = " (and no PipelineFunction of this namespace has that name)" if rest == ".name" else ""
        yield f"spec.functions[{here[int(position)][0]}]{rest}: {message}{more}"


def read(path: Path) -> Any:
    """The one PipelineJob in a file that may hold other resources too, unchecked.

    Raises:
        JobError: InvalidSpec, naming the file and, where there is one, the line.
    """
    return _job_in(read_all(path), path)


def read_all(path: Path) -> list[Any]:
    """What a file holds, unchecked.

    Raises:
        JobError: InvalidSpec, naming the file and, where there is one, the line.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)  # no more: it may be a device
        text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8").read() if len(data) <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(JobReason.INVALID_SPEC, f"{path}: cannot be read ({reason}): pass the path of a job file") from None
    if len(data) > MAX_BYTES:
        raise JobError(JobReason.INVALID_SPEC, f"{path}: is larger than {MAX_BYTES >> 20} MiB: pass the path of a job file")
    try:
        documents = [item for item in _documents(text) if item is not None]
    except RecursionError:
        raise JobError(JobReason.INVALID_SPEC, f"{path}: is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise JobError(JobReason.INVALID_SPEC, f"{path}{where}: no valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not _is_small(documents):
        raise JobError(JobReason.INVALID_SPEC, f"{path}: holds more than {MAX_VALUES} values: an alias (*) may hold itself")
    return documents


def _job_in(documents: list[Any], path: Path) -> Any:
    jobs = [item for item in documents if isinstance(item, dict) and item.get("kind") == model.KIND]
    if len(jobs) > 1:
        raise JobError(JobReason.INVALID_SPEC, f"{path}: holds {len(jobs)} PipelineJobs: put each into a file of its own")
    if jobs:
        return jobs[0]
    if not documents:
        raise JobError(JobReason.INVALID_SPEC, f"{path}: is empty: expected a PipelineJob")
    return documents[0]


def _functions_in(documents: list[Any]) -> dict[str, Entry]:
    """The PipelineFunctions of a file, by name."""
    others = [item for item in documents if isinstance(item, dict)]

    def config_map(wanted: pipelinefunction.ConfigMapKey) -> str:
        for item in others:
            is_it = item.get("kind") == "ConfigMap" and (item.get("metadata") or {}).get("name") == wanted.name
            if is_it and isinstance(text := (item.get("data") or {}).get(wanted.key), str):
                return text
        raise JobError(JobReason.INVALID_SPEC, f"no ConfigMap {wanted.name!r} with the key {wanted.key!r} stands in this file")

    found: dict[str, Entry] = {}
    for item in others:
        if item.get("kind") == pipelinefunction.KIND:
            name = (item.get("metadata") or {}).get("name")
            try:
                function = pipelinefunction.parse(item)
                if name in found:
                    raise JobError(JobReason.INVALID_SPEC, "metadata.name: there are two of that name")
                found[function.metadata.name] = function.entry(config_map)
                packages.check_installed(function.spec.requirements)
            except (JobError, ValueError) as error:
                lines = str(getattr(error, "message", error)).splitlines()
                told = "\n".join(f"{pipelinefunction.KIND} {name!r}: {line}" for line in lines)
                raise JobError(JobReason.INVALID_SPEC, told) from None
    return found


def _documents(text: str) -> list[Any]:
    """JSON as JSON (YAML would refuse tabs and split some characters), all else as YAML."""
    if text.lstrip().startswith("{"):
        try:
            return [json.loads(text, parse_int=_json_value, parse_float=_json_value, object_pairs_hook=_unique)]
        except ValueError:
            pass  # YAML that starts like it, or a mistake, of which YAML's reader tells the line
    return list(yaml.load_all(text, Loader=_JsonTypesLoader))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _is_small(documents: list[Any]) -> bool:
    waiting, count = list(documents), 0
    while waiting and count <= MAX_VALUES:
        item = waiting.pop()
        count += 1
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return not waiting


def _in_file(path: Path, text: str) -> str:
    return text if "\n" not in text else f"{path}:\n" + "\n".join(f"  {line}" for line in text.splitlines())
