"""The checksum of a batch's bytes: planned once, compared when they are read, so that two files are never mixed.

xxh3 rather than CRC-32: it finds changes better, and is fast enough to cost the planner nothing. 63 of its bits are
kept, which a signed column of Postgres holds.
"""

from __future__ import annotations

import xxhash

_MASK = (1 << 63) - 1


def checksum(data: bytes) -> int:
    """The checksum of these bytes."""
    return xxhash.xxh3_64_intdigest(data) & _MASK


class Checksum:
    """The checksum of bytes that come in pieces."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_64()

    def update(self, data: bytes | memoryview) -> None:
        """Adds bytes."""
        self._hash.update(data)

    def value(self) -> int:
        """The checksum of all bytes so far."""
        return self._hash.intdigest() & _MASK

    def reset(self) -> None:
        """Starts anew."""
        self._hash.reset()
