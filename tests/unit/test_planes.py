"""JPEG to JPEG on the planes: as close to the usual way as it says, for the same window, and declining what it should."""

from __future__ import annotations

import io
import math
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw, ImageStat

from pipelinejob import images
from pipelinejob.batch import DECODE, ENCODE, BatchRunner, Task
from pipelinejob.checksum import checksum
from pipelinejob.functions import Chain
from pipelinejob.planes import PLANES_PSNR_DB, _enlarged, jpeg_to_jpeg
from pipelinejob.reasons import RowFailure

LIMIT = 100_000_000
Function = Mapping[str, object]


def function(name: str, **params: object) -> Function:
    return {"name": name, "params": params}


RESIZE = function("resize", width=256, height=256)
REFERENCE = (function("random_crop", ratio=0.8), RESIZE)


def photo(seed: int, width: int = 60, height: int = 80) -> Image.Image:
    """Soft light, a few things with edges, and grain."""
    rng = random.Random(seed)
    channels = [Image.frombytes("L", (5, 5), rng.randbytes(25)).resize((width, height), Image.Resampling.BICUBIC) for _ in range(3)]
    image = Image.merge("RGB", channels)
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, reach = rng.randrange(width), rng.randrange(height), max(2, width // 4)
        colour = (rng.randrange(30, 226), rng.randrange(30, 226), rng.randrange(30, 226))
        draw.ellipse((x - reach, y - reach, x + reach, y + reach * 1.5), fill=colour)
    grain = Image.frombytes("L", (width, height), rng.randbytes(width * height)).convert("RGB")
    return Image.blend(image, grain, 0.04)


def saved(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 88, **options})
    return out.getvalue()


def on_planes(data: bytes, *functions: Function, id: str = "7", quality: int = 75, max_pixels: int = LIMIT) -> bytes | None:
    chain = Chain(functions or REFERENCE, seed=3)
    return jpeg_to_jpeg(data, lambda size: chain.final_resample(size, id), max_pixels=max_pixels, quality=quality)


def usual(data: bytes, *functions: Function, id: str = "7", quality: int = 75) -> bytes:
    chain = Chain(functions or REFERENCE, seed=3)
    image = images.decode(data, max_pixels=LIMIT, scale_for=lambda size: chain.scale(size, id))
    result = chain.run(image, {}, id).image
    assert result is not None
    return images.encode(result, format="jpeg", quality=quality, background="white")


def psnr(first: bytes, second: bytes) -> float:
    """Over all channels of the two files decoded to RGB, against 255, in decibels."""
    one, two = (Image.open(io.BytesIO(data)).convert("RGB") for data in (first, second))
    assert one.size == two.size
    squares = ImageStat.Stat(ImageChops.difference(one, two)).sum2
    return 10 * math.log10(255**2 * 3 * one.width * one.height / max(1.0, sum(squares)))


PHOTO = saved(photo(0))


# --- what it makes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("size", [(60, 80), (80, 60), (33, 71), (100, 100), (128, 128)])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"progressive": True}, {"quality": 60}], ids=str)
def test_it_is_as_close_to_the_usual_way_as_it_says(size: tuple[int, int], quality: int, options: dict[str, object]) -> None:
    for seed in range(4):
        data = saved(photo(seed, *size), **options)
        made = on_planes(data, quality=quality, id=str(seed))
        assert made is not None
        assert psnr(made, usual(data, quality=quality, id=str(seed))) >= PLANES_PSNR_DB


CHAINS: list[tuple[Function, ...]] = [
    (RESIZE,),
    (function("flip", direction="horizontal"), function("crop", left=3, top=5, width=40, height=50), RESIZE),
    (function("random_crop", ratio=0.5), function("flip", direction="vertical"), function("random_crop", ratio=0.5), RESIZE),
    (function("resize", width=256, height=170, fit="cover"),),
    (function("thumbnail", width=500, height=500), function("resize", width=130, height=1000)),
    (function("random_crop", ratio=0.001), function("resize", width=2, height=2)),
    (function("resize", width=120, height=160),),  # exactly twice the size
    (function("resize", width=1200, height=1600),),
]


@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_of_crops_flips_and_one_resampling(chain: tuple[Function, ...]) -> None:
    made = on_planes(PHOTO, *chain)
    assert made is not None and psnr(made, usual(PHOTO, *chain)) >= PLANES_PSNR_DB


def test_the_file_is_420_not_progressive_and_without_metadata() -> None:
    made = on_planes(saved(photo(1), comment=b"secret", icc_profile=b"secret" * 30, exif=exif(1)))
    assert made is not None and b"secret" not in made
    image = Image.open(io.BytesIO(made))
    assert image.size == (256, 256) and image.mode == "RGB"
    assert [component[1:3] for component in image.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]
    assert set(image.info) == set(Image.open(io.BytesIO(usual(PHOTO))).info) and not image.getexif()
    assert image.quantization == Image.open(io.BytesIO(usual(PHOTO))).quantization  # type: ignore[attr-defined]


def test_the_same_bytes_every_time() -> None:
    code = "import sys; from test_planes import PHOTO, on_planes; sys.stdout.buffer.write(on_planes(PHOTO))"
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout == on_planes(PHOTO) == on_planes(PHOTO)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 150), st.integers(0, 150), st.randoms(use_true_random=False))
def test_planes_are_enlarged_as_pillow_does(width: int, height: int, wider: int, higher: int, rng: random.Random) -> None:
    size = 2 * (width + wider), 2 * (height + higher)
    picture = Image.frombytes("YCbCr", (width, height), bytes(rng.choices((0, 1, 127, 128, 254, 255), k=width * height * 3)))
    half = size[0] // 2, size[1] // 2
    for plane, channel, wanted in zip(_enlarged(picture, *size), picture.split(), (size, half, half), strict=True):
        expected = np.asarray(channel.resize(wanted, Image.Resampling.BILINEAR))
        assert plane.shape == expected.shape and np.abs(plane.astype(int) - expected).max() <= 2


# --- what it declines -----------------------------------------------------------------------------------------------


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
DECLINED_FILES = {
    "gray": saved(photo(0).convert("L")),
    "CMYK": saved(photo(0).convert("CMYK")),
    "RGB inside": saved(photo(0), keep_rgb=True),
    "turned by EXIF": saved(photo(0), exif=exif(6)),
    "turned by XMP": saved(photo(0), xmp=XMP),
    "Adobe, not YCbCr": PHOTO[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0" + PHOTO[2:],
    "empty": b"",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "no JPEG after all": b"\xff\xd8\xff",
    "zero bytes": b"\xff\xd8\xff" + bytes(2000),
}


@pytest.mark.parametrize("data", DECLINED_FILES.values(), ids=DECLINED_FILES)
def test_files_it_declines(data: bytes) -> None:
    assert on_planes(data) is None


@pytest.mark.parametrize("turn", range(0, 10))
def test_it_takes_only_pictures_that_the_usual_way_does_not_turn(turn: int) -> None:
    data = saved(photo(0), exif=exif(turn))
    made = on_planes(data)
    assert (made is None) == (turn != 1)
    assert made is None or psnr(made, usual(data)) >= PLANES_PSNR_DB


def test_broken_exif_turns_nothing() -> None:
    data = saved(photo(0), exif=b"Exif\0\0MM\0*\0\0\0\xff")
    made = on_planes(data)
    assert made is None or psnr(made, usual(data)) >= PLANES_PSNR_DB


@pytest.mark.parametrize(
    "chain",
    [
        (function("grayscale"), RESIZE),
        (RESIZE, function("flip", direction="horizontal")),
        (RESIZE, function("resize", width=300, height=300)),
        (function("random_crop", ratio=0.8),),
        (function("thumbnail", width=30, height=30),),
        (function("resize", width=255, height=256),),
        (function("resize", width=256, height=255),),
        (function("resize", width=256, height=256, fit="contain"),),
        (function("resize", width=256, height=256, filter="nearest"),),
        (function("resize", width=256, height=256, filter="lanczos"),),
        (function("resize", width=118, height=256),),  # less than twice as wide
        (function("crop", left=0, top=0, width=61, height=1), RESIZE),  # fails
    ],
)
def test_chains_it_declines(chain: tuple[Function, ...]) -> None:
    assert on_planes(PHOTO, *chain) is None


def test_it_declines_more_pixels_than_allowed() -> None:
    assert on_planes(PHOTO, max_pixels=4800) is not None
    assert on_planes(PHOTO, max_pixels=4799) is None


def test_it_declines_large_files() -> None:
    assert on_planes(PHOTO.ljust(65536, b"\0")) == on_planes(PHOTO)
    assert on_planes(PHOTO.ljust(65537, b"\0")) is None


def refused(data: bytes) -> bool:
    try:
        images.decode(data, max_pixels=LIMIT)
    except RowFailure:
        return True
    return False


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4", "restart_marker_rows": 1}], ids=str)
def test_a_file_cut_anywhere_is_declined_when_the_usual_way_refuses_it(options: dict[str, object]) -> None:
    data = saved(photo(2, 40, 56), **options)
    cut = [length for length in range(len(data)) if on_planes(data[:length]) is not None]
    assert [length for length in cut if refused(data[:length])] == []
    assert [length for length in cut if length < len(data) - 2] == []


@settings(max_examples=1500, deadline=None)
@given(st.data(), st.booleans())
def test_a_file_with_wrong_bytes_is_declined_when_the_usual_way_refuses_it(draws: st.DataObject, progressive: bool) -> None:
    data = bytearray(saved(photo(2, 40, 56), progressive=progressive))
    for _ in range(draws.draw(st.integers(1, 3))):
        data[draws.draw(st.integers(0, len(data) - 1))] = draws.draw(st.integers(0, 255))
    if draws.draw(st.booleans()):
        at = draws.draw(st.integers(0, len(data) - 1))
        del data[at : at + draws.draw(st.integers(1, 40))]
    made = on_planes(bytes(data), max_pixels=1 << 20)
    if made is not None:
        assert not refused(bytes(data))
        assert Image.open(io.BytesIO(made)).size == (256, 256)


# --- in a batch -----------------------------------------------------------------------------------------------------


def run_batch(folder: Path, at: list[tuple[int, int]], format: str = "jpeg") -> dict[str, object]:
    """One batch of all files in folder/images, in the order of their names; the images go to folder/out/000000000."""
    ids = sorted(path.stem for path in (folder / "images").iterdir())
    csv = ("id\n" + "".join(f"{id}\n" for id in ids)).encode()
    (folder / "rows.csv").write_bytes(csv)
    (folder / "out").mkdir()
    source = {"where": {}, "idColumn": "id", "images": "images/{id}.jpg", "delimiter": ",", "encoding": "utf-8"}
    spec = {
        "source": {**source, "maxPixels": LIMIT, "maxBytes": 1 << 20},
        "output": {"format": format, "quality": 75, "background": "white"},
        "seed": 3,
    }
    job = {"csv": str(folder / "rows.csv"), "dataRoot": str(folder), "columns": ["id"], "spec": spec, "functions": list(REFERENCE)}
    runner = BatchRunner(
        {**job, "attempt": "a", "records": str(folder / "records")}, folder / "out", lambda row, position: at.append((row, position))
    )
    return runner.run(Task(0, 0, len(ids), 3, len(csv), checksum(csv[3:]), {}))


def test_in_a_batch_the_rows_it_declines_go_the_usual_way(tmp_path: Path) -> None:
    files = {"a": PHOTO, "b": PHOTO[:-300], "c": DECLINED_FILES["gray"], "d": PHOTO[:1000] + bytes(9), "e": saved(photo(5))}
    (tmp_path / "images").mkdir()
    for id, data in files.items():
        (tmp_path / "images" / f"{id}.jpg").write_bytes(data)
    at: list[tuple[int, int]] = []
    summary = run_batch(tmp_path, at)
    failures = summary["failures"]
    assert isinstance(failures, list)
    assert [(each["id"], each["reason"], each["function"], each["message"]) for each in failures] == [
        (id, "ImageInvalid", "", "truncated, corrupt or unsupported JPEG") for id in "bd"
    ]
    made = {id: (tmp_path / "out" / "000000000" / f"{id}.jpg").read_bytes() for id in "ace"}
    assert (made["a"], made["e"]) == (on_planes(files["a"], id="a"), on_planes(files["e"], id="e"))
    assert made["c"] == usual(files["c"], id="c")
    steps = [[position for row, position in at if row == wanted] for wanted in range(3)]
    assert steps == [[DECODE, 1], [DECODE, 1, DECODE], [DECODE, 1, DECODE, 0, 1, ENCODE]]


def test_other_formats_never_come_to_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(PHOTO)
    at: list[tuple[int, int]] = []
    run_batch(tmp_path, at, "png")
    assert [position for _, position in at] == [DECODE, 0, 1, ENCODE]


def test_children_import_it_only_for_a_job_that_it_can_serve() -> None:
    code = "import sys, pipelinejob.child; print([name for name in ('numpy', 'simplejpeg') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
