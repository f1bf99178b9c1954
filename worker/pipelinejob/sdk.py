"""The Python SDK: the same object drives a job on this machine and in a cluster.

    from pipelinejob import PipelineJob

    job = PipelineJob.from_yaml("job.yaml").submit().wait(progress=True)
    job.metadata()    # a pandas DataFrame: a line for each row that succeeded
    job.failures()    # a line for each row that failed, with its reason

Without more it runs jobs here, with the current folder as the data root, as `pipelinejob run` does. With PIPELINEJOB_URL
(and PIPELINEJOB_TOKEN) in the environment, or `on=connect(url=...)`, it asks a gateway. docs/sdk.md shows all of it.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import pandas as pd
from PIL import Image

from pipelinejob import jobfile, model
from pipelinejob.model import Spec
from pipelinejob.progress import console_reporter
from pipelinejob.reasons import ENDS, JobError, JobReason
from pipelinejob.remote import RemoteJobs
from pipelinejob.resources import NoJobError, StateError
from pipelinejob.service import LocalJobs

__all__ = ["JobError", "NoJobError", "PipelineJob", "StateError", "connect"]

EVERY = 0.5  # seconds between looks at a job that is waited for
GONE_FOR = 5.0  # seconds without a process, after which a job is taken for interrupted
_TAKEN_OVER = ("parallelism", "failurePolicy", "ttlSecondsAfterFinished")  # by submit(), of a job that was submitted before

Connection = LocalJobs | RemoteJobs


def connect(
    url: str | None = None, *, token: str | None = None, data: str = ".", home: str | None = None, database: str | None = None
) -> Connection:
    """Where jobs run; asked again for the same place, it answers the same connection.

    Args:
        url: of a gateway, in a cluster or of `pipelinejob serve`; None: PIPELINEJOB_URL, or this machine.
        token: for the gateway; None: PIPELINEJOB_TOKEN, or none.
        data: on this machine, the data root of new jobs.
        home: on this machine, the folder of everything of ours; None: PIPELINEJOB_HOME, or .pipelinejob.
        database: on this machine, a Postgres URL; None: PIPELINEJOB_DATABASE_URL, or the embedded server.

    Raises:
        JobError: no database or no gateway can be reached.
    """
    url = url or os.environ.get("PIPELINEJOB_URL")
    if url:
        return _remote(url, token or os.environ.get("PIPELINEJOB_TOKEN"))
    where = Path(home or os.environ.get("PIPELINEJOB_HOME") or ".pipelinejob").absolute()
    return _local(where, Path(data).resolve(), database or os.environ.get("PIPELINEJOB_DATABASE_URL"))


# Kept by what the environment and the current folder said: both may change while a program runs, above all in a notebook.
@cache
def _remote(url: str, token: str | None) -> RemoteJobs:
    return RemoteJobs(url, token)


@cache
def _local(home: Path, data: Path, database: str | None) -> LocalJobs:
    return LocalJobs(home, data, data, database, at_once=100)


class PipelineJob:
    """A job: what it is to do, how it stands and what came of it.

    Args:
        document: the resource: apiVersion, kind, metadata, spec.
        on: where it runs; None: `connect()`.
        folder: on this machine, where files of functions are looked up from.

    Raises:
        JobError: InvalidSpec, a line for each problem, each with the path of its field.
    """

    name: str
    namespace: str

    def __init__(self, document: Mapping[str, Any], *, on: Connection | None = None, folder: str | Path = ".") -> None:
        job = model.parse(dict(document))
        self._set(job.metadata.name, job.metadata.namespace, job.spec, on)
        self._job: model.PipelineJob | None = job
        self._folder = Path(folder).resolve()

    def _set(self, name: str, namespace: str, spec: Spec, on: Connection | None) -> None:
        self.name, self.namespace, self._spec, self._on = name, namespace, spec, on

    @classmethod
    def from_yaml(cls, path: str | Path, *, on: Connection | None = None) -> Self:
        """A job from a job file, which may hold other resources, too.

        Raises:
            JobError: InvalidSpec, naming the file, the field, what was expected and what was found.
        """
        return cls(jobfile.read(Path(path)), on=on, folder=Path(path).resolve().parent)

    @classmethod
    def new(cls, name: str, *, namespace: str = "default", on: Connection | None = None, **spec: Any) -> Self:
        """A job from the fields of its spec: `PipelineJob.new("men", source={"csv": "styles.csv"}, functions=[...])`."""
        metadata = {"name": name, "namespace": namespace}
        return cls({"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": spec}, on=on)

    @classmethod
    def get(cls, name: str, *, namespace: str = "default", on: Connection | None = None) -> Self:
        """A job that was submitted before.

        Raises:
            NoJobError: there is none.
        """
        on = on or connect()
        return cls._of(on.get(namespace, name), on)

    @classmethod
    def _of(cls, there: Mapping[str, Any], on: Connection) -> Self:
        """A job that is there; the name of a redrive may be longer than one that may be chosen."""
        job = cls.__new__(cls)
        job._set(there["metadata"]["name"], there["metadata"]["namespace"], _spec(there), on)
        job._job = None
        return job

    @property
    def on(self) -> Connection:
        """Where it runs."""
        self._on = self._on or connect()
        return self._on

    def submit(self, *, replace: bool = False) -> Self:
        """Starts the job; one that was submitted before goes on, or stays as it is when it has ended.

        Its parallelism, failurePolicy and ttlSecondsAfterFinished are those of this object then: a job that failed for a budget that was
        raised since goes on.

        Args:
            replace: start anew: the job of that name is deleted with its output first.

        Raises:
            JobError: InvalidSpec, when a job of that name has other fields, or the job does not fit its data; Input...
        """
        try:
            there = self.on.get(self.namespace, self.name)
        except NoJobError:
            there = None
        if there is not None and replace and self._job is not None:
            self.delete(output=True)
            there = None
        if there is None:
            if self._job is None:
                raise NoJobError(JobReason.INVALID_SPEC, f"the job {self.name!r} was deleted: make it anew from its file")
            self.on.create(self._job, self._folder)
            return self
        self._check_same(there)
        if self._job is not None and (changes := self._changes(there)):
            self.patch(**changes)
        if (there.get("status") or {}).get("phase") not in ENDS:
            self.on.resume(self.namespace, self.name)
        return self

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> Self:
        """Waits for the job's end.

        Args:
            progress: show a progress bar.
            timeout: seconds after which to give up; None: never.

        Raises:
            TimeoutError: it has not ended by then; it goes on.
            StateError: it was suspended, or its process died.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        alone_since: float | None = None
        with console_reporter(hidden=not progress) as reporter:
            while True:
                job = self.on.get(self.namespace, self.name)
                status, standing = _answered(job), job["metadata"].get("annotations", {}).get("pipelinejob.dev/standing")
                if (rows := status.get("rows")) and rows["total"]:
                    reporter.progress(rows["total"] - rows["pending"], rows["total"], rows["failed"])
                if status.get("phase") in ENDS:
                    return self
                if status.get("phase") == "Suspended":
                    raise StateError(JobReason.INVALID_SPEC, f"{self.name!r} is suspended: resume() goes on with it")
                now = time.monotonic()
                alone_since = (alone_since or now) if standing == "interrupted" else None
                if alone_since is not None and now - alone_since > GONE_FOR:
                    raise StateError(JobReason.INVALID_SPEC, f"no process runs {self.name!r} any more: resume() goes on with it")
                if give_up is not None and now > give_up:
                    raise TimeoutError(f"{self.name!r} has not ended after {timeout:g} s; it goes on: wait() again")
                time.sleep(EVERY)

    def status(self) -> dict[str, Any]:
        """How it stands: phase, rows, shards, progress, topFailures and more, as the reference says."""
        found: dict[str, Any] = self.on.get(self.namespace, self.name).get("status") or {}
        return found

    @property
    def phase(self) -> str:
        """Pending, Planning, Running, Finalizing, Complete, Failed, Suspended or Cancelled."""
        return str(self.status().get("phase", "Pending"))

    @property
    def rows(self) -> dict[str, int]:
        """total, succeeded, filtered, skipped, failed, pending."""
        return dict(self.status().get("rows", {}))

    def plan(self, *, count: bool = False) -> dict[str, Any]:
        """What it would do; nothing is written. With `count` all rows are read for exact numbers, not the first 10,000."""
        if self._job is None:
            raise StateError(JobReason.INVALID_SPEC, f"{self.name!r} was submitted before: rows and status() say what became of it")
        return self.on.plan(self._job, self._folder, whole=count)

    def metadata(self, **options: Any) -> pd.DataFrame:
        """metadata.csv: a line for each row that succeeded, its columns, `url`, and what functions returned.

        Args:
            options: for pandas.read_csv; without any, the id column is text, empty cells are empty text, and pandas finds
                the other columns' types.

        Raises:
            JobError: the job has not ended yet.
        """
        chosen: dict[str, Any] = {"dtype": {self._spec.source.id_column: str}, "keep_default_na": False, **options}
        with self.on.open_result(self.namespace, self.name, "metadata.csv") as file:
            frame: pd.DataFrame = pd.read_csv(file, **chosen)
        return frame

    def failures(self) -> pd.DataFrame:
        """A line for each failed row: row, id, reason, function, message, attempts; also while the job runs."""
        found = [row._asdict() for row in self.on.all_failures(self.namespace, self.name)]
        return pd.DataFrame(found, columns=["row", "id", "reason", "function", "message", "attempts"])

    def images(self, limit: int | None = None, rows: pd.DataFrame | None = None) -> Iterator[tuple[dict[str, Any], Image.Image]]:
        """The images in the order of the CSV, each with the cells of its row.

        Args:
            limit: how many at most; None: all.
            rows: lines of `metadata()` whose images are wanted; None: all.
        """
        frame = self.metadata() if rows is None else rows
        column = self._spec.output.url_column
        with_image = frame[frame[column] != ""]
        for cells in with_image.head(len(frame) if limit is None else limit).to_dict("records"):
            data = self.on.image(self.namespace, self.name, str(cells[column]))
            yield {str(key): value for key, value in cells.items()}, Image.open(io.BytesIO(data))

    def redrive(self, reasons: Sequence[str] = (), *, pending: bool = False) -> PipelineJob | None:
        """Runs the failed rows again, as a job of its own; None when nothing is left to run again.

        Args:
            reasons: only rows that failed for one of these; none: all that failed.
            pending: rows that a failed or cancelled job never reached, too.
        """
        made = self.on.redrive(self.namespace, self.name, reasons=reasons, pending=pending)
        return None if made is None else PipelineJob._of(made, self.on)

    def cancel(self) -> Self:
        """Cancels it for good; what is done is kept."""
        self.on.cancel(self.namespace, self.name)
        return self

    def suspend(self) -> Self:
        """Stops it until it is resumed; what is done is kept."""
        self.on.suspend(self.namespace, self.name)
        return self

    def resume(self) -> Self:
        """Goes on with it."""
        self.on.resume(self.namespace, self.name)
        return self

    def patch(self, **changes: Any) -> Self:
        """Changes fields of its spec that may change: parallelism, failurePolicy, ttlSecondsAfterFinished, suspend, cancel."""
        self._spec = _spec(self.on.patch(self.namespace, self.name, changes))
        return self

    def delete(self, *, output: bool = False) -> None:
        """Removes it from the ledger, and its output folder if asked to."""
        self.on.delete(self.namespace, self.name, output=output)

    def __repr__(self) -> str:
        return f"PipelineJob({self.namespace}/{self.name})"

    def _check_same(self, there: Mapping[str, Any]) -> None:
        ours, theirs = self._spec.immutable(), _spec(there).immutable()
        if changed := [f"spec.{key}" for key in ours if ours[key] != theirs[key]]:
            raise JobError(
                JobReason.INVALID_SPEC,
                f"the job {self.name!r} exists with other values of {', '.join(changed)}: choose another name, or submit(replace=True)",
            )

    def _changes(self, there: Mapping[str, Any]) -> dict[str, Any]:
        ours, theirs = self._spec.as_dict(), _spec(there).as_dict()
        return {key: ours[key] for key in _TAKEN_OVER if ours[key] != theirs[key]}


def _answered(job: Mapping[str, Any]) -> dict[str, Any]:
    """The status, unless it answers an earlier spec: {} while the operator of a cluster has not seen the newest change."""
    status: dict[str, Any] = job.get("status") or {}
    newest = job["metadata"].get("generation", 0)
    return status if status.get("observedGeneration", newest) >= newest else {}


def _spec(job: Mapping[str, Any]) -> Spec:
    return Spec.model_validate({key: value for key, value in job["spec"].items() if value is not None})
