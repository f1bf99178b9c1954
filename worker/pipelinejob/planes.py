"""Thumbnails enlarged from JPEG to JPEG, on the planes of the file itself: Y, Cb and Cr, never RGB.

There, most of the time goes into enlarging and encoding. A JPEG holds its colours at half size, so here they are enlarged
to half of the wanted size only, by arithmetic that is quicker than Pillow's, and encoded as they are: 0.3 ms instead of
0.55 from 60x80 to 256x256. Shrinking gains nothing, so it is not done here.

Whatever is not plainly such a case is declined. Then `images.decode`, `Chain.run` and `images.encode` do the row, and say
what is wrong with it. Pillow's header parser and decoder are used here too: no file is accepted that `images.decode` refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from pipelinejob import costs
from pipelinejob.functions.window import Resample

# What is written here is at least this close to what the usual way writes, in decibels: PSNR between the two files decoded
# to RGB, over all channels, against 255, on photographs. tests/unit/test_planes.py measures it.
PLANES_PSNR_DB = 40.0

Plane = NDArray[np.uint8]

_LARGEST_FILE = 2**16  # bytes; larger ones are seldom enlarged, and reading a header twice costs 3% of a photo's time
_LARGEST = 2**26  # pixels; Pillow's own limit lies higher and depends on what the process did before
_BLOCK = 2**14  # values worked on at a time: 32 KiB stay in the first cache, and malloc keeps them instead of asking for new pages
_EXIF_ORIENTATION = 0x0112


def jpeg_to_jpeg(data: bytes, resample_for: Callable[[tuple[int, int]], Resample | None], *, max_pixels: int, quality: int) -> bytes | None:
    """The JPEG file (4:2:0, not progressive, no metadata) that a chain makes of a JPEG file, or None when it is declined.

    Args:
        data: the whole file.
        resample_for: given (width, height), says what the chain does to such a picture (see `Chain.final_resample`).
        max_pixels: the most pixels the header may promise.
        quality: 1 to 100.
    """
    if len(data) > _LARGEST_FILE:
        return None
    try:
        image = JpegImagePlugin.JpegImageFile(BytesIO(data))
        if not _is_upright_colour(image) or image.width * image.height > min(max_pixels, _LARGEST):
            return None
        costs.check_scans(image, data)
        resample = resample_for(image.size)
        if resample is None or not _enlarges(resample):
            return None
        picture = Image.frombytes("YCbCr", image.size, data, "jpeg", ("YCbCr", "", 1, 0))  # as the tile of JpegImageFile
        luma, blue, red = _enlarged(resample.window.cut(picture), *resample.size)
        encoded: bytes = simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality)
        return encoded
    except Exception:  # the usual way says what is wrong
        return None


def _is_upright_colour(image: Image.Image) -> bool:
    """Whether the header promises Y, Cb and Cr, upright; a file that holds RGB all the same fails to decode to YCbCr."""
    if image.mode != "RGB" or image.info.get("adobe_transform", 1) != 1:
        return False
    return ("exif" not in image.info and "xmp" not in image.info) or bool(image.getexif().get(_EXIF_ORIENTATION, 1) == 1)


def _enlarges(resample: Resample) -> bool:
    """Whether it makes the window at least twice as wide and high, to even sides, bilinear, without padding."""
    width, height = resample.size
    if resample.canvas != resample.size or resample.filter != Image.Resampling.BILINEAR or width % 2 or height % 2:
        return False
    return resample.window.width * 2 <= width and resample.window.height * 2 <= height


def _enlarged(picture: Image.Image, width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """Y at this size, Cb and Cr at half of it, each value within 2 of what Pillow's resize() gives."""
    pixels = np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, 3)
    columns = pixels.transpose(1, 2, 0)  # column, channel, row: what comes first is stretched
    luma = _stretched(_stretched(columns[:, 0], width).T, height)
    wide = _stretched(columns[:, 1:].reshape(picture.width, -1), width // 2).reshape(-1, 2, picture.height)
    colours = _stretched(wide.transpose(2, 1, 0).reshape(picture.height, -1), height // 2)
    return luma, colours[:, : width // 2].copy(), colours[:, width // 2 :].copy()


def _stretched(plane: Plane, count: int) -> Plane:
    """`count` rows from fewer: each lies between two of the plane's rows, in one of 256 steps from the one to the other."""
    above, share = _between(len(plane), count)
    value = plane.astype(np.uint16, order="C")
    step = np.empty_like(value)
    np.subtract(value[1:], value[:-1], out=step[:-1])  # modulo 2^16, as all that follows; the sums are below it again
    step[-1] = 0
    value <<= 8
    value += 128
    result = np.empty((count, plane.shape[1]), np.uint8)
    rows = max(1, _BLOCK // plane.shape[1])
    for first in range(0, count, rows):
        block = slice(first, first + rows)
        mixed = step.take(above[block], 0, mode="clip")
        mixed *= share[block]
        mixed += value.take(above[block], 0, mode="clip")
        mixed >>= 8
        result[block] = mixed
    return result


@lru_cache(maxsize=64)
def _between(rows: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
    """For each of `count` rows: which of the fewer rows is above it, and how many 256ths it is on the way to the next."""
    at = ((np.arange(count) + 0.5) * (rows / count) - 0.5).clip(0, rows - 1)  # the middles of the rows, as Pillow has them
    above = at.astype(np.intp)
    return above, np.rint((at - above) * 256).astype(np.uint16)[:, None]
