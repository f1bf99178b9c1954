"""The thread that commits finished batches beside the work on the next: publish each, record several at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelinejob import faults
from pipelinejob.commit import OutputFolder, RoundClosedError
from pipelinejob.store import Store

RECORD_EVERY = 1.0  # seconds between transactions


class Committer:
    """Commits batches of one round of a job, in order of arrival.

    `backlog` says how many wait, `stopping` why no new batch may start (None: go on), `error` what ended the thread.

    Args:
        store: the ledger; its connection is closed while there is nothing to say.
        uid: the job.
        round_number: the round.
        output: the job's output folder.
        durable: make each batch survive the death of the machine.
        look: asks the ledger whether the job is to stop, and why.
        look_every: seconds between such looks; each record is answered with the same.
        stored: called after each batch that was published.
    """

    def __init__(
        self,
        store: Store,
        uid: str,
        round_number: int,
        output: OutputFolder,
        *,
        durable: bool,
        look: Callable[[], str | None],
        look_every: float,
        stored: Callable[[], None],
    ) -> None:
        self._store, self._uid, self._round = store, uid, round_number
        self._output, self._durable = output, durable
        self._look, self._look_every, self._stored = look, look_every, stored
        self._finished: queue.SimpleQueue[tuple[int, Path] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._hurry = False
        self.stopping: str | None = None
        self.error: BaseException | None = None

    @property
    def backlog(self) -> int:
        """Finished batches that are not yet taken up."""
        return self._finished.qsize()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, shard: int, attempt: Path) -> None:
        """Hands over a finished batch by its attempt folder."""
        self._finished.put((shard, attempt))

    def hurry(self) -> None:
        """Records what is published and looks at once, not only when it is time."""
        self._hurry = True

    def finish(self) -> None:
        """Commits what was handed over, ends the thread, and raises what ended it early."""
        self._finished.put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._commit_all()
        except BaseException as error:  # handed to the main thread, which raises it
            self.error = error

    def _commit_all(self) -> None:
        ready: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        recorded_at = looked_at = time.monotonic()
        going_on = True
        while going_on:
            try:
                item = self._finished.get(timeout=0.1 if ready else 0.5)
                going_on = item is not None
                if item is not None:
                    ready[item[0]].append(self._output.publish(item[1], durable=self._durable))
                    self._stored()
            except queue.Empty:
                pass
            except RoundClosedError:
                self.stopping = "closed"
            now = time.monotonic()
            hurry, self._hurry = self._hurry, False
            if ready and (hurry or not going_on or now - recorded_at >= RECORD_EVERY):
                self._record(ready)
                recorded_at = now
            if hurry or now - looked_at >= self._look_every:
                self.stopping = self._look() or self.stopping
                looked_at = now
            self._store.rest()

    def _record(self, ready: dict[int, list[Mapping[str, Any]]]) -> None:
        for shard in list(ready):
            faults.point("record")
            answer = self._store.record(self._uid, shard, self._round, ready.pop(shard))
            faults.point("recorded")
            if answer != "go":
                self.stopping = self.stopping or answer
