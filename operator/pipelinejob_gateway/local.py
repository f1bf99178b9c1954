"""The jobs of this machine, asked over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelinejob import model
from pipelinejob.model import PipelineJob
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.service import LocalJobs

NO_FOLDER = Path("/")  # what comes over a network may name no files of functions


class ServedJobs(LocalJobs):
    """Takes documents, which may bring no code of their own."""

    def submit(self, document: object) -> dict[str, Any]:
        """Enters a new job, and runs it when its turn has come."""
        return self.create(parse(document), NO_FOLDER)

    def preview(self, document: object, *, whole: bool = False) -> dict[str, Any]:
        """What a job would do; nothing is written."""
        return self.plan(parse(document), NO_FOLDER, whole=whole)

    def watched(self, namespace: str | None) -> None:
        """Who may ask this server at all may hear of all its jobs."""


def parse(document: object) -> PipelineJob:
    """A job that came over a network; only built-in functions are taken.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """
    job = model.parse(document)
    for index, function in enumerate(job.spec.functions):
        for field in ("file", "module"):
            if getattr(function, field) is not None:
                raise JobError(
                    JobReason.INVALID_SPEC,
                    f"spec.functions[{index}].{field}: code of this machine is not run for requests over HTTP: "
                    "use a built-in function, or run the job file with 'pipelinejob run'",
                )
    return job
