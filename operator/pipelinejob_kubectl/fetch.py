"""`results NAME`: from the claim into a folder here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pipelinejob.reasons import ENDS
from pipelinejob_kubectl import copying, reading
from pipelinejob_kubectl.errors import PluginError
from pipelinejob_kubectl.jobs import phase_of
from pipelinejob_kubectl.kube import Kube, Object


def results(kube: Kube, job: Object, folder: Path, *, images: bool) -> copying.Copied:
    """Copies the results of a job that has ended into a new folder.

    Raises:
        PluginError: there are none yet, the folder is there already, or what came is not what the manifest says.
    """
    name, status = job["metadata"]["name"], job.get("status") or {}
    if phase_of(job) not in ENDS:
        advice = f"'kubectl pipelinejob status {name} --watch' waits for the end"
        raise PluginError("InvalidSpec", f"{name!r} has not ended ({phase_of(job)}), and its results are written then: {advice}")
    if not status.get("output") or "inputDigest" not in status:
        raise PluginError(
            "NoResults", f"{name!r} has no results: it ended before a row was run; 'kubectl pipelinejob status {name}' says why"
        )
    column = (job["spec"].get("output") or {}).get("urlColumn") or "url"
    with copying.target(folder) as draft, reading.reader(kube, job) as pod, bar() as shown:
        task = shown.add_task("results", total=None)

        def told(size: int, manifest: Mapping[str, Any] | None) -> None:
            if manifest is not None:
                shown.update(task, total=size + copying.expected_bytes(manifest, images))
            shown.update(task, completed=size)

        with reading.packed(kube, job, pod, copying.FILES, images=images) as stream:
            copied = copying.unpack(stream, draft, told)
        copying.verify(draft, column, images=images)
    return copied


def bar() -> Progress:
    """Of bytes, on standard error, where that is a terminal."""
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
