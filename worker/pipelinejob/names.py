"""The names of output files: which ids can be one, and which two ids would be the same file."""

from __future__ import annotations

import unicodedata

from pipelinejob.reasons import RowFailure, RowReason

EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
MAX_NAME_BYTES = 255


def claim(id: str, extension: str, taken: dict[str, int], row: int) -> str:
    """Returns the file name for an id and notes it in `taken` (folded id → the row that owns it).

    Two ids that some file systems would store as one file (by NFC and case folding) are the same name.

    Raises:
        RowFailure: InvalidOutputName, or DuplicateId when an earlier row of the batch owns the name.
    """
    name = f"{id}.{extension}"
    problem = _problem(id, name)
    if problem:
        raise RowFailure(RowReason.INVALID_OUTPUT_NAME, problem)
    folded = id.lower() if id.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", id).casefold())
    if folded in taken:
        raise RowFailure(RowReason.DUPLICATE_ID, f"row {taken[folded]} of the same batch has this id already")
    taken[folded] = row
    return name


def _problem(id: str, name: str) -> str | None:
    if not id:
        return "the id is empty"
    if id.startswith("."):
        return "the id begins with a dot"
    if "/" in id or "\\" in id:
        return "the id holds a slash or a backslash"
    if not id.isprintable() and any(unicodedata.category(char) == "Cc" for char in id):
        return "the id holds a control character"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"the file name would have {len(name.encode())} bytes, more than {MAX_NAME_BYTES}"
    return None


def folder(first_row: int) -> str:
    """The folder of a batch below images/: its first row in nine digits."""
    return f"{first_row:09d}"
