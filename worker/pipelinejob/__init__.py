"""Serverless-style function pipelines over the rows of a CSV, with every row accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelinejob.functions import Image, Row
    from pipelinejob.sdk import JobError, NoJobError, PipelineJob, StateError, connect

__version__ = "0.1.0"
__all__ = ["Image", "JobError", "NoJobError", "PipelineJob", "Row", "StateError", "__version__", "connect"]


def __getattr__(name: str) -> object:
    """Loads the SDK when it is first asked for: pods that run rows do without it, and without pandas."""
    if name in ("Image", "Row"):  # for annotations of users' functions
        from pipelinejob import functions  # noqa: PLC0415

        return getattr(functions, name)
    if name in __all__:
        from pipelinejob import sdk  # noqa: PLC0415

        return getattr(sdk, name)
    raise AttributeError(f"module 'pipelinejob' has no attribute {name!r}")
