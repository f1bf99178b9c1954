"""The registry, the built-in functions, users' functions, random draws, and the chain that runs them."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from pipelinejob.functions import BUILTINS, SCALED_PSNR_DB, Chain, Draws, Function, Outcome, load
from pipelinejob.functions.errors import NO_MEMORY
from pipelinejob.images import MODES, SCALED, decode
from pipelinejob.reasons import RowFailure, RowReason

LIMIT = 100_000_000


def picture(width: int = 60, height: int = 80, mode: str = "RGB") -> Image.Image:
    image = Image.merge("RGB", (Image.linear_gradient("L"), Image.radial_gradient("L"), Image.linear_gradient("L").rotate(90)))
    image = image.resize((width, height))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").rotate(90).resize((width, height)))
    return image.convert(mode)


def run(
    image: Image.Image | None, *functions: Mapping[str, object], id: str = "7", seed: int = 0, row: Mapping[str, str] | None = None
) -> Outcome:
    return Chain(functions, seed=seed).run(image, row or {"id": id}, id)


def result(image: Image.Image, name: str, **params: object) -> Image.Image:
    outcome = run(image, {"name": name, "params": params})
    assert outcome.image is not None and outcome.columns == () and not outcome.skipped
    return outcome.image


def photo_like(seed: int) -> Image.Image:
    """Smooth blobs, as photographs are."""
    draw = random.Random(seed)
    small = Image.frombytes("RGB", (6, 8), bytes(draw.randrange(256) for _ in range(6 * 8 * 3)))
    return small.resize((150, 200), Image.Resampling.BICUBIC)


def failure(image: Image.Image | None, *functions: Mapping[str, object]) -> RowFailure:
    with pytest.raises(RowFailure) as caught:
        run(image, *functions)
    assert caught.value.reason is RowReason.FUNCTION_ERROR and caught.value.function == functions[-1]["name"]
    return caught.value


# --- what is told of a picture --------------------------------------------------------------------------------------


def told(image: Image.Image, name: str) -> str:
    outcome = run(image, {"name": name})
    ((position, function, found),) = outcome.columns
    assert (position, function, list(found)) == (0, name, [name]) and outcome.image is not None
    assert outcome.image.tobytes() == image.tobytes(), "the picture stays as it is"
    return str(found[name])


def test_phash_of_pictures_that_look_alike_and_of_others() -> None:
    def distance(one: Image.Image, other: Image.Image) -> int:
        return (int(told(one, "phash"), 16) ^ int(told(other, "phash"), 16)).bit_count()

    shirt = photo_like(1)
    assert len(told(shirt, "phash")) == 16 and told(shirt, "phash") == told(shirt.copy(), "phash")
    alike = [shirt.resize((75, 100)), shirt.resize((600, 800)), shirt.convert("L"), shirt.point(lambda value: min(255, value + 12))]
    assert max(distance(shirt, other) for other in alike) <= 6
    others = [photo_like(seed) for seed in range(2, 12)]
    assert min(distance(shirt, other) for other in [*others, shirt.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]) >= 12


def test_phash_is_pinned() -> None:
    """Users compare hashes of years: another bit needs a new VERSION."""
    assert told(picture(), "phash") == "aa419977a6509967"
    assert told(Image.new("RGB", (9, 9), "black"), "phash") == "0" * 16


@pytest.mark.parametrize("mode", MODES)
def test_dominant_color(mode: str) -> None:
    image = Image.new("RGB", (90, 60), "#2040c0")
    image.paste("#e0c020", (0, 0, 30, 60))
    wanted = {"L": "#4c4c4c", "LA": "#4c4c4c"}.get(mode, "#2040c0")
    found = told(image.convert(mode), "dominant_color")
    assert max(abs(int(found[at : at + 2], 16) - int(wanted[at : at + 2], 16)) for at in (1, 3, 5)) <= 8, found
    assert told(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "dominant_color") == "#ffffff"


def test_a_row_without_image_has_nothing_to_be_told_of() -> None:
    assert "needs an image" in failure(None, {"name": "phash"}).message


# --- draws ----------------------------------------------------------------------------------------------------------


def test_draws_are_pinned() -> None:
    """A change of these numbers changes users' pictures: it needs a new VERSION of the functions that draw."""
    draws = Draws(0, "1163", 0)
    assert [draws.below(1000) for _ in range(6)] == [613, 476, 610, 447, 449, 714]
    assert Draws(0, "1163", 0).uniform() == 0.4915811028005722


def test_draws_depend_on_seed_id_and_position_alone() -> None:
    def first(seed: int, id: str, position: int) -> int:
        return Draws(seed, id, position).below(2**60)

    assert first(1, "a", 2) == first(1, "a", 2)
    keys = [(1, "a", 2), (2, "a", 2), (1, "b", 2), (1, "a", 3), (1, "2:a", 2), (12, "a", 2), (1, "", 2), (1, "\ud800é", 2)]
    assert len({first(*key) for key in keys}) == len(keys)


def test_draws_are_uniform() -> None:
    draws = Draws(0, "x", 0)
    floats = [draws.uniform() for _ in range(4000)]
    assert 0 <= min(floats) < 0.01 and 0.99 < max(floats) < 1 and abs(sum(floats) / 4000 - 0.5) < 0.02
    counts = [0] * 7
    for each in range(7000):
        counts[Draws(0, str(each), 0).below(7)] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 22.5  # chi-squared, 6 degrees of freedom, p = 0.001
    assert Draws(0, "x", 0).below(1) == 0


# --- registry -------------------------------------------------------------------------------------------------------


def test_listing() -> None:
    assert list(BUILTINS) == [
        "random_crop", "center_crop", "crop", "flip", "resize", "thumbnail",
        "grayscale", "rotate", "autocontrast", "sharpen", "blur", "convert", "phash", "dominant_color",
        "predict", "embed",
    ]  # fmt: skip
    for name, function in BUILTINS.items():
        assert function.doc.endswith(".") and function.digest == f"builtin:{name}@1"
        assert all(param.expected for param in function.params)
    table = [(param.name, param.expected, param.default, param.required) for param in BUILTINS["resize"].params]
    assert table[1:4] == [
        ("height", "a positive integer of at most 16384", table[1][2], True),
        ("fit", "one of stretch, contain, cover", "stretch", False),
        ("filter", "one of nearest, bilinear, bicubic, lanczos", "bilinear", False),
    ]
    assert table[4][1] == "a colour name or #rrggbb"


@pytest.mark.parametrize(
    ("name", "params", "problems"),
    [
        ("resize", {"width": 256, "height": 256}, []),
        ("resize", {"width": "abc", "height": 1}, [("width", "must be a positive integer of at most 16384, got 'abc'")]),
        ("resize", {"width": True, "height": 1}, [("width", "must be a positive integer of at most 16384, got True")]),
        ("resize", {"width": 1.0, "height": 16385}, [
            ("width", "must be a positive integer of at most 16384, got 1.0"),
            ("height", "must be a positive integer of at most 16384, got 16385"),
        ]),
        ("resize", {"width": 0, "height": None}, [
            ("width", "must be a positive integer of at most 16384, got 0"),
            ("height", "must be a positive integer of at most 16384, got None"),
        ]),
        ("resize", {"widht": 5, "width": 5}, [
            ("widht", "unknown parameter; did you mean 'width'?"),
            ("height", "is required: a positive integer of at most 16384"),
        ]),
        ("resize", {"width": 1, "height": 1, "fit": "squash"}, [("fit", "must be one of stretch, contain, cover, got 'squash'")]),
        ("resize", {"width": 1, "height": 1, "fit": ["contain"]}, [("fit", "must be one of stretch, contain, cover, got ['contain']")]),
        ("resize", {"width": 1, "height": 1, "background": "#0f0"}, []),
        ("resize", {"width": 1, "height": 1, "background": "blurple"}, [("background", "must be a colour name or #rrggbb, got 'blurple'")]),
        ("random_crop", {}, []),
        ("random_crop", {"ratio": 1}, []),
        ("random_crop", {"ratio": 2}, [("ratio", "must be a number above 0 and at most 1, got 2")]),
        ("random_crop", {"ratio": 0}, [("ratio", "must be a number above 0 and at most 1, got 0")]),
        ("random_crop", {"ratio": math.nan}, [("ratio", "must be a number above 0 and at most 1, got nan")]),
        ("random_crop", {"ratio": math.inf}, [("ratio", "must be a number above 0 and at most 1, got inf")]),
        ("random_crop", {"ratio": True}, [("ratio", "must be a number above 0 and at most 1, got True")]),
        ("random_crop", {"ratio": 10**400}, [("ratio", "must be a number above 0 and at most 1, got 1" + "0" * 79 + "…")]),
        ("random_crop", {"zzz": 1}, [("zzz", "unknown parameter; expected one of ratio")]),
        ("grayscale", {"ratio": 1}, [("ratio", "unknown parameter; this function takes none")]),
        ("rotate", {"angle": 361, "expand": 1}, [
            ("angle", "must be a number from -360 to 360, got 361"),
            ("expand", "must be true or false, got 1"),
        ]),
        ("crop", {"left": -1, "top": 0, "width": 1, "height": 1}, [("left", "must be an integer from 0 to 65535, got -1")]),
        ("center_crop", {"ratio": 0.5}, []),
        ("center_crop", {"width": 5, "height": 5, "ratio": None}, []),
        ("center_crop", {}, [("", "expected either ratio, or width and height, got none of them")]),
        ("center_crop", {"width": 5}, [("", "expected either ratio, or width and height, got width")]),
        ("center_crop", {"ratio": 1, "width": 5, "height": 5}, [
            ("", "expected either ratio, or width and height, got height, ratio, width"),
        ]),
        ("flip", {"direction": "up"}, [("direction", "must be one of horizontal, vertical, got 'up'")]),
        ("blur", {"radius": 1000}, [("radius", "must be a number from 0 to 200, got 1000")]),
    ],
)  # fmt: skip
def test_check(name: str, params: dict[str, object], problems: list[tuple[str, str]]) -> None:
    assert BUILTINS[name].check(params) == problems


def test_resolve_fills_in_defaults_in_the_order_of_the_signature() -> None:
    assert list(BUILTINS["resize"].resolve({"height": 2, "width": 1}).items()) == [
        ("width", 1), ("height", 2), ("fit", "stretch"), ("filter", "bilinear"), ("background", "white"),
    ]  # fmt: skip
    assert BUILTINS["random_crop"].resolve({}) == {"ratio": 0.8}


def test_unknown_function() -> None:
    with pytest.raises(ValueError, match=r"^no built-in function 'resise'; did you mean 'resize'\?$"):
        load({"name": "resise"})
    with pytest.raises(ValueError, match=r"^no built-in function 'xyz'; expected one of random_crop, center_crop, "):
        load({"name": "xyz"})


# --- built-in functions ---------------------------------------------------------------------------------------------

EXAMPLES: list[tuple[str, dict[str, object], tuple[int, int]]] = [
    ("random_crop", {}, (48, 64)),
    ("random_crop", {"ratio": 0.001}, (1, 1)),
    ("center_crop", {"ratio": 0.5}, (30, 40)),
    ("center_crop", {"width": 10, "height": 70}, (10, 70)),
    ("crop", {"left": 59, "top": 0, "width": 1, "height": 80}, (1, 80)),
    ("flip", {"direction": "horizontal"}, (60, 80)),
    ("flip", {"direction": "vertical"}, (60, 80)),
    ("resize", {"width": 256, "height": 256}, (256, 256)),
    ("resize", {"width": 30, "height": 30, "filter": "nearest"}, (30, 30)),
    ("resize", {"width": 50, "height": 20, "fit": "contain", "background": "red", "filter": "lanczos"}, (50, 20)),
    ("resize", {"width": 50, "height": 20, "fit": "cover", "filter": "bicubic"}, (50, 20)),
    ("thumbnail", {"width": 30, "height": 30}, (22, 30)),  # 22.5, rounded half to even as Python does
    ("thumbnail", {"width": 300, "height": 300}, (60, 80)),
    ("grayscale", {}, (60, 80)),
    ("rotate", {"angle": 90}, (80, 60)),
    ("rotate", {"angle": 90, "expand": False}, (60, 80)),
    ("rotate", {"angle": 30.5, "background": "#ff0000"}, (94, 100)),
    ("autocontrast", {"cutoff": 2}, (60, 80)),
    ("sharpen", {}, (60, 80)),
    ("sharpen", {"radius": 0, "percent": 0, "threshold": 0}, (60, 80)),
    ("blur", {"radius": 3.5}, (60, 80)),
    ("convert", {"mode": "rgb", "background": "navy"}, (60, 80)),
    ("convert", {"mode": "rgba"}, (60, 80)),
    ("convert", {"mode": "gray"}, (60, 80)),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "params", "size"), EXAMPLES)
def test_every_function_takes_every_mode(name: str, params: dict[str, object], size: tuple[int, int], mode: str) -> None:
    assert BUILTINS[name].check(params) == []
    image = result(picture(mode=mode), name, **params)
    assert image.mode in MODES and image.info == {}
    assert image.size == size
    if name not in ("convert", "resize", "rotate"):
        assert image.mode == ("LA" if mode[-1] == "A" else "L") if name == "grayscale" else image.mode == mode
    tiny = result(picture(1, 1, mode), name, **params) if name not in ("center_crop", "crop") else image
    assert min(tiny.size) >= 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_at_full_size_crop_and_resize_are_exactly_pillows(mode: str, filter: str) -> None:
    image = picture(mode=mode)
    crop = {"name": "crop", "params": {"left": 3, "top": 5, "width": 48, "height": 64}}
    resize = {"name": "resize", "params": {"width": 256, "height": 100, "filter": filter}}
    expected = image.crop((3, 5, 51, 69)).resize((256, 100), Image.Resampling[filter.upper()])
    assert run(image.copy(), crop, resize).image == expected
    flip = {"name": "flip", "params": {"direction": "horizontal"}}
    mirrored = image.crop((3, 5, 51, 69)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert run(image.copy(), crop, flip, resize).image == mirrored.resize((256, 100), Image.Resampling[filter.upper()])


def test_windows_compose_as_crops_of_crops_do() -> None:
    rng = random.Random(1)
    for _ in range(200):
        image = expected = picture(rng.randrange(20, 60), rng.randrange(20, 60))
        functions: list[Mapping[str, object]] = []
        for _ in range(5):
            if rng.random() < 0.5:
                horizontal = rng.random() < 0.5
                functions.append({"name": "flip", "params": {"direction": "horizontal" if horizontal else "vertical"}})
                expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT if horizontal else Image.Transpose.FLIP_TOP_BOTTOM)
            else:
                width, height = rng.randint(1, expected.width), rng.randint(1, expected.height)
                left, top = rng.randint(0, expected.width - width), rng.randint(0, expected.height - height)
                functions.append({"name": "crop", "params": {"left": left, "top": top, "width": width, "height": height}})
                expected = expected.crop((left, top, left + width, top + height))
        assert run(image, *functions).image == expected


def test_random_crop_reaches_every_position_and_no_other() -> None:
    image = Image.new("L", (5, 4))
    image.putdata(range(20))
    corners = {run(image.copy(), {"name": "random_crop", "params": {"ratio": 0.5}}, id=str(id)).image.getpixel((0, 0)) for id in range(400)}  # type: ignore[union-attr]
    assert corners == {x + 5 * y for x in range(4) for y in range(3)}


def test_random_crop_depends_on_the_position_in_the_chain() -> None:
    twice = [{"name": "random_crop"}, {"name": "random_crop"}]
    assert run(picture(), *twice).image == run(picture(), *twice).image
    assert run(picture(), *twice).image != run(picture(), *twice, seed=1).image
    assert run(picture(), *twice).image != run(picture(), *twice, id="8").image


def test_contain_pads_and_cover_cuts() -> None:
    image = Image.new("RGB", (40, 20), "blue")
    contained = result(image, "resize", width=20, height=20, fit="contain", background="red")
    assert [contained.getpixel((10, y)) for y in (0, 4, 5, 14, 15)] == [(255, 0, 0)] * 2 + [(0, 0, 255)] * 2 + [(255, 0, 0)]
    gray = result(image.convert("L"), "resize", width=20, height=20, fit="contain")
    assert (gray.mode, gray.getpixel((0, 0))) == ("L", 255)
    striped = Image.new("L", (40, 20))
    striped.paste(255, (10, 0, 30, 20))
    assert result(striped, "resize", width=10, height=10, fit="cover").getextrema() == (255, 255)


def test_colours_under_transparent_pixels_do_not_bleed() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (5, 5, 15, 15))
    examples: list[tuple[str, dict[str, object]]] = [
        ("blur", {"radius": 2.0}), ("resize", {"width": 9, "height": 9}), ("rotate", {"angle": 45.0, "background": "#0000ff"}),
    ]  # fmt: skip
    for name, params in examples:
        red, _, _, alpha = result(image.copy(), name, **params).split()
        visible = alpha.point([255 if value > 16 else 0 for value in range(256)])
        assert ImageChops.multiply(red, visible).point([int(value >= 16) for value in range(256)]).getbbox() is None


def test_alpha_is_kept_or_laid_on_the_background() -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert result(image, "convert", mode="rgb", background="lime").getpixel((0, 0)) == (0, 255, 0)
    assert result(image, "convert", mode="gray").getpixel((0, 0)) == 255
    assert result(picture(), "convert", mode="rgba").getchannel("A").getextrema() == (255, 255)
    for name in ("autocontrast", "sharpen"):
        faint = picture(mode="RGBA")
        assert result(faint.copy(), name).getchannel("A") == faint.getchannel("A")


def test_rotate_is_counter_clockwise() -> None:
    image = Image.new("L", (2, 1))
    image.putpixel((1, 0), 255)
    turned = result(image, "rotate", angle=90)
    assert (turned.size, turned.getpixel((0, 0)), turned.getpixel((0, 1))) == ((1, 2), 255, 0)


def test_boxes_outside_the_image() -> None:
    assert failure(picture(), {"name": "crop", "params": {"left": 30, "top": 0, "width": 40, "height": 10}}).message == (
        "a box of 40x10 at (30, 0) does not lie inside the image of 60x80"
    )
    assert failure(picture(), {"name": "center_crop", "params": {"width": 61, "height": 10}}).message == (
        "a box of 61x10 at (-1, 35) does not lie inside the image of 60x80"
    )


@pytest.mark.parametrize("name", ["random_crop", "grayscale"])
def test_rows_without_image(name: str) -> None:
    assert failure(None, {"name": name}).message == "needs an image, and this row has none"


def test_large_results_after_a_small_limit() -> None:
    """Pillow checks crops against its own limit, which is not ours for source images."""
    out = BytesIO()
    picture().save(out, "PNG")
    image = decode(out.getvalue(), max_pixels=4800)
    functions: list[Mapping[str, object]] = [{"name": "resize", "params": {"width": 500, "height": 500}}, {"name": "random_crop"}]
    assert run(image, *functions).image.size == (400, 400)  # type: ignore[union-attr]


# --- users' functions -----------------------------------------------------------------------------------------------


def user(folder: Path, body: str, name: str = "mark", **params: object) -> dict[str, object]:
    (folder / "fn.py").write_text(body, encoding="utf-8")
    return {"name": name, "file": "fn.py", "path": str(folder / "fn.py"), "params": params}


def test_what_a_function_may_return(tmp_path: Path) -> None:
    body = """
from PIL import Image
def columns(image, row, *, factor=2): return {"size": image.width * factor, "name": row["id"]}
def image(image, row): return image.convert("CMYK")
def both(image, row): return image.rotate(180), {"year": 2010}
def skip(image, row): return None
"""
    entries = {name: user(tmp_path, body, name) for name in ("columns", "image", "both", "skip")}
    entries["columns"]["params"] = {"factor": 3}
    outcome = run(picture(), entries["columns"], {"name": "flip", "params": {"direction": "vertical"}}, entries["both"], entries["image"])
    assert outcome.columns == ((0, "columns", {"size": 180, "name": "7"}), (2, "both", {"year": 2010}))
    assert outcome.image is not None and outcome.image.mode == "RGB" and not outcome.skipped
    assert run(picture(), entries["skip"], entries["columns"]) == Outcome(None, (), True)
    assert run(picture(), entries["columns"]).image == picture()


def test_a_function_sees_what_came_before_it_and_a_row_of_its_own(tmp_path: Path) -> None:
    body = """
def mark(image, row):
    row["id"] = "changed"
    return {"size": list(image.size)} if image else {"size": None}
"""
    row = {"id": "7"}
    outcome = run(picture(), {"name": "random_crop"}, user(tmp_path, body), row=row)
    assert outcome.columns == ((1, "mark", {"size": [48, 64]}),) and row == {"id": "7"}
    assert run(None, user(tmp_path, body)) == Outcome(None, ((0, "mark", {"size": None}),), False)


CUT_GIF = b"GIF89a\2\0\2\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\2\0\2\0\0\2"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1", "returned int; expected an image, a mapping, (image, mapping) or None"),
        ("(image, 1)", "returned tuple; expected an image, a mapping, (image, mapping) or None"),
        ("{'': 1}", "returned a column named ''; expected a text that is not empty"),
        ("{1: 1}", "returned a column named 1; expected a text that is not empty"),
        ("{'a': object()}", "returned object in column 'a'; expected a text, a number, or JSON"),
        ("{'a': [{1, 2}]}", "returned list in column 'a'; expected a text, a number, or JSON"),
        ("{'a': [float('nan')]}", "returned list in column 'a'; expected a text, a number, or JSON"),
        ("{'a': chr(0xd800)}", "returned str in column 'a'; expected a text, a number, or JSON"),
        ("{'a': 10 ** 5000}", "returned int in column 'a'; expected a text, a number, or JSON"),
        ("__import__('PIL.Image').Image.open(__import__('io').BytesIO(GIF))", "OSError: image file is truncated (0 bytes not processed)"),
        ("[][1]", "IndexError: list index out of range"),
        ("{}['x']", "KeyError: 'x'"),
        ("(_ for _ in ()).throw(ValueError('one\\ntwo'))", "ValueError: one"),
        ("(_ for _ in ()).throw(ValueError)", "ValueError"),
        ("(_ for _ in ()).throw(MemoryError())", f"MemoryError: {NO_MEMORY}"),
        ("__import__('sys').exit(3)", "SystemExit: 3"),
        ("int(str(object))", "ValueError: invalid literal for int() with base 10: \"<class 'object'>\""),
        ("open('/no/such folder/there/x.txt')", "FileNotFoundError: [Errno 2] No such file or directory: 'x.txt'"),
        ("(_ for _ in ()).throw(OSError('at /srv/x.py:3, <a object at 0x7f00Ab>'))", "OSError: at x.py:3, <a object at 0x…>"),
        ("(_ for _ in ()).throw(OSError('https://a.b/c and 1/2, 640x480 \\t\\x00\\x1b|'))", "OSError: https://a.b/c and 1/2, 640x480    |"),
    ],
)
def test_errors_of_users_functions(tmp_path: Path, expression: str, message: str) -> None:
    assert failure(picture(), user(tmp_path, f"GIF = {CUT_GIF!r}\ndef mark(image, row): return {expression}")).message == message


def test_long_and_broken_texts(tmp_path: Path) -> None:
    long = failure(picture(), user(tmp_path, "def mark(image, row): raise ValueError('y' * 9000)")).message
    assert len(long) == 500 and long.startswith("ValueError: yyy")
    body = "class E(Exception):\n  def __str__(self): raise RuntimeError\ndef mark(image, row): raise E"
    assert failure(picture(), user(tmp_path, body)).message == "E"
    # Ctrl-C is the parent's to handle and never reaches a process that runs rows: this one is the function's own.
    assert failure(picture(), user(tmp_path, "def mark(image, row): raise KeyboardInterrupt")).message == "KeyboardInterrupt"


def test_column_values_become_plain(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    body = """
import enum, numpy
class Colour(str, enum.Enum): RED = "red"
class Level(enum.IntEnum): HIGH = 3
def mark(image, row):
    return {"a": "x", "b": 1, "c": 1.5, "d": True, "e": None, "f": (1, 2), "g": {"k": [Level.HIGH]}, "h": Colour.RED, "i": Level.HIGH,
            "j": numpy.float64(0.1), "k": float("inf")}
"""
    found = run(picture(), user(tmp_path, body)).columns[0][2]
    assert list(found.values()) == ["x", 1, 1.5, True, None, [1, 2], {"k": [3]}, "red", 3, 0.1, math.inf]
    assert [type(value) for value in found.values()] == [str, int, float, bool, type(None), list, dict, str, int, float, float]


def test_params_of_users_functions(tmp_path: Path) -> None:
    body = '''
from __future__ import annotations
from typing import Literal
def mark(image, row, label: str, size: int = 3, share: float = 0.5, loud: bool = False, kind: Literal["a", "b"] = "a", extra=None):
    """Write a label on it."""
def loose(image, row, **rest): return rest
def broken(image, row, size: Unknown): return {"size": size}
'''
    mark = load(user(tmp_path, body))
    assert mark.doc == "Write a label on it." and mark.digest.startswith("sha256:") and len(mark.digest) == 71
    assert [(param.name, param.expected, param.required) for param in mark.params] == [
        ("label", "a text", True), ("size", "an integer", False), ("share", "a number", False),
        ("loud", "true or false", False), ("kind", "one of a, b", False), ("extra", "any value", False),
    ]  # fmt: skip
    assert mark.check({"label": "x", "share": 1, "extra": [1]}) == []
    assert mark.check({"label": 1, "sizes": 2}) == [
        ("sizes", "unknown parameter; did you mean 'size'?"),
        ("label", "must be a text, got 1"),
    ]
    assert load(user(tmp_path, body, "loose")).check({"anything": [1]}) == []
    assert load(user(tmp_path, body, "broken")).check({"size": "5"}) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def mark(image, row:\n  pass", "fn.py, line 1: SyntaxError: '(' was never closed"),
        ("\nx = 1\nimport no_such_module_x", "fn.py, line 3: ModuleNotFoundError: No module named 'no_such_module_x'"),
        ("def f():\n  1 / 0\nf()", "fn.py, line 2: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('no')", "fn.py, line 1: SystemExit: no"),
        ("def marc(image, row): pass", "fn.py defines no function 'mark'; did you mean 'marc'?"),
        ("mark = 1", "fn.py defines no function 'mark'; it defines none"),
        ("def mark(image): pass", "fn.py: 'mark' must take an image and a row; expected def mark(image, row, ...)"),
        ("mark = b'\\0'\0", "fn.py: SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_files_that_cannot_be_loaded(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Chain([user(tmp_path, body)], seed=0)
    assert str(caught.value) == message


def test_loading_from_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^fn.py: No such file or directory$"):
        load({"name": "mark", "file": "fn.py", "path": str(tmp_path / "fn.py")})
    with pytest.raises(ValueError, match=r"^module no_such_pkg: ModuleNotFoundError: No module named 'no_such_pkg'$"):
        load({"name": "mark", "module": "no_such_pkg"})
    body = "import dataclasses\n@dataclasses.dataclass\nclass A:\n  x: 'int' = 1\ndef mark(image, row): return {'x': A().x}\n"
    (tmp_path / "own_module_of_test.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    by_module = {"name": "mark", "module": "own_module_of_test"}
    assert run(None, by_module).columns == run(None, user(tmp_path, body)).columns == ((0, "mark", {"x": 1}),)
    assert load(by_module).digest == load(user(tmp_path, body)).digest != load(user(tmp_path, body + "#")).digest
    assert not (tmp_path / "__pycache__").exists()


# --- the chain ------------------------------------------------------------------------------------------------------


def test_at_is_called_before_each_function(tmp_path: Path) -> None:
    seen: list[int] = []
    Chain([{"name": "random_crop"}, {"name": "grayscale"}], seed=0).run(picture(), {}, "7", seen.append)
    assert seen == [0, 1]
    with pytest.raises(RowFailure):
        Chain([{"name": "grayscale"}, user(tmp_path, "def mark(image, row): return 1")], seed=0).run(picture(), {}, "7", seen.append)
    assert seen == [0, 1, 0, 1]


def test_at_is_not_blamed_on_the_function() -> None:
    def full(position: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Chain([{"name": "grayscale"}], seed=0).run(picture(), {}, "7", full)


def test_no_functions() -> None:
    assert Chain([], seed=0).scale((1000, 1000), "7") == 1
    assert run(picture()).image == picture()


CROP = {"name": "random_crop", "params": {"ratio": 0.8}}
RESIZE = {"name": "resize", "params": {"width": 256, "height": 256}}
SMALL = {"name": "resize", "params": {"width": 100, "height": 90, "filter": "lanczos"}}
FLIP = {"name": "flip", "params": {"direction": "horizontal"}}


@pytest.mark.parametrize(
    ("functions", "size", "scale"),
    [
        ([CROP, RESIZE], (1080, 1440), 2),
        ([CROP, RESIZE], (60, 80), 1),
        ([{"name": "thumbnail", "params": {"width": 8, "height": 8}}], (255, 256), 1),
        ([{"name": "thumbnail", "params": {"width": 8, "height": 8}}], (256, 256), 8),
        ([CROP, RESIZE], (640, 640), 2),
        ([CROP, RESIZE], (639, 640), 1),
        ([CROP, RESIZE], (4000, 3000), 8),
        ([CROP, FLIP, RESIZE], (4000, 3000), 8),
        ([RESIZE], (1024, 5000), 4),
        ([RESIZE], (100000, 255), 1),
        ([{"name": "thumbnail", "params": {"width": 256, "height": 256}}], (1024, 4096), 8),
        ([{"name": "thumbnail", "params": {"width": 5000, "height": 5000}}, RESIZE], (1024, 4096), 4),
        ([{"name": "resize", "params": {"width": 256, "height": 256, "fit": "contain"}}], (1024, 4096), 8),
        ([{"name": "resize", "params": {"width": 256, "height": 256, "fit": "cover"}}], (1024, 4096), 4),
        ([{"name": "resize", "params": {"width": 256, "height": 256, "filter": "nearest"}}], (4000, 3000), 1),
        ([{"name": "center_crop", "params": {"width": 512, "height": 512}}, RESIZE], (4000, 3000), 2),
        ([{"name": "center_crop", "params": {"width": 5000, "height": 512}}, RESIZE], (4000, 3000), 1),
        ([{"name": "grayscale"}, RESIZE], (4000, 3000), 1),
        ([CROP], (4000, 3000), 1),
        ([CROP, {"name": "blur"}, RESIZE], (4000, 3000), 1),
    ],
)
def test_scale(functions: list[Mapping[str, object]], size: tuple[int, int], scale: int) -> None:
    assert Chain(functions, seed=0).scale(size, "7") == scale


def photo(width: int, height: int, seed: int, turn: int, mode: str = "RGB") -> bytes:
    """A photo-like JPEG: gradients, shapes with sharp edges, and some noise."""
    rng = random.Random(seed)
    image = Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * k).resize((width, height)) for k in range(3)])
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y, colour = rng.randrange(width), rng.randrange(height), tuple(rng.randrange(256) for _ in range(3))
        draw.ellipse((x, y, x + rng.randrange(8, width // 3), y + rng.randrange(8, height // 3)), fill=colour)
        draw.line((x, y, rng.randrange(width), rng.randrange(height)), fill=colour, width=rng.choice((2, 5, 9)))
    noise = Image.frombytes("L", (width, height), rng.randbytes(width * height)).point([96 + value // 4 for value in range(256)])
    image = ImageChops.add(image, noise.convert("RGB"), scale=1, offset=-128).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = turn
    out = BytesIO()
    image.save(out, "JPEG", quality=88, exif=exif)
    return out.getvalue()


def psnr(one: Image.Image, other: Image.Image) -> float:
    squares = ImageStat.Stat(ImageChops.difference(one, other)).rms
    return 20 * math.log10(255 / math.sqrt(sum(each * each for each in squares) / len(squares)))


@pytest.mark.parametrize("size", [(1080, 1440), (641, 479), (1283, 961), (3001, 2003), (1024, 1536)])
@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize("functions", [[CROP, RESIZE], [CROP, FLIP, RESIZE], [CROP, SMALL]])
def test_scaled_decoding_stays_close_to_full_decoding(size: tuple[int, int], turn: int, functions: list[Mapping[str, object]]) -> None:
    data, chain = photo(*size, seed=size[0], turn=turn), Chain(functions, seed=0)
    scaled = decode(data, max_pixels=LIMIT, scale_for=lambda size: chain.scale(size, "7"))
    full = decode(data, max_pixels=LIMIT)
    if turn == 1 and min(size) * 0.8 >= 512:
        assert SCALED in scaled.info
    found, expected = (chain.run(image, {}, "7").image for image in (scaled, full))
    assert found is not None and expected is not None
    assert found.size == expected.size and found.info == {}
    assert found == expected or psnr(found, expected) >= SCALED_PSNR_DB


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_scaled_decoding_of_other_jpegs(mode: str) -> None:
    data, chain = photo(1080, 1440, 5, 1, mode), Chain([CROP, RESIZE], seed=0)
    scaled = decode(data, max_pixels=LIMIT, scale_for=lambda size: chain.scale(size, "7"))
    found, expected = (chain.run(image, {}, "7").image for image in (scaled, decode(data, max_pixels=LIMIT)))
    assert found is not None and expected is not None and psnr(found, expected) >= SCALED_PSNR_DB


def test_a_function_object_can_be_listed_and_checked_without_a_chain() -> None:
    assert isinstance(load({"name": "resize"}), Function)
