"""The paths of a job: found below their roots, with advice when they are not."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

from pipelinejob import template
from pipelinejob.commit import OURS, read_owner
from pipelinejob.model import PipelineJob
from pipelinejob.names import MAX_NAME_BYTES
from pipelinejob.reasons import JobError, JobReason
from pipelinejob.storage import is_file, is_transient

_LONGEST_PATH = 3800  # bytes, of the 4096 that Linux allows: below it are folders of ours, and names of 255 bytes


def data_root(given: str) -> Path:
    """The real path of the data root.

    Raises:
        JobError: InputNotFound, when it is no folder.
    """
    path = Path(given)
    if not os.path.isdir(path):
        raise JobError(
            JobReason.INPUT_NOT_FOUND, f"the data folder {path} is not there: pass the folder that holds the CSV with --data DIR"
        )
    return path.resolve()


def csv_path(job: PipelineJob, root: Path, claim: str | None = None) -> Path:
    """The CSV of a job.

    Args:
        job: the job.
        root: the data root.
        claim: what people call the data root in a cluster; None on a laptop.

    Raises:
        JobError: InvalidSpec when it leads outside the root, InputNotFound when it is no readable file.
    """
    name = job.spec.source.csv
    path = root / name
    place, advice = (f"the data root {root}", ", or pass another root with --data DIR") if claim is None else (claim, "")
    if not _inside(_real(path), root):
        raise JobError(JobReason.INVALID_SPEC, f"spec.source.csv: {name!r} leads outside {place}")
    regular = is_file(path)
    if not os.path.exists(path):  # unlike Path's, it is False for a name that is too long, too
        raise JobError(
            JobReason.INPUT_NOT_FOUND,
            f"spec.source.csv: no file {name!r} in {place}: check the path{advice}",
        )
    if not regular or not os.access(path, os.R_OK):
        raise JobError(JobReason.INPUT_NOT_FOUND, f"spec.source.csv: {name!r} in {place} is no file that can be read by uid {os.getuid()}")
    return path


def output_path(job: PipelineJob, root: Path, output_root: Path) -> Path:
    """The output folder of a job; it need not exist yet.

    Raises:
        JobError: InvalidSpec when it leads outside its root, is too long, or is equal to, inside or above the input.
    """
    path = Path(os.path.normpath(output_root / job.output_path))
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts) or len(os.fsencode(path)) > _LONGEST_PATH:
        raise _refused(job, "is too long")
    real = _real(path)  # a link must not lead it into the input, either
    if not _inside(real, output_root):
        raise _refused(job, f"leads outside {output_root}")
    for name in (OURS, "images"):
        if os.path.islink(path / name):
            raise _refused(job, f"holds a link called {name}, through which files would be written elsewhere")
    csv = root / job.spec.source.csv
    if _inside(csv, path) or _inside(_real(csv), real):
        raise _refused(job, f"is or holds the input {job.spec.source.csv}")
    images = job.spec.source.images
    folder = template.parse(images).folder if images else ""
    if folder and any(_inside(a, b) or _inside(b, a) for a, b in ((path, root / folder), (real, _real(root / folder)))):
        raise _refused(job, f"is inside or above the input folder {folder}")
    for parent in path.parents:
        if os.path.exists(parent / OURS / "owner.json"):
            owner = read_owner(parent) or {}
            raise _refused(job, f"is inside the output of the job {owner.get('namespace')}/{owner.get('name')}")
        if parent == output_root:
            break
    return path


def make_folder(path: Path, output_root: Path, claim: str | None = None) -> None:
    """Makes the output folder and checks that it can be written to.

    Args:
        path: the folder.
        output_root: the folder that outputs are below.
        claim: what people call the output root in a cluster; None on a laptop.

    Raises:
        JobError: InvalidSpec, with what to pass instead.
    """
    ours = path / OURS
    try:
        ours.mkdir(parents=True, exist_ok=True)
        probe = ours / f"probe-{uuid.uuid4().hex}"  # in pods, every process has the same pid
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError):
        raise JobError(JobReason.INVALID_SPEC, f"spec.output.path: {path} is a file, or below one: choose another path") from None
    except OSError as error:
        if is_transient(error) and error.errno != errno.EROFS:  # a folder that was never to be written to
            raise
        if claim is not None:
            raise JobError(
                JobReason.INVALID_SPEC,
                f"spec.output.path: cannot write to the folder {path.relative_to(output_root)} of {claim} as uid {os.getuid()} "
                f"({error.strerror}): let that uid write there (chown, or an fsGroup for the workers), or choose another folder",
            ) from None
        raise JobError(
            JobReason.INVALID_SPEC,
            f"spec.output.path: cannot write below {output_root} ({error.strerror}): pass a folder for the outputs with --output-root DIR",
        ) from None


def _refused(job: PipelineJob, why: str) -> JobError:
    field = "spec.output.path" if job.spec.output.path else "spec.output.path (by default output/<namespace>/<name>)"
    return JobError(JobReason.INVALID_SPEC, f"{field}: {job.output_path!r} {why}: choose another folder")


def _real(path: Path) -> Path:
    """The path without links; unlike Path.resolve, it bears links that lead in a circle."""
    return Path(os.path.realpath(path))


def _inside(path: Path, root: Path) -> bool:
    return path == root or root in path.parents
