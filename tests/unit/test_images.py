"""Decoding and encoding: every rule of what becomes of pixels, and every way a file can be broken."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageDraw

from pipelinejob.images import EXTENSIONS, MODES, SCALED, decode, encode, plain, verify
from pipelinejob.reasons import RowFailure, RowReason

LIMIT = 100_000_000

# pytest puts its own filters in the place of those that images.py sets; test_a_process_prints_nothing is without pytest.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL", r"ignore::Warning:PIL")


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def picture(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """A gradient with a red block in the left upper corner, so that turns and flips show."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(image).rectangle((0, 0, width // 3, height // 3), fill=(255, 0, 0))
    return image.convert(mode)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def refusal(data: bytes, max_pixels: int = LIMIT) -> RowFailure:
    with pytest.raises(RowFailure) as caught:
        decode(data, max_pixels=max_pixels)
    with pytest.raises(RowFailure) as again:
        verify(data, max_pixels=max_pixels)
    assert (again.value.reason, again.value.message) == (caught.value.reason, caught.value.message)
    assert "\n" not in caught.value.message and " 0x" not in caught.value.message and len(caught.value.message) <= 500
    return caught.value


FILES = {
    "JPEG": saved(picture(), "JPEG"),
    "progressive JPEG": saved(picture(), "JPEG", progressive=True),
    "PNG": saved(picture(), "PNG"),
    "WebP": saved(picture(), "WEBP", quality=80),
    "lossless WebP": saved(picture(mode="RGBA"), "WEBP", lossless=True),
    "GIF": saved(picture(), "GIF"),
    "BMP": saved(picture(), "BMP"),
    "TIFF": saved(picture(), "TIFF"),
    "LZW TIFF": saved(picture(), "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": saved(picture(), "TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("name", FILES)
def test_each_format_by_content(name: str) -> None:
    image = decode(FILES[name], max_pixels=LIMIT)
    assert image.size == (40, 30) and image.mode in MODES and image.info == {}
    verify(FILES[name], max_pixels=LIMIT)


@pytest.mark.parametrize("data", [b"not an image", b"<svg/>", b"%PDF-1.7", b"id,url\n1,2\n", b"\xff\xd8", b"\x00" * 100])
def test_not_an_image(data: bytes) -> None:
    found = refusal(data)
    assert found.reason is RowReason.IMAGE_INVALID
    assert found.message == "not an image: expected JPEG, PNG, WebP, GIF, BMP or TIFF"


def test_zero_bytes() -> None:
    assert (refusal(b"").reason, refusal(b"").message) == (RowReason.IMAGE_INVALID, "the file is empty")


@pytest.mark.parametrize("format", ["PPM", "ICO", "TGA", "PCX", "EPS"])
def test_other_formats_of_pillow_are_not_offered(format: str) -> None:
    assert refusal(saved(picture(), format)).message.startswith("not an image")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_unless_every_pixel_was_there(name: str) -> None:
    data, whole = FILES[name], decode(FILES[name], max_pixels=LIMIT).tobytes()
    refused = 0
    for cut in range(1, len(data), max(1, len(data) // 150)):
        try:
            assert decode(data[:cut], max_pixels=LIMIT).tobytes() == whole, cut
        except RowFailure as failure:
            assert failure.reason is RowReason.IMAGE_INVALID
            refused += 1
    assert refused > 50
    assert "truncated, corrupt or unsupported" in refusal(data[: len(data) // 2]).message


# --- limits ---------------------------------------------------------------------------------------------------------


def test_pixels_are_counted_from_the_header() -> None:
    jpeg = bytearray(FILES["JPEG"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 10000, 12000)
    found = refusal(bytes(jpeg))
    assert found.reason is RowReason.IMAGE_TOO_LARGE
    assert found.message == "12000x10000 = 120000000 pixels, more than source.maxPixels 100000000"


@pytest.mark.parametrize("side", [10001, 16383, 60000])
def test_bombs_of_every_format(side: int) -> None:
    webp = b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8L" + struct.pack("<IBI", 20, 0x2F, (side - 1) & 0x3FFF | ((side - 1) & 0x3FFF) << 14)
    bombs = [
        png(side, side, 8, 2, b"\0" * 100),
        b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"," + struct.pack("<HHHHBB", 0, 0, side, side, 0, 2) + b"\0;",
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 100, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
    ] + ([webp + b"\0" * 40] if side < 16384 else [])
    for bomb in bombs:
        assert refusal(bomb).reason in (RowReason.IMAGE_TOO_LARGE, RowReason.IMAGE_INVALID)
    assert [refusal(bomb).reason for bomb in (bombs[0], bombs[2])] == [RowReason.IMAGE_TOO_LARGE] * 2


def test_our_limit_alone_decides() -> None:
    """Exactly maxPixels passes, one more does not, and Pillow's own limit bounds neither that nor what follows."""
    data = saved(Image.new("L", (300, 200)), "PNG")
    assert decode(data, max_pixels=60000).size == (300, 200)
    assert refusal(data, 59999).reason is RowReason.IMAGE_TOO_LARGE
    assert refusal(data, 100).reason is RowReason.IMAGE_TOO_LARGE
    assert Image.new("L", (400, 400)).crop((0, 0, 300, 300)).size == (300, 300)


def test_text_chunk_bombs() -> None:
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000))
    many = [chunk(b"tEXt", b"a\0" + b"x" * 1_000_000)] * 70
    icc = chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 50_000_000))
    for extra in ([bomb], many, [icc]):
        data = png(1, 1, 8, 0, b"\0\0", *extra)
        try:
            assert decode(data, max_pixels=LIMIT).size == (1, 1)
        except RowFailure as failure:
            assert failure.reason is RowReason.IMAGE_INVALID


def test_tiff_with_huge_tags() -> None:
    data = bytearray(saved(picture(), "TIFF"))
    ifd = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, ifd)[0]):
        broken = bytearray(data)
        struct.pack_into("<II", broken, ifd + 2 + 12 * entry + 4, 0xFFFFFFFF, 0xFFFFFFF0)
        try:
            decode(bytes(broken), max_pixels=LIMIT)
        except RowFailure as failure:
            assert failure.reason in (RowReason.IMAGE_INVALID, RowReason.IMAGE_TOO_LARGE)


def test_nothing_reaches_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    for data in FILES.values():
        for cut in range(0, len(data), 97):
            with pytest.raises(RowFailure):
                decode(data[:cut] + b"\xff" * 5, max_pixels=10)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_give_a_picture_or_a_row_failure(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(seed)
    for data in FILES.values():
        for _ in range(120):
            broken = bytearray(data)
            for _ in range(rng.choice((1, 1, 2, 8))):
                broken[rng.randrange(min(len(broken), rng.choice((64, 1 << 20))))] = rng.randrange(256)
            try:
                image = decode(bytes(broken), max_pixels=1_000_000, scale_for=lambda _: rng.choice((1, 2, 4, 8)))
            except RowFailure as failure:
                assert failure.reason in (RowReason.IMAGE_INVALID, RowReason.IMAGE_TOO_LARGE)
            else:
                assert image.mode in MODES
    assert capfd.readouterr().err == ""


# --- orientation, metadata ------------------------------------------------------------------------------------------


def turned(turn: int) -> Image.Image:
    """What a viewer shows for a file that stores picture() with this orientation."""
    steps = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.ROTATE_270, Image.Transpose.FLIP_LEFT_RIGHT],
        6: [Image.Transpose.ROTATE_270],
        7: [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT],
        8: [Image.Transpose.ROTATE_90],
    }
    image = picture()
    for step in steps.get(turn, []):
        image = image.transpose(step)
    return image


@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation(turn: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if format == "WEBP" else {}
    image = decode(saved(picture(), format, exif=exif, **options), max_pixels=LIMIT)
    expected = turned(turn)
    assert image.size == expected.size and image.info == {}
    if format == "JPEG":
        assert image.resize((4, 3)).getpixel((3, 0)) == pytest.approx(expected.resize((4, 3)).getpixel((3, 0)), abs=12)
    else:
        assert image.tobytes() == expected.tobytes()


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"Exif\0\0MM\0*\0\0\0\xff", b"Exif\0\0"])
def test_broken_exif_does_not_spoil_good_pixels(exif: bytes) -> None:
    assert decode(saved(picture(), "JPEG", exif=exif), max_pixels=LIMIT).size == (40, 30)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_metadata_is_dropped(source: str, format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"exif": exif, "icc_profile": profile, "xmp": b"<x:xmpmeta>secret</x:xmpmeta>", "comment": b"secret"}
    written = [
        encode(decode(saved(picture(), source, **each), max_pixels=LIMIT), format=format, quality=75, background="white")
        for each in (options, {})
    ]
    assert written[0] == written[1]
    again = Image.open(BytesIO(written[0]))
    assert b"secret" not in written[0] and not again.getexif() and not {"icc_profile", "xmp", "comment", "exif"} & set(again.info)


# --- modes ----------------------------------------------------------------------------------------------------------


def values(image: Image.Image) -> list[object]:
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]


@pytest.mark.parametrize(
    ("data", "mode", "expected"),
    [
        (png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 30000, 65535)), "L", [117, 255]),
        (png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 30000, 5), chunk(b"tRNS", struct.pack(">H", 5))), "LA", [(117, 255), (0, 0)]),
        (png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 30000, 0, 65535)), "RGB", [(117, 0, 255)]),
        (png(1, 1, 16, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", b"\1\2\3\4\5\6")), "RGBA", [(1, 3, 5, 0)]),
        (png(1, 1, 16, 6, b"\0" + struct.pack(">HHHH", 30000, 0, 65535, 32896)), "RGBA", [(117, 0, 255, 128)]),
        (png(2, 1, 1, 0, b"\0\x80"), "L", [255, 0]),
        (png(2, 1, 1, 0, b"\0\x80", chunk(b"tRNS", b"\0\1")), "LA", [(255, 0), (0, 255)]),
        (png(2, 1, 2, 0, b"\0\xb0", chunk(b"tRNS", b"\0\2")), "LA", [(170, 0), (255, 255)]),
        (png(2, 1, 4, 0, b"\0\x3f", chunk(b"tRNS", b"\0\3")), "LA", [(51, 0), (255, 255)]),
        (png(1, 1, 8, 4, b"\0\x40\x80"), "LA", [(64, 128)]),
        (png(1, 1, 8, 6, b"\0\1\2\3\4"), "RGBA", [(1, 2, 3, 4)]),
        (png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", b"\0\1\0\2\0\3")), "RGBA", [(1, 2, 3, 0), (4, 5, 6, 255)]),
        (png(2, 1, 8, 3, b"\0\0\1", chunk(b"PLTE", b"\1\2\3\4\5\6")), "RGB", [(1, 2, 3), (4, 5, 6)]),
        (png(2, 1, 8, 3, b"\0\0\1", chunk(b"PLTE", b"\1\2\3\4\5\6"), chunk(b"tRNS", b"\x80")), "RGBA", [(1, 2, 3, 128), (4, 5, 6, 255)]),
    ],
)
def test_png_modes(data: bytes, mode: str, expected: list[object]) -> None:
    image = decode(data, max_pixels=LIMIT)
    assert (image.mode, values(image)) == (mode, expected)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_tiff_is_scaled(mode: str) -> None:
    image = Image.new("I", (4, 1))
    for x, value in enumerate((0, 30000, 128, 65535)):
        image.putpixel((x, 0), value)
    if mode == "I;16B":
        image = Image.frombytes(mode, (4, 1), struct.pack(">HHHH", 0, 30000, 128, 65535))
    assert values(decode(saved(image.convert(mode) if mode != image.mode else image, "TIFF"), max_pixels=LIMIT)) == [0, 117, 0, 255]


def test_wider_values_are_stretched_from_their_smallest_to_their_largest() -> None:
    wide = Image.frombytes("I", (3, 1), struct.pack("=iii", -100, 0, 100))
    real = Image.frombytes("F", (3, 1), struct.pack("=fff", 0.0, 0.5, 1.0))
    assert values(decode(saved(wide, "TIFF"), max_pixels=LIMIT)) == [0, 128, 255]
    assert values(decode(saved(real, "TIFF"), max_pixels=LIMIT)) == [0, 128, 255]
    endless = Image.frombytes("F", (2, 1), struct.pack("=ff", 0.0, float("inf")))
    assert refusal(saved(endless, "TIFF")).reason is RowReason.IMAGE_INVALID


@pytest.mark.parametrize(("format", "source"), [("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "YCbCr"), ("TIFF", "LAB"), ("TIFF", "P")])
def test_other_colour_spaces_become_rgb(format: str, source: str) -> None:
    if source == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        stored = ImageCms.profileToProfile(picture(), srgb, lab, outputMode="LAB")
        assert stored is not None
    else:
        stored = picture(mode=source)
    image = decode(saved(stored, format), max_pixels=LIMIT)
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == pytest.approx((255, 0, 0), abs=10)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "RGBX", "RGBa", "La", "PA", "HSV", "F", "CMYK"])
def test_plain_takes_what_users_return(mode: str) -> None:
    source = picture(mode="LA" if mode == "La" else "RGBA" if mode in ("RGBa", "PA") else "RGB").convert(mode)
    image = plain(source)
    assert image.mode in MODES and image.size == (40, 30)
    assert (image.mode[-1] == "A") == (mode in ("LA", "RGBA", "RGBa", "La", "PA"))


def test_gif_gives_its_first_frame_with_transparency() -> None:
    frames = [Image.new("RGBA", (8, 6), colour) for colour in ((255, 0, 0, 255), (0, 0, 255, 255))]
    frames[0].putpixel((0, 0), (0, 0, 0, 0))
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10, disposal=2)
    image = decode(data, max_pixels=LIMIT)
    assert (image.mode, image.getpixel((5, 5)), image.getchannel("A").getpixel((0, 0))) == ("RGBA", (255, 0, 0, 255), 0)


def test_first_page_of_a_tiff() -> None:
    data = saved(picture(), "TIFF", save_all=True, append_images=[Image.new("L", (3, 3))])
    assert decode(data, max_pixels=LIMIT).size == (40, 30)


# --- scaled decoding ------------------------------------------------------------------------------------------------


def answering(scale: int, asked: list[tuple[int, int]]) -> Callable[[tuple[int, int]], int]:
    def scale_for(size: tuple[int, int]) -> int:
        asked.append(size)
        return scale

    return scale_for


@pytest.mark.parametrize(("scale", "size"), [(1, (41, 30)), (2, (21, 15)), (4, (11, 8)), (8, (6, 4))])
def test_scaled_jpeg(scale: int, size: tuple[int, int]) -> None:
    asked: list[tuple[int, int]] = []
    image = decode(saved(picture(41), "JPEG"), max_pixels=LIMIT, scale_for=answering(scale, asked))
    assert (image.size, asked) == (size, [(41, 30)])
    assert image.info == ({SCALED: (scale, (41, 30))} if scale > 1 else {})


def test_scaling_is_asked_about_the_upright_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    asked: list[tuple[int, int]] = []
    image = decode(saved(picture(40, 24), "JPEG", exif=exif), max_pixels=LIMIT, scale_for=answering(4, asked))
    assert (asked, image.size, image.info) == ([(24, 40)], (6, 10), {SCALED: (4, (24, 40))})
    odd = decode(saved(picture(41, 24), "JPEG", exif=exif), max_pixels=LIMIT, scale_for=lambda _: 4)
    assert (odd.size, odd.info) == ((24, 41), {})


def test_only_jpeg_is_scaled() -> None:
    assert decode(FILES["PNG"], max_pixels=LIMIT, scale_for=lambda _: 4).size == (40, 30)


def test_a_truncated_jpeg_is_refused_when_scaled_too() -> None:
    with pytest.raises(RowFailure):
        decode(FILES["JPEG"][: len(FILES["JPEG"]) // 2], max_pixels=LIMIT, scale_for=lambda _: 8)


# --- encoding -------------------------------------------------------------------------------------------------------


def test_jpeg_is_420_and_not_progressive() -> None:
    data = encode(picture(), format="jpeg", quality=75, background="white")
    image = Image.open(BytesIO(data))
    assert [component[1:3] for component in image.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
    assert "progressive" not in image.info and data == saved(picture(), "JPEG", quality=75)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("format", EXTENSIONS)
def test_encoding_is_deterministic_and_keeps_alpha_where_it_can(mode: str, format: str) -> None:
    image = picture(mode=mode)
    data = encode(image, format=format, quality=80, background="white")
    assert data == encode(image, format=format, quality=80, background="white")
    again = Image.open(BytesIO(data))
    assert again.size == (40, 30)
    assert again.format == format.upper()
    if format == "png":
        assert again.mode == mode and again.tobytes() == image.tobytes()


@pytest.mark.parametrize(("background", "expected"), [("white", (255, 255, 255)), ("#0000ff", (0, 0, 255)), ("red", (255, 0, 0))])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_the_background(background: str, expected: tuple[int, int, int], mode: str) -> None:
    image = Image.new(mode, (16, 16), 0)
    again = Image.open(BytesIO(encode(image, format="jpeg", quality=95, background=background)))
    assert again.getpixel((8, 8)) == pytest.approx(expected, abs=3)


def test_webp_and_png_keep_partial_alpha() -> None:
    image = Image.new("RGBA", (16, 16), (10, 200, 30, 77))
    for format in ("png", "webp"):
        again = decode(encode(image, format=format, quality=90, background="white"), max_pixels=LIMIT)
        assert again.getchannel("A").getextrema() == (77, 77)


@pytest.mark.parametrize(("format", "side"), [("jpeg", 65501), ("webp", 16384), ("png", 0)])
def test_sides_that_a_format_cannot_hold(format: str, side: int) -> None:
    with pytest.raises(RowFailure) as caught:
        encode(Image.new("L", (side, 1)), format=format, quality=75, background="white")
    assert caught.value.reason is RowReason.OUTPUT_ERROR and f"cannot write {side}x1 pixels" in caught.value.message


def test_an_encoder_that_fails() -> None:
    with pytest.raises(RowFailure) as caught:
        encode(Image.new("RGBA", (2, 2)), format="jpeg", quality=75, background="blurple")
    assert (caught.value.reason, caught.value.message) == (RowReason.OUTPUT_ERROR, "the jpeg encoder failed with ValueError")


def test_encoding_leaves_a_users_image_alone() -> None:
    image = picture()
    image.info["comment"] = b"secret"
    assert b"secret" not in encode(image, format="jpeg", quality=75, background="white")
    assert image.info["comment"] == b"secret"


def test_imports_stay_small() -> None:
    late = ["pydantic", "numpy", "typer", "inspect", "difflib", "PIL.PngImagePlugin", "PIL.WebPImagePlugin", "PIL.TiffImagePlugin"]
    code = f"import sys, pipelinejob.functions, pipelinejob.images; print([name for name in {late} if name in sys.modules])"
    worker = Path(__file__).parents[2] / "worker"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(worker)})
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_process_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "exif.jpg").write_bytes(saved(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xff"))
    (tmp_path / "large.png").write_bytes(png(300, 200, 8, 0, b"\0" * 301 * 200))
    code = """if True:
        import sys
        from pipelinejob.images import decode
        decode(open(sys.argv[1] + "/exif.jpg", "rb").read(), max_pixels=10**8)
        decode(open(sys.argv[1] + "/large.png", "rb").read(), max_pixels=60000)
    """
    worker = Path(__file__).parents[2] / "worker"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env={"PYTHONPATH": str(worker)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
