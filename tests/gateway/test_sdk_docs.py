"""The examples of docs/sdk.md: run in order over the sample catalogue, each prints what stands below it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from support.gateway import serving
from support.project import Project

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
BETWEEN = "-- the next example --"


def test_the_examples(tmp_path: Path, database: str) -> None:
    for name in ("data/fashion", "manifests/examples"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    page = (REPOSITORY / "docs/sdk.md").read_text(encoding="utf-8")
    examples = EXAMPLE.findall(page)
    assert len(examples) == page.count("```python") > 10
    code = []
    for example, _ in examples:
        if file := re.match(r"# (\w+\.py)\n", example):
            (tmp_path / file[1]).write_text(example, encoding="utf-8")
        else:
            code.append(f"{example}print({BETWEEN!r})\n")

    project = Project(tmp_path, database)
    with serving(project) as gateway:
        script = project.write("".join(code).replace("http://127.0.0.1:8080", gateway.url), "examples.py")
        ran = subprocess.run([sys.executable, script], cwd=tmp_path, env=project.environment, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    printed = ran.stdout.split(f"{BETWEEN}\n")[:-1]
    assert printed == [expected for example, expected in examples if not example.startswith("# ")]
