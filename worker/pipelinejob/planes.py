"""JPEG to JPEG on the planes of the file itself: Y, Cb and Cr, never RGB.

For chains that only cut, flip and, last, resample. A JPEG holds its colours at half size, so they are resampled straight
to half of the wanted size, which with a faster encoder is half of the usual work. Whatever is not plainly such a case is
declined: then `images.decode`, `Chain.run` and `images.encode` do the row, and say what is wrong with it.

The same decoder and the same header parser as there are used, so this accepts no file that `images.decode` refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from pipelinejob.functions.window import Resample

# What this writes is at least this close to what the usual way writes, in decibels (PSNR over all channels of the two files
# decoded to RGB, against 255), on photographs. tests/unit/test_planes.py measures it.
PLANES_PSNR_DB = 40.0

Plane = NDArray[np.uint8]
ResampleFor = Callable[[tuple[int, int]], tuple[Resample, int] | None]

_LARGEST = 2**26  # pixels; below Pillow's own limit, which would depend on what this process did before
_BLOCK = 2**14  # values worked on at a time: they stay in the first cache
_EXIF_ORIENTATION = 0x0112


def jpeg_to_jpeg(data: bytes, resample_for: ResampleFor, *, max_pixels: int, quality: int) -> bytes | None:
    """The JPEG file (4:2:0, not progressive, no metadata) that a chain makes of a JPEG file, or None: declined.

    Declined are all but upright YCbCr JPEGs without a fault, of at most `max_pixels`; sizes that are odd, padded, or of the
    filter "nearest"; and whatever fails.

    Args:
        data: the whole file.
        resample_for: given (width, height), says what the chain does in the end and at what 1/scale the picture may be
            decoded for it (see `Chain.final_resample`), or None.
        max_pixels: the most pixels the header may promise.
        quality: 1 to 100.
    """
    try:
        image = JpegImagePlugin.JpegImageFile(BytesIO(data))
        if not _is_plain(image) or image.width * image.height > min(max_pixels, _LARGEST):
            return None
        found = resample_for(image.size)
        if found is None or not _is_possible(found[0]):
            return None
        resample, scale = found
        size = (-(-image.width // scale), -(-image.height // scale))
        picture = Image.frombytes("YCbCr", size, data, "jpeg", ("YCbCr", "", scale, 0))
        return simplejpeg.encode_jpeg_yuv_planes(*_resampled(picture, resample, scale), quality)
    except Exception:  # the usual way tells what is wrong
        return None


def _is_plain(image: Image.Image) -> bool:
    """Whether the header is that of an upright picture of three components, Y, Cb and Cr as far as it says."""
    if image.mode != "RGB" or image.info.get("adobe_transform", 1) != 1:
        return False
    if "exif" not in image.info and "xmp" not in image.info:
        return True
    return image.getexif().get(_EXIF_ORIENTATION, 1) == 1


def _is_possible(resample: Resample) -> bool:
    width, height = resample.size
    return resample.canvas == resample.size and width % 2 == height % 2 == 0 and resample.filter != Image.Resampling.NEAREST


def _resampled(picture: Image.Image, resample: Resample, scale: int) -> tuple[Plane, Plane, Plane]:
    """Y at the wanted size, Cb and Cr at half of it; `picture` is the picture at 1/scale, in "YCbCr"."""
    width, height = resample.size
    part, box = resample.window.part(picture, scale)
    luma, blue, red = part.split()
    half, filter = (width // 2, height // 2), resample.filter
    if box[2] - box[0] >= width and box[3] - box[1] >= height:
        filter = Image.Resampling.BOX  # the encoder would take the mean as well
    return (
        _plane(luma, resample.size, resample.filter, box),
        _plane(blue, half, filter, box),
        _plane(red, half, filter, box),
    )


def _plane(plane: Image.Image, size: tuple[int, int], filter: Image.Resampling, box: tuple[float, float, float, float]) -> Plane:
    """As plane.resize(size, filter, box), within 1 of its values."""
    width, height = size
    if filter == Image.Resampling.BILINEAR and height >= plane.height and box == (0, 0, *plane.size):
        return _stretched(_values(plane.resize((width, plane.height), filter)), height)
    return _values(plane.resize(size, filter, box))


def _values(plane: Image.Image) -> Plane:
    return np.frombuffer(plane.tobytes(), np.uint8).reshape(plane.height, plane.width)


def _stretched(plane: Plane, height: int) -> Plane:
    """`plane` with so many rows, at least as many as it has: each lies between two of its rows, in 256 steps.

    Pillow's vertical pass takes three times as long, which is a sixth of all the work for a thumbnail.
    """
    rows, width = plane.shape
    above, share = _between(rows, height)
    value = plane.astype(np.uint16)
    step = np.zeros_like(value)
    np.subtract(value[1:], value[:-1], out=step[:-1])  # modulo 2^16, as all that follows; the sums are below it again
    value <<= 8
    value += 128
    result = np.empty((height, width), np.uint8)
    for first in range(0, height, max(1, _BLOCK // width)):
        block = slice(first, first + max(1, _BLOCK // width))
        mixed = step.take(above[block], 0, mode="clip")
        mixed *= share[block]
        mixed += value.take(above[block], 0, mode="clip")
        mixed >>= 8
        result[block] = mixed
    return result


@lru_cache(maxsize=64)
def _between(rows: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
    """For each wanted row: the row above it, and how many 256ths it is on the way to the next; as Pillow places them."""
    at = ((np.arange(wanted) + 0.5) * (rows / wanted) - 0.5).clip(0, rows - 1)
    above = at.astype(np.intp)
    return above, np.rint((at - above) * 256).astype(np.uint16)[:, None]
