"""What a program may ask of the jobs of this machine: the REST API and the SDK are two faces of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pipelinejob import admission, insight, jobfile, local, model, planning
from pipelinejob.background import Runner
from pipelinejob.insight import Insight
from pipelinejob.model import MUTABLE, PipelineJob
from pipelinejob.reasons import ENDS, JobError, JobReason, Phase
from pipelinejob.resources import Event, NoJobError, Output, Page, Source, StateError, check_reasons, resource
from pipelinejob.specs import differences
from pipelinejob.standing import Standing, is_running, standing
from pipelinejob.store import Database, EmbeddedServer, FailedRow, Job, Outline, Store

ENDS_WITHIN = 10.0  # seconds after its last word in which a process is gone; mostly 0.1
INTERRUPTED = 130  # the exit code of a run that was told to end
REGISTERED_WITHIN = 30.0  # seconds in which a redrive is in the ledger; mostly one
PATIENCE = 10.0  # seconds to wait for a database before an answer says that there is none


class LocalJobs:
    """The jobs in a ledger, run by this machine; safe to share between threads.

    Args:
        home: the folder of everything of ours.
        data: the data root of new jobs.
        outputs: the folder that outputs of new jobs are below.
        database: a Postgres URL; None: the embedded server.
        at_once: how many new jobs run at a time.
    """

    def __init__(self, home: Path, data: Path, outputs: Path, database: str | None = None, at_once: int = 2) -> None:
        self._home, self._data, self._outputs = home, data, outputs
        self._embedded = None if database else EmbeddedServer(home)
        self._url = database
        self._threads = threading.local()
        self._start = threading.Lock()
        self._closed = False
        self._judging = threading.Lock()  # of an end that is looked at and a new turn, one is first
        self._turns: dict[str, object] = {}  # of the jobs that wait or run: whose end is to be looked at
        Store(self._database()).close()  # brings the schema up to date, or says that there is no database
        settings = {"PIPELINEJOB_HOME": str(home)} | ({"PIPELINEJOB_DATABASE_URL": database} if database else {})
        self._runner = Runner(home, settings, at_once)

    @property
    def data(self) -> Path:
        """The data root of new jobs."""
        return self._data

    @property
    def store(self) -> Store:
        """The ledger, over a connection of this thread's own."""
        found = getattr(self._threads, "store", None)
        if found is None:
            found = self._threads.store = Store(self._database(), migrated=True)
        return found

    def close(self) -> None:
        """Lets go of the database, until it is asked again; what runs goes on."""
        with self._start:
            self._closed = True
            if self._embedded is not None:
                self._embedded.close()

    # Questions.

    def page(
        self,
        *,
        namespace: str | None = None,
        phases: Sequence[str] = (),
        name: str | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of the jobs, the newest first; `before` is the `after` of the page before."""
        found = self.store.jobs_page(namespace=namespace, phases=phases, name=name, before=before, limit=limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        return Page([resource(job) for job in found[:limit]], (last.created_at, last.uid) if last else None)

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        """A job as it stands now.

        Raises:
            NoJobError: there is none.
        """
        job = self.job(namespace, name)
        rows, shards = self.store.update_counts(job.uid)
        return resource(self.store.get_job(job.uid), rows, shards, self.store.top_failures(job.uid))

    def job(self, namespace: str, name: str) -> Job:
        """A job as the ledger has it.

        Raises:
            NoJobError: there is none.
        """
        found = self.store.find_job(namespace, name)
        if found is None:
            raise NoJobError(JobReason.INVALID_SPEC, f"there is no job {name!r} in the namespace {namespace!r}: list the jobs to see all")
        return found

    def output(self, namespace: str, name: str) -> Output:
        """Where the results of a job are."""
        job = self.job(namespace, name)
        return Output(Path(job.output_root), job.output, Path(job.data_root), Source.of(job.spec))

    def failures(self, namespace: str, name: str, *, reason: str | None = None, after: int = -1, limit: int = 100) -> list[FailedRow]:
        """At most `limit` failed rows of a job behind the row `after`, in the order of the CSV."""
        check_reasons([] if reason is None else [reason])
        return self.store.failures_page(self.job(namespace, name).uid, reason=reason, after=after, limit=limit)

    def insight(self, namespace: str, name: str) -> Insight:
        """How a job came to stand as it does."""
        return insight.look(self.store, self.job(namespace, name).uid)

    def events(self, namespace: str, name: str) -> list[Event]:
        """What was told of a job, beside its conditions: on one machine nothing."""
        return []

    def all_failures(self, namespace: str, name: str) -> Iterator[FailedRow]:
        """The failed rows in the order of the CSV, read page by page."""
        return self.store.failures(self.job(namespace, name).uid)

    def open_result(self, namespace: str, name: str, file: str) -> IO[bytes]:
        """metadata.csv, failures.csv or manifest.json, to be read and closed.

        Raises:
            StateError: it is not written yet.
        """
        try:
            return open(self.output(namespace, name).folder / file, "rb")
        except FileNotFoundError:
            raise StateError(JobReason.INVALID_SPEC, f"{name!r} has no {file} yet: wait for its end") from None

    def image(self, namespace: str, name: str, url: str) -> bytes:
        """One image, by the `url` of its row."""
        return (self.output(namespace, name).folder / url).read_bytes()

    def outlines(self) -> list[Outline]:
        """How all jobs stand, in short."""
        return self.store.outlines()

    def plan(self, job: PipelineJob, folder: Path, *, whole: bool = False) -> dict[str, Any]:
        """What a job would do, as `pipelinejob plan --json` says it, with the first rows; nothing is written.

        Args:
            job: the job.
            folder: where files of its functions are looked up from.
            whole: read all rows for exact numbers, not the first 10,000.
        """
        from pipelinejob import dry_run  # noqa: PLC0415 - pandas, which nothing else here needs, takes half a second to load

        return dry_run.plan(self._request(job, folder), whole=whole)

    # Changes.

    def create(self, job: PipelineJob, folder: Path) -> dict[str, Any]:
        """Enters a new job, and runs it when its turn has come.

        Args:
            job: the job.
            folder: where files of its functions are looked up from.

        Raises:
            admission.JobExistsError: the name is taken.
            JobError: InvalidSpec, Input...: nothing was changed.
        """
        if job.spec.mode == "plan":
            raise JobError(JobReason.INVALID_SPEC, "spec.mode: 'plan' runs nothing: ask for a plan of the job instead")
        if job.spec.source.failed_rows_of is not None:
            advice = f"ask for a redrive of {job.spec.source.failed_rows_of.name!r} instead"
            raise JobError(JobReason.INVALID_SPEC, f"spec.source.failedRowsOf: is for a cluster; {advice}")
        entered = admission.enter(self._request(job, folder), self.store)
        if job.spec.suspend:
            self.store.update_job(entered.uid, phase=Phase.SUSPENDED)
        else:
            self._queue(entered)
        return self.get(entered.namespace, entered.name)

    def patch(self, namespace: str, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Changes fields of a job's spec that may change.

        Args:
            namespace: the job's.
            name: the job's.
            changes: {field: value} of the spec; null stands for the default; of `failurePolicy` those left out stay.

        Raises:
            JobError: InvalidSpec, naming the field. StateError: the job is in no state to do it.
        """
        job = self.job(namespace, name)
        if fixed := [f"spec.{key}" for key in changes if key not in MUTABLE]:
            allowed = ", ".join(MUTABLE)
            raise JobError(JobReason.INVALID_SPEC, f"{', '.join(fixed)}: may not change once the job exists; these may: {allowed}")
        spec = self._merged(job, changes)
        changed = {field.split(".")[1] for field in differences("spec", job.spec, spec)}
        if "cancel" in changed and not spec["cancel"]:
            raise StateError(JobReason.INVALID_SPEC, f"spec.cancel: {name!r} was cancelled, which cannot be taken back")
        plain = {key: spec[key] for key in changed - {"cancel", "suspend"}}
        if plain:
            self.store.update_job(job.uid, spec={**job.spec, **plain})
        if "cancel" in changed:
            return self.cancel(namespace, name)
        if "suspend" in changed and spec["suspend"]:
            return self.suspend(namespace, name)
        if "suspend" in changed:
            return self.resume(namespace, name)
        if "failurePolicy" in plain and job.reason == JobReason.FAILURE_BUDGET_EXCEEDED and job.root_uid is None:
            self._go_on(self.job(namespace, name))
        return self.get(namespace, name)

    def suspend(self, namespace: str, name: str) -> dict[str, Any]:
        """Stops a job until it is resumed.

        Raises:
            StateError: it has ended.
        """
        _tell(lambda: local.suspend(self.job(namespace, name), self.store))
        return self.get(namespace, name)

    def cancel(self, namespace: str, name: str) -> dict[str, Any]:
        """Cancels a job for good; what is done is kept."""
        job = self.job(namespace, name)
        if job.phase not in ENDS:
            self.store.update_job(job.uid, spec={**job.spec, "cancel": True})
        _tell(lambda: local.cancel(self.job(namespace, name), self.store))
        return self.get(namespace, name)

    def resume(self, namespace: str, name: str) -> dict[str, Any]:
        """Goes on with a job that was suspended or interrupted.

        Raises:
            StateError: it has ended, or is a redrive.
        """
        job = self.job(namespace, name)
        if job.phase in ENDS:
            raise StateError(JobReason.INVALID_SPEC, f"the job {name!r} has ended ({job.phase}): there is nothing to resume")
        if job.root_uid is not None:
            root = self.store.get_job(job.root_uid).name
            raise StateError(JobReason.INVALID_SPEC, f"{name!r} is a redrive: a redrive of {root!r} goes on with it")
        if standing(job) != Standing.RUNNING:
            self._go_on(job)
        return self.get(namespace, name)

    def redrive(self, namespace: str, name: str, *, reasons: Sequence[str] = (), pending: bool = False) -> dict[str, Any] | None:
        """Runs the failed rows of a job again, at once, as a job of its own, which is answered.

        Args:
            namespace: the job's.
            name: the job's.
            reasons: only rows that failed for one of these; none: all that failed.
            pending: rows that a failed or cancelled job never reached, too.

        Returns:
            The redrive; None when there is nothing to run again.

        Raises:
            StateError: the job has not ended, or is a redrive itself.
        """
        check_reasons(reasons)
        root = self.job(namespace, name)
        before = {one.uid for one in self.store.redrives(root.uid)}
        under_way = self.store.unfinished_redrive(root.uid)
        command = ["redrive", name, "-n", namespace, *(f"--reason={reason}" for reason in reasons), *(["--pending"] * pending)]
        ended: list[tuple[int, dict[str, Any]]] = []
        self._runner.start(_log(root), command, lambda code, said: ended.append((code, said)))
        give_up = time.monotonic() + REGISTERED_WITHIN
        while time.monotonic() < give_up:
            over = list(ended)  # looked at first: what the process wrote before its end is seen below
            fresh = [one for one in self.store.redrives(root.uid) if one.uid not in before]
            if found := fresh[-1] if fresh else under_way if under_way and standing(under_way) == Standing.RUNNING else None:
                return self.get(namespace, found.name)
            if over:
                code, said = over[0]
                if code == 0:
                    return None if said.get("name") == name else self.get(namespace, str(said["name"]))
                message = said.get("message") or f"the redrive ended with code {code}: its log is {self._home / 'logs'}"
                raise StateError(JobReason(said.get("reason") or JobReason.INVALID_SPEC), message)
            time.sleep(0.05)
        raise JobError(JobReason.DATABASE_UNAVAILABLE, f"no redrive of {name!r} began within {REGISTERED_WITHIN:.0f} s")

    def delete(self, namespace: str, name: str, *, output: bool = False) -> None:
        """Removes a job that is not running from the ledger, and its output folder if asked to."""
        job = self.job(namespace, name)
        if job.phase in ENDS:
            _let_end(job)
        _tell(lambda: admission.delete(job, self.store, with_output=output))

    def begin_waiting(self) -> int:
        """Runs, in their turn, the jobs that were entered and that nobody began with; returns how many."""
        waiting = [job for job in self.store.waiting() if standing(job) == Standing.WAITING]
        for job in waiting:
            self._queue(job)
        return len(waiting)

    def _go_on(self, job: Job) -> None:
        """Runs, in its turn, a job that some process may have run before."""
        fresh = {"phase": Phase.PENDING, "reason": None, "message": None, "finished_at": None}
        self._queue(job, {"spec": {**job.spec, "suspend": False}, **fresh})

    def _queue(self, job: Job, fields: Mapping[str, Any] | None = None) -> None:
        turn = object()
        with self._judging:
            self._turns[job.uid] = turn
            if fields:
                self.store.update_job(job.uid, **fields)
        command = ["resume", job.name, "-n", job.namespace]
        self._runner.queue(_log(job), command, lambda: _let_end(job), lambda code, said: self._ended(job, turn, code, said))

    def _ended(self, job: Job, turn: object, code: int, said: Mapping[str, Any]) -> None:
        """A run that came to nothing: the ledger says why, as it does of one that began."""
        with self._judging:
            if self._turns.get(job.uid) is not turn or self._closed:  # it was asked for anew meanwhile
                return
            del self._turns[job.uid]
            with suppress(JobError):  # the database has gone, or this program ends
                self._judge(job, code, said)

    def _judge(self, job: Job, code: int, said: Mapping[str, Any]) -> None:
        now = self.store.find_job(job.namespace, job.name)
        if code not in (0, INTERRUPTED) and now is not None and now.uid == job.uid and standing(now) == Standing.WAITING:
            reason = said.get("reason") or JobReason.SHARDS_FAILED
            message = said.get("message") or f"the run ended with code {code}: its log is {self._home / 'logs' / _log(job)}.out"
            self.store.update_job(job.uid, phase=Phase.FAILED, reason=reason, message=message)

    def _request(self, job: PipelineJob, folder: Path) -> planning.Request:
        return planning.Request(job, jobfile.resolve(job, folder, root=self._data), self._data, self._outputs, self._home)

    def _merged(self, job: Job, changes: Mapping[str, Any]) -> dict[str, Any]:
        spec = {**job.spec, **changes}
        if isinstance(changes.get("failurePolicy"), dict):
            policy = {**job.spec["failurePolicy"], **changes["failurePolicy"]}
            spec["failurePolicy"] = {key: value for key, value in policy.items() if value is not None}
        spec = {key: value for key, value in spec.items() if value is not None}
        metadata = {"name": job.name, "namespace": job.namespace}
        return model.parse({"apiVersion": model.API_VERSION, "kind": model.KIND, "metadata": metadata, "spec": spec}).spec.as_dict()

    def _database(self) -> Database:
        return Database(self._give_url, patience=PATIENCE, say=lambda _: None)

    def _give_url(self) -> str:
        if self._url is not None or self._embedded is None:
            return self._url or ""
        with self._start:
            return self._embedded.url()


def _tell(change: Callable[[], object]) -> None:
    """Does what the command line does; a refusal is about the job's state, since what was asked is well-formed."""
    try:
        change()
    except JobError as error:
        if type(error) is JobError and error.reason is JobReason.INVALID_SPEC:
            raise StateError(error.reason, error.message) from None
        raise


def _let_end(job: Job) -> None:
    """Waits for a process that has said how the job stands, and is there for a moment longer."""
    give_up = time.monotonic() + ENDS_WITHIN
    while is_running(job) and time.monotonic() < give_up:
        time.sleep(0.05)


def _log(job: Job) -> str:
    return f"{job.namespace}-{job.name}"
