"""One run: a job from its beginning to its end, with a fault now and then; the same for laptop and cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from chaos.checker import Results
from chaos.schedule import Fault

WAIT_FOR_A_VICTIM = 10.0  # seconds that a fault waits until there is something that it can hit


class NotNowError(Exception):
    """There is nothing now that this fault could hit."""


class StuckError(Exception):
    """The job will not end by itself any more, or has not within its time."""


Act = Callable[[Any, Fault], str]  # strikes a world, and says what it did


class World(Protocol):
    """Where a job runs."""

    faults: Mapping[str, Act]
    undo: Undo

    def begin(self) -> None:
        """Starts the job."""

    def ended(self) -> bool:
        """Whether the job has ended; goes on with it where a user would have to."""

    def results(self) -> Results:
        """What it left behind."""

    def story(self) -> str:
        """What may tell why it did not end well."""


class Undo:
    """What is to be put right again, and when."""

    def __init__(self) -> None:
        self._due: list[tuple[float, str, Callable[[], object]]] = []

    def later(self, seconds: float, name: str, act: Callable[[], object]) -> None:
        """Calls `act` after so many seconds; `name` says what is out of order meanwhile."""
        self._due.append((time.monotonic() + seconds, name, act))

    def pending(self, name: str) -> bool:
        """Whether this is out of order now."""
        return any(name == one[1] for one in self._due)

    def run(self, *, all: bool = False) -> None:
        """Puts right what is due."""
        for one in list(self._due):
            if all or one[0] <= time.monotonic():
                one[2]()
                self._due.remove(one)


class Struck(NamedTuple):
    """A fault that came: when, in seconds from the beginning, and what it did; None: there was nothing to hit."""

    fault: Fault
    at: float
    did: str | None


def play(world: World, faults: Iterator[Fault], *, limit: float, say: Callable[[str], None]) -> Iterator[Struck]:
    """Runs the job of a world to its end under these faults, and gives each that came.

    Args:
        world: where it runs.
        faults: one after the other, until the job has ended.
        limit: seconds that it may take.
        say: told each fault.

    Raises:
        StuckError: it did not end.
    """
    began = time.monotonic()
    world.begin()
    fault = next(faults)
    due = time.monotonic() + fault.after
    try:
        while not world.ended():
            now = time.monotonic()
            if now - began > limit:
                raise StuckError(f"the job has not ended within {limit:.0f} s")
            world.undo.run()
            if now >= due:
                did = _strike(world, fault, now - due > WAIT_FOR_A_VICTIM)
                if did != "":
                    yield Struck(fault, round(now - began, 1), did)
                    say(f"{now - began:6.1f} s  {fault.number:3}  {fault.kind}: {did or 'nothing to hit'}")
                    fault = next(faults)
                    due = time.monotonic() + fault.after
            time.sleep(0.05)
    finally:
        world.undo.run(all=True)


def _strike(world: World, fault: Fault, last_try: bool) -> str | None:
    """What it did; "" when it is to be tried again, None when it never could."""
    try:
        return world.faults[fault.kind](world, fault)
    except NotNowError:
        return None if last_try else ""
