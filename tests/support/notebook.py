"""The notebook of the docs, run from top to bottom as a person does, and its pictures.

    PYTHONPATH=tests .venv/bin/python -m support.notebook    # runs it in a temporary folder and draws docs/pictures/notebook-*.png anew

It runs where the environment says, as for a person: on this machine, or behind PIPELINEJOB_URL.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode
from PIL import Image

from pipelinejob.reasons import RowReason

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "docs/notebooks/catalogue.ipynb"
PICTURES = REPOSITORY / "docs/pictures"
PICTURED = {"categories", "images", "everything-categories", "reasons"}  # the cells that draw
FASHION = REPOSITORY / "data/fashion"
SECONDS = 90  # that a cell may take


class Executed:
    """A notebook after its run; its cells go by their ids."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.cells: dict[str, NotebookNode] = {cell["id"]: cell for cell in notebook["cells"] if cell["cell_type"] == "code"}

    def shown(self, cell: str) -> str:
        """What a cell shows as plain text, its last output."""
        return str([output["data"]["text/plain"] for output in self.cells[cell]["outputs"] if "data" in output][-1])

    def table(self, cell: str) -> dict[str, int]:
        """A shown table of one column of numbers."""
        return {name: int(number) for name, number in (line.split() for line in self.shown(cell).splitlines()[1:])}

    def errors(self) -> list[str]:
        """The errors of all cells, and what was said on standard error."""
        outputs = [output for cell in self.cells.values() for output in cell["outputs"]]
        return [str(one) for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"]

    def pictures(self) -> dict[str, bytes]:
        """The PNG of each cell that draws one."""
        found = {}
        for name, cell in self.cells.items():
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    found[name] = base64.b64decode(output["data"]["image/png"])
        return found


def execute(folder: Path, environment: Mapping[str, str]) -> Executed:
    """Runs a copy of the notebook in a folder, in a process of its own: Jupyter's sockets and signal handlers end with it.

    Raises:
        RuntimeError: a cell failed; with the cell and its traceback.
    """
    copy = Path(shutil.copy(NOTEBOOK, folder))
    jupyter = {"JUPYTER_RUNTIME_DIR": str(folder / ".jupyter"), "JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(folder / ".ipython")}
    code = (
        "import nbclient, nbformat, sys\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=int(sys.argv[2])).execute()\n"
        "nbformat.write(notebook, sys.argv[1])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(copy), str(SECONDS)],
        cwd=folder,
        env={**environment, **jupyter},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    return Executed(nbformat.reads(copy.read_text(encoding="utf-8"), as_version=4))


def check(executed: Executed) -> None:
    """What the notebook shows is what the sample catalogue holds, counted here by other means."""
    totals = json.loads((FASHION / "expected.json").read_text(encoding="utf-8"))["totals"]
    rows, good, malformed, missing = (totals[key] for key in ("rows", "good", "malformed", "missing"))
    table = pd.read_csv(FASHION / "styles.csv", dtype=str, on_bad_lines="skip")
    matching = table[(table["gender"] == "Men") & (table["season"] == "Fall") & (table["year"] == "2010")]

    assert not executed.errors(), executed.errors()
    assert executed.shown("query") == executed.shown("everything") == "'Complete'"
    assert executed.table("query-rows") == _rows(rows, succeeded=len(matching), filtered=rows - malformed - len(matching), failed=malformed)
    assert executed.table("everything-rows") == _rows(rows, succeeded=good, failed=rows - good)
    assert executed.table("redrive") == _rows(missing, failed=missing)
    assert f"{rows}/{rows} rows, {malformed} failed" in str(executed.cells["query"]["outputs"]), "the progress bar"
    assert [line.split()[1] for line in executed.shown("metadata").splitlines()[1:]] == list(matching["id"])
    reasons = Counter(word for word in executed.shown("failures").split() if word in set(RowReason))
    assert reasons == {"ImageInvalid": totals["corrupt"], "ImageNotFound": missing, "MalformedRow": malformed}

    drawn = {name: Image.open(io.BytesIO(picture)).convert("RGB") for name, picture in executed.pictures().items()}
    assert set(drawn) == PICTURED
    assert all(picture.width > 500 and picture.getextrema()[0] == (0, 255) for picture in drawn.values()), "something is in each"
    assert len(drawn["images"].getcolors(1 << 24) or []) > 5_000, "photographs, not bars"


def _rows(total: int, **counts: int) -> dict[str, int]:
    return {"total": total, "succeeded": 0, "filtered": 0, "skipped": 0, "failed": 0, "pending": 0, **counts}


def main() -> None:
    """Draws the pictures of the docs anew."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FASHION, Path(folder, "fashion"))
        executed = execute(Path(folder), {"PIPELINEJOB_DATA": folder, **os.environ})
    check(executed)
    for name, picture in executed.pictures().items():
        path = PICTURES / f"notebook-{name}.png"
        Image.open(io.BytesIO(picture)).convert("RGB").quantize(256).save(path, optimize=True)  # a third of the size
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
