"""The template of `source.images`: literal text with columns in braces, such as `fashion/images/{id}.jpg`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_PARTS = re.compile(r"(\{\{|\}\}|\{[^{}]*\}|[{}])")


class Template(NamedTuple):
    """A parsed template: pieces are (literal text, or column name) in order."""

    pieces: tuple[tuple[bool, str], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, in order, each once."""
        return tuple(dict.fromkeys(text for is_column, text in self.pieces if is_column))

    @property
    def folder(self) -> str:
        """The folders that are the same for every row: the literal text up to the last slash before a column."""
        literal = ""
        for is_column, text in self.pieces:
            if is_column:
                break
            literal += text
        return literal.rpartition("/")[0]

    def fill(self, row: Mapping[str, str]) -> str:
        """The path for one row."""
        return "".join(row[text] if is_column else text for is_column, text in self.pieces)

    def fill_cells(self, indexes: Sequence[int], cells: Sequence[str]) -> str:
        """The path for one row given as cells; `indexes` are the positions of `pieces`' columns, -1 for literals."""
        return "".join(cells[index] if index >= 0 else text for index, (_, text) in zip(indexes, self.pieces, strict=True))


def parse(text: str) -> Template:
    """Parses a template; `{{` and `}}` stand for the braces themselves.

    Raises:
        ValueError: a brace without its partner, or an empty column name.
    """
    pieces: list[tuple[bool, str]] = []
    for part in _PARTS.split(text):
        if part in ("{{", "}}"):
            pieces.append((False, part[0]))
        elif part in ("{", "}"):
            raise ValueError(f"has a single {part!r}: write {part * 2!r} for the character itself")
        elif part == "{}":
            raise ValueError("has '{}': name a column, as in '{id}'")
        elif part.startswith("{"):
            pieces.append((True, part[1:-1]))
        elif part:
            pieces.append((False, part))
    return Template(tuple(pieces))
