"""The progress of a run as a person sees it: a bar on a terminal or in a notebook, plain lines on standard error elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 5.0  # seconds between progress lines where there is no terminal
RATE_OVER = 10.0  # seconds that the shown rows/s are an average of


class ConsoleReporter:
    """A progress bar on a terminal or in a notebook, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._in_notebook = console.is_jupyter and not console.quiet
        self._shown: Any = None  # what a notebook shows, to be drawn anew
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._seen: list[tuple[float, int]] = []
        self._said = 0.0

    def say(self, message: str) -> None:
        """Prints a line above the bar."""
        self._console.print(message, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def progress(self, done: int, total: int, failed: int) -> None:
        """Shows how far the run is."""
        now = time.monotonic()
        if self._console.is_terminal:
            self._draw(done, total, failed, now)
        elif self._in_notebook:
            rate = self._rate(done, now)
            self._show(done, total, f"{done}/{total} rows, {failed} failed" + (f", {rate:.0f} rows/s" if rate and done < total else ""))
        elif now - self._said >= PLAIN_EVERY:
            if self._said:
                rate = self._rate(done, now)
                eta = f", ETA {duration((total - done) / rate)}" if rate else ""
                self.say_plain(f"{done}/{total} rows, {failed} failed, {rate:.0f} rows/s{eta}")
            else:
                self._rate(done, now)
                self.say_plain(f"{done}/{total} rows")
            self._said = now

    def say_plain(self, message: str) -> None:
        """Prints a line without colour."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _draw(self, done: int, total: int, failed: int, now: float) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("[bold]rows"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.0f} rows/s"),
                TimeRemainingColumn(),
                TextColumn("[red]{task.fields[failed]} failed"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("rows", total=total, rate=0.0, failed=0, completed=done)
            self._bar.start()
        assert self._task is not None
        self._bar.update(self._task, completed=done, rate=self._rate(done, now), failed=failed)

    def _show(self, done: int, total: int, text: str) -> None:
        from IPython.display import display  # noqa: PLC0415 - part of every notebook, and of nothing else

        both = {"text/plain": text, "text/html": f'<progress value="{done}" max="{total}"></progress> {text}'}
        if self._shown is None:
            self._shown = display(both, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._shown.update(both, raw=True)

    def _rate(self, done: int, now: float) -> float:
        """Rows per second over the last ten seconds."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_OVER:
            self._seen.pop(0)
        then, before = self._seen[0]
        elapsed = now - then
        return (done - before) / elapsed if elapsed > 0 else 0.0


@contextmanager
def console_reporter(*, hidden: bool = False) -> Iterator[ConsoleReporter]:
    """The reporter of a run; everything it prints goes to standard error, or nowhere."""
    reporter = ConsoleReporter(Console(stderr=True, quiet=hidden))
    try:
        yield reporter
    finally:
        reporter.close()


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
