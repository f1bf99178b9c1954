"""Bytes to pixels and back: the one place that trusts nothing about an image file.

A picture in the chain is always 8 bits a channel, upright, in one of the modes "L", "LA", "RGB" or "RGBA", and
carries no metadata, so that equal pixels give equal bytes.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO

from PIL import Image, ImageFile, JpegImagePlugin

from pipelinejob import costs
from pipelinejob.reasons import RowFailure, RowReason

EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}

# Key in `Image.info` of a picture decoded at 1/scale: (scale, (width, height) of the full picture, upright).
SCALED = "pipelinejob.scaled"

MODES = ("RGB", "RGBA", "L", "LA")

# The longest side of each output format (libjpeg's JPEG_MAX_DIMENSION, the 14 bits of WebP, the 31 bits of PNG).
_LONGEST = {"jpeg": 65500, "png": 2**31 - 1, "webp": 16383}

# What functions may build, whatever maxPixels says: Pillow checks the results of crop() against this limit as well.
_LARGEST_RESULT = 2**29

_EXIF_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PLUGINS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
}

# A row's trouble is told in the ledger, never on stderr.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


def decode(
    data: bytes, *, max_pixels: int, scale_for: Callable[[tuple[int, int]], int] | None = None, memory: int | None = None
) -> Image.Image:
    """The picture in `data`, upright, 8 bits a channel, in a mode of MODES, without metadata.

    Args:
        data: a whole JPEG, PNG, WebP, GIF (first frame), BMP or TIFF file, told apart by content alone.
        max_pixels: the most pixels the header may promise; checked before any pixel is decoded.
        scale_for: given the upright (width, height), says 1, 2, 4 or 8. A JPEG is then decoded at about 1/scale, and
            `info[SCALED]` holds (scale, upright size).
        memory: how many bytes this process may use; None when no limit is known.

    Raises:
        RowFailure: ImageTooLarge or ImageInvalid, whatever the decoder did.
    """
    kind = _sniff(data)
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        return _decode(kind, data, max_pixels, scale_for, memory)
    except RowFailure:
        raise
    except Image.DecompressionBombError:
        raise RowFailure(RowReason.IMAGE_TOO_LARGE, f"more pixels than source.maxPixels {max_pixels}") from None
    except Exception:  # decoders fail with OSError, SyntaxError, ValueError, struct.error, zlib.error, MemoryError ...
        raise RowFailure(RowReason.IMAGE_INVALID, f"truncated, corrupt or unsupported {kind}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = max(max_pixels, _LARGEST_RESULT)


def verify(data: bytes, *, max_pixels: int, memory: int | None = None) -> None:
    """Raise as `decode` does, for rows whose file is copied as it stands."""
    decode(data, max_pixels=max_pixels, memory=memory)


def encode(image: Image.Image, *, format: str, quality: int, background: str) -> bytes:
    """The bytes of `image` as a file.

    Args:
        image: a picture of any mode.
        format: "jpeg" (4:2:0, not progressive), "png" or "webp".
        quality: 1 to 100, for JPEG and WebP.
        background: the colour (a name or #rrggbb) under transparent pixels where the format has no alpha.

    Raises:
        RowFailure: OutputError.
    """
    width, height = image.size
    if not 0 < min(width, height) <= max(width, height) <= _LONGEST[format]:
        limit = f"a {format} file holds 1 to {_LONGEST[format]} pixels a side"
        raise RowFailure(RowReason.OUTPUT_ERROR, f"cannot write {width}x{height} pixels: {limit}")
    out = BytesIO()
    try:
        image = plain(image)
        if format == "jpeg":
            opaque = image if image.mode in ("RGB", "L") else flatten(image, background)
            opaque.save(out, "JPEG", quality=quality, subsampling="4:2:0")
        elif format == "webp":
            image.save(out, "WEBP", quality=quality)
        else:
            image.save(out, "PNG")
    except Exception as error:
        raise RowFailure(RowReason.OUTPUT_ERROR, f"the {format} encoder failed with {type(error).__name__}") from None
    return out.getvalue()


def plain(image: Image.Image) -> Image.Image:
    """`image` in a mode of MODES and without metadata; itself when it is so already, else a new picture.

    16-bit values v become v·255/65535, rounded. Wider integers and floats have no agreed range: they are stretched
    from their smallest to their largest value, except that integers within 0 to 65535 count as 16-bit.
    """
    if image.mode not in MODES or "transparency" in image.info:
        image = _eight_bit(image)
    if image.info:
        image = image.copy()
        image.info = {}
    return image


def flatten(image: Image.Image, background: str) -> Image.Image:
    """`image` ("LA" or "RGBA") laid on the colour `background`, as "RGB"."""
    result = Image.new("RGB", image.size, background)
    result.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return result


def _sniff(data: bytes) -> str:
    """The name of the file's format, from its first bytes."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    found = "not an image: expected JPEG, PNG, WebP, GIF, BMP or TIFF" if data else "the file is empty"
    raise RowFailure(RowReason.IMAGE_INVALID, found)


@cache
def _opener(kind: str) -> Callable[[BytesIO], ImageFile.ImageFile]:
    """The one plugin for `kind`, imported when it is first needed.

    Called directly: Image.open would import the plugins of five formats and offer the file to them.
    """
    module, name = _PLUGINS[kind]
    opener: Callable[[BytesIO], ImageFile.ImageFile] = getattr(importlib.import_module(module), name)
    return opener


def _decode(kind: str, data: bytes, max_pixels: int, scale_for: Callable[[tuple[int, int]], int] | None, memory: int | None) -> Image.Image:
    """As `decode`, with the decoders' own exceptions."""
    image = JpegImagePlugin.JpegImageFile(BytesIO(data)) if kind == "JPEG" else _opener(kind)(BytesIO(data))
    width, height = image.size
    if width * height > max_pixels:
        size = f"{width}x{height} = {width * height} pixels"
        raise RowFailure(RowReason.IMAGE_TOO_LARGE, f"{size}, more than source.maxPixels {max_pixels}")
    scale, upright = 1, image.size
    if kind == "TIFF":
        costs.check_tiles(image, max_pixels)
    if kind == "JPEG":
        costs.check_scans(image, data)
        image.decodermaxblock = len(data)  # one call of the decoder instead of one for each 64 KiB: 5% of a large photo
        if scale_for is not None:
            scale, upright = _draft(image, scale_for)
    if memory is not None:
        costs.check_memory(image, kind, data, width * height, memory)
    with _silent() if kind == "TIFF" else nullcontext():
        image.load()
    turn = _orientation(image, kind)
    if kind == "PNG":
        _correct_transparency(image, depth=data[24])
    result: Image.Image = image
    del image  # its pixels are not needed beside those that are made of them
    if result.mode not in MODES or "transparency" in result.info:
        result = _eight_bit(result)
    if turn != 1:
        result = result.transpose(_TRANSPOSE[turn])
    result.info = {} if scale == 1 else {SCALED: (scale, upright)}
    return result


@contextmanager
def _silent() -> Iterator[None]:
    """Send file descriptor 2 nowhere meanwhile: libtiff writes what it dislikes about a file straight to it."""
    if sys.stderr is None:  # the process was started without one
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _draft(image: ImageFile.ImageFile, scale_for: Callable[[tuple[int, int]], int]) -> tuple[int, tuple[int, int]]:
    """Set the JPEG decoder to 1/scale; returns (scale, upright size).

    A picture that is to be turned is scaled only when its sides are whole multiples: otherwise the last, partly
    filled row or column would come first and move the picture by a part of a pixel.
    """
    width, height = image.size
    turn = _orientation(image, "JPEG")
    upright = (height, width) if turn >= 5 else (width, height)
    scale = scale_for(upright)
    if scale == 1 or (turn != 1 and (width % scale or height % scale)):
        return 1, upright
    image.draft(None, (width // scale, height // scale))
    return scale, upright


def _orientation(image: Image.Image, kind: str) -> int:
    """The EXIF orientation, 1 to 8; 1 when it is absent, unreadable or already applied."""
    # Pillow turns a TIFF as it loads it. GIF and BMP have no EXIF. Most JPEGs have none, and looking costs 3 us.
    if kind not in ("JPEG", "PNG", "WebP") or (kind == "JPEG" and "exif" not in image.info and "xmp" not in image.info):
        return 1
    try:
        turn = image.getexif().get(_EXIF_ORIENTATION, 1)
        return turn if turn in _TRANSPOSE else 1
    except Exception:  # broken metadata beside good pixels
        return 1


def _correct_transparency(image: Image.Image, depth: int) -> None:
    """Bring the transparent colour of a PNG to the 8 bits of its pixels: Pillow leaves it in the file's depth."""
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode == "L":
        image.info["transparency"] = key * {2: 85, 4: 17}.get(depth, 1)
    elif isinstance(key, tuple) and depth == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _eight_bit(image: Image.Image) -> Image.Image:
    """`image` in a mode of MODES, alpha and transparent colours kept."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if image.mode == "LAB":
        from PIL import ImageCms  # noqa: PLC0415 - rarely needed

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # a new image, because inPlace is off
        return converted
    gray = image.mode in ("1", "L", "LA", "La")
    alpha = image.has_transparency_data
    return image.convert(("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB"))


def _from_deep(image: Image.Image) -> Image.Image:
    """`image` (mode "I", "I;16..." or "F") as "L", or as "LA" when one 16-bit value is transparent."""
    if image.mode != "F":
        wide = image.convert("I")
        low, high = _extrema(wide)
        if low >= 0 and high <= 65535:
            gray = wide.point(_sixteen_to_eight(), "L")
            key = image.info.get("transparency")
            if not isinstance(key, int):
                return gray
            return Image.merge("LA", (gray, wide.point([0 if value == key else 255 for value in range(65536)], "L")))
        image = wide.convert("F")
    low, high = _extrema(image)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("values without a finite range")
    factor = 255 / (high - low) if high > low else 0.0
    return image.point(lambda value: value * factor + (0.5 - low * factor)).convert("L")


def _extrema(image: Image.Image) -> tuple[float, float]:
    """The smallest and the largest value of a picture of one channel."""
    low, high = image.getextrema()
    assert isinstance(low, int | float) and isinstance(high, int | float)
    return low, high


@cache
def _sixteen_to_eight() -> list[int]:
    """Each 16-bit value v as v·255/65535 = v/257, rounded."""
    return [(value + 128) // 257 for value in range(65536)]
