"""The commands of docs/api.md against a server, as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from support.gateway import serving
from support.project import Project

REPOSITORY = Path(__file__).parents[2]


def test_the_commands_of_the_api_page(tmp_path: Path) -> None:
    project = Project(tmp_path, None)
    shutil.copytree(REPOSITORY / "data/fashion", project.root / "fashion")
    text = (REPOSITORY / "docs/api.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (curl .*\n(?:    (?!curl ).*\n)*)", text, re.MULTILINE)
    assert len(commands) == 4
    with serving(project) as served:
        for command in commands:
            line = command.replace("\n    ", "\n").replace("http://", "").replace("localhost:8080", served.url)
            ran = subprocess.run(["bash", "-c", line], cwd=project.root, capture_output=True, text=True, timeout=60)
            assert ran.returncode == 0, (command, ran.stderr)
            if "-o men.parquet" not in command:
                answer = json.loads(ran.stdout)
                assert "status" not in answer or "phase" in answer["status"], answer
            served.ends("men")
    assert (project.root / "men.parquet").read_bytes()[:4] == b"PAR1"
