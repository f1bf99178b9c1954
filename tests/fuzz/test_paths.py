"""Ways out of the data root, and files that are none, tried through the command line: refused, at once, with nothing read or written."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.project import Project, Ran

pytestmark = pytest.mark.timeout(60)  # a named pipe would wait for a writer for ever

SECRET = "id,secret\nstolen,stolen\n"


@pytest.fixture
def outside(project: Project) -> Iterator[Path]:
    """A folder beside the data root, whose name begins like it, with a CSV and a picture; links into it from the root."""
    folder = project.root.with_name(f"{project.root.name}-beside")
    (folder / "img").mkdir(parents=True)
    (folder / "rows.csv").write_text(SECRET)
    project.catalogue(2)
    (folder / "img/secret.jpg").write_bytes((project.root / "img/1000.jpg").read_bytes())
    (project.root / "links").mkdir()
    links = {
        "file.csv": folder / "rows.csv", "file.jpg": folder / "img/secret.jpg", "folder": folder, "relative": f"../../{folder.name}",
        "twice": "folder", "top": "/", "proc": "/proc/self", "environ": "/proc/self/environ", "zero": "/dev/zero",
        "stdin": "/dev/stdin", "dangling": "gone", "dangling-outside": folder / "gone", "loop": "loop", "ring": "gnir", "gnir": "ring",
        "inside.jpg": "../img/1000.jpg", "inside": "../img",
    }  # fmt: skip
    for name, target in links.items():
        (project.root / "links" / name).symlink_to(target)
    (project.root / "folder.csv").mkdir()
    os.mkfifo(project.root / "pipe")
    (project.root / "links/to-pipe").symlink_to("../pipe")
    here = os.getcwd()
    os.chdir(project.root)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        os.chdir(here)
        yield folder


def refused(ran: Ran, reason: str, *named: str) -> None:
    """InvalidSpec is exit 2, a missing input exit 1; the message names the field."""
    assert (ran.code, ran.json["reason"]) == (2 if reason == "InvalidSpec" else 1, reason), ran
    assert all(part in ran.json["message"] for part in named), ran.json["message"]
    assert "Traceback" not in ran.err and "stolen" not in ran.out + ran.err


CSVS = {
    "img/../../rows.csv": "InvalidSpec", "links/file.csv": "InvalidSpec", "links/folder/rows.csv": "InvalidSpec",
    "links/relative/rows.csv": "InvalidSpec", "links/twice/rows.csv": "InvalidSpec", "links/environ": "InvalidSpec",
    "links/zero": "InvalidSpec", "links/dangling-outside": "InvalidSpec",
    "links/dangling": "InputNotFound", "links/ring/rows.csv": "InputNotFound", "folder.csv": "InputNotFound", "pipe": "InputNotFound",
    "links/to-pipe": "InputNotFound", "socket": "InputNotFound", "x" * 256: "InputNotFound", "x/" * 2100 + "rows.csv": "InputNotFound",
}  # fmt: skip


def test_no_csv_outside_the_root_and_none_that_is_no_file(project: Project, outside: Path) -> None:
    for csv, reason in CSVS.items():
        refused(project.run("run", project.job(source={"csv": csv, "images": None}), "--json", timeout=20), reason, "spec.source.csv")
    for csv in ("pipe", "links/zero"):
        refused(project.run("plan", project.job(source={"csv": csv, "images": None}), "--json", timeout=20), CSVS[csv], "spec.source.csv")
    assert not (project.root / "out").exists()


OUTPUTS = {
    "out/../../x": "'..'", "links/folder/out": "leads outside", "links/relative": "leads outside", "links/twice/out": "leads outside",
    "links/proc/out": "leads outside", "links/dangling-outside": "leads outside", "links/inside/out": "input folder", "links/ring/out": "",
    "links/to-pipe": "", "pipe/out": "", "socket": "", "x" * 256: "too long", "x/" * 2100 + "out": "too long",
}  # fmt: skip


def test_no_output_outside_the_root_and_none_that_is_no_folder(project: Project, outside: Path) -> None:
    before = sorted(outside.rglob("*"))
    for path, part in OUTPUTS.items():
        refused(project.run("run", project.job(output={"path": path}), "--json", timeout=20), "InvalidSpec", "spec.output.path", part)
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize("name", ["images", ".pipelinejob"])
def test_links_laid_into_the_output_lead_nothing_outside(project: Project, outside: Path, name: str) -> None:
    before = sorted(outside.rglob("*"))
    output = project.root / "out/job"
    (output / ".pipelinejob").mkdir(parents=True)
    if name == ".pipelinejob":
        (output / name).rmdir()
    (output / name).symlink_to(outside / "img")
    refused(project.run("run", project.job(), "--json"), "InvalidSpec", "spec.output.path", f"a link called {name}")
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize("name", ["metadata.csv", "failures.csv", "manifest.json"])
def test_a_link_in_the_place_of_a_table_is_replaced(project: Project, outside: Path, name: str) -> None:
    (project.root / "out/job/.pipelinejob").mkdir(parents=True)
    (project.root / "out/job" / name).symlink_to(outside / "rows.csv")
    ran = project.run("run", project.job(), "--json")
    assert ran.code == 0 and not (project.root / "out/job" / name).is_symlink(), ran
    assert (outside / "rows.csv").read_text() == SECRET


CELLS = {
    "/etc/passwd": "outside the data root", "//etc/passwd": "outside the data root", "../img/1000.jpg": "outside the data root",
    "..": "outside the data root", "img/../../x": "outside the data root", "/": "outside the data root",
    "links/file.jpg": "outside the data root", "links/folder/img/secret.jpg": "outside the data root",
    "links/relative/img/secret.jpg": "outside the data root", "links/twice/img/secret.jpg": "outside the data root",
    "links/top/etc/passwd": "outside the data root", "links/proc/environ": "outside the data root",
    "links/environ": "outside the data root",
    "links/zero": "outside the data root", "links/stdin": "outside the data root",
    "links/dangling-outside": "", "links/dangling": "no such file", "links/loop": "symbolic links", "links/ring/x.jpg": "symbolic links",
    "pipe": "not a regular file", "links/to-pipe": "not a regular file", "socket": "not a regular file", "folder.csv": "is a folder",
    "img": "is a folder", ".": "is a folder", "img/": "is a folder", "x" * 256: "too long", "x/" * 2100 + "y": "too long",
    "img\\1000.jpg": "no such file", "file:///etc/passwd": "no such file", "~/x.jpg": "no such file",
    "$HOME/x.jpg": "no such file", "http://host/x.jpg": "addresses", "img/1000.jpg\x7f": "no such file", "": "is empty",
    "img/1000.jpg": None, "links/inside.jpg": None, "links/inside/1001.jpg": None, "./img//1000.jpg": None,
}  # fmt: skip


def test_columns_that_lead_outside_only_together(project: Project, outside: Path) -> None:
    rows = [("out", ".", "./x.jpg"), ("link", "links/fol", "der/img/secret.jpg"), ("top", "/etc", "/passwd"), ("in", "img/", "/1000.jpg")]
    project.write_csv(rows, ("id", "a", "b"))
    ran = project.run("run", project.job(source={"images": "{a}{b}"}), "--json")
    assert ran.code == 0, ran
    assert {row: reason for row, (reason, _) in project.failed().items()} == dict.fromkeys(range(3), "ImageNotFound")
    assert all("outside the data root" in message for _, message in project.failed().values())


def cells_through(project: Project, template: str, cells: list[str]) -> dict[str, tuple[str, str]]:
    project.write_csv([(f"r{number}", cell) for number, cell in enumerate(cells)], ("id", "a"))
    ran = project.run("run", project.job(source={"images": template}), "--json", timeout=60)
    assert ran.code == 0 and ran.json["rows"]["pending"] == 0, ran
    rows = {row["id"]: (row["reason"], row["message"]) for row in project.table("out/job/failures.csv")}
    return {cell: rows.get(f"r{number}", ("", "")) for number, cell in enumerate(cells)}


def test_cells_that_lead_outside(project: Project, outside: Path) -> None:
    found = cells_through(project, "{a}", list(CELLS))
    for cell, part in CELLS.items():
        reason, message = found[cell]
        assert reason == ("" if part is None else "ImageNotFound"), (cell, message)
        assert (part or "") in message or len(cell) > 400, (cell, message)
        assert str(outside) not in message


@pytest.mark.parametrize("folder", ["links/folder/img", "links/proc", "links/ring", "pipe"])
def test_templates_whose_folder_leads_outside(project: Project, outside: Path, folder: str) -> None:
    found = cells_through(project, f"{folder}/{{a}}", ["secret.jpg", "environ", "../x"])
    assert {reason for reason, _ in found.values()} == {"ImageNotFound"}


@pytest.mark.parametrize("template", ["/abs/{id}.jpg", "../{id}.jpg", "img/../../{id}.jpg", "img/{id}/../../../x", "\0{id}"])
def test_templates_that_lead_outside_by_themselves(project: Project, outside: Path, template: str) -> None:
    refused(project.run("run", project.job(source={"images": template}), "--json"), "InvalidSpec", "spec.source.images")


IDS = ["/", "/etc/passwd", "..", "../x", "a/../../x", "..\\x", "\\", ".", ".pipelinejob", "a\x1b[2J", "\x01", "\x85", "a\nb", "x" * 252,
       "\U0001f600" * 63, ""]  # fmt: skip
GOOD_IDS = ["a..b", "C:x", "con", "a b", "-rf", "$(id)", "%2e%2e%2f", "x" * 251, "\U0001f600" * 62, "\u202egpj", "～"]


def test_ids_that_lead_outside(project: Project, outside: Path) -> None:
    project.write_csv([(id, "1000") for id in [*IDS, *GOOD_IDS]], ("id", "a"))
    before = set(project.everything())
    ran = project.run("run", project.job(source={"images": "img/{a}.jpg"}), "--json")
    assert ran.code == 0, ran
    failed = project.failed()
    assert {row: reason for row, (reason, _) in failed.items()} == dict.fromkeys(range(len(IDS)), "InvalidOutputName")
    made = {path for path in project.everything() if path.startswith("out/job/images/000000000/")}
    assert made == {f"out/job/images/000000000/{id}.jpg" for id in GOOD_IDS}
    assert {path for path in set(project.everything()) - before if not path.startswith(("out", ".pipelinejob"))} == {"job.yaml"}


def test_what_is_no_job_file(project: Project, outside: Path) -> None:
    for name in ("folder.csv", "socket", "links/loop", "links/zero", "x" * 300):
        refused(project.run("run", name, "--json", timeout=20), "InvalidSpec", name)
