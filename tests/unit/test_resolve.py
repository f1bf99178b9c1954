"""From spec.functions to the functions of a run, and the paths of the fields in its messages."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from pipelinejob.functions import resolve_functions

FN = """
def mark(image, row, *, level: int = 3, text: str):
    return {"year": row["year"]}

def plain(image, row):
    return image
"""


def entry(name: str, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "params": params or {}, "file": None, "module": None, "timeoutSeconds": 300, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fn.py").write_text(FN)
    (tmp_path / "broken.py").write_text("x = 1\nx = = 2\n")
    (tmp_path / "raises.py").write_text("import json\n\njson.loads('[')\n")
    return tmp_path


def test_defaults_and_digests_are_filled_in(folder: Path) -> None:
    resolved, problems = resolve_functions([entry("random_crop"), entry("resize", {"width": 4, "height": 5}, timeoutSeconds=9)], folder)
    assert problems == []
    assert [step["name"] for step in resolved] == ["random_crop", "resize"]
    assert list(resolved[0]["params"]) == ["ratio"]
    assert resolved[1]["params"] == {"width": 4, "height": 5, "fit": "stretch", "filter": "bilinear", "background": "white"}
    assert [step["digest"] for step in resolved] == ["builtin:random_crop@1", "builtin:resize@1"]
    assert resolved[1]["timeoutSeconds"] == 9 and "path" not in resolved[1]


def test_a_file_is_relative_to_the_job_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    for name in ("fn.py", "./fn.py", "sub/../fn.py"):
        resolved, problems = resolve_functions([entry("mark", {"text": "t"}, file=name)], folder)
        assert problems == []
        assert resolved[0]["path"] == os.path.realpath(folder / "fn.py") and resolved[0]["file"] == name
        assert resolved[0]["digest"] == f"sha256:{hashlib.sha256(FN.encode()).hexdigest()}"
        assert resolved[0]["params"] == {"level": 3, "text": "t"}
    assert not list(folder.rglob("__pycache__"))


def test_a_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "test_resolve_pkg").mkdir()
    (folder / "test_resolve_pkg" / "mod.py").write_text(FN)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    resolved, problems = resolve_functions([entry("plain", module="test_resolve_pkg.mod")], folder)
    assert problems == [] and resolved[0]["digest"] == f"sha256:{hashlib.sha256(FN.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([entry("resize", {"width": "abc", "height": 1})], [
            ("functions[0].params.width", "must be a positive integer of at most 16384, got 'abc'"),
        ]),
        ([entry("grayscale"), entry("resize", {"widht": 5, "width": 5})], [
            ("functions[1].params.widht", "unknown parameter; did you mean 'width'?"),
            ("functions[1].params.height", "is required: a positive integer of at most 16384"),
        ]),
        ([entry("center_crop")], [("functions[0].params", "expected either ratio, or width and height, got none of them")]),
        ([entry("rezise")], [("functions[0].name", "no built-in function 'rezise'; did you mean 'resize'?")]),
        ([entry("mark", file="fn.py", module="pkg.mod")], [("functions[0].module", "stands beside 'file': give one of them")]),
        ([entry("mark", file="gone.py")], [("functions[0].file", "gone.py: No such file or directory")]),
        ([entry("mark", file=".")], [("functions[0].file", ".: Is a directory")]),
        ([entry("mark", file="loop.py")], [("functions[0].file", "loop.py: Too many levels of symbolic links")]),
        ([entry("mark", file="x" * 300)], [("functions[0].file", "x" * 300 + ": File name too long")]),
        ([entry("marc", file="fn.py")], [("functions[0].file", "fn.py defines no function 'marc'; did you mean 'mark'?")]),
        ([entry("mark", file="broken.py")], [("functions[0].file", "broken.py, line 2: SyntaxError: invalid syntax")]),
        ([entry("mark", {"level": 1.5, "text": "t"}, file="fn.py")], [("functions[0].params.level", "must be an integer, got 1.5")]),
        ([entry("mark", file="fn.py")], [("functions[0].params.text", "is required: a text")]),
        ([entry("f", module="no_such_module_of_ours")], [("functions[0].module", None)]),
        ([entry("f", module="json")], [("functions[0].module", None)]),
    ],
)  # fmt: skip
def test_problems(folder: Path, entries: list[dict[str, Any]], expected: list[tuple[str, str | None]]) -> None:
    (folder / "loop.py").symlink_to("loop.py")
    _, problems = resolve_functions(entries, folder)
    assert [field for field, _ in problems] == [field for field, _ in expected]
    for (_, message), (_, wanted) in zip(problems, expected, strict=True):
        assert message == wanted or (wanted is None and message)


def test_code_that_raises_when_it_is_loaded_is_named_with_its_line(folder: Path) -> None:
    _, [(field, message)] = resolve_functions([entry("mark", file="raises.py")], folder)
    assert field == "functions[0].file" and message.startswith("raises.py, line 3: JSONDecodeError")


def test_several_problems_are_told_at_once(folder: Path) -> None:
    entries = [entry("nope"), entry("resize", {"width": 0}), entry("mark", file="gone.py"), entry("flip", {"direction": "up"})]
    _, problems = resolve_functions(entries, folder)
    assert [field for field, _ in problems] == [
        "functions[0].name",
        "functions[1].params.width",
        "functions[1].params.height",
        "functions[2].file",
        "functions[3].params.direction",
    ]


def test_no_functions_at_all(folder: Path) -> None:
    assert resolve_functions([], folder) == ([], [])
