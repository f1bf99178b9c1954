"""The ledger from the event loop: its blocking calls run in a few threads, and an outage is noticed once, not by every job."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipelinejob.reasons import JobError, JobReason
from pipelinejob.store import Database, StaleEpoch, Store
from pipelinejob_operator.lease import step_down

T = TypeVar("T")

THREADS = 4  # each has a connection of its own
TRY_AGAIN = 2.0  # seconds for which an outage is believed without another try


class Ledger:
    """Runs `work(store)` in a thread.

    Args:
        connect: gives a connection to an up-to-date ledger; called once a thread.
    """

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ledger")
        self._local = threading.local()
        self._databases: list[Database] = []
        self._away: tuple[float, JobError] | None = None

    async def __call__(self, work: Callable[[Store], T]) -> T:
        """What `work(store)` returns.

        Raises:
            JobError: DatabaseUnavailable; at once while an outage is known.
        """
        return await self.on_database(lambda database: work(Store(database, migrated=True)))

    async def on_database(self, work: Callable[[Database], T]) -> T:
        """What `work(database)` returns, for what is not about jobs: roles.

        Raises:
            JobError: DatabaseUnavailable; at once while an outage is known.
        """
        if self._away is not None and time.monotonic() < self._away[0]:
            raise self._away[1]
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)
        except JobError as error:
            if error.reason is JobReason.DATABASE_UNAVAILABLE:
                self._away = (time.monotonic() + TRY_AGAIN, error)
            raise
        self._away = None
        return result

    def _run(self, work: Callable[[Database], T]) -> T:
        try:
            database: Database | None = getattr(self._local, "database", None)
            if database is None:
                database = self._local.database = self._connect()
                self._databases.append(database)
            return work(database)
        except StaleEpoch as error:
            step_down(f"the ledger refuses this operator ({error})")

    def close(self) -> None:
        """Ends the threads and their connections."""
        for database in self._databases:
            database.give_up()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for database in self._databases:
            database.close()
