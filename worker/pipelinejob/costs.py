"""What it will cost to decode a file, judged by its header: small files can ask for hours, or for gigabytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from pipelinejob.reasons import RowFailure, RowReason

# A JPEG may be written in many scans, and each costs a pass over all pixels, however few bytes it has: encoders write some ten.
_MOST_SCANS = 100
_MOST_PIXELS_PASSED = 5_000_000_000  # pixels times scans: about 4 seconds
_FEWEST_SCANS = 20  # allowed at any size

# Bytes a pixel at the peak, where they are more than the 9 of the others: libwebp keeps four pictures of 4 bytes a pixel.
_DECODING_BYTES = {"WebP": 17}
_OURS = 64 << 20  # bytes of a process that runs rows, without pictures
_ALWAYS = 16 << 20  # bytes for which there is always room

_JPEG_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # not what stands for a byte 0xff, and not a restart marker
_BITS_PER_SAMPLE, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 258, 278, 322, 323  # tags of a TIFF

# Where the memory that a container may use is written: cgroups 2 and 1.
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_NO_LIMIT = 1 << 60  # cgroups 1 have a number for it
_PARENT = 96 << 20  # bytes that the parent of the processes keeps for itself


def check_scans(image: Image.Image, data: bytes) -> None:
    """Refuses a JPEG that would take far longer than one of its size does.

    A scan of a hundred bytes can cost as much as all of a photograph, so that a small file could take hours.

    Args:
        image: the opened file, a JpegImageFile.
        data: the whole file.

    Raises:
        RowFailure: ImageInvalid.
    """
    if not _has_many_scans(image, data):
        return
    at: int = image.fp.tell()  # type: ignore[attr-defined]
    left = max(_FEWEST_SCANS, min(_MOST_SCANS, _MOST_PIXELS_PASSED // (image.width * image.height)))
    while left and (marker := _JPEG_MARKER.search(data, at)):
        if marker[1] == b"\xd9":
            return
        left -= marker[1] == b"\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
    if not left:
        raise RowFailure(RowReason.IMAGE_INVALID, "a JPEG in far more scans than encoders write")


def _has_many_scans(image: Image.Image, data: bytes) -> bool:
    """Whether the decoder reads more scans than the first one: that one has less than all there is."""
    layers: int = image.layers  # type: ignore[attr-defined]  # of JpegImageFile
    at: int = image.fp.tell()  # type: ignore[attr-defined]  # directly behind the head of the first scan
    return bool(image.info.get("progressive")) or not data.startswith(b"\xff\xda", at - 8 - 2 * layers)


def check_tiles(image: Image.Image, max_pixels: int) -> None:
    """Refuses a TIFF with tiles too large to be decoded, which may be far larger than the picture is.

    Raises:
        RowFailure: ImageTooLarge.
    """
    pixels, _ = _largest_block(image)
    if pixels > max_pixels:
        raise RowFailure(RowReason.IMAGE_TOO_LARGE, f"a tile of {pixels} pixels, more than source.maxPixels {max_pixels}")


def check_memory(image: Image.Image, kind: str, data: bytes, full: int, memory: int) -> None:
    """Refuses a picture that takes more memory to decode than there is: the system would end this process, or its pod.

    Args:
        image: an opened file, at the size to which it will be decoded.
        kind: its format.
        data: the whole file.
        full: the pixels of the file.
        memory: how many bytes this process may use.

    Raises:
        RowFailure: ImageTooLarge.
    """
    needed = _DECODING_BYTES.get(kind, 9) * image.width * image.height
    if kind == "JPEG" and _has_many_scans(image, data):  # the decoder collects them all at first, at full size
        sampling = [(wide, high) for _, wide, high, _ in image.layer]  # type: ignore[attr-defined]
        whole = max(wide for wide, _ in sampling) * max(high for _, high in sampling)
        needed = max(needed, 4 * image.width * image.height + 2 * full * sum(wide * high for wide, high in sampling) // whole)
    if kind == "TIFF":
        needed = max(needed, 8 * full + _largest_block(image)[1])
    if needed > _ALWAYS and needed + _OURS > memory:
        sizes = f"takes {(needed + _OURS) >> 20} MiB of memory, more than the {memory >> 20} MiB that a process here may use"
        raise RowFailure(RowReason.IMAGE_TOO_LARGE, f"a {kind} of {full} pixels {sizes}: give the workers more")


def _largest_block(image: Image.Image) -> tuple[int, int]:
    """The (pixels, bytes) of a tile or strip of a TIFF, which libtiff decodes at once."""
    tags = image.tag_v2  # type: ignore[attr-defined]  # of TiffImageFile
    rows = min(tags.get(_ROWS_PER_STRIP, image.height), image.height)
    pixels = tags.get(_TILE_WIDTH, image.width) * tags.get(_TILE_LENGTH, rows)
    return pixels, pixels * max(4, sum(tags.get(_BITS_PER_SAMPLE, ())) // 8)


def memory_of_each(count: int, limits: Iterable[Path] = _MEMORY_LIMITS) -> int | None:
    """The bytes that each of `count` processes may use of what our container has; None when it has no limit."""
    for path in limits:
        try:
            limit = int(path.read_text())
        except (OSError, ValueError):  # not this version of cgroups, or "max"
            continue
        return max(0, limit - _PARENT) // count if limit < _NO_LIMIT else None
    return None


def memory_of_machine(count: int) -> int:
    """The bytes that each of `count` processes may use where nothing else limits them: of four fifths of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5 // count
