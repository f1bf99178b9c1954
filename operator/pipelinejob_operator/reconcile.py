"""The one story of the operator: observe → decide → apply, until there is nothing to do, then the status.

Watch events and two slow loops only put keys into the queue; what is done follows from what is there, never from what
the event was. Everything can be repeated, and can stop after any line.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelinejob import traces
from pipelinejob.model import Rows, Shards, Spec, TopFailure
from pipelinejob.reasons import JobError, JobReason, Phase
from pipelinejob.store import Database, GoneError, Job, Store, roles
from pipelinejob_operator import manifests, metrics
from pipelinejob_operator.accept import accept, current_spec, is_answered, is_settled
from pipelinejob_operator.apply import Applier, NotYet
from pipelinejob_operator.conditions import View, refused, status, waiting
from pipelinejob_operator.decide import TERMINAL, Enter, Observed, decide, described, is_over
from pipelinejob_operator.diagnose import Problem, diagnose, held_pods, job_state, lost_pods, needs_events, termination
from pipelinejob_operator.functions import Functions
from pipelinejob_operator.grants import Grants
from pipelinejob_operator.kube import ApiError, Foreign, Kube
from pipelinejob_operator.ledger import Ledger
from pipelinejob_operator.objects import is_live
from pipelinejob_operator.pace import Pace
from pipelinejob_operator.queue import Key, Queue
from pipelinejob_operator.settings import Settings
from pipelinejob_operator.writer import StatusWriter

WORKERS = 8  # keys worked on at once
TICK = 2.0  # seconds between looks at the counts of all running jobs
RESYNC = 30.0  # seconds between live looks at what has not ended: a watch can miss things
FIRST = 5.0  # seconds from the start to the first of these, when the watches have told what there is
LOOK_AGAIN = 4.0  # seconds until another look at pods that do not run
PLAN_LOST = "the plan Job is complete, but the ledger has no plan: was its database replaced? Delete the PipelineJob and apply it again"
PASSING = (0, 404, 409)  # answers of the API server that are told in the log alone: away, gone, overtaken
MAX_STEPS = 20  # in one go; more would be a loop in the story

log = logging.getLogger("pipelinejob.reconcile")


class Reconciler:
    """Brings PipelineJobs forward.

    Args:
        settings: what the chart says.
        kube: the cluster.
        connect: gives a connection to the ledger; called in threads.
    """

    def __init__(self, settings: Settings, kube: Kube, connect: Callable[[], Database]) -> None:
        self._settings, self._kube = settings, kube
        self.queue, self.functions = Queue(), Functions(settings, kube)
        self._ledger, self._pace = Ledger(connect), Pace()
        self._applier = Applier(settings, kube, self._ledger)
        self._grants = Grants(settings.max_workers)
        self._writer = StatusWriter(kube, self._ledger, self.queue, self._pace)
        self._tasks: list[asyncio.Task[None]] = []
        self._keys: dict[str, Key] = {}  # by uid, as the next two
        self._counts: dict[str, tuple[Rows, Shards]] = {}
        self._top: dict[str, tuple[int, list[TopFailure]]] = {}
        self._redriven: set[Key] = set()  # whose counts a redrive has moved since their status was written
        self._knows_redriven = False
        self._connections: Problem | None = None
        self._is_away = False  # the database
        self._ticked = time.monotonic()

    async def start(self) -> None:
        """Starts the loops.

        Raises:
            ApiError: the API server does not say what runs already.
        """
        self._grants.resume(await self._kube.list_runs())
        loops = [
            *(self._work() for _ in range(WORKERS)),
            self.functions.work(),
            self._repeat(TICK, self._tick),
            self._repeat(RESYNC, self._resync, FIRST),
        ]
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Stops in the middle of whatever it does: all of it can be done again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ledger.close()

    def alive(self) -> tuple[bool, str]:
        """Whether the loops run, with a line about them."""
        ended = [task for task in self._tasks if task.done()]
        silent = time.monotonic() - self._ticked
        return not ended and silent < 4 * RESYNC, f"{len(self.queue)} jobs queued, last tick {silent:.0f} s ago"

    async def reconcile(self, key: Key) -> None:
        """Looks at one PipelineJob and does all that can be done for it now."""
        body: Mapping[str, Any] | None = self._kube.job(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            body = await self._forget(key)
        if body is None:
            return
        if is_settled(body) and key not in self._redriven:
            self._grants.release(body["metadata"]["uid"])
            return
        try:
            await self._advance(key, body)
        except JobError as error:
            if error.reason is not JobReason.INVALID_SPEC:
                await self._say_waiting(key, body, Problem(error.reason, error.message))
                raise
            status = refused(error, body["metadata"]["generation"], body.get("status") or {}, datetime.now(UTC))
            await self._writer.write(key, body, status)
            await self._expire(key, body, datetime.fromisoformat(status["completionTime"]))
        except Foreign as error:
            await self._say_waiting(key, body, Problem("NameTaken", str(error)))
            raise
        except NotYet as error:
            await self._say_waiting(key, body, Problem("RedriveDeleted", str(error)))
            self.queue.add(key, LOOK_AGAIN)
        except ApiError as error:
            if error.status not in PASSING:
                await self._say_waiting(key, body, Problem("ApiRefused", str(error)))
            raise
        except Exception as error:
            what = f"the operator cannot go on with it, and tries again ({type(error).__name__}: {error}): see the operator's log"
            await self._say_waiting(key, body, Problem("OperatorError", " ".join(what.split())))
            raise

    async def _say_waiting(self, key: Key, body: Mapping[str, Any], problem: Problem) -> None:
        """Puts into the status what keeps the operator itself from going on; what has ended stays as it ended."""
        previous = body.get("status") or {}
        if previous.get("phase") not in TERMINAL:
            await self._writer.write(key, body, waiting(problem, previous, datetime.now(UTC)))

    async def _advance(self, key: Key, body: Mapping[str, Any]) -> None:
        job, spec = await self._enter_ledger(key, body)
        for _ in range(MAX_STEPS):
            seen, diagnosed = await self._observe(key, job, spec)
            now = self._kube.job(key)
            if now is None or now["metadata"]["uid"] != job.uid:
                return  # deleted meanwhile: the next look closes it
            step = decide(seen)
            if step is None:
                break
            log.info("job=%s/%s %s", *key, step)
            with traces.span(job, type(step).__name__, **described(step)):
                job = await self._applier.apply(step, seen, body)
            if isinstance(step, Enter) and step.phase in TERMINAL:
                traces.ended(job)
        else:
            raise RuntimeError(f"no end after {MAX_STEPS} steps; the last was {step}")
        if job.root_uid is not None and job.phase in TERMINAL:
            await self._look_at_root(job.root_uid)
        await self._report(key, body, seen, diagnosed)
        if seen.redrive is None or seen.redrive.deleted_at is None:
            self._redriven.discard(key)
        else:
            self.queue.add(key, LOOK_AGAIN)  # its pods are no longer watched for it
        await self._plan_next_look(key, body, seen, diagnosed)

    async def _look_at_root(self, uid: str) -> None:
        """A redrive has ended, or was deleted: the job whose rows it ran has other counts, and may keep its budget now."""
        root = await self._ledger(lambda store: _get(store, uid))
        if root is not None:
            self._redriven.add((root.namespace, root.name))
            self.queue.add((root.namespace, root.name))

    # ---- observe

    async def _enter_ledger(self, key: Key, body: Mapping[str, Any]) -> tuple[Job, Spec]:
        """The job's row, made if it is new, and its spec as it is to be now."""
        uid, generation = body["metadata"]["uid"], body["metadata"]["generation"]
        known = await self._ledger(lambda store: _get(store, uid))
        if known is None:
            old = await self._ledger(lambda store: store.find_job(*key))
            if old is not None and old.generation is not None:  # deleted while nobody looked
                await self._mark_deleted(old)
            accepted, functions = accept(body, self._kube.jobs_in(key[0]), await self.functions.of(body))
            job = await self._applier.insert(uid, accepted, functions, generation)
            self._keys[uid] = key
            return job, accepted.spec
        if uid not in self._keys:  # after a start, its Jobs may not have been seen yet, and to decide without them would be wrong
            await self._kube.refresh(key, uid)
            self._keys[uid] = key
        spec = current_spec(known, body)
        if spec.as_dict() == known.spec:
            return known, spec
        anew = {"finished_at": None} if spec.mode != known.spec["mode"] else {}  # what was only planned has not ended
        await self._ledger(lambda store: store.update_job(uid, spec=spec.as_dict(), generation=generation, **anew))
        return known._replace(spec=spec.as_dict(), generation=generation), spec

    async def _observe(self, key: Key, job: Job, spec: Spec) -> tuple[Observed, Problem | None]:
        """What is there now, and what keeps the pods from running."""
        children, pods, now = self._kube.children(job.uid), self._kube.pods(job.uid), datetime.now(UTC)
        for pod in lost_pods(pods, now):
            await self._replace_lost(key, pod)
        if held_pods(pods, now) and await self._kube.is_going(key[0]):
            for child in children:
                await self._kube.delete_job(key[0], child["metadata"]["name"], child["metadata"]["uid"])
        events: list[dict[str, Any]] = []
        if needs_events(children, pods, now):
            of_interest = [*(one for one in children if job_state(one) == "running"), *pods]
            events = await self._kube.list_events(key[0], [one["metadata"]["uid"] for one in of_interest])
        rows, shards = await self._count(job, children)
        wanted = min(spec.parallelism, max(1, shards.total))
        granted = self._grants.grant(job, wanted)
        diagnosed = diagnose(children, pods, events, now) if job.phase not in TERMINAL else None
        if job.phase == Phase.PLANNING and job.input is None and any(job_state(child) == "complete" for child in children):
            diagnosed = Problem("PlanLost", PLAN_LOST)
        if job.phase not in (*TERMINAL, Phase.SUSPENDED):
            if diagnosed is None:
                diagnosed = self._grants.held_back(wanted, granted) or self._connections
            elif diagnosed.reason == JobReason.DATABASE_UNAVAILABLE:
                diagnosed = self._connections or diagnosed
        reported = Problem(job.problem["reason"], job.problem["message"]) if job.problem else termination(pods)
        are_live = any(is_live(pod) for pod in pods)
        redrive, redrive_is_live = None, False
        if job.phase in TERMINAL and job.root_uid is None:
            redrive = await self._ledger(lambda store: store.unfinished_redrive(job.uid))
        if redrive is not None and redrive.deleted_at is not None:
            redrive_is_live = await self._kube.end_leftovers(key[0], redrive.uid)
        problem = reported or diagnosed
        seen = Observed(job, spec, children, rows, shards.total, granted, are_live, problem, redrive, redrive_is_live)
        return seen, diagnosed

    async def _count(self, job: Job, children: list[dict[str, Any]]) -> tuple[Rows, Shards]:
        """The counts as of the last tick; as of now where a decision hangs on them."""
        at_rest = not any(job_state(child) == "running" for child in children)
        decisive = job.phase in TERMINAL or job.phase == Phase.PENDING or at_rest
        if decisive or job.uid not in self._counts:
            self._counts[job.uid] = await self._ledger(lambda store: store.update_counts(job.uid))
        return self._counts[job.uid]

    async def _replace_lost(self, key: Key, pod: Mapping[str, Any]) -> None:
        """Nothing else brings a replacement for a pod on a node that is gone; the commit protocol allows for two."""
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
        message = f"pod {name} did not end after its deletion: the node {node} is lost; another pod takes over its shard"
        await self._kube.fail_pod(key[0], name, message)
        body = self._kube.job(key)
        if body is not None:
            await self._kube.emit_event(body, "Warning", "NodeLost", message)

    # ---- status

    async def _report(self, key: Key, body: Mapping[str, Any], seen: Observed, diagnosed: Problem | None) -> None:
        job, (rows, shards) = seen.job, self._counts[seen.job.uid]
        run = seen.child(manifests.run_job_name(job.name, job.uid, job.round))
        active = run.get("status", {}).get("active", 0) if run is not None and job.phase == Phase.RUNNING else 0
        left = shards.total - shards.succeeded
        failed = left if job.phase in (Phase.FAILED, Phase.CANCELLED) else 0
        view = View(
            job=job,
            rows=rows,
            shards=shards.model_copy(update={"active": min(active, left), "failed": failed}),
            top=await self._top_failures(job.uid, rows.failed),
            generation=body["metadata"]["generation"],
            problem=diagnosed,
            rate=self._pace.rate(job.uid, rows.total - rows.pending) if job.phase == Phase.RUNNING else None,
            previous=body.get("status") or {},
            now=datetime.now(UTC),
        )
        await self._writer.write(key, body, status(view))

    async def _top_failures(self, uid: str, failed: int) -> list[TopFailure]:
        """The commonest failures, asked for only when there are more than before."""
        known = self._top.get(uid, (0, []))
        if known[0] != failed:
            known = self._top[uid] = (failed, await self._ledger(lambda store: store.top_failures(uid)))
        return known[1]

    async def _plan_next_look(self, key: Key, body: Mapping[str, Any], seen: Observed, diagnosed: Problem | None) -> None:
        """Looks again at what no event will tell of."""
        job = seen.job
        if is_over(job):
            await self._expire(key, body, job.finished_at)
            return
        stuck = any(job_state(child) == "running" and not child.get("status", {}).get("ready") for child in seen.children)
        leaving = any("deletionTimestamp" in pod["metadata"] for pod in self._kube.pods(job.uid))
        if diagnosed is not None or stuck or leaving:
            self.queue.add(key, LOOK_AGAIN)

    async def _expire(self, key: Key, body: Mapping[str, Any], ended: datetime | None) -> None:
        """Deletes the resource when its time to live is over."""
        ttl = body["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or ended is None:
            return
        left = (ended + timedelta(seconds=ttl) - datetime.now(UTC)).total_seconds()
        if left > 0:
            self.queue.add(key, left)
        else:
            await self._kube.delete_pipelinejob(*key, body["metadata"]["uid"])

    async def _forget(self, key: Key) -> Mapping[str, Any] | None:
        """The resource is gone, or going: the cluster collects its Jobs and pods; the ledger keeps what was done.

        Only a live look tells: after a start, events of Jobs and pods come before those of their PipelineJobs. Returns the
        resource if it is there after all.
        """
        job = await self._ledger(lambda store: store.find_job(*key))
        if job is None or job.generation is None:
            return None
        await self._kube.refresh(key, job.uid)
        body = self._kube.job(key)
        if body is not None and "deletionTimestamp" not in body["metadata"]:
            return body  # this one, or another of its name, whose entry into the ledger closes this one
        await self._mark_deleted(job)
        return None

    async def _mark_deleted(self, job: Job) -> None:
        """Nothing of a deleted job is kept outside the ledger; a redrive's end is up to the job whose rows it ran."""
        for known in (self._counts, self._top, self._keys):
            known.pop(job.uid, None)
        self._grants.release(job.uid)
        self._pace.forget(job.uid)
        await self._applier.end_access(job.uid)
        await self._ledger(lambda store: store.mark_deleted(job.uid))
        if job.root_uid is not None:
            await self._look_at_root(job.root_uid)

    # ---- the loops

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            began, failed = time.monotonic(), True
            try:
                await self.reconcile(key)
                failed = False
            except (JobError, ApiError, Foreign) as error:  # told in a line; the status says so where it can
                log.warning("job=%s/%s %s", *key, error)
            except Exception:
                log.exception("job=%s/%s could not be reconciled; trying again", *key)
            self.queue.done(key, failed=failed)
            metrics.RECONCILE.labels("failed" if failed else "done").observe(time.monotonic() - began)

    async def _repeat(self, seconds: float, work: Callable[[], Any], first: float | None = None) -> None:
        wait = seconds if first is None else first
        while True:
            await asyncio.sleep(wait)
            wait = seconds
            try:
                await work()
            except (JobError, ApiError) as error:
                log.warning("%s", error)
            except Exception:
                log.exception("%s failed; trying again", work.__name__)
            self._ticked = time.monotonic()

    async def _tick(self) -> None:
        """One aggregate over all running jobs; those whose counts changed get a look, and all when the database goes away."""
        try:
            totals = await self._ledger(lambda store: store.totals())
        except JobError:
            if not self._is_away:
                self._is_away = True
                self._look_at_all()
            raise
        self._is_away = False
        for uid, counts in totals.items():
            if self._counts.get(uid) != counts:
                self._counts[uid] = counts
                if uid in self._keys:
                    self.queue.add(self._keys[uid])
        used, available = await self._ledger(lambda store: store.connections())
        full = (
            f"the database has no free connection ({used} of {available} in use): pods wait for one; "
            "lower the chart's database.maxWorkers, put a pooler before it, or raise its max_connections"
        )
        self._connections = Problem("DatabaseConnections", full) if used >= available else None

    def _look_at_all(self) -> None:
        for key in self._kube.keys():  # noqa: SIM118 - no dict
            body = self._kube.job(key)
            if body is not None and not is_settled(body):
                self.queue.add(key)

    def _is_mine(self, key: Key) -> bool:
        return not self._settings.namespaces or key[0] in self._settings.namespaces

    async def _look_again(self, key: Key, uid: str) -> None:
        try:
            await self._kube.refresh(key, uid)
        except ApiError as error:
            log.warning("job=%s/%s %s", *key, error)
        self.queue.add(key)

    async def _resync(self) -> None:
        """Live looks at all that has not ended, and at jobs in the ledger whose resource is gone."""
        try:
            await self._kube.ping()
        except ApiError as error:  # also where one of several namespaces is gone
            log.warning("%s", error)
        for key in self._kube.keys():  # noqa: SIM118 - no dict
            body = self._kube.job(key)
            if body is not None and not is_answered(body):
                await self._look_again(key, body["metadata"]["uid"])
        # At first all: what the one before us had still to say of them.
        for key in await self._ledger(lambda store: store.redriven(unsettled=self._knows_redriven)):
            if self._is_mine(key):
                self._redriven.add(key)
                self.queue.add(key)
        self._knows_redriven = True
        live = await self._ledger(lambda store: store.live_uids())
        for uid, key in live.items():
            body = self._kube.job(key)
            if self._is_mine(key) and (body is None or body["metadata"]["uid"] != uid):
                await self._look_again(key, uid)
        await self._ledger.on_database(roles.drop_roles_of_ended)
        if self._settings.retention_days:
            await self._ledger(lambda store: store.purge(self._settings.retention_days))


def _get(store: Store, uid: str) -> Job | None:
    try:
        return store.get_job(uid)
    except GoneError:
        return None
