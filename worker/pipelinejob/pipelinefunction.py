"""The PipelineFunction: a user's own function as a resource, so that no image has to be built for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipelinejob import model
from pipelinejob.model import Metadata, Model
from pipelinejob.reasons import JobError, JobReason

KIND = "PipelineFunction"
MAX_SOURCE = 64 << 10  # bytes
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?==[^\s;]+( *;[^\n]+?)?( +--hash=sha256:[0-9a-f]{64})+")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class ConfigMapKey(Model):
    """A file in a ConfigMap of the same namespace."""

    name: str = Field(min_length=1, description="The ConfigMap.")
    key: str = Field(min_length=1, description="The key in it that has the Python file.")


class FunctionSource(Model):
    """Where the code is; one of the three."""

    inline: str | None = Field(None, description="The Python file itself, at most 64 KiB.")
    config_map: ConfigMapKey | None = Field(None, description="A ConfigMap that has the Python file, at most 64 KiB.")
    module: str | None = Field(None, description="pkg.mod:name in the worker image.")

    @field_validator("inline")
    @classmethod
    def _inline(cls, value: str | None) -> str | None:
        if value is not None and len(value.encode()) > MAX_SOURCE:
            raise ValueError(
                f"is {len(value.encode())} bytes, more than {MAX_SOURCE}: put the code into a worker image and name its 'module'"
            )
        return value

    @field_validator("module")
    @classmethod
    def _module(cls, value: str | None) -> str | None:
        if value is not None and not _MODULE.fullmatch(value):
            raise ValueError(f"must be pkg.mod:name, got {value!r}")
        return value

    @model_validator(mode="after")
    def _one(self) -> FunctionSource:
        given = [name for name in ("inline", "config_map", "module") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must have one of inline, configMap and module, got {len(given)} of them")
        return self


class FunctionSpec(Model):
    """What the function is."""

    source: FunctionSource
    entrypoint: str | None = Field(
        None,
        min_length=1,
        description="The function or class in the file. Unset: the one that is named like this resource, or the only one.",
    )
    requirements: list[str] = Field(
        [],
        max_length=200,
        description="What it needs beside the worker image: each pinned with its hashes, as name==1.2 --hash=sha256:..., and all that they "
        "need in turn. Installed once on the claim of a job, from wheels alone.",
    )
    timeout_seconds: int = Field(86_400, ge=1, le=86_400, description="Seconds that a call may take at most, whatever a job says.")
    resources: dict[str, Any] | None = Field(
        None, description="Requests and limits of the pods that run it, as of a container, where a job has no spec.worker.resources."
    )

    @field_validator("requirements")
    @classmethod
    def _requirements(cls, value: list[str]) -> list[str]:
        for line in value:
            if not _PINNED.fullmatch(line):
                raise ValueError(f"must be pinned with hashes, as name==1.2 --hash=sha256:<64 hex digits>, got {line!r}")
        return value


class FunctionParam(Model):
    """A param as the signature declares it."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    name: str = Field(description="Its name.")
    expected: str = Field(description="What a value must be.")
    default: Any = Field(None, description="What counts where a job leaves it out.")
    required: bool = Field(description="Whether a job must give it.")


class FunctionCondition(Model):
    """A metav1.Condition."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    type: Literal["Ready"] = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(description="Why, in one word.")
    message: str = Field(description="Why, in a sentence; with the line of the Python file where there is an error.")
    last_transition_time: str = Field(description="When `status` last changed.", json_schema_extra={"format": "date-time"})


class FunctionStatus(Model):
    """What became of it when it was loaded."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    observed_generation: int = Field(1, description="The metadata.generation of the spec that this status answers.")
    conditions: list[FunctionCondition] = Field(description="Ready: whether jobs can run it.")
    digest: str | None = Field(None, description="The sha256 of its code and requirements; each job records the one that it ran.")
    doc: str | None = Field(None, description="The first line of its docstring.")
    params: list[FunctionParam] = Field([], description="What it takes, by its signature.")
    checked: str | None = Field(None, description="A digest of the code, the requirements and the worker image that it was loaded with.")


class PipelineFunction(Model):
    """The resource, as a user writes it."""

    api_version: Literal["pipelinejob.dev/v1alpha1"]
    kind: Literal["PipelineFunction"]
    metadata: Metadata
    spec: FunctionSpec
    status: dict[str, Any] | None = None

    def entry(self, config_map: Callable[[ConfigMapKey], str]) -> dict[str, Any]:
        """What a job keeps of it beside the name and the params: {source | module, entrypoint, requirements}.

        Args:
            config_map: gives the file in a ConfigMap; may raise a JobError.

        Raises:
            JobError: InvalidSpec, when that file is too large.
        """
        source, spec = self.spec.source, self.spec
        found: dict[str, Any] = {"entrypoint": spec.entrypoint}
        if source.module is not None:
            found["module"], _, found["entrypoint"] = source.module.partition(":")
        elif source.config_map is not None:
            found["source"] = config_map(source.config_map)
            if len(found["source"].encode()) > MAX_SOURCE:
                raise JobError(JobReason.INVALID_SPEC, f"spec.source.configMap: its file has more than {MAX_SOURCE} bytes")
        else:
            found["source"] = source.inline
        if spec.requirements:
            found["requirements"] = list(spec.requirements)
        return {key: value for key, value in found.items() if value is not None}


def parse(document: Mapping[str, Any]) -> PipelineFunction:
    """Checks a document.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    return model.validate(dict(document), PipelineFunction)
