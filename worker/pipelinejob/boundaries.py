"""Where records of a CSV end, in bytes: the line ends outside quotes, found block by block with numpy.

Python's csv module (not strict) is the reference: a quote opens a field only at its start, elsewhere it is a character.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 19  # the arrays over one block must stay small when every byte of it is a quote or a line end
LEAD = 2  # bytes in front of a block that hold what the scanner must still see of the block before
QUOTE, LF, CR = b'"\n\r'

Positions = NDArray[np.intp]


class Scanner:
    """Finds the line ends outside quotes, block by block.

    What a quote means depends on all before it, but a whole run of adjacent quotes can do only one of three things:
    an even run changes nothing (`""` is a literal quote, or an empty field, or two plain characters); an odd run at
    the start of a field or inside quotes after what looks like one swaps inside and outside; any other odd run ends
    outside (it closes the field, or is made of plain characters). So whether a run ends inside is the parity of the
    swaps since the last run of the third kind, which needs no loop.
    """

    def __init__(self, delimiter: str, newline: int = LF) -> None:
        self.inside = False
        self.quote_at = 0  # while inside: which of the bytes fed so far opened the field
        self._delimiter = ord(delimiter)
        self._newline = newline
        self._fed = 0
        self._lead = bytes((self._delimiter, self._delimiter))
        self._masks = np.empty((2, BLOCK_BYTES + LEAD), np.bool_)  # kept, since fresh pages cost more than the search

    def feed(self, block: bytearray, size: int) -> Positions:
        """The index after each line end outside quotes in block[LEAD:LEAD + size]; the lead is the scanner's own."""
        stop = LEAD + size
        block[:LEAD] = self._lead
        if block.find(QUOTE, 1, stop) >= 0:
            ends = self._ends_among_quotes(block, stop)
        else:
            self._lead = self._lead_after(block[stop - 1])
            ends = self._find(np.frombuffer(block, np.uint8, stop), LEAD, self._newline) + 1
            ends = ends[: 0 if self.inside else None]
        self._fed += size
        return ends

    def _ends_among_quotes(self, block: bytearray, stop: int) -> Positions:
        text = np.frombuffer(block, np.uint8, stop)
        marks = self._find(text, 1, self._newline, QUOTE)
        before = text[marks - 1]
        quotes = text[marks] == QUOTE
        firsts = np.flatnonzero(~(quotes & (before == QUOTE)))  # line ends, and the first quotes of runs
        odd = (np.diff(firsts, append=len(marks)) & 1).astype(np.bool_)
        if block[stop - 1] != QUOTE:
            self._lead = self._lead_after(block[stop - 1])
        else:  # the next block may go on with this run: leave it to that one, shortened to one quote or none
            self._lead = self._lead_after(int(before[firsts[-1]]), QUOTE if odd[-1] else None)
            firsts, odd = firsts[:-1], odd[:-1]
        kept = firsts[np.flatnonzero(odd)]
        marks, before, quotes = marks[kept], before[kept], quotes[kept]
        swaps = quotes & ((before == self._delimiter) | (before == self._newline))
        count = np.cumsum(swaps)
        since = np.maximum.accumulate(np.where(quotes & ~swaps, count, -int(self.inside)))
        inside = ((count - since) & 1).astype(np.bool_)
        if len(inside):
            self.inside = bool(inside[-1])
            if self.inside and quotes.any():
                self.quote_at = self._fed - LEAD + int(marks[np.flatnonzero(quotes)[-1]])
        ends: Positions = marks[np.flatnonzero(~(quotes | inside))] + 1
        return ends

    def _find(self, text: NDArray[np.uint8], start: int, *wanted: int) -> Positions:
        """The indices from `start` of the one or two wanted bytes."""
        masks = self._masks[:, : len(text) - start]
        for mask, byte in zip(masks, wanted, strict=False):
            np.equal(text[start:], byte, out=mask)
        if len(wanted) == 2:
            np.logical_or(masks[0], masks[1], out=masks[0])
        return np.flatnonzero(masks[0]) + start

    def _lead_after(self, last: int, quote: int | None = None) -> bytes:
        """The lead of the next block; a line end is given as a delimiter, which says as much and is no line end."""
        context = self._delimiter if last == self._newline else last
        return bytes((context, quote or context))
