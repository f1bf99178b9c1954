"""docs/functions.md: its files are written, its commands are run, and print what stands below them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from support.project import Project

REPOSITORY = Path(__file__).parents[2]
FILE = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def _timeless(text: str) -> str:
    return re.sub(r"\d+\.\d ms", "… ms", text).rstrip()


def test_the_examples(project: Project) -> None:
    page = (REPOSITORY / "docs/functions.md").read_text(encoding="utf-8")
    for folder in ("fashion", "models"):
        shutil.copytree(REPOSITORY / "data" / folder, project.root / folder)
    for name, text in FILE.findall(page):
        project.write(text, name)
    project.environment["COLUMNS"] = "100"
    ran = [command for block in CONSOLE.findall(page) for command in COMMAND.findall(block)]
    assert len(FILE.findall(page)) == page.count("```python") + page.count("```yaml") == 9 and len(ran) == 11
    for command, expected in ran:
        program, *arguments = shlex.split(command)
        if program == "pipelinejob":
            found = project.run(*arguments)
            printed = found.out or found.err
            assert found.code == (2 if expected.startswith("InvalidSpec") else 0), (command, found.err)
        else:
            printed = subprocess.run([program, *arguments], cwd=project.root, capture_output=True, text=True, check=True).stdout
        assert not expected or _timeless(printed) == _timeless(expected), command
    assert (project.root / "framed.png").exists()
    assert project.run("run", "cluster.yaml").code == 0
    assert project.table("out/bright/metadata.csv")[0]["brightness"]
