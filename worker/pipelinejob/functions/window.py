"""The geometry of a row, kept apart from its pixels.

Crops and flips only move a Window over the picture; the pixels are touched once, when it is cut out or resampled. So
crops are drawn on the full size even where the picture was decoded at 1/2, 1/4 or 1/8, and hit the same place.
"""

from __future__ import annotations

from math import ceil, floor
from typing import NamedTuple

from PIL import Image, ImageColor

# A scaled decode is used only where the result stays at least this close to the full decode's, in decibels (PSNR over
# all channels, against 255), on photographs. tests/unit/test_functions.py measures it.
SCALED_PSNR_DB = 32.0

_MIRROR = Image.Transpose.FLIP_LEFT_RIGHT
_UPSIDE_DOWN = Image.Transpose.FLIP_TOP_BOTTOM


class Window(NamedTuple):
    """A part of a picture: first cut to (left, top, width, height) in pixels of the full size, then flipped."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool = False
    upside_down: bool = False

    def crop(self, left: int, top: int, width: int, height: int) -> Window:
        """The part (left, top, width, height) of what this window shows; it must lie inside."""
        if self.mirrored:
            left = self.width - left - width
        if self.upside_down:
            top = self.height - top - height
        return Window(self.left + left, self.top + top, width, height, self.mirrored, self.upside_down)

    def flip(self, *, horizontal: bool) -> Window:
        """What this window shows, mirrored left to right or turned upside down."""
        if horizontal:
            return self._replace(mirrored=not self.mirrored)
        return self._replace(upside_down=not self.upside_down)

    def cut(self, image: Image.Image) -> Image.Image:
        """The window's pixels; `image` is the full picture."""
        box = (self.left, self.top, self.left + self.width, self.top + self.height)
        return self._flipped(image if box == (0, 0, *image.size) else image.crop(box))

    def resample(self, image: Image.Image, scale: int, size: tuple[int, int], filter: Image.Resampling) -> Image.Image:
        """The window's pixels at `size`; `image` is the picture at 1/scale. At scale 1: crop(), then resize()."""
        part, box = self.part(image, scale)
        return part.resize(size, filter, box)

    def part(self, image: Image.Image, scale: int) -> tuple[Image.Image, tuple[float, float, float, float]]:
        """The pixels of `image`, the picture at 1/scale, that the window touches, flipped; and where in them it lies."""
        if scale == 1:
            return self.cut(image), (0, 0, self.width, self.height)
        left, top = self.left / scale, self.top / scale
        right, bottom = left + self.width / scale, top + self.height / scale
        outer = (floor(left), floor(top), ceil(right), ceil(bottom))
        if self.mirrored:
            left, right = outer[0] + outer[2] - right, outer[0] + outer[2] - left
        if self.upside_down:
            top, bottom = outer[1] + outer[3] - bottom, outer[1] + outer[3] - top
        return self._flipped(image.crop(outer)), (left - outer[0], top - outer[1], right - outer[0], bottom - outer[1])

    def _flipped(self, image: Image.Image) -> Image.Image:
        if self.mirrored:
            image = image.transpose(_MIRROR)
        return image.transpose(_UPSIDE_DOWN) if self.upside_down else image


class Resample(NamedTuple):
    """How a window becomes a picture of another size.

    `size` is what the window is resampled to; the result is then centred on `canvas` of the colour `background`.
    """

    window: Window
    size: tuple[int, int]
    filter: Image.Resampling
    canvas: tuple[int, int]
    background: str

    def scale(self) -> int:
        """The largest of 8, 4, 2, 1 at which the window still has the pixels that this asks for."""
        if self.filter == Image.Resampling.NEAREST:
            return 1  # picks single pixels, which a scaled picture does not have
        spare = min(self.window.width // self.size[0], self.window.height // self.size[1])
        return next((scale for scale in (8, 4, 2) if spare >= scale), 1)

    def apply(self, image: Image.Image, scale: int) -> Image.Image:
        """The result; `image` is the picture at 1/scale."""
        result = self.window.resample(image, scale, self.size, self.filter)
        if self.canvas == self.size:
            return result
        result, colour = with_colour(result, self.background)
        canvas = Image.new(result.mode, self.canvas, colour)
        canvas.paste(result, ((self.canvas[0] - self.size[0]) // 2, (self.canvas[1] - self.size[1]) // 2))
        return canvas


def with_colour(image: Image.Image, colour: str) -> tuple[Image.Image, int | tuple[int, ...]]:
    """`image` in a mode that can show `colour` (a gray picture may have to become RGB), and the colour in that mode."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    if image.mode in ("L", "LA") and not red == green == blue:
        image = image.convert("RGB" if image.mode == "L" else "RGBA")
    return image, ImageColor.getcolor(colour, image.mode)
