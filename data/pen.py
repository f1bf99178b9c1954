"""A pen on a 60x80 grid: shapes, patterns, and the way from its layers to a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter

RGB = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

GRID: Final = (60, 80)
PHOTO_WIDTH: Final = 400  # from this width on, images get a weave, folds and grain, as photographs have
GREY: Final[RGB] = (120, 122, 126)
SILVER: Final[RGB] = (196, 199, 204)
GOLD: Final[RGB] = (212, 175, 85)
INK: Final[RGB] = (38, 38, 42)
PAPER: Final[RGB] = (244, 243, 240)
DENIM_THREAD: Final[RGB] = (201, 150, 84)
LEATHER: Final[RGB] = (122, 78, 48)


def tone(colour: RGB, factor: float) -> RGB:
    """Darken a colour (factor below 1) or mix it with white (above 1: 2 is white)."""
    if factor <= 1:
        red, green, blue = (round(part * factor) for part in colour)
    else:
        red, green, blue = (round(part + (255 - part) * (factor - 1)) for part in colour)
    return red, green, blue


def is_dark(colour: RGB) -> bool:
    """Whether white shows well on this colour."""
    return 3 * colour[0] + 6 * colour[1] + colour[2] < 1350


def mirrored(half: Points) -> Points:
    """Complete an outline given from the top middle down its right side."""
    return [*half, *((60 - x, y) for x, y in reversed(half))]


def rounded(points: Points, rounds: int, closed: bool) -> Points:
    """Cut corners (Chaikin), which turns a few points into a smooth curve; a doubled point stays a corner."""
    for _ in range(rounds):
        pairs = list(zip(points, [*points[1:], points[0]], strict=True))
        if not closed:
            pairs.pop()
        cut: list[tuple[float, float]] = [] if closed else [points[0]]
        for (x, y), (u, v) in pairs:
            cut += [(0.75 * x + 0.25 * u, 0.75 * y + 0.25 * v), (0.25 * x + 0.75 * u, 0.25 * y + 0.75 * v)]
        points = cut if closed else [*cut, points[-1]]
    return points


class Pen:
    """Draws on a colour layer; what is `part` of the article also goes to the mask that cuts it out of the white ground."""

    def __init__(self, size: tuple[int, int], colour: RGB, zoom: float, shift: tuple[float, float]) -> None:
        self.colour = colour
        self.oversampling = 4 if size[0] < 240 else 2 if size[0] < PHOTO_WIDTH else 1
        width, height = (side * self.oversampling for side in size)
        self.scale = zoom * min(width / GRID[0], height / GRID[1])
        self.left = width / 2 + (shift[0] - GRID[0] / 2) * self.scale
        self.top = height / 2 + (shift[1] - GRID[1] / 2) * self.scale
        self.wide = self.tall = 1.0
        self.art = Image.new("RGB", (width, height), colour)
        self.mask = Image.new("L", (width, height))
        self._on_art, self._on_mask = ImageDraw.Draw(self.art), ImageDraw.Draw(self.mask)

    def move(self, down: float) -> None:
        """Draw lower on the ground, or higher."""
        self.top += down * self.scale

    def stretch(self, wide: float, tall: float) -> None:
        """Draw wider and taller than the grid, around its middle."""
        self.wide, self.tall = wide, tall

    def shade(self, factor: float) -> RGB:
        """The article's own colour, darker or lighter."""
        return tone(self.colour, factor)

    def contrast(self) -> RGB:
        """A colour that shows on the article's own."""
        return self.shade(1.75) if is_dark(self.colour) else self.shade(0.6)

    def fill(self, points: Points, colour: RGB | None = None, rounds: int = 3, part: bool = True) -> None:
        """Fill an outline."""
        flat = self._placed(rounded(points, rounds, closed=True))
        self._on_art.polygon(flat, fill=colour or self.colour)
        if part:
            self._on_mask.polygon(flat, fill=255)

    def line(self, points: Points, width: float, colour: RGB, rounds: int = 3, part: bool = False) -> None:
        """Draw a line along the points."""
        flat = self._placed(rounded(points, rounds, closed=False))
        pixels = max(1, round(width * self.scale))
        self._on_art.line(flat, fill=colour, width=pixels, joint="curve")
        if part:
            self._on_mask.line(flat, fill=255, width=pixels, joint="curve")

    def disc(self, x: float, y: float, radius: float, colour: RGB, part: bool = False, flat: float = 1.0) -> None:
        """Draw a disc, flattened to an ellipse by `flat`."""
        flat *= self.wide / self.tall
        box = self._placed([(x - radius, y - radius * flat), (x + radius, y + radius * flat)])
        self._on_art.ellipse(box, fill=colour)
        if part:
            self._on_mask.ellipse(box, fill=255)

    def _placed(self, points: Points) -> list[tuple[float, float]]:
        across, down = self.scale * self.wide, self.scale * self.tall
        left, top = self.left + 30 * (self.scale - across), self.top + 40 * (self.scale - down)
        return [(left + x * across, top + y * down) for x, y in points]


def stripes(pen: Pen, rng: Random) -> None:
    """Lines across or along the article."""
    step, colour = rng.uniform(4, 8), pen.contrast()
    width = step * rng.uniform(0.25, 0.45)
    if rng.random() < 0.6:
        for index in range(int(80 / step) + 1):
            pen.line([(0, index * step), (60, index * step)], width, colour, 0)
    else:
        for index in range(int(60 / step) + 1):
            pen.line([(index * step, 0), (index * step, 80)], width * 0.7, colour, 0)


def checks(pen: Pen, rng: Random) -> None:
    """Two sets of crossing lines."""
    step, colour = rng.uniform(6, 9), pen.contrast()
    soft = tone(pen.colour, 1.3) if is_dark(pen.colour) else tone(pen.colour, 0.82)
    for width, paint, offset in ((step * 0.4, soft, 0.0), (step * 0.1, colour, step / 2)):
        for index in range(int(80 / step) + 1):
            pen.line([(0, index * step + offset), (60, index * step + offset)], width, paint, 0)
            pen.line([(index * step + offset, 0), (index * step + offset, 80)], width, paint, 0)


def dots(pen: Pen, rng: Random) -> None:
    """Dots in staggered rows."""
    step, colour = rng.uniform(4.5, 6.5), pen.contrast()
    for row in range(int(80 / step) + 1):
        for column in range(int(60 / step) + 1):
            pen.disc((column + row % 2 / 2) * step, row * step, step * 0.21, colour)


def chest_print(pen: Pen, rng: Random) -> None:
    """One printed motif on the chest."""
    colour, second = rng.choice(PRINT_COLOURS), pen.contrast()
    kind = rng.randrange(4)
    if kind == 0:
        pen.disc(30, 34, 7.5, second)
        pen.disc(30, 34, 5.2, colour)
    elif kind == 1:
        pen.fill([(30, 25), (38, 41), (22, 41)], second, 0, part=False)
        pen.fill([(30, 31), (34.4, 39), (25.6, 39)], colour, 0, part=False)
    elif kind == 2:
        for index, paint in enumerate((second, colour, second)):
            pen.line([(0, 29 + 4.2 * index), (60, 29 + 4.2 * index)], 3, paint, 0)
    else:
        pen.fill([(30, 30), (34, 25.5), (39, 30), (36, 36), (30, 42), (24, 36), (21, 30), (26, 25.5)], colour, 2, part=False)


PRINT_COLOURS: Final[Sequence[RGB]] = ((214, 66, 60), (238, 186, 60), (58, 120, 190), (70, 160, 110), (240, 240, 236))
PATTERNS: Final[dict[str, Callable[[Pen, Random], None]]] = {
    "Striped": stripes,
    "Checked": checks,
    "Dotted": dots,
    "Printed": chest_print,
}
Overlay = Callable[[], None]  # lays the row's pattern on the cloth drawn so far


def lookup(low: float, high: float) -> list[int]:
    """A table for Image.point that maps 0..255 to low..high."""
    return [round(low + (high - low) * value / 255) for value in range(256)]


@lru_cache(maxsize=2)
def grain(size: tuple[int, int]) -> Image.Image:
    """Noise a little larger than the image, made once, so that each image can take its own window of it."""
    width, height = size[0] + 64, size[1] + 64
    return Image.frombytes("L", (width, height), Random("grain").randbytes(width * height))


def cloudy(rng: Random, cells: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Smooth random light and dark."""
    return Image.frombytes("L", cells, rng.randbytes(cells[0] * cells[1])).resize(size, Image.Resampling.BICUBIC)


def multiplied(image: Image.Image, shade: Image.Image) -> Image.Image:
    """Darken a colour image by a grey one."""
    return ImageChops.multiply(image, Image.merge("RGB", (shade, shade, shade)))


def grained(image: Image.Image, rng: Random, strength: int) -> Image.Image:
    """Darken by a window of the grain."""
    left, top = rng.randrange(64), rng.randrange(64)
    window = grain(image.size).crop((left, top, left + image.width, top + image.height))
    return multiplied(image, window.point(lookup(255 - strength, 255)))


def developed(pen: Pen, rng: Random, size: tuple[int, int]) -> Image.Image:
    """Shade the article as if it were soft, and lay it on a white ground with its shadow."""
    art, mask = pen.art, pen.mask
    if pen.oversampling > 1:
        art, mask = art.reduce(pen.oversampling), mask.reduce(pen.oversampling)
    small = mask.resize(GRID, Image.Resampling.BOX)
    volume = ImageChops.offset(small.filter(ImageFilter.GaussianBlur(3)), 1, 1).point(lookup(120, 262))
    shadow = ImageChops.offset(small, 1, 2).filter(ImageFilter.GaussianBlur(2)).point(lookup(255, 196))
    art = multiplied(art, volume.resize(size, Image.Resampling.BICUBIC))
    art = multiplied(art, cloudy(rng, (7, 9), size).point(lookup(226, 255)))
    ground = Image.merge("RGB", [shadow.resize(size, Image.Resampling.BICUBIC)] * 3)
    if size[0] < PHOTO_WIDTH:
        return Image.composite(art, ground, mask)
    art = multiplied(art, cloudy(rng, (29, 17), size).point(lookup(234, 255)))
    picture = Image.composite(grained(art, rng, 22), ground, mask.filter(ImageFilter.BoxBlur(1)))
    return grained(multiplied(picture, cloudy(rng, (3, 4), size).point(lookup(246, 255))), rng, 12)
