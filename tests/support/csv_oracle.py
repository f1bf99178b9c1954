"""What Python's csv module makes of a file: the reference that the plan is held against."""

from __future__ import annotations

import csv
import io
import re

_BARE_CR = re.compile(r"\r(?!\n|\Z)")


def csv_rows(data: bytes, delimiter: str = ",") -> list[list[str]]:
    """The records that are not empty lines, the header among them; each byte is read as one Latin-1 character.

    A bare CR is replaced by a letter: csv takes it for a line end (or stops), while the contract makes it an ordinary
    character of a row that is then reported as malformed. Before the end of the file it is a line end to both.
    """
    text = _BARE_CR.sub("r", data.removeprefix(b"\xef\xbb\xbf").decode("latin-1"))
    return [cells for cells in csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter) if cells]


def quote_left_open(data: bytes, delimiter: str = ",") -> bool:
    """Whether the data ends inside quotes: only then does one more record end, after it, add no record."""
    return len(csv_rows(data + b"\nx\n", delimiter)) == len(csv_rows(data, delimiter))
