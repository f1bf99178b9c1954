"""What decoding costs, judged by the header: no file asks for more time or memory than it says."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipelinejob.costs import memory_of_each
from pipelinejob.images import decode
from pipelinejob.planes import jpeg_to_jpeg
from pipelinejob.reasons import RowFailure, RowReason
from support.corrupt import png48, saved, seeds, webp_of_one_colour

LIMIT = 100_000_000
SIDE = 4000
MEASURE = """
import sys
from pathlib import Path
from pipelinejob import images, planes
data = sys.stdin.buffer.read()
images.decode(data, max_pixels=10**8)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def flat(mode: str, format: str, **options: object) -> Callable[[], bytes]:
    """A file of 16 million pixels of one colour, turned where its format can say so."""
    turned = Image.Exif()
    turned[0x0112] = 6
    exif = {"exif": turned} if format in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    return lambda: saved(Image.new(mode, (SIDE, SIDE)), format, **exif, **options)


HEAVY = {
    "jpeg": flat("RGB", "JPEG"),
    "jpeg-progressive": flat("RGB", "JPEG", progressive=True),
    "jpeg-progressive-444": flat("RGB", "JPEG", progressive=True, subsampling="4:4:4"),
    "jpeg-CMYK": flat("CMYK", "JPEG"),
    "png-RGBA": flat("RGBA", "PNG"),
    "png-I;16": flat("I;16", "PNG"),
    "png-48": lambda: png48(Image.new("RGB", (SIDE, SIDE))),
    "png-P-transparent": flat("P", "PNG", transparency=0),
    "webp-lossless": flat("RGBA", "WEBP", lossless=True, method=0),
    "webp-lossy": flat("RGB", "WEBP", method=0),
    "gif": flat("P", "GIF", transparency=0),
    "bmp": flat("RGB", "BMP"),
    "tiff-RGBA": flat("RGBA", "TIFF", compression="tiff_adobe_deflate"),
    "tiff-one-strip": flat("CMYK", "TIFF", compression="tiff_adobe_deflate", strip_size=1 << 30),
    "tiff-F": flat("F", "TIFF", compression="tiff_lzw"),
    "tiff-LAB": flat("LAB", "TIFF", compression="tiff_adobe_deflate"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", HEAVY)
def test_a_picture_takes_no_more_memory_than_it_says(name: str) -> None:
    data = HEAVY[name]()
    with pytest.raises(RowFailure) as caught:
        decode(data, max_pixels=LIMIT, memory=0)
    assert caught.value.reason is RowReason.IMAGE_TOO_LARGE and "give the workers more" in caught.value.message
    said = int(re.findall(r"takes (\d+) MiB", caught.value.message)[0])
    ran = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True)
    took = int(ran.stdout) >> 10 if ran.returncode == 0 else pytest.fail(ran.stderr.decode())
    assert took <= said + (len(data) >> 20), f"{took} MiB"
    assert decode(data, max_pixels=LIMIT, memory=(said + 1) << 20).size == (SIDE, SIDE)


def test_the_default_limits_fit_together(tmp_path: Path) -> None:
    """A hundred million pixels are within a pod's default of 1 GiB; as a WebP they are not, and fail alone."""
    (tmp_path / "limit").write_text(str(1 << 30))
    memory = memory_of_each(1, [tmp_path / "limit"])
    side = 10_000
    assert decode(saved(Image.new("L", (side, side)), "PNG"), max_pixels=LIMIT, memory=memory).size == (side, side)
    assert decode(webp_of_one_colour(5000), max_pixels=LIMIT, memory=memory).size == (5000, 5000)
    with pytest.raises(RowFailure) as caught:
        decode(webp_of_one_colour(side), max_pixels=LIMIT, memory=memory)
    assert caught.value.reason is RowReason.IMAGE_TOO_LARGE


def test_small_pictures_always_have_room() -> None:
    for data in seeds().values():
        decode(data, max_pixels=LIMIT, memory=0)


def test_a_scaled_photograph_takes_less() -> None:
    with pytest.raises(RowFailure):
        decode(HEAVY["jpeg"](), max_pixels=LIMIT, memory=100 << 20)
    assert decode(HEAVY["jpeg"](), max_pixels=LIMIT, memory=100 << 20, scale_for=lambda _: 8).size == (500, 500)


@pytest.mark.parametrize(("scans", "good"), [(10, True), (90, True), (105, False), (60_000, False)])
def test_a_jpeg_of_many_scans(scans: int, good: bool) -> None:
    data = seeds()["jpeg-progressive"]
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]
    began = time.monotonic()
    if good:
        assert decode(many, max_pixels=LIMIT).tobytes()
    else:
        with pytest.raises(RowFailure) as caught:
            decode(many, max_pixels=LIMIT)
        assert (caught.value.reason, caught.value.message) == (RowReason.IMAGE_INVALID, "a JPEG in far more scans than encoders write")
        assert jpeg_to_jpeg(many[:60_000], lambda _: None, max_pixels=LIMIT, quality=75) is None
    assert time.monotonic() - began < 10


def test_what_stands_behind_a_jpeg_is_no_scan() -> None:
    """Phones put films and other pictures behind the first."""
    for name in ("jpeg-progressive", "jpeg-RGB"):
        decode(seeds()[name] + b"\xff\xda\0\2" * 5000, max_pixels=LIMIT)


@pytest.mark.parametrize(
    ("texts", "each"),
    [
        ({}, None),
        ({"new": "max\n"}, None),
        ({"old": "9223372036854771712\n"}, None),
        ({"new": "1073741824\n"}, (928 << 20) // 2),
        ({"old": "1073741824\n"}, (928 << 20) // 2),
        ({"new": "1000\n"}, 0),
    ],
)
def test_the_memory_of_each_process(tmp_path: Path, texts: dict[str, str], each: int | None) -> None:
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert memory_of_each(2, [tmp_path / "new", tmp_path / "old"]) == each
