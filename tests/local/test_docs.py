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
FUNCTION = re.compile(r"^```python\n# fn.py\n(.*?)^```$", re.DOTALL | re.MULTILINE)
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


def test_the_commands_of_the_readme(project: Project) -> None:
    """Each in its turn, with a job that has failed rows; what a job that has ended cannot do is refused for that alone."""
    project.catalogue(12, without=[3])
    (project.root / "rows.csv").rename(project.root / "your.csv")
    project.write(FUNCTION.search((REPOSITORY / "README.md").read_text(encoding="utf-8"))[1], "fn.py")  # type: ignore[index]
    project.images("1163")
    ran = []
    for line in re.findall(r"^    pipelinejob (.*?)(?:  +#.*)?$", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        for command in re.sub(r"[][]", "", line).replace("NAME", "job").replace("DIR", ".").replace(" N", " 3").split(" · "):
            if command.startswith("serve"):
                continue  # it does not end: tests/gateway starts it
            found = project.run(*shlex.split(command))
            wrong = found.code == 2 and "has ended" not in found.err and "no job 'job'" not in found.err
            assert not wrong and found.code in (0, 2), (command, found.err)
            ran.append(command.split()[0])
            if ran == ["init"]:
                shutil.move(project.root / "your.yaml", project.root / "job.yaml")
                text = (project.root / "job.yaml").read_text()
                (project.root / "job.yaml").write_text(text.replace("name: your", "name: job").replace("Percent: 5", "Percent: 100"))
    assert len(ran) == 18 and ran.count("plan") == 2


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
