"""Pictures in every format and mode that we read, drawn from the sample catalogue, and seeded ways of breaking them."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).parents[2] / "data/fashion/images"
PNG = b"\x89PNG\r\n\x1a\n"
_NUMBERS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma")


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    """The file that Pillow makes of a picture."""
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@cache
def seeds() -> dict[str, bytes]:
    """A sound file of every kind by name: {format}-{mode or variant}."""
    photos = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))[:3]]
    photo, others = photos[0], photos[1:]
    ramp = Image.linear_gradient("L").resize(photo.size)
    alpha = photo.copy()
    alpha.putalpha(ramp)
    deep = photo.convert("I").point(lambda value: value * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    found = {
        "jpeg-RGB": saved(photo, "JPEG"),
        "jpeg-444": saved(photo, "JPEG", subsampling="4:4:4", restart_marker_rows=1),
        "jpeg-progressive": saved(photo, "JPEG", progressive=True),
        "jpeg-turned": saved(photo, "JPEG", exif=turned),
        "jpeg-L": saved(photo.convert("L"), "JPEG"),
        "jpeg-CMYK": saved(photo.convert("CMYK"), "JPEG"),
        "png-I;16": saved(deep.convert("I;16"), "PNG"),
        "png-P-transparent": saved(photo.quantize(16), "PNG", transparency=3),
        "png-RGB-transparent": saved(photo, "PNG", transparency=(0, 0, 0), exif=turned),
        "png-animated": saved(photo, "PNG", save_all=True, append_images=others),
        "png-48": png48(photo),
        "webp-lossy": saved(photo, "WEBP", quality=60, exif=turned),
        "webp-lossless": saved(photo, "WEBP", lossless=True),
        "webp-alpha": saved(alpha, "WEBP", quality=60),
        "webp-animated": saved(photo, "WEBP", save_all=True, append_images=others),
        "gif-L": saved(photo.convert("L"), "GIF"),
        "gif-animated": saved(photo.quantize(64), "GIF", save_all=True, append_images=others, transparency=1, interlace=1),
        "tiff-pages": saved(photo, "TIFF", save_all=True, append_images=others),
        "tiff-turned": saved(photo, "TIFF", exif=turned, compression="tiff_lzw"),
        "tiff-YCbCr": saved(photo.convert("YCbCr"), "TIFF"),
        "tiff-group4": saved(photo.convert("1"), "TIFF", compression="group4"),
        "tiff-F": saved(photo.convert("F"), "TIFF"),
        "tiff-I;16B": saved(deep.convert("I;16B"), "TIFF"),
    }
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        found[f"png-{mode}"] = saved(alpha.convert(mode), "PNG")
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        found[f"bmp-{mode}"] = saved(alpha.convert(mode), "BMP")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB"):
        found[f"tiff-{mode}"] = saved((deep if mode == "I;16" else photo if mode == "LAB" else alpha).convert(mode), "TIFF")
    for compression in _TIFF:
        try:
            found[f"tiff-{compression}"] = saved(photo, "TIFF", compression=compression)
        except OSError:  # this build of libtiff has no such codec
            continue
    return found


def png48(photo: Image.Image) -> bytes:
    """A picture as a PNG of 16 bits a channel, which Pillow reads and cannot write."""
    body = b"".join(b"\0" + bytes(byte for byte in row for _ in (0, 1)) for row in _lines(photo))
    header = struct.pack(">IIBBBBB", *photo.size, 16, 2, 0, 0, 0)
    return PNG + b"".join(png_chunk(name, data) for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")))


def _lines(photo: Image.Image) -> Iterator[bytes]:
    data, width = photo.tobytes(), photo.width * 3
    return (data[at : at + width] for at in range(0, len(data), width))


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk with its length and its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# --- bombs: a few bytes that promise much -----------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    """Small files that promise far more pixels, frames, text or profile than they hold, or that really hold them."""
    line = zlib.compress(b"\0" * 40_000_001, 9)
    head = struct.pack(">IIBBBBB", 40_000_000, 1, 8, 0, 0, 0, 0)
    small = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 20)
    zipped = zlib.compress(b"x" * 60_000_000, 9)
    sides = (10_001, 16_383, 65_535)
    found = {
        "one-long-line.png": _png((b"IHDR", head), (b"IDAT", line)),
        "endless-rows.png": _png((b"IHDR", small), (b"IDAT", zlib.compress(b"\0" * 60_000_000, 9))),
        "text.png": _png((b"IHDR", small), (b"zTXt", b"a\0\0" + zipped), (b"IDAT", rows)),
        "texts.png": _png((b"IHDR", small), *[(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 900_000, 9))] * 90, (b"IDAT", rows)),
        "profile.png": _png((b"IHDR", small), (b"iCCP", b"a\0\0" + zipped), (b"IDAT", rows)),
        "chunks.png": _png((b"IHDR", small), *[(b"tEXt", b"a\0b")] * 40_000, (b"IDAT", rows)),
        "frames.gif": saved(Image.new("P", (1, 1)), "GIF")[:-1] + b"\x21\xf9\4\0\0\0\0\0" * 40_000 + b";",
        "pages.tiff": _looping_tiff(),
        "scans.jpg": _many_scans(seeds()["jpeg-progressive"]),
        "empty-segments.jpg": b"\xff\xd8" + b"\xff\xe1\0\2" * 60_000 + seeds()["jpeg-RGB"][2:],
        "tiny.webp": webp_of_one_colour(5_000),
        "fill.jpg": b"\xff\xd8" + b"\xff" * 300_000 + seeds()["jpeg-RGB"][2:],
    }
    for side in sides:
        found[f"{side}.png"] = _png((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)), (b"IDAT", rows))
        found[f"{side}.gif"] = (
            b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"," + struct.pack("<HHHHBB", 0, 0, 1, 1, 0, 2) + b"\0;"
        )
        found[f"{side}.bmp"] = b"BM" + struct.pack("<IIIIiiHHIIIIII", 100, 0, 54, 40, side, -side, 1, 1, 0, 0, 0, 0, 0, 0)
    return found


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    return PNG + b"".join(png_chunk(name, body) for name, body in (*chunks, (b"IEND", b"")))


def webp_of_one_colour(side: int) -> bytes:
    """A whole lossless picture in 34 bytes."""
    size = (side - 1) | (side - 1) << 14 | 1 << 28
    return b"RIFF\x1a\0\0\0WEBPVP8L\r\0\0\0/" + size.to_bytes(4, "little") + b"\x07\x10\x11\x11\x88\x88\xfe\x07\0"


def _looping_tiff() -> bytes:
    """A TIFF whose list of pages leads back to its first one."""
    data = bytearray(seeds()["tiff-RGB"])
    (page,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, page)
    struct.pack_into("<I", data, page + 2 + 12 * entries, page)
    return bytes(data)


def _many_scans(data: bytes) -> bytes:
    """A progressive JPEG that says its last scan three thousand times."""
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * 3000 + data[-2:]


# --- breaking -----------------------------------------------------------------------------------------------------------


def broken(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yields (how it came about, file): the same ones for the same seed, whatever the process or its hashing."""
    rng = random.Random(seed)
    names = sorted(seeds())
    for _ in range(count):
        name = rng.choice(names)
        data, ways = seeds()[name], []
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            way = rng.choice(WAYS)
            ways.append(way.__name__.strip("_"))
            data = way(data, rng)
        if data.startswith(PNG) and rng.random() < 0.8:
            data = _with_checksums(data)
        yield f"{name} {' '.join(ways)}", data


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip_bits(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20)) if found else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _number(data: bytes, rng: random.Random) -> bytes:
    """A number in the header (sizes, depths, lengths, offsets) set to one that programs trip over."""
    size = rng.choice((1, 2, 4))
    at = rng.randrange(max(1, min(len(data), rng.choice((32, 64, 256, 1 << 30))) - size))
    if rng.random() < 0.5:  # a TIFF's directory is anywhere, and a JPEG's frame after its tables
        marks = [data.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"IHDR", b"VP8", b"ANMF", b"\0\1\3\0")]
        at = min(max([mark for mark in marks if mark >= 0] or [at]) + rng.randrange(24), max(0, len(data) - size))
    value = rng.choice(_NUMBERS) % 256**size
    return data[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 4, 64, 1000)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + rng.choice((1, 4, 64, 500))] * rng.choice((2, 3, 50)) + data[at:]


def _noise(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 256))
    return data[:at] + rng.randbytes(size) + data[at + size :]


def _garbage_behind(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice((1, 100, 5000)))


def _splice(data: bytes, rng: random.Random) -> bytes:
    other = seeds()[rng.choice(sorted(seeds()))]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _segment(data: bytes, rng: random.Random) -> bytes:
    """A marker of a JPEG (any 0xff and what follows it) removed, doubled, or given another meaning."""
    marks = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)]
    if not marks:
        return _number(data, rng)
    at = rng.choice(marks[:40])
    end = next((mark for mark in marks if mark > at), len(data))
    return rng.choice((data[:at] + data[end:], data[:end] + data[at:], data[: at + 1] + rng.randbytes(1) + data[at + 2 :]))


def _huge(data: bytes, rng: random.Random) -> bytes:
    """The picture's own size set to another wherever it stands, as 16 or 32 bits of either order."""
    with Image.open(next(iter(sorted(SAMPLES.glob("*.jpg"))))) as photo:
        sides = photo.size
    for side in sides:
        value = rng.choice((1, 3000, 9999, 16383, 65535, side))
        for size in (2, 4):
            for order in ("little", "big"):
                data = data.replace(side.to_bytes(size, order), value.to_bytes(size, order), 1)  # type: ignore[arg-type]
    return data


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut, _flip_bits, _flip_bits, _number, _number, _number, _remove, _repeat, _noise, _garbage_behind, _splice, _segment, _huge,
)  # fmt: skip


def _with_checksums(data: bytes) -> bytes:
    """A PNG with the right checksum behind each chunk, so that what is wrong inside is reached."""
    found, at = bytearray(data), len(PNG)
    while at + 12 <= len(found):
        (length,) = struct.unpack_from(">I", found, at)
        end = at + 8 + length
        if end + 4 > len(found):
            break
        struct.pack_into(">I", found, end, zlib.crc32(found[at + 4 : end]))
        at = end + 4
    return bytes(found)
