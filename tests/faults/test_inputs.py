"""Inputs that change under a job."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from support.project import Project

SLOW = "import time\ndef slow(image, row):\n    time.sleep(0.1)\n    return image\n"
ROWS, BATCH = 30, 5


def _digest(files: list[Path]) -> str:
    """`sha256sum` of these files, and of what it prints: as docs/guide.md says that a batch's inputsSha256 is made."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  img/{path.name}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_images_replaced_while_the_job_runs_show_in_the_manifest(project: Project) -> None:
    """Each batch has the digest of the bytes that it read, whatever its files are by now."""
    project.catalogue(ROWS)
    project.file("slow.py", SLOW.encode())
    batches = [[project.root / f"img/{1000 + row}.jpg" for row in range(first, first + BATCH)] for first in range(0, ROWS, BATCH)]
    before = [_digest(files) for files in batches]
    process = project.start("run", project.job(functions=[{"name": "slow", "file": "slow.py"}], sharding={"batchRows": BATCH}), "--json")
    end = time.monotonic() + 20
    while not (project.root / "out/job/images").is_dir() or not any((project.root / "out/job/images").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.02)
    for files in (batches[0], batches[-1]):
        project.image(f"img/{files[2].name}", colour=(255, 255, 255))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err

    manifest = json.loads((project.root / "out/job/manifest.json").read_text())
    read = [batch["inputsSha256"] for batch in manifest["batches"]]
    now = [_digest(files) for files in batches]
    assert read[1:-1] == before[1:-1] == now[1:-1]
    assert read[0] == before[0] != now[0]  # what the result was made of is gone
    assert read[-1] == now[-1] != before[-1]
