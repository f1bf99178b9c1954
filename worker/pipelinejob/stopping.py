"""How a pod's process ends when it is told to: soon, whatever it is at, and never as if it had done its work."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Protocol

EXIT_STOPPED = 75
GRACE = 8.0  # seconds for what is finished to be committed


class GivesUp(Protocol):
    """What waits for a database."""

    def give_up(self) -> None:
        """From now on it does not."""


class Stop:
    """Hears SIGTERM and SIGINT, also while the main thread waits inside a C library.

    `at_once`: what runs can be cut off anywhere and done again (planning, finalizing), so the process ends there and
    then. Otherwise `asked` is set, the main thread ends what it is at, and 8 s later the process ends all the same.
    """

    def __init__(self) -> None:
        self.at_once = True
        self.asked = threading.Event()
        self.database: GivesUp | None = None
        ear, mouth = os.pipe()
        os.set_blocking(mouth, False)
        signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)  # written to by the C part of Python's signal handler
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, args=(ear,), name="stop", daemon=True).start()

    def _listen(self, ear: int) -> None:
        os.read(ear, 1)
        self.asked.set()
        if not self.at_once:
            if self.database is not None:
                self.database.give_up()
            time.sleep(GRACE)
        os._exit(EXIT_STOPPED)
