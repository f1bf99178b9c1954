"""The laptop distributor: takes a job from its file to its results, with local processes in place of pods."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipelinejob import faults, reuse, traces
from pipelinejob.admission import Admitted, admit, check_no_redrive
from pipelinejob.batch import Task
from pipelinejob.commit import RoundClosedError
from pipelinejob.committer import Committer
from pipelinejob.finalize import finalize, record_published
from pipelinejob.model import FailurePolicy, Rows, Shards, Spec, budget_breach
from pipelinejob.planning import Request
from pipelinejob.reasons import ENDS, JobError, JobReason, Phase
from pipelinejob.redriven import output_folder
from pipelinejob.standing import interrupted_message, is_running, suspended_message
from pipelinejob.stopping import GRACE
from pipelinejob.storage import Storage, StorageError, patience_of_a_run
from pipelinejob.store import Job, Store
from pipelinejob.store.ledger import batches_of
from pipelinejob.verdict import judge, judge_root, write_status
from pipelinejob.workers import MAX_BACKLOG, Workers

LOOK_EVERY = 2.0  # seconds between looks at the ledger


class Interrupted(BaseException):
    """Told to end at once; unlike KeyboardInterrupt, the command line's library leaves it to us."""


class Reporter(Protocol):
    """What a run tells the person who started it."""

    def say(self, message: str) -> None:
        """A line of text."""

    def progress(self, done: int, total: int, failed: int) -> None:
        """Rows in a final state, of all, and how many of them failed; called several times a second."""


class Result(NamedTuple):
    """How a job stands after a command."""

    job: Job
    rows: Rows
    shards: Shards
    note: str | None = None
    interrupted: int | None = None  # the signal that ended the run

    @property
    def output(self) -> Path:
        """The output folder."""
        return Path(self.job.output_root) / self.job.output


def run(request: Request, store: Store, reporter: Reporter) -> Result:
    """Runs a job to its end, or goes on with one that was interrupted.

    Raises:
        JobError: it cannot be started (InvalidSpec, Input...), or was given up (the ledger says so, too).
    """
    admitted = Storage(reporter.say).patiently(lambda: admit(request, store))
    try:
        return LocalRun(request, admitted, store, reporter).run()
    finally:
        admitted.lock.release()


class LocalRun:
    """One run of a job by this process and its children."""

    def __init__(self, request: Request, admitted: Admitted, store: Store, reporter: Reporter) -> None:
        job = self._job = admitted.job
        self._csv, self._lock, self._store, self._reporter = admitted.csv, admitted.lock, store, reporter
        self._workers = request.workers
        self._log = request.home / "logs" / f"{job.namespace}-{job.name}.log"
        self._spec = Spec.model_validate(job.spec)
        self._durable = self._spec.output.fsync == "always"  # auto: here, the death of processes is survived without
        self._output = output_folder(job, Path(job.output_root))
        self._done = job.rows.total - job.rows.pending
        self._failed = job.rows_failed
        self._storage = Storage(reporter.say)
        self._signal: int | None = None
        self._began, self._spans = admitted.began, traces.Shards(job)
        self._scaled_to = self._spec.parallelism

    def run(self) -> Result:
        job, store = self._job, self._store
        if job.phase == Phase.COMPLETE:
            return self._result(note="already complete")
        if job.phase == Phase.CANCELLED:
            return self._result(note="it was cancelled before")
        if self._spec.cancel:
            store.update_job(job.uid, stop="cancel")
        elif self._spec.suspend:
            store.update_job(job.uid, phase=Phase.SUSPENDED)
            return self._result(note=f"spec.suspend is true: 'pipelinejob resume {job.name}' goes on, or false in its file and another run")
        if job.stop == "suspend":  # of a run that died before it had stopped
            store.update_job(job.uid, stop=None)
        store.be_patient(patience_of_a_run())
        try:
            return self._storage.patiently(self._go_on)
        except JobError as error:
            if self._signal is not None and error.reason is JobReason.DATABASE_UNAVAILABLE:
                raise Interrupted from error
            if error.reason is not JobReason.DATABASE_UNAVAILABLE and not isinstance(error, StorageError):
                self._give_up(error)
            raise

    def _go_on(self) -> Result:
        """Runs what is left; can be done again whatever went wrong."""
        while self._signal is None and self._may_run():
            self._run_rows()
            if self._store.stop_reason(self._job.uid) is None:
                break
        if self._signal is not None:
            return self._interrupted()
        if self._store.stop_reason(self._job.uid) == "suspend":
            return self._suspended()
        return self._end()

    def _may_run(self) -> bool:
        """Whether there are rows to run; a budget that was raised, or is kept again by what was under way, stops nothing."""
        rows, _ = self._store.update_counts(self._job.uid)
        stop = self._store.stop_reason(self._job.uid)
        if stop == "budget" and not budget_breach(self._spec.failure_policy, rows):
            self._store.update_job(self._job.uid, stop=None)
            stop = None
        return stop is None and rows.pending > 0

    def _run_rows(self) -> None:
        store, job = self._store, self._job
        round_number = store.open_round(job.uid)
        job = self._job = store.get_job(job.uid)
        faults.point("round-opened")
        self._adopt(job)
        faults.point("adopted")
        folder = self._output.open_round(round_number)
        store.update_job(job.uid, phase=Phase.RUNNING, reason=None, message=None, finished_at=None)
        if job.started_at is None:
            store.update_job(job.uid, started_at=datetime.now(UTC))
        committer = Committer(
            store,
            job.uid,
            round_number,
            self._output,
            durable=self._durable,
            look=self._look,
            look_every=LOOK_EVERY,
            stored=self._storage.works,
        )
        self._log.parent.mkdir(parents=True, exist_ok=True)
        workers = Workers(
            self._for_children(),
            folder,
            self._output.open_marks(),
            whole="run",
            count=self._count(),
            timeouts=[float(function["timeoutSeconds"]) for function in job.functions],
            log=self._log,
            lock=self._lock.descriptor,
            finished=lambda task, attempt, done: self._finished(committer, task, attempt, done),
            say=self._reporter.say,
        )
        with _signals(self._on_signal):
            committer.start()
            try:
                workers.start()
                with suppress(RoundClosedError):  # its folder was taken away: what is missing shows at the end
                    workers.run(self._tasks, lambda: self._check(committer, workers))
            finally:
                workers.stop()
                self._spans.end(round_number)
                committer.finish()

    def _look(self) -> str | None:
        """For those who ask how the job stands: its counts; for us: whether it is to stop, its processes, and its failure budget."""
        rows, _ = self._store.update_counts(self._job.uid)
        job = self._store.get_job(self._job.uid)
        if job.spec["parallelism"] != self._spec.parallelism:
            self._spec = self._spec.model_copy(update={"parallelism": job.spec["parallelism"]})
            self._workers = None  # later word than --workers
        self._spec = self._spec.model_copy(update={"failure_policy": FailurePolicy.model_validate(job.spec["failurePolicy"])})
        if job.stop is None and budget_breach(self._spec.failure_policy, rows):
            self._store.update_job(job.uid, stop="budget")
            return "budget"
        return job.stop

    def _count(self) -> int:
        """How many processes to start: no more than there are batches, and by default than there are cores."""
        in_a_batch = self._spec.sharding.batch_rows if self._job.root_uid is None else 1  # of a redrive: who knows
        batches = -(-self._job.rows.pending // in_a_batch)
        cores = os.cpu_count() or 1
        wanted = self._workers or min(self._spec.parallelism, cores)
        if self._workers is None and self._spec.parallelism > cores:
            self._reporter.say(f"spec.parallelism is {self._spec.parallelism}: {cores} processes on {cores} cores; --workers N overrides")
        return max(1, min(wanted, batches))

    def _adopt(self, job: Job) -> None:
        """Commits what processes that were killed had finished, and clears what they had not."""
        finished = [self._output.publish(attempt, durable=self._durable) for attempt in self._output.finished_attempts()]
        shards = self._store.shards_of(job.uid, [summary["first_row"] for summary in finished])
        for summary in finished:
            self._store.record(job.uid, shards[summary["first_row"]], job.round, [summary])
        record_published(self._store, job, self._output)
        self._output.fence()
        rows, _ = self._store.update_counts(job.uid)
        self._done, self._failed = rows.total - rows.pending, rows.failed

    def _for_children(self) -> dict[str, Any]:
        assert self._job.input is not None
        return {
            "csv": str(self._csv),
            "dataRoot": self._job.data_root,
            "columns": self._job.input["columns"],
            "spec": self._job.spec,
            "functions": self._job.functions,
            "records": str(self._output.records),
            "previous": reuse.folder_for(self._job, self._output),
        }

    def _tasks(self) -> Iterator[Task]:
        matched = bool((self._job.selection or {}).get("matchById"))
        for shard in self._store.unfinished_shards(self._job.uid):
            self._spans.begins(shard.index)
            for batch in batches_of(shard, self._spec.sharding.batch_rows):
                yield Task.of(shard.index, batch, matched=matched)

    def _finished(self, committer: Committer, task: Task, attempt: Path, done: Mapping[str, Any]) -> None:
        committer.put(task.shard, attempt)
        self._spans.batch(task.shard, done)
        self._done += task.to_run
        self._failed += done["failed"]
        limit = self._spec.failure_policy.max_failed_rows
        if limit is not None and self._failed > limit:
            committer.hurry()

    def _check(self, committer: Committer, workers: Workers) -> tuple[bool, bool]:
        """(may take new batches, must end now)."""
        if self._spec.parallelism != self._scaled_to:
            self._scaled_to = self._spec.parallelism
            workers.resize(self._count())
        self._reporter.progress(self._done, self._job.rows_total, self._failed)
        must_end = self._signal is not None or committer.stopping is not None or committer.error is not None
        return committer.backlog < MAX_BACKLOG, must_end

    def _on_signal(self, number: int, _: object) -> None:
        if self._signal is not None:
            raise Interrupted  # asked twice: at once, whatever is not committed runs again
        self._signal = number
        timer = threading.Timer(GRACE, self._store.abandon)  # what is finished is recorded when the same command goes on
        timer.daemon = True
        timer.start()

    def _interrupted(self) -> Result:
        rows, _ = self._store.update_counts(self._job.uid)
        message = interrupted_message(rows)
        self._store.update_job(self._job.uid, message=message)
        return self._result(note=message, interrupted=self._signal)

    def _suspended(self) -> Result:
        rows, _ = self._store.update_counts(self._job.uid)
        message = suspended_message(self._job, rows)
        self._store.update_job(self._job.uid, phase=Phase.SUSPENDED, message=message, stop=None)
        return self._result(note=message)

    def _end(self) -> Result:
        """Writes the files and judges the job."""
        job, store = self._job, self._store
        rows, _ = store.update_counts(job.uid)
        stop = store.stop_reason(job.uid)
        if rows.pending and stop is None:
            raise JobError(JobReason.SHARDS_FAILED, f"{rows.pending} rows were not run: run the same command to go on")
        store.update_job(job.uid, phase=Phase.FINALIZING)
        with traces.span(job, "finalize"):
            finalize(store, job, self._output)
        judge_root(store, job)
        faults.point("judged")
        phase, reason, message = judge(store, store.get_job(job.uid), cancelled=stop == "cancel")
        store.update_job(job.uid, phase=phase, reason=reason, message=message, finished_at=datetime.now(UTC))
        result = self._result()
        traces.ended(result.job, self._began)
        return result

    def _give_up(self, error: JobError) -> None:
        """The job failed: what is done is finalized as well as it can be, and the ledger says why."""
        store, job = self._store, self._job
        try:
            with traces.span(job, "finalize"):
                finalize(store, job, self._output)
            judge_root(store, job)
        except (OSError, JobError) as second:
            self._reporter.say(f"could not write the results of what is done: {second}")
        store.update_counts(job.uid)
        store.update_job(job.uid, phase=Phase.FAILED, reason=error.reason, message=error.message, finished_at=datetime.now(UTC))
        traces.ended(store.get_job(job.uid), self._began)

    def _result(self, note: str | None = None, interrupted: int | None = None) -> Result:
        return Result(*write_status(self._store, self._job.uid), note, interrupted)


def suspend(job: Job, store: Store) -> Job:
    """Stops a job until it is resumed: a running one hears of it through the ledger, and what is under way runs again later.

    Raises:
        JobError: InvalidSpec, when it has ended, or is being cancelled.
    """
    if job.phase in ENDS or job.stop == "cancel":
        state = "is being cancelled" if job.stop == "cancel" and job.phase not in ENDS else f"has ended ({job.phase})"
        raise JobError(JobReason.INVALID_SPEC, f"the job {job.name!r} {state}: there is nothing to suspend")
    fields = {"stop": "suspend"} if is_running(job) else {"phase": Phase.SUSPENDED, "message": suspended_message(job, job.rows)}
    store.update_job(job.uid, spec={**job.spec, "suspend": True}, **fields)
    return store.get_job(job.uid)


def scale(job: Job, store: Store, parallelism: int) -> Job:
    """Sets how many processes a job may have; a running one follows within seconds.

    Raises:
        JobError: InvalidSpec, when it has ended.
    """
    if job.phase in ENDS:
        raise JobError(JobReason.INVALID_SPEC, f"the job {job.name!r} has ended ({job.phase}): there is nothing to scale")
    store.update_job(job.uid, spec={**job.spec, "parallelism": parallelism})
    return store.get_job(job.uid)


def cancel(job: Job, store: Store) -> Job:
    """Cancels a job for good: a running one hears of it through the ledger, another is finalized here."""
    if job.phase in (Phase.COMPLETE, Phase.CANCELLED):
        return job
    check_no_redrive(job, store)
    store.update_job(job.uid, stop="cancel")
    if not is_running(job):
        output = output_folder(job, Path(job.output_root))
        if job.input is not None:
            with traces.span(job, "finalize"):
                finalize(store, job, output)
            judge_root(store, job)
        elif job.root_uid is not None:
            output.close_rounds()  # with the records that it had copied
        phase, reason, message = judge(store, job, cancelled=True)
        store.update_job(job.uid, phase=phase, reason=reason, message=message, finished_at=datetime.now(UTC))
        traces.ended(store.get_job(job.uid))
    return store.get_job(job.uid)


class _signals:
    """Takes over Ctrl-C and SIGTERM for the time of a run."""

    def __init__(self, handler: Callable[[int, object], None]) -> None:
        self._handler = handler

    def __enter__(self) -> None:
        self._old = {number: signal.signal(number, self._handler) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
