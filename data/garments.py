"""What the shop sells, drawn: each article draws its cloth, then lays the pattern, then its details."""

from __future__ import annotations

from random import Random

from pen import DENIM_THREAD, GOLD, GREY, INK, LEATHER, PAPER, PRINT_COLOURS, RGB, SILVER, Overlay, Pen, Points, is_dark, mirrored, tone


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
    pen.fill([(25, 6.6), (35, 6.6), (37, 8.6), (34.5, 9 + neck), (25.5, 9 + neck), (23, 8.6)], pen.shade(0.62), 1)  # the inside
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
    pen.stretch(rng.uniform(1.14, 1.22), rng.uniform(0.86, 0.9))
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
    pen.stretch(1.09 if long else 1.18, 0.89)
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
    pen.stretch(1.08, 0.92)
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


def sweater(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A sweater with ribbed ends."""
    knit(pen, overlay, hooded=False)


def sweatshirt(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A sweatshirt, mostly with a hood and a pouch."""
    knit(pen, overlay, hooded=rng.random() < 0.8)


def knit(pen: Pen, overlay: Overlay, hooded: bool) -> None:
    """A long-sleeved top with ribbed ends."""
    pen.stretch(1.09, 0.9)
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
    pen.stretch(1.08, 0.99)
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
    pen.stretch(1.16, 0.88)
    if rng.random() < 0.6:
        sleeves(pen, rng.uniform(22, 26), 1.5)
    torso(pen, rng.uniform(8, 11), 64, 5, rng.uniform(1, 4))
    overlay()
    pen.line([(19, 39.5), (30, 41), (41, 39.5)], rng.choice((0.6, 2.2)), pen.shade(0.72))
    for x in (23, 27.5, 32.5, 37):
        pen.line([(x, 43), (30 + (x - 30) * 1.35, 63)], 0.45, pen.shade(0.84), 0)


def dress(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A dress with straps or short sleeves, a waist and a wide skirt."""
    pen.stretch(1.12, 1.0)
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
    pen.stretch(1.12, 1.0)
    hem, wide = rng.uniform(54, 68), rng.uniform(14, 23)
    half = [(30, 14), (38.5, 14), (38.5, 14), (42, 26), (30 + wide, hem), (30 + wide, hem), (30 + wide / 2, hem + 2), (30, hem + 2.4)]
    pen.fill(mirrored(half), None, 2)
    overlay()
    for x in (-0.75, -0.45, -0.15, 0.15, 0.45, 0.75):
        pen.line([(30 + x * 9, 19), (30 + x * wide, hem + 1)], 0.7, pen.shade(0.78), 0)
    pen.line([(20, 15.8), (40, 15.8)], 3.6, pen.shade(0.72), 0)


def legs(pen: Pen, length: float, wide: float) -> None:
    """Two legs below a waistband."""
    pen.stretch(1.14, 1.0)
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
    pen.move(11)
    hem = rng.uniform(38, 47)
    legs(pen, hem, rng.uniform(6, 8))
    overlay()
    leg_details(pen, pen.shade(0.6))
    for side in (1, -1):
        pen.line([(30 + side * 2, hem - 1.6), (30 + side * 20, hem - 2.6)], 0.5, pen.shade(0.6), 0)


def shoe_body(pen: Pen, sole: RGB, thick: float, ankle: float) -> None:
    """A shoe from the side, toe to the left."""
    pen.move(-7)
    pen.fill([(4, 55), (3.4, 55 + thick), (20, 56 + thick), (56, 55.6 + thick), (57, 52), (30, 51)], sole, 2)
    upper = [(4, 54.8), (4, 54.8), (3.6, 49), (9, 46), (17, 44.6), (25, 40), (33, ankle), (35, ankle - 0.6), (38, ankle + 4.2)]
    upper += [(46, ankle + 4.4), (52, ankle - 1.6), (54.4, ankle - 1), (55.4, 44), (56.6, 54.4), (56.6, 54.4), (30, 55.4)]
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
    zigzag = [(19, 53.4), (25, 49), (29, 53.4), (35, 46), (39, 53), (45, 43)]
    pen.line(zigzag, rng.uniform(1.2, 2.0), accent, rng.choice((0, 2)))
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
    pen.move(-3)
    pen.line([(52, 32), (53, 46), (52, 62)], rng.uniform(1.8, 3.6), pen.shade(0.7), 1, part=True)
    sole = [(4, 60), (4, 60), (14, 61.6), (22, 60), (34, 50), (46, 42), (54, 40), (54, 36), (30, 46)]
    pen.fill(sole, pen.shade(0.5), 2)
    upper = [(3.6, 60), (3.6, 60), (6, 56), (12, 53.6), (18, 53.6), (25, 49), (36, 37.5), (44, 33), (49, 25), (54.6, 24)]
    upper += [(56, 33), (55, 39), (46, 41), (34, 49), (22, 59), (14, 60.6)]
    pen.fill(upper, None, 2)
    overlay()
    pen.line([(7, 57.4), (11, 55.6), (15, 56)], 0.9, pen.shade(1.5))
    if rng.random() < 0.4:
        pen.disc(14, 54.6, 2, rng.choice((GOLD, SILVER)), flat=0.6)


def flats(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A ballerina shoe from the side."""
    pen.move(-9)
    pen.fill([(4, 52), (3.6, 55.6), (30, 56.6), (56.6, 55.4), (56, 52)], pen.shade(0.45), 1)
    upper = [(3.8, 54.4), (3.8, 54.4), (4, 50), (10, 47), (18, 48), (26, 51), (40, 50), (50, 43), (55, 43)]
    upper += [(56.4, 54), (56.4, 54), (30, 55.4)]
    pen.fill(upper, None, 2)
    overlay()
    pen.line([(17, 48.4), (26, 51.6), (40, 50.6), (50, 43.8), (54.6, 43.6)], 0.8, pen.shade(0.66))
    for side in (1, -1):
        pen.fill([(15.5, 47.4), (15.5 + side * 4.6, 44.6), (15.5 + side * 4.6, 50)], rng.choice((pen.shade(0.75), pen.contrast())), 1)
    pen.disc(15.5, 47.4, 1.1, pen.shade(0.6))


def sandal(pen: Pen, rng: Random, overlay: Overlay) -> None:
    """A strapped sandal from the side."""
    pen.move(-6)
    pen.fill([(2.6, 53), (3, 58.6), (30, 59.4), (57.4, 58.4), (57.6, 52), (44, 51), (20, 54)], tone(LEATHER, 0.6), 2)
    pen.fill([(2.6, 52.6), (3, 55.4), (20, 56.6), (44, 54.6), (57.6, 55), (57.6, 51.6), (44, 50.4), (20, 53)], tone(LEATHER, 1.3), 2)
    bands: tuple[Points, ...] = (
        [(9, 55.4), (12, 46), (17, 43), (22, 43.4), (18, 47), (16.5, 56)],
        [(22, 56), (23, 46), (29, 40), (34, 40), (30, 46), (29, 55.6)],
        [(46, 54), (48, 42), (51, 32), (56, 32), (57, 42), (57.6, 54)],
    )
    for band in bands:
        pen.fill(band, None, 1)
        pen.line(band[:3], 0.5, pen.shade(0.7), 1)
    pen.line([(31, 41), (38, 36), (53, 35)], rng.uniform(2.4, 3.2), pen.shade(0.88), part=True)
    pen.disc(43, 36.2, 1.8, SILVER)
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
        handle = [(20 - reach, 34), (20 - reach, 10 + reach), (40 + reach, 10 + reach), (40 + reach, 34)]
        pen.line(handle, 1.7, pen.shade(0.75 - reach / 8), part=True)
    wide = rng.uniform(20, 23)
    half = [(30, 30), (30 + wide - 4, 30), (30 + wide - 4, 30), (30 + wide + 1, 60), (30 + wide - 1, 67), (30, 67.4)]
    pen.fill(mirrored(half), None, 2)
    overlay()
    if rng.random() < 0.5:
        flap = [(30 - wide + 4, 30), (30 + wide - 4, 30), (30 + wide - 5, 44), (30, 50), (30 - wide + 5, 44)]
        pen.fill(flap, pen.shade(0.85), 1, part=False)
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
    pen.fill([(14, 46), (32, 46), (32, 73), (14, 73)], case, 0)
    pen.fill([(37, 42), (51, 42), (51, 73), (37, 73)], case, 0)
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
