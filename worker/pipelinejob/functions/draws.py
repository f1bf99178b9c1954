"""Random draws that depend on (seed, id, position of the function) and on nothing else."""

from __future__ import annotations

from hashlib import sha256


class Draws:
    """An endless row of 64-bit words: the words of sha256("<seed>:<position>:<block>:<id>") for block 0, 1, 2 ...

    Neither the row number nor the attempt nor Python's hash() has a part in it, so a row draws the same wherever and
    whenever it is run.

    Args:
        seed: spec.seed.
        id: the row's id, as it stands in the cell.
        position: the function's place in spec.functions, from 0.
    """

    def __init__(self, seed: int, id: str, position: int) -> None:
        self._prefix = f"{seed}:{position}:"
        self._id = id
        self._block = 0
        self._bytes = b""

    def uniform(self) -> float:
        """A float in [0, 1), uniform over the multiples of 2^-53."""
        return (self._word() >> 11) * 2.0**-53

    def below(self, n: int) -> int:
        """An integer in [0, n), exactly uniform: words beyond the last whole multiple of n are drawn again."""
        limit = 2**64 - 2**64 % n
        while (word := self._word()) >= limit:
            pass
        return word % n

    def _word(self) -> int:
        if not self._bytes:
            text = f"{self._prefix}{self._block}:{self._id}"
            self._bytes = sha256(text.encode("utf-8", "surrogatepass")).digest()
            self._block += 1
        word, self._bytes = int.from_bytes(self._bytes[:8], "big"), self._bytes[8:]
        return word
