"""From the functions of a spec to the functions of a run: checked, with defaults, digests and where files are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelinejob.functions.loading import load
from pipelinejob.functions.predict import DATA_ROOT


def resolve_functions(
    entries: Sequence[Mapping[str, Any]], folder: Path, root: Path | None = None
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Checks each entry of spec.functions and fills in what a run needs to know.

    Args:
        entries: as in the spec, {name, params, file, module, timeoutSeconds}.
        folder: the job file's folder, from where `file` is looked up.
        root: the data root, where the files are that functions read, such as models; None: they are not looked at.

    Returns:
        The entries with `params` complete, `digest` and, for a file, `path`; and the problems as (field, message),
        the field below `spec`, as "functions[0].params.width".
    """
    resolved: list[dict[str, Any]] = []
    problems: list[tuple[str, str]] = []
    for index, entry in enumerate(entries):
        field = f"functions[{index}]"
        if entry.get("file") and entry.get("module"):
            problems.append((f"{field}.module", "stands beside 'file': give one of them"))
            continue
        place = {"path": os.path.realpath(folder / entry["file"])} if entry.get("file") else {}
        try:
            function = load({**entry, **place})
        except ValueError as error:
            key = next((key for key in ("file", "module") if entry.get(key)), "name")
            problems.append((f"{field}.{key}", str(error)))
            continue
        checked = function.check(entry["params"])
        problems += [(f"{field}.params.{param}" if param else f"{field}.params", message) for param, message in checked]
        if problems:
            continue
        params = function.resolve(entry["params"])
        try:
            digest = function.digest if root is None else function.digest_with(params, root)
        except ValueError as error:
            problems.append((f"{field}.params", str(error)))
            continue
        resolved.append({**entry, **place, "params": params, "digest": digest})
    return resolved, problems


def main() -> None:
    """The same in a process of its own, without credentials: entries on standard input, the answer on standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # users' code may print when it is loaded
    entries = json.load(sys.stdin)
    json.dump(resolve_functions(entries, Path("/"), Path(os.environ[DATA_ROOT])), answers)
    answers.close()


def check_files(functions: Sequence[Mapping[str, Any]], root: Path) -> None:
    """Makes sure that the files which functions read are those that the job was planned with, and says where they are from now on.

    Raises:
        ValueError: one was changed, or is gone.
    """
    os.environ[DATA_ROOT] = str(root)
    for entry in functions:
        if "+" in (digest := str(entry.get("digest", ""))) and load(entry).digest_with(entry["params"], root) != digest:
            raise ValueError(f"{entry['name']}: its model was changed since the job was planned: put it back, or make a new job")
