"""What the ledger is told about a function that failed."""

from __future__ import annotations

import re

_LONGEST = 500
NO_MEMORY = "more than a process here may use; give the workers more memory, or have fewer of them"
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+")
# The folders of an absolute path: in quotes up to the closing quote (folders may hold spaces), bare up to a space.
_QUOTED_FOLDERS = re.compile(r"""(?<=(['"]))/(?:(?!\1)[^\n])*?([^/'"\n]*)(?=\1)""")
_BARE_FOLDERS = re.compile(r"""(?<![\w.:/'"])/(?:[^\s/'"]+/)*(?=[^\s/])|(?<=:)/(?!/)(?:[^\s/'"]+/)*(?=[^\s/])""")


class FunctionFailure(Exception):
    """A function cannot do this row; the text is in our words and told as it stands."""


def told(error: BaseException) -> str:
    """`error` in one printable line of at most 500 characters: its type and the first line of its text.

    Addresses are masked and absolute paths cut to their last part, so that the same row tells the same on any machine.
    """
    try:
        lines = str(error).splitlines()
    except Exception:  # a user's __str__ may itself be broken
        lines = []
    text = lines[0] if lines else NO_MEMORY if isinstance(error, MemoryError) else ""
    if not isinstance(error, FunctionFailure):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = _BARE_FOLDERS.sub("", _QUOTED_FOLDERS.sub(r"\2", _ADDRESS.sub("0x…", text)))
    return "".join(character if character.isprintable() else " " for character in text)[:_LONGEST]
