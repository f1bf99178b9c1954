"""What users' functions need beside the worker image: installed once, into a folder named by the digest of the list."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipelinejob import sandbox

FOLDER = ".pipelinejob/packages"  # below the data root
_PATIENCE = 900.0  # seconds


def install(requirements: Sequence[str], root: Path) -> Path:
    """The folder below `root` that has them; made now, unless somebody has made it before.

    From wheels alone, each by its hash: nothing of theirs is run, and nothing else than was pinned is taken.

    Raises:
        ValueError: they cannot be installed; the text has pip's own last words.
    """
    folder = root / hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    if folder.is_dir():
        return folder
    made = root / f".new-{uuid.uuid4().hex}"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(requirements) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--target", str(made)]
        options = ["--no-input", "--no-cache-dir", "--no-compile", "--disable-pip-version-check", "--quiet", "-r", file.name]
        try:
            ran = subprocess.run(
                [*command, *options], env=sandbox.environment(), capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            shutil.rmtree(made, ignore_errors=True)
            raise ValueError(f"requirements: not installed after {_PATIENCE:.0f} s") from None
    if ran.returncode != 0:
        shutil.rmtree(made, ignore_errors=True)
        words = " ".join((ran.stderr or "pip failed").split())
        raise ValueError("requirements: " + words[max(0, words.find("ERROR:")) :][:400])
    with suppress(OSError):  # another pod was quicker
        os.rename(made, folder)
    shutil.rmtree(made, ignore_errors=True)
    return folder


def check_installed(requirements: Sequence[str]) -> None:
    """On one machine nothing is installed for a job: they must be there.

    Raises:
        ValueError: the first that is not.
    """
    for line in requirements:
        name, _, version = re.split(r"[\s;]", line)[0].partition("==")
        try:
            found = importlib.metadata.version(name.partition("[")[0])
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found != version:
            has = f"has {name} {found}" if found else f"has no {name}"
            raise ValueError(f"requirements: this environment {has}: pip install '{name}=={version}'")
