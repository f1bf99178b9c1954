"""Pages of docs/: their files are written, their commands are run, and print what stands below them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from support.project import Project

REPOSITORY = Path(__file__).parents[2]
HERE = "~/work"  # on the pages
FILE = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")


def _timeless(text: str) -> str:
    return "\n".join(re.sub(r"\d+\.\d (m?s)\b", r"… \1", line).rstrip() for line in text.splitlines()).strip()


def _follow(project: Project, page: str) -> tuple[int, int]:
    """(files, commands) of a page, all of them tried."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for name, content in FILE.findall(text):
        project.write(content, name)
    project.environment["COLUMNS"] = "100"
    ran = [command for block in CONSOLE.findall(text) for command in COMMAND.findall(block)]
    for command, expected in ran:
        program, *arguments = shlex.split(command)
        if program == "pipelinejob":
            found = project.run(*arguments)
            printed = found.out or found.err
            assert found.code == (2 if expected.startswith("InvalidSpec") else 0), (command, found.err)
        else:
            printed = subprocess.run([program, *arguments], cwd=project.root, capture_output=True, text=True, check=True).stdout
        assert not expected or _timeless(printed.replace(str(project.root), HERE)) == _timeless(expected), command
    assert len(FILE.findall(text)) == text.count("```python") + text.count("```yaml"), "each file has a name"
    return len(FILE.findall(text)), len(ran)


def test_functions_of_ones_own(project: Project) -> None:
    for folder in ("fashion", "models"):
        shutil.copytree(REPOSITORY / "data" / folder, project.root / folder)
    assert _follow(project, "docs/functions.md") == (9, 11)
    assert (project.root / "framed.png").exists()
    assert project.run("run", "cluster.yaml").code == 0
    assert project.table("out/bright/metadata.csv")[0]["brightness"]


def test_the_tutorial(project: Project) -> None:
    shutil.copytree(REPOSITORY / "data/fashion", project.root / "data/fashion")
    assert _follow(project, "docs/tutorial.md") == (1, 11)


def test_coming_from_celery(project: Project) -> None:
    shutil.copytree(REPOSITORY / "data/fashion", project.root / "fashion")
    assert _follow(project, "docs/coming-from-celery.md") == (1, 1)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("docs/**/*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in LINK.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        path = (REPOSITORY / page).parent / target if target else REPOSITORY / page
        assert path.exists(), f"{page}: {target}"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings], f"{page}: {anchor}"
