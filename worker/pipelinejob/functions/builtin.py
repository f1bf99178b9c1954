"""The built-in functions. All take pictures of the modes "L", "LA", "RGB" and "RGBA"; sizes are in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import mul
from typing import Annotated, Literal, get_args

from PIL import Image, ImageFilter, ImageOps

from pipelinejob.functions.draws import Draws
from pipelinejob.functions.errors import FunctionFailure
from pipelinejob.functions.params import Colour, Range
from pipelinejob.functions.registry import BUILTINS, columns, geometry, pixels
from pipelinejob.functions.window import Resample, Window, with_colour
from pipelinejob.images import flatten

__all__ = ["BUILTINS"]  # filled by the definitions below

LONGEST_SIDE = 16384

Side = Annotated[int, Range(1, LONGEST_SIDE)]
Offset = Annotated[int, Range(0, 65535)]
Ratio = Annotated[float, Range(0, 1, above=True)]
Radius = Annotated[float, Range(0, 200)]
ColourName = Annotated[str, Colour()]
Fit = Literal["stretch", "contain", "cover"]
Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_FILTERS = {name: Image.Resampling[name.upper()] for name in get_args(Filter)}


@geometry(random=True)
def random_crop(window: Window, draws: Draws, *, ratio: Ratio = 0.8) -> Window:
    """Cut out a random part: each side times ratio, rounded down, at least 1; every position is equally likely."""
    width, height = _share(window, ratio)
    return window.crop(draws.below(window.width - width + 1), draws.below(window.height - height + 1), width, height)


def _ratio_or_size(params: Mapping[str, object]) -> list[tuple[str, str]]:
    given = {name for name in ("ratio", "width", "height") if params.get(name) is not None}
    if given in ({"ratio"}, {"width", "height"}):
        return []
    return [("", f"expected either ratio, or width and height, got {', '.join(sorted(given)) or 'none of them'}")]


@geometry(rule=_ratio_or_size)
def center_crop(window: Window, *, ratio: Ratio | None = None, width: Side | None = None, height: Side | None = None) -> Window:
    """Cut out the middle: a ratio of each side (rounded down, at least 1), or width times height."""
    if ratio is not None:
        width, height = _share(window, ratio)
    assert width is not None and height is not None  # _ratio_or_size
    return _inside(window, (window.width - width) // 2, (window.height - height) // 2, width, height)


@geometry()
def crop(window: Window, *, left: Offset, top: Offset, width: Side, height: Side) -> Window:
    """Cut out the box of width times height whose corner is at (left, top); it must lie inside the image."""
    return _inside(window, left, top, width, height)


@geometry()
def flip(window: Window, *, direction: Literal["horizontal", "vertical"]) -> Window:
    """Mirror left to right (horizontal) or turn upside down (vertical)."""
    return window.flip(horizontal=direction == "horizontal")


@geometry()
def resize(
    window: Window, *, width: Side, height: Side, fit: Fit = "stretch", filter: Filter = "bilinear", background: ColourName = "white"
) -> Resample:
    """Give the image exactly this size: stretch, contain (fit inside, centred on background) or cover (cut what is over)."""
    size = (width, height)
    if fit == "contain":
        size = _fitted(window, width, height)
    elif fit == "cover":
        cut = (min(window.width, window.height * width / height), min(window.height, window.width * height / width))
        inner = (max(1, round(cut[0])), max(1, round(cut[1])))
        window = window.crop((window.width - inner[0]) // 2, (window.height - inner[1]) // 2, *inner)
    return Resample(window, size, _FILTERS[filter], (width, height), background)


@geometry()
def thumbnail(window: Window, *, width: Side, height: Side) -> Window | Resample:
    """Shrink the image to fit inside width times height, keeping its aspect; never enlarges."""
    if window.width <= width and window.height <= height:
        return window
    size = _fitted(window, width, height)
    return Resample(window, size, Image.Resampling.BILINEAR, size, "")


@pixels
def grayscale(image: Image.Image) -> Image.Image:
    """Turn the image gray (ITU-R 601-2 luma); alpha is kept."""
    return image.convert("LA" if _has_alpha(image) else "L")


@pixels
def rotate(
    image: Image.Image, *, angle: Annotated[float, Range(-360, 360)], expand: bool = True, background: ColourName = "white"
) -> Image.Image:
    """Rotate counter-clockwise by angle degrees; expand grows the image to hold all of it; corners get background."""
    image, colour = with_colour(image, background)
    return image.rotate(angle, Image.Resampling.BILINEAR, expand, fillcolor=colour)


@pixels
def autocontrast(image: Image.Image, *, cutoff: Annotated[float, Range(0, 49)] = 0.0) -> Image.Image:
    """Stretch each channel to the full range after leaving out cutoff percent of the pixels at either end; alpha is kept."""
    return _on_colour(image, lambda colour: ImageOps.autocontrast(colour, cutoff))


@pixels
def sharpen(
    image: Image.Image,
    *,
    radius: Radius = 2.0,
    percent: Annotated[int, Range(0, 1000)] = 150,
    threshold: Annotated[int, Range(0, 255)] = 3,
) -> Image.Image:
    """Sharpen with an unsharp mask of this radius, strength and smallest difference; alpha is kept."""
    return _on_colour(image, lambda colour: colour.filter(ImageFilter.UnsharpMask(radius, percent, threshold)))


@pixels
def blur(image: Image.Image, *, radius: Radius = 2.0) -> Image.Image:
    """Blur with a Gaussian of this radius; hidden colours do not bleed out of transparent pixels."""
    premultiplied = {"RGBA": "RGBa", "LA": "La"}.get(image.mode, image.mode)
    return image.convert(premultiplied).filter(ImageFilter.GaussianBlur(radius)).convert(image.mode)


@pixels
def convert(image: Image.Image, *, mode: Literal["rgb", "rgba", "gray"], background: ColourName = "white") -> Image.Image:
    """Turn the image into rgb, rgba or gray; where alpha is dropped, the image is laid on background first."""
    if mode == "rgba":
        return image.convert("RGBA")
    return _opaque(image, background).convert("RGB" if mode == "rgb" else "L")


_HASHED, _KEPT = 32, 8  # the sides of the picture that is hashed, and of the corner of its frequencies that is kept
# Whole numbers, so that every machine finds the same bits, also where a frequency is all but absent.
_COSINES = [[round(math.cos(math.pi * u * (2 * x + 1) / (2 * _HASHED)) * (1 << 14)) for x in range(_HASHED)] for u in range(_KEPT)]


@columns
def phash(image: Image.Image) -> dict[str, object]:
    """Tell a perceptual hash in the column phash: pictures that look alike differ in few of its 64 bits (16 hex digits).

    The sign, about their median, of the 8x8 lowest frequencies of the cosine transform of the picture in 32x32 grays
    (C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1).
    """
    gray = _opaque(image).convert("L").resize((_HASHED, _HASHED), Image.Resampling.LANCZOS).tobytes()
    rows = [gray[start : start + _HASHED] for start in range(0, len(gray), _HASHED)]
    across = [[sum(map(mul, row, cosines)) for row in rows] for cosines in _COSINES]
    found = [sum(map(mul, column, cosines)) for cosines in _COSINES for column in across]
    middle = sorted(found)[len(found) // 2]
    return {"phash": f"{sum((value > middle) << at for at, value in enumerate(reversed(found))):016x}"}


@columns
def dominant_color(image: Image.Image) -> dict[str, object]:
    """Tell the colour of most of the picture, as #rrggbb in the column dominant_color; what is transparent counts as white."""
    small = _opaque(image).convert("RGB").resize((32, 32), Image.Resampling.BOX)
    reduced = small.quantize(8, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    counts = reduced.histogram()
    index = counts.index(max(counts))
    red, green, blue = (reduced.getpalette() or [])[3 * index : 3 * index + 3]
    return {"dominant_color": f"#{red:02x}{green:02x}{blue:02x}"}


def _share(window: Window, ratio: float) -> tuple[int, int]:
    return max(1, int(window.width * ratio)), max(1, int(window.height * ratio))


def _inside(window: Window, left: int, top: int, width: int, height: int) -> Window:
    if min(left, top) < 0 or left + width > window.width or top + height > window.height:
        box = f"a box of {width}x{height} at ({left}, {top})"
        raise FunctionFailure(f"{box} does not lie inside the image of {window.width}x{window.height}")
    return window.crop(left, top, width, height)


def _fitted(window: Window, width: int, height: int) -> tuple[int, int]:
    """The largest size of the window's aspect within width times height, each side rounded and at least 1."""
    factor = min(width / window.width, height / window.height)
    return max(1, round(window.width * factor)), max(1, round(window.height * factor))


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA")


def _opaque(image: Image.Image, background: str = "white") -> Image.Image:
    return flatten(image, background) if _has_alpha(image) else image


def _on_colour(image: Image.Image, work: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """`work` done on the colour channels alone."""
    if not _has_alpha(image):
        return work(image)
    result = work(image.convert(image.mode[:-1]))
    result.putalpha(image.getchannel("A"))
    return result
