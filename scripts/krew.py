#!/usr/bin/env python3
"""Writes dist/kubectl-pipelinejob.zip, the archive of manifests/krew/pipelinejob.yaml: the same bytes wherever it is made.

`kubectl krew install --manifest=manifests/krew/pipelinejob.yaml --archive=dist/kubectl-pipelinejob.zip` installs it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = {"kubectl-pipelinejob": ROOT / "manifests/krew/kubectl-pipelinejob", "LICENSE": ROOT / "LICENSE"}


def archive() -> bytes:
    """The zip: not compressed, for compressors differ, and of no time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as file:
        for name, path in FILES.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3  # Unix, whose permissions follow
            entry.external_attr = (0o755 if name.startswith("kubectl") else 0o644) << 16
            file.writestr(entry, path.read_bytes())
    return made.getvalue()


if __name__ == "__main__":
    target = ROOT / "dist/kubectl-pipelinejob.zip"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(archive())
    print(f"{hashlib.sha256(archive()).hexdigest()}  {target.relative_to(ROOT)}")
