"""Draw a fashion catalogue in the layout of Kaggle's "fashion product images (small)": styles.csv and images/<id>.jpg.

Every choice comes from the seed and the row's number, so the same options give the same bytes with the same Pillow.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

COLUMNS: Final = (
    "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName".split(",")
)
FIRST_ID: Final = 1163
QUALITY: Final = 85

RGB = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

# --- Drawing: a pen on a 60x80 grid ----------------------------------------------------------------------------------

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
        self.art = Image.new("RGB", (width, height), colour)
        self.mask = Image.new("L", (width, height))
        self._on_art, self._on_mask = ImageDraw.Draw(self.art), ImageDraw.Draw(self.mask)

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
        box = self._placed([(x - radius, y - radius * flat), (x + radius, y + radius * flat)])
        self._on_art.ellipse(box, fill=colour)
        if part:
            self._on_mask.ellipse(box, fill=255)

    def _placed(self, points: Points) -> list[tuple[float, float]]:
        return [(self.left + x * self.scale, self.top + y * self.scale) for x, y in points]


# --- Patterns ----------------------------------------------------------------------------------------------------------


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
    "Striped": stripes, "Checked": checks, "Dotted": dots, "Printed": chest_print,
}
Overlay = Callable[[], None]  # lays the row's pattern on the cloth drawn so far

# --- Articles: each draws its cloth, then lays the pattern, then its details -------------------------------------------


def sleeves(pen: Pen, length: float, wide: float) -> None:
    """Both sleeves, down to `length` on the grid."""
    out = 46.5 + (length - 14) * 0.26 if length < 40 else 53.5
    cuff = 7.5 if length < 40 else 5.5
    drop = 2.4 if length < 40 else 0.8
    right = [(41, 10.5), (41, 10.5), (45.5, 12.5), (out + wide, length), (out + wide, length)]
    right += [(out + wide - cuff, length + drop), (out + wide - cuff, length + drop), (42, 29), (41, 20)]
    for outline in (right, [(60 - x, y) for x, y in right]):
        pen.fill(outline, pen.shade(0.93), 2)


def torso(pen: Pen, neck: float, hem: float, waist: float, flare: float) -> None:
    """The trunk of a top, neckline `neck` deep."""
    half = [(30, 8 + neck), (34, 7 + neck * 0.8), (36.5, 7.5), (36.5, 7.5), (42.5, 10.5), (42.5, 10.5), (42.3, 18), (43, 26)]
    half += [(43 - waist, hem * 0.62), (43.2 + flare, hem), (43.2 + flare, hem), (30, hem + 1.4)]
    pen.fill([(25, 6.6), (35, 6.6), (37, 8.6), (34, 12), (26, 12), (23, 8.6)], pen.shade(0.62), 1)  # inside of the back
    pen.fill(mirrored(half), None, 2)


def collar(pen: Pen, spread: float) -> None:
    """Two collar leaves, as shirts and polos have."""
    for side in (1, -1):
        leaf = [(30, 12.5), (30 + side * 6.8, 6), (30 + side * 8.4, 8.8), (30 + side * spread, 16.5)]
        pen.fill(leaf, pen.shade(0.88 if is_dark(pen.colour) else 0.93), 0)
        pen.line([leaf[0], leaf[3], leaf[2]], 0.5, pen.shade(0.62), 0)


def armholes(pen: Pen) -> None:
    """The seams between trunk and sleeves."""
    for side in (1, -1):
        pen.line([(30 + side * 12.3, 10.5), (30 + side * 11.6, 18), (30 + side * 13, 26)], 0.5, pen.shade(0.74))


def buttons(pen: Pen, first: float, last: float, count: int) -> None:
    """A placket with buttons."""
    pen.line([(31.6, first - 2), (31.6, last + 3)], 0.45, pen.shade(0.72), 0)
    for index in range(count):
        pen.disc(30, first + (last - first) * index / max(1, count - 1), 0.75, pen.contrast())


def tshirt(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A T-shirt with a round or V neck, or a polo."""
    neck = rng.choice(("round", "round", "v", "polo"))
    sleeves(pen, rng.uniform(25, 29), rng.uniform(0, 1.5))
    torso(pen, 5.5, rng.uniform(66, 71), rng.uniform(0, 1.5), 0)
    overlay()
    armholes(pen)
    if neck == "polo":
        collar(pen, 4)
        buttons(pen, 16, 22, 3)
    elif neck == "v":
        pen.fill([(23.7, 7.6), (36.3, 7.6), (30, 18.5)], pen.shade(0.62), 0, part=False)
        pen.line([(23.3, 7.5), (30, 18.8), (36.7, 7.5)], 1.3, pen.contrast(), 0)
    else:
        pen.line([(23.5, 7.5), (25.5, 12.6), (30, 13.8), (34.5, 12.6), (36.5, 7.5)], 1.5, rng.choice((pen.shade(0.8), pen.contrast())))


def shirt(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A shirt with collar, buttons and perhaps a pocket."""
    long = rng.random() < 0.7
    sleeves(pen, rng.uniform(54, 60) if long else rng.uniform(27, 31), 0.5)
    torso(pen, 3, rng.uniform(67, 71), rng.uniform(0, 2), 0.5)
    overlay()
    armholes(pen)
    collar(pen, rng.uniform(3.2, 5.2))
    buttons(pen, 18, 63, 6)
    if rng.random() < 0.6:
        pen.line([(34, 26), (34, 33), (36.8, 34.5), (39.6, 33), (39.6, 26), (34, 26)], 0.5, pen.shade(0.68), 0)
    if long:
        for x in (7.5, 47.5):
            pen.line([(x - 1, 54), (x + 6, 54)], 0.5, pen.shade(0.7), 0)


def jacket(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A zipped jacket: stand-up collar, pockets, cuffs."""
    sleeves(pen, 59, 1)
    torso(pen, 1, 66, 0, 1)
    overlay()
    armholes(pen)
    pen.fill([(24, 14), (22.6, 6), (26, 4.4), (34, 4.4), (37.4, 6), (36, 14), (30, 16)], pen.shade(0.82), 1)
    metal = GOLD if rng.random() < 0.3 else SILVER
    pen.line([(30, 8), (30, 67)], 1.1, pen.shade(0.5), 0)
    pen.line([(30, 8), (30, 67)], 0.5, metal, 0)
    for side in (1, -1):
        pen.line([(30 + side * 5.5, 45), (30 + side * 9.5, 55)], 1.0, pen.shade(0.5), 0)
        pen.line([(30 + side * 2, 25), (30 + side * 12.5, 23)], 0.5, pen.shade(0.7), 0)
    rib = rng.choice((pen.shade(0.66), pen.contrast()))
    pen.line([(16, 65.6), (30, 66.6), (44, 65.6)], 3.2, rib)
    for x in (5.5, 48.5):
        pen.line([(x - 1, 59), (x + 7, 59)], 3, rib, 0)


def knit(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A sweater or, with a hood and a pouch, a sweatshirt."""
    hooded = rng.random() < 0.5
    sleeves(pen, 58, 1)
    torso(pen, 4.5, 66, 0, 0.3)
    overlay()
    armholes(pen)
    rib = pen.shade(0.76)
    pen.line([(16, 65), (30, 66), (44, 65)], 4, rib)
    for x in (5.5, 48.5):
        pen.line([(x - 1, 58.4), (x + 7, 58.4)], 3.4, rib, 0)
    if hooded:
        pen.fill([(21, 14), (20, 7), (25, 2.6), (35, 2.6), (40, 7), (39, 14), (30, 19)], pen.shade(0.84))
        pen.fill([(25, 9), (30, 6.4), (35, 9), (34, 13.5), (30, 17), (26, 13.5)], pen.shade(0.5))
        for side in (1, -1):
            pen.line([(30 + side * 2, 15.5), (30 + side * 2.6, 26)], 0.7, PAPER, 0)
        pen.fill([(24, 46), (36, 46), (40, 58), (20, 58)], pen.shade(0.86), 0, part=False)
    else:
        pen.line([(23.4, 7.6), (25.5, 12), (30, 13.2), (34.5, 12), (36.6, 7.6)], 2.4, rib)


def kurta(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A long kurta with an embroidered front."""
    sleeves(pen, rng.choice((44, 56)), 0)
    torso(pen, 3, 75, 2, 3)
    overlay()
    armholes(pen)
    trim = rng.choice((GOLD, pen.contrast()))
    pen.line([(24, 8), (26, 11.5), (30, 12.5), (34, 11.5), (36, 8)], 1.6, trim)
    pen.line([(30, 12), (30, 32)], 3.0, trim, 0)
    for index in range(5):
        pen.disc(30, 14.5 + 4 * index, 0.8, pen.shade(0.55))
    pen.line([(13, 73.4), (30, 74.6), (47, 73.4)], 1.6, trim)
    for side in (1, -1):
        pen.line([(30 + side * 15, 58), (30 + side * 14, 76)], 0.6, pen.shade(0.6), 0)


def blouse(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A woman's top: narrow waist, wide hem, short or no sleeves."""
    if rng.random() < 0.6:
        sleeves(pen, rng.uniform(22, 26), 1.5)
    torso(pen, rng.uniform(8, 11), 64, 5, rng.uniform(1, 4))
    overlay()
    pen.line([(19, 39.5), (30, 41), (41, 39.5)], rng.choice((0.6, 2.2)), pen.shade(0.72))
    for x in (23, 27.5, 32.5, 37):
        pen.line([(x, 43), (30 + (x - 30) * 1.35, 63)], 0.45, pen.shade(0.84), 0)


def dress(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A dress with straps or short sleeves, a waist and a wide skirt."""
    hem, wide, strapped = rng.uniform(66, 76), rng.uniform(15, 22), rng.random() < 0.55
    if strapped:
        for side in (1, -1):
            pen.line([(30 + side * 6, 4), (30 + side * 7, 13)], 1.8, pen.colour, 0, part=True)
        bodice = [(30, 14), (35, 10.5), (38.5, 12), (38.5, 12), (38.5, 22), (36, 33)]
    else:
        for side in (1, -1):
            pen.fill([(30 + side * 8, 5.5), (30 + side * 14, 8), (30 + side * 18, 19), (30 + side * 10, 20)], pen.shade(0.92), 1)
        bodice = [(30, 13), (35, 11), (37, 5), (37, 5), (41, 7), (39.5, 14), (39, 22), (36, 33)]
    skirt_half = [(36, 34), (39, 42), (30 + wide, hem - 3), (30 + wide, hem - 3), (30 + wide / 2, hem), (30, hem + 0.6)]
    pen.fill(mirrored([*bodice, *skirt_half]), None, 2)
    overlay()
    for x in (-0.6, -0.25, 0.15, 0.5):
        pen.line([(30 + x * 7, 36), (30 + x * 12, 50), (30 + x * wide, hem - 2)], 0.6, pen.shade(0.8))
    pen.line([(23.2, 33.6), (30, 34.4), (36.8, 33.6)], 2.4, rng.choice((pen.shade(0.6), pen.contrast())))


def skirt(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A skirt, pleated or straight."""
    hem, wide = rng.uniform(54, 68), rng.uniform(14, 23)
    half = [(30, 14), (38.5, 14), (38.5, 14), (42, 26), (30 + wide, hem), (30 + wide, hem), (30 + wide / 2, hem + 2), (30, hem + 2.4)]
    pen.fill(mirrored(half), None, 2)
    overlay()
    for x in (-0.75, -0.45, -0.15, 0.15, 0.45, 0.75):
        pen.line([(30 + x * 9, 19), (30 + x * wide, hem + 1)], 0.7, pen.shade(0.78), 0)
    pen.line([(20, 15.8), (40, 15.8)], 3.6, pen.shade(0.72), 0)


def legs(pen: Pen, length: float, wide: float) -> None:
    """Two legs below a waistband; the fly and the inner seam."""
    hem = 36.5 + wide
    half = [(30, 6), (40, 6), (40, 6), (42, 14), (43 + wide * 0.4, 24), (max(hem + 5, 40), length), (max(hem + 5, 40), length)]
    half += [(32.5, length + 1), (32.5, length + 1), (31, 32), (30, 27)]
    pen.fill(mirrored(half), None, 1)


def leg_details(pen: Pen, thread: RGB) -> None:
    """Waistband, fly, pockets."""
    pen.line([(18.6, 7.8), (41.4, 7.8)], 3.4, pen.shade(0.82), 0)
    pen.line([(18.6, 9.7), (41.4, 9.7)], 0.45, thread, 0)
    pen.disc(30, 7.9, 0.9, thread)
    pen.line([(30, 10), (30, 28)], 0.6, pen.shade(0.6), 0)
    pen.line([(32.4, 10), (32.2, 18), (30, 21)], 0.45, thread)
    for side in (1, -1):
        pen.line([(30 + side * 7, 10), (30 + side * 8, 14.5), (30 + side * 13, 16)], 0.6, thread)
        pen.line([(30 + side * 5.5, 6), (30 + side * 5.5, 9.6)], 1.1, pen.shade(0.66), 0)


def jeans(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """Jeans: worn thighs, yellow thread."""
    legs(pen, 74, rng.uniform(-1.5, 3))
    overlay()
    if rng.random() < 0.7:
        for side in (1, -1):
            for radius, light in ((4.2, 1.1), (3.2, 1.18), (2.2, 1.26)):
                pen.disc(30 + side * 7, 29, radius, pen.shade(light), flat=2.6)
    leg_details(pen, DENIM_THREAD)
    for side in (1, -1):
        pen.line([(30 + side * 3, 72.6), (30 + side * 14, 71.8)], 0.5, DENIM_THREAD, 0)


def trousers(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """Trousers with a crease."""
    legs(pen, 74, rng.uniform(-1, 2.5))
    overlay()
    leg_details(pen, pen.shade(0.62))
    for side in (1, -1):
        pen.line([(30 + side * 7, 18), (30 + side * 7, 73)], 0.6, pen.shade(0.74), 0)


def track_pants(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """Track pants: drawstring, side stripes, ribbed ends."""
    legs(pen, 72, rng.uniform(-1, 2))
    overlay()
    stripe = rng.choice((PAPER, pen.contrast()))
    for side in (1, -1):
        pen.line([(30 + side * 10.6, 6), (30 + side * 12, 24), (30 + side * 10, 73)], 1.6, stripe)
        pen.line([(30 + side * 2.5, 71.6), (30 + side * 14, 71.2)], 3, pen.shade(0.7), 0)
        pen.line([(30, 9), (30 + side * 1.6, 18)], 0.8, PAPER, 0)
    pen.line([(18, 7.8), (42, 7.8)], 3.6, pen.shade(0.72), 0)
    pen.line([(30, 12), (30, 28)], 0.6, pen.shade(0.6), 0)


def shorts(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """Short trousers, drawn lower on the ground."""
    pen.top += 11 * pen.scale
    hem = rng.uniform(38, 47)
    legs(pen, hem, rng.uniform(6, 8))
    overlay()
    leg_details(pen, pen.shade(0.6))
    for side in (1, -1):
        pen.line([(30 + side * 2, hem - 1.6), (30 + side * 20, hem - 2.6)], 0.5, pen.shade(0.6), 0)


def shoe_body(pen: Pen, sole: RGB, thick: float, ankle: float) -> None:
    """A shoe from the side, toe to the left."""
    pen.fill([(4, 55), (3.4, 55 + thick), (20, 56 + thick), (56, 55.6 + thick), (57, 52), (30, 51)], sole, 2)
    upper = [(4, 54.8), (4, 54.8), (3.6, 49), (9, 46), (17, 44.6), (25, 40), (33, ankle), (35, ankle - 0.6), (38, ankle + 4.2), (46, ankle + 4.4)]
    upper += [(52, ankle - 1.6), (54.4, ankle - 1), (55.4, 44), (56.6, 54.4), (56.6, 54.4), (30, 55.4)]
    pen.fill(upper, None, 2)


def laces(pen: Pen, count: int, colour: RGB) -> None:
    """Laces across the tongue."""
    for index in range(count):
        x = 20.6 + index * 3.2
        pen.line([(x, 44.6 - index * 2.1), (x + 4.4, 47.4 - index * 1.9)], 1.0, colour, 0)


def sports_shoe(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A running shoe."""
    shoe_body(pen, PAPER, 4.4, 33)
    overlay()
    accent = rng.choice((*PRINT_COLOURS, pen.contrast()))
    pen.fill([(3.6, 55), (3.4, 50), (8, 46.4), (14, 48), (15, 55)], pen.shade(0.7), 2, part=False)
    pen.fill([(47, 55), (48, 43), (53, 33), (57, 40), (57, 55)], pen.shade(0.75), 2, part=False)
    for index in range(rng.choice((1, 2, 3))):
        pen.line([(27 + 4.2 * index, 54), (33 + 4.2 * index, 48), (40 + 4.2 * index, 41)], 1.8, accent)
    laces(pen, 4, tone(accent, 1.6))
    pen.line([(4, 57.6), (30, 58.4), (56.4, 57.6)], 0.9, accent)
    pen.line([(38, 37), (46, 37.4)], 0.8, pen.shade(0.55), 0)


def casual_shoe(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A canvas shoe."""
    shoe_body(pen, PAPER, 3.6, 34)
    overlay()
    pen.fill([(3.6, 55.2), (3.6, 50), (8, 46.6), (13.6, 49), (14, 55.2)], PAPER if rng.random() < 0.5 else pen.shade(0.8), 2, part=False)
    pen.line([(15, 54.6), (22, 49.6), (33, 49.6), (41, 38.6)], 0.6, pen.shade(0.62), 1)
    laces(pen, 4, PAPER if is_dark(pen.colour) else INK)
    pen.line([(4.4, 56.6), (30, 57.4), (56, 56.4)], 0.6, pen.contrast())
    pen.line([(55, 37), (55.8, 54)], 1.6, pen.shade(0.7), 0)


def formal_shoe(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A leather shoe: thin sole, heel, toe cap, shine."""
    shoe_body(pen, INK, 1.4, 36)
    pen.fill([(43, 55), (57, 55), (56.6, 60), (44, 60)], INK, 0)
    overlay()
    pen.line([(16, 54.8), (14.6, 50), (16.6, 45.4)], 0.6, pen.shade(0.5))
    pen.line([(22, 54.6), (26, 48), (36, 47), (41, 40.4)], 0.6, pen.shade(0.5), 1)
    pen.line([(6.4, 49.8), (10, 48), (13.4, 47.8)], 1.1, pen.shade(1.5))
    pen.line([(46, 44), (50, 42), (52.6, 42)], 0.9, pen.shade(1.35))
    laces(pen, 3, pen.shade(0.45))


def heels(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A court shoe on a high heel."""
    pen.line([(52, 32), (53, 46), (52, 62)], rng.uniform(1.8, 3.6), pen.shade(0.7), 1, part=True)
    sole = [(4, 60), (4, 60), (14, 61.6), (22, 60), (34, 50), (46, 42), (54, 40), (54, 36), (30, 46)]
    pen.fill(sole, pen.shade(0.5), 2)
    upper = [(3.6, 60), (3.6, 60), (6, 56), (12, 53.6), (18, 54.6), (26, 53), (38, 41), (46, 36), (50, 28), (54.6, 27)]
    upper += [(56, 33), (55, 39), (46, 41), (34, 49), (22, 59), (14, 60.6)]
    pen.fill(upper, None, 2)
    overlay()
    pen.line([(7, 57.4), (11, 55.6), (15, 56)], 0.9, pen.shade(1.5))
    if rng.random() < 0.5:
        pen.line([(50, 29), (41, 27), (35, 33), (37, 42)], 1.1, pen.shade(0.85), part=True)
    if rng.random() < 0.4:
        pen.disc(14, 54.6, 2, rng.choice((GOLD, SILVER)), flat=0.6)


def flats(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A ballerina shoe from the side."""
    pen.fill([(4, 52), (3.6, 55.6), (30, 56.6), (56.6, 55.4), (56, 52)], pen.shade(0.45), 1)
    upper = [(3.8, 54.4), (3.8, 54.4), (4, 50), (10, 47), (18, 48), (26, 51), (40, 50), (50, 43), (55, 43), (56.4, 54), (56.4, 54), (30, 55.4)]
    pen.fill(upper, None, 2)
    overlay()
    pen.line([(17, 48.4), (26, 51.6), (40, 50.6), (50, 43.8), (54.6, 43.6)], 0.8, pen.shade(0.66))
    for side in (1, -1):
        pen.fill([(15.5, 47.4), (15.5 + side * 4.6, 44.6), (15.5 + side * 4.6, 50)], rng.choice((pen.shade(0.75), pen.contrast())), 1)
    pen.disc(15.5, 47.4, 1.1, pen.shade(0.6))


def sandal(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A strapped sandal from the side."""
    pen.fill([(3, 54), (4, 58.6), (30, 59), (57, 58), (57, 52), (44, 51), (20, 54)], LEATHER, 2)
    pen.line([(4, 54.2), (20, 54.2), (44, 51.4), (56.4, 52.4)], 1.2, tone(LEATHER, 1.4))
    for foot, top, end in (((9, 55), (15, 43), (21, 54.6)), ((20, 54.8), (28, 38), (34, 53)), ((44, 52), (48, 31), (55, 52.6))):
        pen.line([foot, top, end], rng.uniform(2.6, 4), pen.colour, 2, part=True)
    pen.line([(37, 39), (45, 42), (53, 39)], 2.4, pen.shade(0.85), part=True)
    pen.disc(40, 40.6, 1.5, SILVER)
    overlay()


def flip_flops(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A pair of flip flops from above."""
    strap = pen.contrast()
    for x in (18, 42):
        pen.fill([(x - 8, 24), (x - 5, 13), (x + 5, 13), (x + 8, 24), (x + 6, 42), (x + 7, 60), (x, 69), (x - 7, 60), (x - 6, 42)], None, 2)
    overlay()
    for x in (18, 42):
        pen.line([(x - 7.4, 43), (x - 4, 30), (x, 24), (x + 4, 30), (x + 7.4, 43)], rng.uniform(1.8, 2.6), strap, 2, part=True)
        pen.disc(x, 25, 1.3, tone(strap, 0.8))


def handbag(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A handbag with a round handle and a clasp."""
    metal = rng.choice((GOLD, SILVER))
    for reach in (0.0, 1.6):
        pen.line([(20 - reach, 34), (20 - reach, 10 + reach), (40 + reach, 10 + reach), (40 + reach, 34)], 1.7, pen.shade(0.75 - reach / 8), part=True)
    wide = rng.uniform(20, 23)
    half = [(30, 30), (30 + wide - 4, 30), (30 + wide - 4, 30), (30 + wide + 1, 60), (30 + wide - 1, 67), (30, 67.4)]
    pen.fill(mirrored(half), None, 2)
    overlay()
    if rng.random() < 0.5:
        pen.fill([(30 - wide + 4, 30), (30 + wide - 4, 30), (30 + wide - 5, 44), (30, 50), (30 - wide + 5, 44)], pen.shade(0.85), 1, part=False)
        pen.disc(30, 46, 2, metal)
    else:
        pen.line([(30 - wide + 3, 34), (30 + wide - 3, 34)], 1.0, metal, 0)
        pen.line([(30 - wide + 1, 50), (30 + wide - 1, 50)], 0.5, pen.shade(0.66), 0)
    for x in (20, 40):
        pen.disc(x, 32.4, 1.5, metal)


def backpack(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A backpack from the front."""
    pen.line([(25, 13), (26, 5), (34, 5), (35, 13)], 1.8, pen.shade(0.6), part=True)
    for side in (1, -1):
        pen.fill([(30 + side * 17, 40), (30 + side * 22, 44), (30 + side * 22, 64), (30 + side * 17, 66)], pen.shade(0.7), 1)
    pen.fill(mirrored([(30, 9), (41, 10), (48, 20), (49, 50), (49, 70), (45, 72.4), (30, 72.6)]), None, 2)
    overlay()
    accent = rng.choice((pen.contrast(), *PRINT_COLOURS))
    pen.line([(14, 36), (15, 19), (22, 13), (38, 13), (45, 19), (46, 36)], 0.9, pen.shade(0.5))
    pen.fill(mirrored([(30, 43), (42, 43), (43.6, 48), (43.6, 66), (41, 68.4), (30, 68.6)]), pen.shade(0.84), 2, part=False)
    pen.line([(19, 47), (41, 47)], 0.9, accent, 0)
    pen.fill([(27, 26), (33, 26), (33, 31), (27, 31)], accent, 0, part=False)


def watch(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A wrist watch: strap, case, dial and hands at ten past ten."""
    metal = rng.choice((SILVER, SILVER, GOLD))
    links = rng.random() < 0.4
    pen.fill(mirrored([(30, 4), (35.4, 4), (35.4, 4), (38.6, 22), (38.6, 58), (35.4, 76), (35.4, 76), (30, 76)]), None, 1)
    overlay()
    for y in (*range(7, 24, 3), *range(58, 76, 3)):
        if links:
            pen.line([(21, y), (39, y)], 0.6, pen.shade(0.6), 0)
        elif y > 60:
            pen.disc(30, y, 0.8, pen.shade(0.45))
    pen.line([(46, 40), (48.4, 40)], 2.4, tone(metal, 0.8), 0, part=True)
    pen.disc(30, 40, 16.6, tone(metal, 0.78), part=True)
    pen.disc(30, 40, 15.4, metal)
    dial = rng.choice((PAPER, INK, pen.shade(0.8)))
    mark = PAPER if is_dark(dial) else INK
    pen.disc(30, 40, 13, dial)
    for x, y in ((0, -1), (0.5, -0.866), (0.866, -0.5), (1, 0), (0.866, 0.5), (0.5, 0.866)):
        for side in (1, -1):
            pen.line([(30 + side * x * 10, 40 + side * y * 10), (30 + side * x * 12, 40 + side * y * 12)], 0.9, mark, 0)
    pen.line([(30, 40), (24, 36)], 1.4, mark, 0)
    pen.line([(30, 40), (37.5, 34)], 1.0, mark, 0)
    pen.disc(30, 40, 1.3, mark)


def cap(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A baseball cap, peak to the left."""
    pen.fill([(19, 52), (18, 38), (24, 25), (36, 21), (48, 26), (55, 38), (55, 54), (55, 54), (38, 56), (19, 53)], None, 2)
    overlay()
    accent = rng.choice((pen.contrast(), *PRINT_COLOURS))
    pen.line([(36, 22), (30, 36), (29, 53)], 0.6, pen.shade(0.68))
    pen.line([(36, 22), (46, 36), (47, 54)], 0.6, pen.shade(0.68))
    pen.disc(36, 22, 1.7, rng.choice((pen.shade(0.7), accent)), part=True, flat=0.6)
    pen.disc(24.4, 41, 3.4, accent, flat=1.2)
    pen.fill([(20, 49), (36, 51), (38, 55.6), (22, 55), (8, 60), (2.6, 60.4), (6, 53)], rng.choice((pen.shade(0.78), accent)), 2)


def belt(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A rolled belt with its buckle in front."""
    metal = rng.choice((SILVER, GOLD))
    outer = [(6, 36), (8, 25), (30, 20), (52, 25), (54, 36)]
    pen.line(outer, 6.5, pen.shade(0.55), 3, part=True)
    front = [(6, 36), (7, 48), (30, 54), (53, 48), (54, 36)]
    pen.line(front, 9.5, pen.colour, 3, part=True)
    overlay()
    pen.line([(x, y + 3.2) for x, y in front], 0.5, pen.shade(0.6))
    pen.line([(x, y - 3.2) for x, y in front], 0.5, pen.shade(0.6))
    pen.fill([(23, 43), (37, 43), (37, 57.6), (23, 57.6)], metal, 1)
    pen.fill([(25.4, 45.6), (34.6, 45.6), (34.6, 55), (25.4, 55)], pen.shade(0.8), 0)
    pen.line([(24, 50.4), (35, 50.4)], 1.2, tone(metal, 0.8), 0)


def sunglasses(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """Sunglasses from the front."""
    tint = rng.choice(((46, 46, 52), (72, 54, 40), (40, 58, 72)))
    round_lens = rng.random() < 0.4
    for side in (1, -1):
        half = [(2.4, 36), (12, 33), (23, 33.6), (25, 38), (22, 47), (13, 50), (5, 47), (3, 41)]
        if round_lens:
            pen.disc(30 + side * 13.6, 41, 11.4, pen.colour, part=True)
            pen.disc(30 + side * 13.6, 41, 9.4, tint)
        else:
            pen.fill([(30 + side * x, y) for x, y in half], None, 2)
            pen.fill([(30 + side * (13 + (x - 13) * 0.8), 41 + (y - 41) * 0.76) for x, y in half], tint, 2)
        pen.line([(30 + side * 24, 37), (30 + side * 27.4, 34), (30 + side * 26.4, 27)], 2.0, pen.shade(0.85), 1, part=True)
        pen.line([(30 + side * 13.6 - 4, 43.4), (30 + side * 13.6 + 1.6, 36.4)], 1.6, tone(tint, 1.35), 0)
    pen.line([(26, 39), (30, 36.4), (34, 39)], 2.2, pen.colour, part=True)
    overlay()


def tie(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A neck tie."""
    pen.fill(mirrored([(30, 12), (33, 13), (38.6, 62), (30, 75)]), None, 0)
    if rng.random() < 0.7:
        for y in range(8, 92, 9):
            pen.line([(15, y), (45, y - 16)], rng.choice((1.5, 2.5)), pen.contrast(), 0)
    overlay()
    pen.fill(mirrored([(30, 4), (36, 4.4), (36, 4.4), (34, 13.6), (30, 14)]), pen.shade(0.8), 1)
    pen.line([(26, 13.6), (34, 13.6)], 0.7, pen.shade(0.5), 0)


def socks(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A pair of socks."""
    shape = [(0, 0), (0, 0), (12, 0), (12, 0), (11.6, 24), (12, 36), (7, 44), (-6, 52), (-13, 53), (-15, 47), (-9, 42), (-1, 36), (0, 24)]
    trim = rng.choice((pen.contrast(), *PRINT_COLOURS))
    for left, top in ((40, 9), (21, 16)):
        pen.fill([(left + x, top + y) for x, y in shape], pen.shade(0.88) if left == 40 else None, 2)
        if left == 40:
            overlay()
        for y in (1.6, 7):
            pen.line([(left - 0.4, top + y), (left + 12.4, top + y)], 2.6 if y < 2 else 1.4, trim, 0)
        pen.disc(left - 12, top + 50, 4.6, trim)
        pen.disc(left + 10.6, top + 37.4, 4, trim)


def wallet(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A folded wallet."""
    pen.fill([(8, 28), (52, 25), (53, 56), (9, 58)], pen.shade(0.6), 1)
    pen.fill([(6, 26), (50, 26), (51, 30), (51, 56), (50, 58), (7, 58), (6, 54)], None, 2)
    overlay()
    pen.line([(8.4, 29), (48.4, 29), (48.4, 55.4), (8.6, 55.4), (8.4, 29)], 0.5, pen.shade(1.3), 0)
    if rng.random() < 0.6:
        pen.fill([(38, 38), (51, 38), (51, 46), (38, 46)], pen.shade(0.78), 1, part=False)
        pen.disc(42, 42, 1.8, rng.choice((GOLD, SILVER)))
    else:
        pen.disc(16, 50, 3, pen.shade(0.7), flat=0.7)


def perfume(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A perfume bottle, tinted by its colour."""
    wide = rng.uniform(11, 16)
    glass = pen.shade(1.45)
    pen.fill(mirrored([(30, 30), (33, 30), (30 + wide, 34), (30 + wide, 68), (30 + wide, 71), (30, 71.4)]), glass, 2)
    pen.fill(mirrored([(30, 42), (28 + wide, 42), (28 + wide, 66), (27 + wide, 68.6), (30, 69)]), None, 1, part=False)
    pen.fill([(26, 24), (34, 24), (34, 31), (26, 31)], GOLD, 0)
    pen.fill([(24.4, 9), (35.6, 9), (35.6, 25), (24.4, 25)], rng.choice((INK, SILVER, pen.shade(0.5))), 1)
    pen.fill([(30 - wide * 0.6, 48), (30 + wide * 0.6, 48), (30 + wide * 0.6, 58), (30 - wide * 0.6, 58)], PAPER, 0, part=False)
    pen.line([(30 - wide * 0.4, 52), (30 + wide * 0.4, 52)], 0.8, GREY, 0)
    pen.line([(32 - wide, 37), (32 - wide, 66)], 1.2, tone(glass, 1.7), 0)
    overlay()


def lipstick(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A lipstick, its cap beside it."""
    case = rng.choice((INK, GOLD, SILVER))
    pen.fill([(17, 36), (17, 18), (20, 11), (28, 8), (29, 12), (29, 36)], None, 1)
    pen.line([(20, 34), (20.6, 18)], 1.3, pen.shade(1.45), 0)
    pen.fill([(16, 35), (30, 35), (30, 47), (16, 47)], GOLD if case != GOLD else SILVER, 0)
    pen.fill([(14, 46), (32, 46), (32, 73), (14, 73)], case, 1)
    pen.fill([(37, 42), (51, 42), (51, 73), (37, 73)], case, 1)
    for x in (17, 40):
        pen.line([(x, 50), (x, 70)], 1.6, tone(case, 1.4), 0)
    overlay()


def nail_polish(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A small bottle with a tall cap."""
    wide = rng.uniform(9, 13)
    pen.fill(mirrored([(30, 40), (35, 40), (30 + wide, 46), (30 + wide, 68), (30 + wide - 2, 72), (30, 72.4)]), None, 2)
    pen.fill(mirrored([(30, 8), (33.6, 8), (33.6, 8), (36, 41), (36, 41), (30, 41.6)]), rng.choice((INK, SILVER, PAPER)), 1)
    pen.line([(27.6, 12), (26.6, 38)], 1.2, GREY, 0)
    pen.line([(33 - wide, 50), (33 - wide, 66)], 1.8, pen.shade(1.5), 0)
    overlay()


# --- From the pen's layers to a JPEG -----------------------------------------------------------------------------------


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


def render(product: Product, seed: int, number: int, size: tuple[int, int]) -> bytes:
    """Draw one product as a JPEG."""
    rng = Random(f"{seed}/look/{number}")
    pen = Pen(size, COLOURS[product.colour], rng.uniform(0.9, 1.0), (rng.uniform(-1, 1), rng.uniform(-1, 1)))

    def overlay() -> None:
        if product.pattern:
            PATTERNS[product.pattern](pen, rng)

    product.article.draw(pen, rng, overlay)
    picture = developed(pen, rng, size)
    if product.article.turns and rng.random() < 0.25:
        picture = ImageOps.mirror(picture)
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


# --- What the shop sells -----------------------------------------------------------------------------------------------

COLOURS: Final[dict[str, RGB]] = {
    "Black": (44, 44, 48), "White": (247, 247, 245), "Grey": (148, 150, 154), "Charcoal": (76, 80, 86), "Silver": SILVER,
    "Navy Blue": (36, 50, 96), "Blue": (56, 104, 184), "Turquoise Blue": (48, 172, 188), "Teal": (24, 118, 122),
    "Green": (54, 138, 78), "Sea Green": (94, 178, 146), "Olive": (110, 112, 62), "Khaki": (178, 160, 118),
    "Beige": (222, 204, 172), "Cream": (244, 234, 206), "Yellow": (242, 206, 66), "Mustard": (206, 156, 48), "Gold": GOLD,
    "Orange": (236, 128, 48), "Peach": (250, 190, 158), "Rust": (176, 84, 48), "Tan": (186, 134, 84), "Brown": (112, 72, 46),
    "Red": (204, 44, 50), "Maroon": (122, 32, 48), "Pink": (240, 142, 172), "Magenta": (200, 46, 124),
    "Purple": (112, 66, 150), "Lavender": (188, 170, 220),
}
CLOTH: Final = ["Black", "Black", "White", "White", "Navy Blue", "Navy Blue", "Blue", "Blue", "Grey", "Grey", "Red", "Green", "Charcoal"]
CLOTH += ["Maroon", "Olive", "Teal", "Yellow", "Orange", "Sea Green", "Turquoise Blue", "Purple", "Beige", "Cream", "Mustard", "Rust"]
BRIGHT: Final = [*CLOTH, "Pink", "Pink", "Pink", "Magenta", "Magenta", "Lavender", "Lavender", "Peach", "Peach", "Red", "Purple"]
DENIM: Final = ["Blue", "Blue", "Blue", "Navy Blue", "Navy Blue", "Black", "Grey"]
SOBER: Final = ["Black", "Black", "Navy Blue", "Grey", "Charcoal", "Khaki", "Beige", "Brown", "Olive"]
HIDE: Final = ["Black", "Black", "Brown", "Brown", "Tan"]
SHOES: Final = ["Black", "Black", "White", "White", "Grey", "Navy Blue", "Blue", "Red", "Brown", "Tan", "Green", "Olive"]
LADIES: Final = ["Black", "Black", "Red", "Pink", "Beige", "Tan", "Brown", "Gold", "Silver", "Purple", "Maroon", "Cream", "Turquoise Blue"]
STRAP: Final = ["Black", "Black", "Brown", "Tan", "Silver", "Gold", "White", "Navy Blue", "Pink"]
PAINT: Final = ["Red", "Red", "Pink", "Pink", "Magenta", "Maroon", "Peach", "Purple", "Rust"]

SEASONS: Final = ("Summer", "Fall", "Winter", "Spring")
ANY_TIME: Final = (38, 72, 92, 100)  # running totals of the seasons' shares
WARM: Final = (74, 84, 85, 100)
COLD: Final = (2, 52, 96, 100)
YEARS: Final = range(2007, 2019)
YEAR_TOTALS: Final = tuple(accumulate((2, 3, 6, 22, 21, 20, 8, 5, 4, 4, 3, 2)))
BRANDS: Final = (
    "Harbour", "Oakmere", "Tidewell", "Larkspun", "Quillfold", "Norrvane", "Saltmarch", "Emberlow", "Brackenby",
    "Kitewise", "Plumbright", "Zephyrow", "Mossandel", "Vellouri", "Corriden", "Hollowbrook",
)
TAILS: Final = (", Pack of 2", ", Slim Fit", ", New Arrival", ", Limited Edition")  # the comma nobody quoted


@dataclass(frozen=True)
class Article:
    """One kind of thing: its place in the catalogue, who wears it, how often it is sold to them, how it is drawn."""

    kind: str
    noun: str
    category: str  # masterCategory/subCategory
    draw: Callable[[Pen, Random, Overlay], None]
    shares: dict[str, int]
    colours: Sequence[str]
    usages: Sequence[str] = ("Casual",)
    seasons: Sequence[int] = ANY_TIME
    patterns: Sequence[str] = ()
    turns: bool = field(default=False)  # looks right from the other side as well


WOVEN: Final = ("Striped", "Checked", "Checked", "Dotted")
KNITTED: Final = ("Striped", "Striped", "Printed", "Printed", "Dotted")
TOPS: Final = "Apparel/Topwear"
BOTTOMS: Final = "Apparel/Bottomwear"
FOOTWEAR: Final = "Footwear/Shoes"
ARTICLES: Final = (
    Article("Tshirts", "T-shirt", TOPS, tshirt, {"Men": 16, "Women": 7, "Boys": 34, "Girls": 26, "Unisex": 6}, CLOTH, ("Casual", "Casual", "Sports"),
            ANY_TIME, KNITTED),
    Article("Shirts", "Shirt", TOPS, shirt, {"Men": 17, "Women": 4, "Boys": 16}, CLOTH, ("Casual", "Casual", "Formal"), ANY_TIME, WOVEN),
    Article("Jackets", "Jacket", TOPS, jacket, {"Men": 5, "Women": 4, "Boys": 8}, CLOTH, ("Casual", "Sports"), COLD),
    Article("Sweatshirts", "Sweatshirt", TOPS, knit, {"Men": 4, "Women": 3, "Boys": 10, "Girls": 8}, CLOTH, ("Casual", "Sports"), COLD),
    Article("Sweaters", "Sweater", TOPS, knit, {"Men": 4, "Women": 3, "Girls": 4}, CLOTH, ("Casual",), COLD, ("Striped",)),
    Article("Kurtas", "Kurta", TOPS, kurta, {"Men": 3, "Women": 6}, BRIGHT, ("Ethnic",), ANY_TIME, ("Dotted", "Striped")),
    Article("Tops", "Top", TOPS, blouse, {"Women": 10, "Girls": 14}, BRIGHT, ("Casual", "Casual", "Party"), ANY_TIME, ("Striped", "Dotted", "Dotted")),
    Article("Dresses", "Dress", "Apparel/Dress", dress, {"Women": 10, "Girls": 18}, BRIGHT, ("Casual", "Party"), ANY_TIME, ("Dotted", "Dotted", "Striped")),
    Article("Skirts", "Skirt", BOTTOMS, skirt, {"Women": 5, "Girls": 10}, BRIGHT, ("Casual",), WARM, ("Dotted", "Checked", "Checked")),
    Article("Jeans", "Jeans", BOTTOMS, jeans, {"Men": 7, "Women": 6, "Boys": 10, "Girls": 8}, DENIM),
    Article("Trousers", "Trousers", BOTTOMS, trousers, {"Men": 6, "Women": 3}, SOBER, ("Formal", "Formal", "Casual")),
    Article("Track Pants", "Track Pants", BOTTOMS, track_pants, {"Men": 4, "Women": 2, "Boys": 8}, SOBER, ("Sports",)),
    Article("Shorts", "Shorts", BOTTOMS, shorts, {"Men": 5, "Women": 3, "Boys": 14, "Girls": 6}, [*SOBER, "Blue", "Red"], ("Casual", "Sports"), WARM,
            ("Checked",)),
    Article("Casual Shoes", "Casual Shoes", FOOTWEAR, casual_shoe, {"Men": 8, "Women": 3, "Unisex": 3}, SHOES, turns=True),
    Article("Sports Shoes", "Sports Shoes", FOOTWEAR, sports_shoe, {"Men": 8, "Women": 3}, SHOES, ("Sports",), turns=True),
    Article("Formal Shoes", "Formal Shoes", FOOTWEAR, formal_shoe, {"Men": 6}, HIDE, ("Formal",), turns=True),
    Article("Heels", "Heels", FOOTWEAR, heels, {"Women": 9}, LADIES, ("Casual", "Party", "Formal"), turns=True),
    Article("Flats", "Flats", FOOTWEAR, flats, {"Women": 5}, LADIES, turns=True),
    Article("Sandals", "Sandals", "Footwear/Sandal", sandal, {"Men": 3, "Women": 3}, [*HIDE, "Navy Blue", "Olive"], seasons=WARM, turns=True),
    Article("Flip Flops", "Flip Flops", "Footwear/Flip Flops", flip_flops, {"Men": 3, "Women": 2, "Unisex": 4}, CLOTH, seasons=WARM),
    Article("Handbags", "Handbag", "Accessories/Bags", handbag, {"Women": 12}, LADIES, ("Casual", "Party")),
    Article("Backpacks", "Backpack", "Accessories/Bags", backpack, {"Men": 3, "Unisex": 26}, CLOTH, ("Casual", "Sports")),
    Article("Watches", "Watch", "Accessories/Watches", watch, {"Men": 8, "Women": 6, "Unisex": 10}, STRAP, ("Casual", "Formal")),
    Article("Caps", "Cap", "Accessories/Headwear", cap, {"Men": 4, "Unisex": 18}, CLOTH, ("Casual", "Sports"), WARM, turns=True),
    Article("Belts", "Belt", "Accessories/Belts", belt, {"Men": 4, "Women": 1}, HIDE, ("Casual", "Formal")),
    Article("Wallets", "Wallet", "Accessories/Wallets", wallet, {"Men": 4, "Women": 2}, [*HIDE, "Maroon"]),
    Article("Sunglasses", "Sunglasses", "Accessories/Eyewear", sunglasses, {"Men": 3, "Women": 3, "Unisex": 12}, STRAP[:4], seasons=WARM),
    Article("Ties", "Tie", "Accessories/Ties", tie, {"Men": 3}, ["Navy Blue", "Maroon", "Grey", "Black", "Red", "Teal", "Purple"], ("Formal",)),
    Article("Socks", "Socks", "Accessories/Socks", socks, {"Men": 3, "Unisex": 5}, CLOTH, ("Casual", "Sports"), patterns=("Striped", "Dotted")),
    Article("Perfume and Body Mist", "Perfume", "Personal Care/Fragrance", perfume, {"Men": 2, "Women": 3}, ["Blue", "Teal", "Gold", "Pink", "Lavender"]),
    Article("Lipstick", "Lipstick", "Personal Care/Lips", lipstick, {"Women": 3}, PAINT),
    Article("Nail Polish", "Nail Polish", "Personal Care/Nails", nail_polish, {"Women": 3}, PAINT),
)
GENDERS: Final = ("Men", "Women", "Unisex", "Boys", "Girls")
GENDER_TOTALS: Final = (50, 84, 92, 97, 100)
SHELVES: Final = {gender: [article for article in ARTICLES if gender in article.shares] for gender in GENDERS}
SHELF_TOTALS: Final = {gender: list(accumulate(article.shares[gender] for article in SHELVES[gender])) for gender in GENDERS}


@dataclass(frozen=True)
class Product:
    """What an image shows; rows that share an image share this."""

    gender: str
    article: Article
    colour: str
    pattern: str


@lru_cache(maxsize=8192)
def product_for(seed: int, number: int) -> Product:
    """Choose the product of one image."""
    rng = Random(f"{seed}/product/{number}")
    gender = rng.choices(GENDERS, cum_weights=GENDER_TOTALS)[0]
    article = rng.choices(SHELVES[gender], cum_weights=SHELF_TOTALS[gender])[0]
    pattern = rng.choice(article.patterns) if article.patterns and rng.random() < 0.45 else ""
    return Product(gender, article, rng.choice(article.colours), pattern)


def cells_for(product: Product, rng: Random, identity: int) -> list[str]:
    """The ten cells of one row."""
    article = product.article
    master, sub = article.category.split("/")
    season = rng.choices(SEASONS, cum_weights=article.seasons)[0]
    year = rng.choices(YEARS, cum_weights=YEAR_TOTALS)[0]
    words = (rng.choice(BRANDS), product.gender, product.colour, product.pattern, article.noun)
    name = " ".join(word for word in words if word)
    return [str(identity), product.gender, master, sub, article.kind, product.colour, season, str(year), rng.choice(article.usages), name]


# --- Rows, and what is wrong with some of them -------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    out: Path
    rows: int
    seed: int
    size: tuple[int, int]
    corrupt: int
    missing: int
    malformed: int
    distinct: int
    expected: bool


def is_prime(number: int) -> bool:
    """Trial division."""
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def identities(rows: int, seed: int) -> Iterator[int]:
    """Unique ids with gaps, in no order: modulo a prime that is 2 modulo 3, no two numbers have the same cube."""
    prime = max(58_000, rows * 4 // 3)
    while prime % 3 != 2 or not is_prime(prime):
        prime += 1
    rng = Random(f"{seed}/ids")
    step, start = rng.randrange(1, prime), rng.randrange(prime)
    for row in range(rows):
        yield FIRST_ID + pow(start + step * row, 3, prime)


def decodes(data: bytes) -> bool:
    """Whether Pillow makes an image of this."""
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def truncated(data: bytes) -> bytes:
    """The first part of a file, as an interrupted copy leaves it."""
    return data[: len(data) * 2 // 3]


def emptied(data: bytes) -> bytes:
    """Nothing."""
    return b""


def replaced_by_text(data: bytes) -> bytes:
    """An error page, as a failed download leaves it."""
    return b"<html><body><h1>404 Not Found</h1></body></html>\n"


def flipped(data: bytes) -> bytes:
    """The file with the bits of its first bytes flipped."""
    return bytes(byte ^ 0xFF for byte in data[:32]) + data[32:]


DAMAGES: Final = {"truncated": truncated, "empty": emptied, "text": replaced_by_text, "header": flipped}


def damaged(data: bytes, how: str) -> bytes:
    """Corrupt an image so that it certainly cannot be decoded."""
    data = DAMAGES[how](data)
    while decodes(data):
        data = data[: len(data) // 2]
    return data


def troubles(options: Options) -> dict[int, str]:
    """Choose the bad rows; a corrupt row maps to the kind of damage."""
    counts = options.corrupt, options.missing, options.malformed
    chosen = Random(f"{options.seed}/troubles").sample(range(options.rows), sum(counts))
    kinds = list(DAMAGES)
    labels = [kinds[index % len(kinds)] for index in range(options.corrupt)]
    labels += ["missing"] * options.missing + ["malformed"] * options.malformed
    return dict(zip(chosen, labels, strict=True))


class Images:
    """Writes the image files, drawing each distinct image once and linking further rows to it."""

    def __init__(self, options: Options) -> None:
        self.folder = options.out / "images"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.count = 0
        self._first: dict[int, str] = {}

    def write(self, identity: int, number: int, how: str | None) -> None:
        """Give a row its image, damaged when `how` says so."""
        path = f"{self.folder}/{identity}.jpg"
        self.count += 1
        if how is not None:
            Path(path).write_bytes(damaged(self._drawn(number), how))
        elif number not in self._first or not self._linked(self._first[number], path):
            first = self._first.get(number)
            Path(path).write_bytes(self._drawn(number) if first is None else Path(first).read_bytes())
            if self.options.distinct < self.options.rows:
                self._first[number] = path

    def _drawn(self, number: int) -> bytes:
        return render(product_for(self.options.seed, number), self.options.seed, number, self.options.size)

    @staticmethod
    def _linked(first: str, path: str) -> bool:
        try:
            os.link(first, path)
        except OSError:  # no hard links here, or too many to this file: the copy takes its place
            return False
        return True


def generate(options: Options) -> int:
    """Write the catalogue row by row; return the number of image files."""
    bad = troubles(options)
    found: dict[str, list[dict[str, int | str]]] = {"corrupt": [], "missing": [], "malformed": []}
    images = Images(options)
    with (options.out / "styles.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row, identity in enumerate(identities(options.rows, options.seed)):
            number, trouble = row % options.distinct, bad.get(row)
            rng = Random(f"{options.seed}/row/{row}")
            cells = cells_for(product_for(options.seed, number), rng, identity)
            if trouble == "malformed":
                cells += rng.choice(TAILS).split(",")[1:]  # one cell too many, as an unquoted comma gives
            writer.writerow(cells)
            if trouble != "missing":
                images.write(identity, number, trouble if trouble in DAMAGES else None)
            if trouble is not None:
                note: dict[str, int | str] = {"row": row, "id": identity}
                found["corrupt" if trouble in DAMAGES else trouble].append(note | {"how": trouble} if trouble in DAMAGES else note)
    if options.expected:
        write_expected(options, found, images.count)
    return images.count


def write_expected(options: Options, found: dict[str, list[dict[str, int | str]]], images: int) -> None:
    """Say which rows are bad, for tests to compare with."""
    totals = {"rows": options.rows, "images": images} | {kind: len(rows) for kind, rows in found.items()}
    totals["good"] = options.rows - sum(len(rows) for rows in found.values())
    text = json.dumps({"seed": options.seed, "totals": totals, **found}, indent=1)
    (options.out / "expected.json").write_text(text + "\n", encoding="utf-8")


# --- Command line ------------------------------------------------------------------------------------------------------


def parse_size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 8000 and 16 <= int(height) <= 8000):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT, each from 16 to 8000, as 60x80")
    return int(width), int(height)


def parse_whole(text: str) -> int:
    """Read a number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, 0 or more")
    return int(text)


def parse_count(text: str) -> str:
    """Check a count, or a percentage of the rows."""
    number = text.removesuffix("%")
    whole, _, decimals = number.partition(".") if text.endswith("%") else (number, "", "0")
    if not whole.isdecimal() or not (decimals or "0").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a count as 20 or a share as 1%")
    return text


def counted(text: str, rows: int) -> int:
    """A count, or a percentage of the rows, rounded down."""
    if not text.endswith("%"):
        return int(text)
    whole, _, decimals = text[:-1].partition(".")
    return rows * int(whole + decimals) // (100 * 10 ** len(decimals))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    result.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; must be empty or new")
    result.add_argument("--rows", type=parse_whole, required=True, metavar="N", help="rows of styles.csv")
    result.add_argument("--seed", type=parse_whole, default=0, metavar="N", help="another seed, another catalogue (default 0)")
    result.add_argument("--size", type=parse_size, default=GRID, metavar="WxH", help="pixels of every image (default 60x80)")
    result.add_argument("--corrupt", type=parse_count, default="0", metavar="N", help="rows whose image cannot be decoded: a count or 1%%")
    result.add_argument("--missing", type=parse_count, default="0", metavar="N", help="rows without an image file: a count or 1%%")
    result.add_argument("--malformed", type=parse_count, default="0", metavar="N", help="rows with 11 fields: a count or 1%%")
    result.add_argument("--distinct", type=parse_whole, metavar="K", help="draw only K images and hard-link the rest to them")
    result.add_argument("--expected", action="store_true", help="write expected.json, which lists the bad rows")
    result.add_argument("--force", action="store_true", help="replace an earlier catalogue in DIR")
    return result


def checked(arguments: Sequence[str] | None) -> tuple[Options, bool]:
    """Read the command line; every mistake ends with exit code 2 and a sentence."""
    command = parser()
    given = command.parse_args(arguments)
    counts: dict[str, int] = {}
    for kind in ("corrupt", "missing", "malformed"):
        counts[kind] = counted(getattr(given, kind), given.rows)
        if counts[kind] > given.rows:
            command.error(f"--{kind} {getattr(given, kind)}: more than the {given.rows} rows")
    if sum(counts.values()) > given.rows:
        asked = " + ".join(f"--{kind} {getattr(given, kind)}" for kind, count in counts.items() if count)
        command.error(f"{asked}: together more than the {given.rows} rows")
    if given.distinct is not None and given.distinct == 0:
        command.error("--distinct 0: at least one image must be drawn")
    if given.out.exists() and not given.out.is_dir():
        command.error(f"--out {given.out}: is a file")
    if given.out.is_dir() and any(given.out.iterdir()) and not given.force:
        command.error(f"--out {given.out}: is not empty; --force replaces the catalogue in it")
    distinct = min(given.distinct or given.rows, given.rows)
    return Options(given.out, given.rows, given.seed, given.size, **counts, distinct=distinct, expected=given.expected), given.force


def clear(out: Path) -> None:
    """Remove an earlier catalogue, and nothing else: a file of its images would not be missing any more."""
    for name in ("styles.csv", "expected.json"):
        (out / name).unlink(missing_ok=True)
    if (out / "images").is_dir():
        with os.scandir(out / "images") as entries:
            for entry in entries:
                if entry.name.endswith(".jpg"):
                    os.unlink(entry.path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    options, force = checked(arguments)
    if force:
        clear(options.out)
    images = generate(options)
    print(f"{options.out}: {options.rows} rows, {images} images of {options.size[0]}x{options.size[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
