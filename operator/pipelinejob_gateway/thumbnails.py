"""Small pictures of images, before and after: made once each, and remembered."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict

import xxhash

from pipelinejob import images, template
from pipelinejob.inputs import ImageReader
from pipelinejob.reasons import RowFailure, RowReason
from pipelinejob.resources import Output
from pipelinejob_gateway import results
from pipelinejob_gateway.problems import Refused

SIDE = 192  # pixels, of the longer side
MOST_PIXELS = 25_000_000  # of what is not decoded at a smaller scale: two of them take 200 MB
KEPT = 1_000  # 5 to 10 KB each
_QUALITY = 80
_STATUS = {RowReason.IMAGE_NOT_FOUND: 404, RowReason.IMAGE_TOO_LARGE: 413, RowReason.IMAGE_INVALID: 422}


class Thumbnails:
    """Makes two at a time; safe to share between threads."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(2)

    def of_result(self, output: Output, folder: str, name: str) -> bytes:
        """A JPEG of a job's image.

        Raises:
            Refused: 404, 413 or 422 where there is nothing to show.
        """
        return self._of(results.image(output, folder, name)[1], output)

    def of_source(self, output: Output, path: str) -> bytes:
        """A JPEG of the image that a row was made from; no other file of the data root can be asked for.

        Raises:
            Refused: 404, 413 or 422 where there is nothing to show.
        """
        if not fits(output.source.images, path):
            raise Refused(404, f"{path!r} is not the image of a row: it does not fit source.images", "NotFound")
        try:
            data = ImageReader(output.data, output.source.max_bytes).read(path)
        except RowFailure as failure:
            raise _refused(failure) from None
        except OSError as error:
            raise Refused(503, f"{path!r} cannot be read now ({error.strerror or error})", "NoAnswer") from None
        return self._of(data, output)

    def _of(self, data: bytes, output: Output) -> bytes:
        key = xxhash.xxh3_128_hexdigest(data)
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        with self._turns:
            try:
                made = _make(data, min(output.source.max_pixels, MOST_PIXELS))
            except RowFailure as failure:
                raise _refused(failure) from None
        with self._lock:
            self._made[key] = made
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        return made


def fits(images_template: str | None, path: str) -> bool:
    """Whether a path is one that a row can have: the template's literal text, with anything for its columns."""
    if images_template is None:
        return False
    pieces = template.parse(images_template).pieces
    return re.fullmatch("".join(".+" if is_column else re.escape(text) for is_column, text in pieces), path, re.DOTALL) is not None


def _make(data: bytes, max_pixels: int) -> bytes:
    picture = images.decode(data, max_pixels=max_pixels, scale_for=_scale)
    picture.thumbnail((SIDE, SIDE))
    return images.encode(picture, format="jpeg", quality=_QUALITY, background="white")


def _scale(size: tuple[int, int]) -> int:
    return max((scale for scale in (1, 2, 4, 8) if max(size) >= 2 * scale * SIDE), default=1)


def _refused(failure: RowFailure) -> Refused:
    return Refused(_STATUS.get(failure.reason, 422), f"there is no picture: {failure.message}", failure.reason)
