"""The contract's reading of a CSV as a machine over characters: a second opinion where Python's csv module has none."""

from __future__ import annotations

from typing import NamedTuple


class Read(NamedTuple):
    """The cells of a record, and whether a bare CR stands outside quotes in it."""

    cells: list[str]
    stray_cr: bool


class Machine:
    """Reads text character by character; `inside` says afterwards whether a quote was left open."""

    def __init__(self, text: str, delimiter: str = ",") -> None:
        self.records: list[Read] = []
        self.inside = False
        cells: list[str] = []
        cell, start, after_quote, stray = "", True, False, False
        text = text.removesuffix("\r")  # at the end of a file it is a line end
        characters = list(text.replace("\r\n", "\ue000"))  # a CR LF is one line end, or two characters of data
        for character in characters:
            data = {"\ue000": "\r\n"}.get(character, character)
            if self.inside and character == '"':
                self.inside, after_quote = False, True
            elif self.inside:
                cell += data
            elif after_quote and character == '"':
                cell += '"'
                self.inside, after_quote = True, False
            elif character == delimiter:
                cells.append(cell)
                cell, start, after_quote = "", True, False
            elif character in ("\n", "\ue000"):
                if cells or cell or not start:
                    self.records.append(Read([*cells, cell], stray))
                cells, cell, start, after_quote, stray = [], "", True, False, False
            elif character == '"' and start:
                self.inside, start = True, False
            else:
                stray = stray or character == "\r"
                cell += data
                start = after_quote = False
        if cells or cell or not start:
            self.records.append(Read([*cells, cell], stray))
