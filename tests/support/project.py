"""A user's folder for a test: a CSV, images, a job file, and the `pipelinejob` command run in it as a user types it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image

COMMAND = str(Path(sys.executable).with_name("pipelinejob"))
csv.field_size_limit(sys.maxsize)  # a cell may have a MiB
COLUMNS = ("id", "gender", "season", "year", "name")


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of standard output, as --json promises it."""
        value: dict[str, Any] = json.loads(self.out.rstrip("\n").splitlines()[-1])
        return value


class Project:
    """A folder that is the data root and the current directory of the commands run in it."""

    def __init__(self, root: Path, database: str | None) -> None:
        self.root = root
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PIPELINEJOB_")}
        if database:
            self.environment["PIPELINEJOB_DATABASE_URL"] = database

    def write_csv(self, rows: Iterable[Sequence[object]], columns: Sequence[str] = COLUMNS, name: str = "rows.csv") -> Path:
        """Writes a well-formed CSV."""
        path = self.root / name
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
        return path

    def catalogue(self, count: int, *, without: Iterable[int] = (), broken: Iterable[int] = ()) -> None:
        """Writes rows.csv with `count` rows, ids from 1000, and img/<id>.jpg; some missing, some no images."""
        without, broken = set(without), set(broken)
        rows = []
        for row in range(count):
            rows.append((1000 + row, ("Men", "Women")[row % 2], ("Fall", "Summer", "Winter")[row % 3], 2008 + row % 5, f"Shirt {row}"))
            if row in broken:
                self.file(f"img/{1000 + row}.jpg", b"no image")
            elif row not in without:
                self.image(f"img/{1000 + row}.jpg", colour=(row * 7 % 256, row * 13 % 256, row * 29 % 256))
        self.write_csv(rows)

    def image(self, name: str, size: tuple[int, int] = (30, 40), colour: tuple[int, int, int] = (200, 30, 90)) -> Path:
        """Writes a small picture with a gradient, so that crops differ."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.merge("RGB", [Image.linear_gradient("L").resize(size).point(lambda v, c=c: (v + c) // 2) for c in colour])
        picture.save(path, quality=85)
        return path

    def file(self, name: str, data: bytes) -> Path:
        """Writes any file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def job(self, name: str = "job", file: str | None = None, **spec: Any) -> str:
        """Writes a job file over rows.csv with `spec` laid over the reference chain at a small size."""
        full: dict[str, Any] = {
            "source": {"csv": "rows.csv", "images": "img/{id}.jpg"},
            "functions": [
                {"name": "random_crop", "params": {"ratio": 0.8}},
                {"name": "resize", "params": {"width": 16, "height": 16}},
            ],
            "output": {"path": f"out/{name}"},
            "failurePolicy": {"maxFailedRowsPercent": 100},
        }
        source = {**full["source"], **spec.pop("source", {})}
        full = {**full, **spec, "source": {key: value for key, value in source.items() if value is not None}}
        document = {"apiVersion": "pipelinejob.dev/v1alpha1", "kind": "PipelineJob", "metadata": {"name": name}, "spec": full}
        path = self.root / (file or f"{name}.yaml")
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path.name

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Starts the command and does not wait for it."""
        return subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.root,
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 90) -> Ran:
        """Runs the command to its end."""
        process = self.start(*arguments, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ran(process.returncode, out, err)

    def table(self, path: str) -> list[dict[str, str]]:
        """A CSV of the output as dicts."""
        with open(self.root / path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def tree(self, output: str) -> dict[str, str]:
        """The promised files of an output folder with their digests: everything but `.pipelinejob/`."""
        root = self.root / output
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".pipelinejob" not in path.relative_to(root).parts
        }

    def write(self, text: str | bytes, name: str = "rows.csv") -> Path:
        """Writes a file exactly as given."""
        return self.file(name, text.encode() if isinstance(text, str) else text)

    def images(self, *ids: object) -> None:
        """Draws img/<id>.jpg for each id."""
        for number, id in enumerate(ids):
            self.image(f"img/{id}.jpg", colour=(number * 41 % 256, number * 97 % 256, number * 13 % 256))

    def text(self, path: str) -> str:
        """A file as text, its line ends as they are."""
        return (self.root / path).read_bytes().decode()

    def failed(self, output: str = "out/job") -> dict[int, tuple[str, str]]:
        """failures.csv as {row: (reason, message)}."""
        return {int(row["row"]): (row["reason"], row["message"]) for row in self.table(f"{output}/failures.csv")}

    def everything(self, folder: str = ".") -> dict[str, str]:
        """Every path below a folder with its digest, hidden ones included: to see that a command touched nothing."""
        root = self.root / folder
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in sorted(root.rglob("*"))
            if not path.is_socket()
        }
