"""predict and embed, by the real onnxruntime: our own model on pictures it has not seen, and small models that go wrong."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from pipelinejob.functions import BUILTINS, Chain, Going, Outcome
from pipelinejob.images import decode
from pipelinejob.reasons import RowFailure, RowReason
from support import onnx_models
from support.onnx_models import GARMENTS, LABELS, REPOSITORY

CATALOGUE = REPOSITORY / "data/fashion"
END = Outcome | RowFailure


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root, as child processes know it."""
    root = tmp_path / "root"
    (root / "models").mkdir(parents=True)
    monkeypatch.setenv("PIPELINEJOB_DATA", str(root))
    return root


@pytest.fixture
def garments(root: Path) -> Path:
    """The data root with our own model."""
    for path in (GARMENTS, LABELS):
        (root / "models" / path.name).write_bytes(path.read_bytes())
    return root


@pytest.fixture(scope="module")
def products() -> list[tuple[str, Image.Image]]:
    """(article, picture) of the catalogue that ships, which the model was not trained on."""
    with open(CATALOGUE / "styles.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row]
    found = []
    for row in rows:
        path = CATALOGUE / f"images/{row['id']}.jpg"
        try:
            found.append((row["articleType"], decode(path.read_bytes(), max_pixels=10_000)))
        except (OSError, RowFailure):  # the catalogue has some that are missing or broken
            continue
    return found


def run(images: Sequence[Image.Image | None], name: str, **params: Any) -> list[END]:
    function = {"name": name, "params": {"model": "models/garments.onnx", **params}}
    assert BUILTINS[name].check(function["params"]) == []
    return Chain([function], seed=0).run_all(
        [Going(None if image is None else image.copy(), {}, str(at)) for at, image in enumerate(images)]
    )


def columns(end: END) -> dict[str, Any]:
    assert isinstance(end, Outcome), end
    ((position, _, found),) = end.columns
    assert position == 0
    return found


def failure(end: END) -> str:
    assert isinstance(end, RowFailure) and end.reason is RowReason.FUNCTION_ERROR
    return end.message


# --- our own model --------------------------------------------------------------------------------------------------


def test_it_tells_articles_apart_that_it_has_not_seen(garments: Path, products: Sequence[tuple[str, Image.Image]]) -> None:
    found = [columns(end) for end in run([image for _, image in products], "predict")]
    right = sum(each["label"] == article for each, (article, _) in zip(found, products, strict=True))
    assert len(products) > 200 and right / len(products) >= 0.97
    assert all(set(each) == {"label", "score"} and 0 < each["score"] <= 1 for each in found)
    assert all(each["score"] == round(each["score"], 6) for each in found)


def test_pictures_that_it_finds_alike_have_embeddings_that_point_the_same_way(
    garments: Path, products: Sequence[tuple[str, Image.Image]]
) -> None:
    found = [columns(end)["embedding"] for end in run([image for _, image in products], "embed")]
    assert {len(each) for each in found} == {48}

    def likeness(one: Sequence[float], other: Sequence[float]) -> float:
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5

    of_same, of_others = [], []
    for at, each in enumerate(found[:100]):
        for other in range(at):
            (of_same if products[at][0] == products[other][0] else of_others).append(likeness(each, found[other]))
    assert sum(of_same) / len(of_same) > 0.9 and sum(of_others) / len(of_others) < 0.6


@pytest.mark.parametrize(("name", "params"), [("predict", {"top_k": 32}), ("predict", {"softmax": False}), ("embed", {})])
def test_the_pictures_beside_it_change_nothing(
    garments: Path, products: Sequence[tuple[str, Image.Image]], name: str, params: Mapping[str, Any]
) -> None:
    images = [image for _, image in products[:100]]
    alone = [columns(end) for end in run(images, name, batch=1, **params)]
    for size in (2, 7, 32, 100):
        assert [columns(end) for end in run(images, name, batch=size, **params)] == alone


@pytest.mark.parametrize("layers", [(32, 8, 64, 10), (65, 16, 100, 1000), (9, 5, 7, 3)])
def test_nor_for_models_of_other_sizes(root: Path, layers: tuple[int, int, int, int], products: Sequence[tuple[str, Image.Image]]) -> None:
    (root / "models/m.onnx").write_bytes(onnx_models.network(*layers))
    images = [image for _, image in products[:40]]
    for name in ("predict", "embed"):
        alone = [columns(end) for end in run(images, name, model="models/m.onnx", batch=1)]
        for size in (3, 32):
            assert [columns(end) for end in run(images, name, model="models/m.onnx", batch=size)] == alone


def test_the_best_k_in_columns_of_their_own(garments: Path, products: Sequence[tuple[str, Image.Image]]) -> None:
    (found,) = (columns(end) for end in run([products[0][1]], "predict", top_k=3))
    assert list(found) == ["label", "score", "label_2", "score_2", "label_3", "score_3"]
    assert found["score"] > found["score_2"] > found["score_3"] and len({found["label"], found["label_2"], found["label_3"]}) == 3
    (whole,) = (columns(end) for end in run([products[0][1]], "predict", top_k=32))
    assert sum(whole[name] for name in whole if name.startswith("score")) == pytest.approx(1, abs=1e-4)


def test_labels(garments: Path, products: Sequence[tuple[str, Image.Image]]) -> None:
    image = products[0][1]
    told = columns(run([image], "predict")[0])["label"]
    (garments / "other.txt").write_text("".join(f"{name.upper()}\r\n" for name in LABELS.read_text().splitlines()))
    assert columns(run([image], "predict", labels="other.txt")[0])["label"] == told.upper()
    (garments / "models/garments.labels.txt").unlink()
    number = columns(run([image], "predict")[0])["label"]
    assert LABELS.read_text().splitlines()[int(number)] == told
    for text, message in (("one\ntwo\n", "tells 32 classes apart, and other.txt has 2 lines"), (b"\xff\xfe", "other.txt is no UTF-8 text")):
        (garments / "other.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ValueError, match=message):
            run([image], "predict", labels="other.txt")


# --- rows that go wrong ---------------------------------------------------------------------------------------------


def test_a_row_without_image_fails_alone(garments: Path, products: Sequence[tuple[str, Image.Image]]) -> None:
    images = [products[0][1], None, products[1][1]]
    for name in ("predict", "embed"):
        first, second, third = run(images, name)
        assert failure(second) == "needs an image, and this row has none"
        assert [columns(first), columns(third)] == [columns(end) for end in run([images[0], images[2]], name)]


def test_a_batch_that_onnxruntime_refuses_runs_one_by_one(root: Path) -> None:
    (root / "models/m.onnx").write_bytes(onnx_models.brightest(limit=200))
    images = [Image.new("L", (4, 4), value) for value in (10, 199, 200, 30)]
    ends = run(images, "embed", model="models/m.onnx", std=[1 / 255])
    assert [columns(end)["embedding"][0] for end in (ends[0], ends[1], ends[3])] == [30.0, 597.0, 90.0]
    assert "indices" in failure(ends[2])


def test_numbers_that_are_not_finite_fail_their_row_alone(root: Path) -> None:
    nodes = [onnx_models.node("Log", "x", "l"), onnx_models.node("Flatten", "l", "y")]
    (root / "models/m.onnx").write_bytes(onnx_models.model(nodes))
    white, black = Image.new("RGB", (4, 4), "white"), Image.new("RGB", (4, 4))
    ends = run([white, black, white], "embed", model="models/m.onnx")
    assert failure(ends[1]) == "the model gave numbers that are not finite"
    assert columns(ends[0]) == columns(ends[2]) == {"embedding": [0.0] * 48}


def test_a_model_that_takes_one_picture_at_a_time(root: Path) -> None:
    (root / "models/m.onnx").write_bytes(onnx_models.same((1, 3, 2, 2)))
    fixed = [columns(end) for end in run([Image.new("RGB", (2, 2), colour) for colour in ("white", "red")], "embed", model="models/m.onnx")]
    assert fixed == [{"embedding": [1.0] * 12}, {"embedding": [1.0] * 4 + [0.0] * 8}]
    assert BUILTINS["embed"].bind({"model": "models/m.onnx"}).batch_size == 1, "it is not offered more, only to refuse them"


# --- what a model is given ------------------------------------------------------------------------------------------


def given(root: Path, image: Image.Image, shape: Sequence[int | str] = ("n", 3, 2, 2), **params: Any) -> list[float]:
    (root / "models/m.onnx").write_bytes(onnx_models.same(shape))
    found: list[float] = columns(run([image], "embed", model="models/m.onnx", **params)[0])["embedding"]
    return found


def test_order_of_channels_and_dimensions(root: Path) -> None:
    image = Image.new("RGB", (2, 2), (255, 0, 51))
    image.putpixel((1, 0), (0, 0, 0))
    assert given(root, image) == [1, 0, 1, 1, 0, 0, 0, 0, 0.2, 0, 0.2, 0.2]
    assert given(root, image, channels="BGR") == [0.2, 0, 0.2, 0.2, 0, 0, 0, 0, 1, 0, 1, 1]
    assert given(root, image, ("n", 2, 2, 3), layout="NHWC") == [1, 0, 0.2, 0, 0, 0, 1, 0, 0.2, 1, 0, 0.2]
    gray = given(root, image, ("n", 1, 2, 2), channels="L")
    assert gray == [value / 255 for value in (82, 0, 82, 82)] or [round(value * 255) for value in gray] == [82, 0, 82, 82]


def test_mean_and_std_of_all_channels_or_of_each(root: Path) -> None:
    image = Image.new("RGB", (2, 2), (255, 0, 51))
    assert given(root, image, mean=[0.5], std=[0.5])[::4] == [1, -1, -0.6]
    assert given(root, image, mean=[1, 0, 0.2], std=[1, 2, 0.1], channels="RGB")[::4] == [0, 0, 0]
    assert given(root, image, mean=[0.2, 0, 0], std=[1, 1, 4], channels="BGR")[::4] == [0, 0, 0.25]


def test_fit_and_transparency(root: Path) -> None:
    wide = Image.new("RGBA", (8, 4), (0, 0, 0, 255))
    ImageDraw.Draw(wide).rectangle((0, 0, 1, 3), (0, 0, 0, 0))  # a transparent edge of two pixels
    any_size = ("n", 3, "h", "w")
    size = {"width": 4, "height": 4}
    contained = given(root, wide, any_size, fit="contain", **size)[:16]
    assert contained[:4] == contained[12:] == [1, 1, 1, 1] and contained[4] > 0.8 and contained[7] == 0
    covered = given(root, wide, any_size, fit="cover", **size)[:16]
    assert set(covered) == {0}
    stretched = given(root, wide, any_size, **size)[:16]
    assert stretched[::4] == [stretched[0]] * 4 and stretched[0] > 0.8 and stretched[3] == 0


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "problems"),
    [
        ({}, [("model", "is required: a text")]),
        ({"model": "/m.onnx"}, [("model", "must be a path relative to the data root, without '..', got '/m.onnx'")]),
        ({"model": "a/../m.onnx"}, [("model", "must be a path relative to the data root, without '..', got 'a/../m.onnx'")]),
        ({"model": "m", "labels": ""}, [("labels", "must be a path relative to the data root, without '..', got ''")]),
        ({"model": "m", "top_k": 101}, [("top_k", "must be a positive integer of at most 100, got 101")]),
        ({"model": "m", "channels": "RGBA"}, [("channels", "must be one of RGB, BGR, L, got 'RGBA'")]),
        ({"model": "m", "mean": 0.5}, [("mean", "must be a list of one number, or of 3: one for each channel, got 0.5")]),
        ({"model": "m", "mean": [0, 0, 0], "channels": "L"}, [("mean", "must be a list of one number, got [0, 0, 0]")]),
        ({"model": "m", "std": [1, 0, 1]}, [("std", "must be above 0, got [1, 0, 1]")]),
        ({"model": "m", "digest": "md5:1"}, [("digest", "must be sha256: and 64 hex digits, as sha256sum prints them, got 'md5:1'")]),
        ({"model": "m", "modle": "m"}, [("modle", "unknown parameter; did you mean 'model'?")]),
        ({"model": "m", "mean": [0.4, 0.5, 0.6], "std": [1], "digest": None, "batch": 1, "fit": "cover"}, []),
    ],
)
def test_params(params: Mapping[str, object], problems: Sequence[tuple[str, str]]) -> None:
    assert BUILTINS["predict"].check(params) == list(problems)


def _flat(*names: str) -> list[Any]:
    return [onnx_models.node("Flatten", "x", name) for name in names]


def _models() -> Iterator[tuple[bytes, str, Mapping[str, Any], str]]:
    flat = onnx_models.same()
    two = onnx_models.model([onnx_models.node("Add", "x z", "s"), onnx_models.node("Flatten", "s", "y")], inputs=("x", "z"))
    yield b"no model", "predict", {}, r"models/m.onnx is no ONNX model that onnxruntime [\d.]+ can run: .*protobuf"
    yield b"", "predict", {}, "models/m.onnx is no ONNX model"
    yield two, "predict", {}, r"models/m.onnx has 2 inputs \(x, z\): expected one, the pictures"
    yield flat, "predict", {"top_k": 49}, "top_k: models/m.onnx tells 48 classes apart, got 49"
    yield flat, "predict", {"width": 5}, "width: models/m.onnx takes pictures of width 4, got 5"
    yield flat, "predict", {"channels": "L"}, "channels: models/m.onnx takes 3 channels in the order NCHW, and L are 1"
    yield flat, "predict", {"layout": "NHWC"}, "channels: models/m.onnx takes 4 channels in the order NHWC, and RGB are 3"
    yield flat, "predict", {"output": "z"}, "output: models/m.onnx has no output 'z': expected one of y"
    yield (
        flat,
        "predict",
        {"digest": f"sha256:{'0' * 64}"},
        f"digest: .* has sha256:{hashlib.sha256(flat).hexdigest()}, expected sha256:000",
    )
    yield onnx_models.same(("n", 3, "h", 4)), "predict", {}, "height: is required: models/m.onnx takes pictures of any height"
    yield onnx_models.same((8, 3, 4, 4)), "predict", {}, "models/m.onnx takes 8 pictures at once: expected any number, or 1"
    yield onnx_models.same(("n", 48)), "predict", {}, "models/m.onnx takes nx48: expected pictures, of four dimensions in the order NCHW"
    yield (
        onnx_models.model([onnx_models.node("ReduceSum", "x", "y", keepdims=0)]),
        "predict",
        {},
        r"does not take pictures in this form \(NCHW, RGB, 4x4\): its output y is",
    )
    three = onnx_models.model(_flat("a", "b", "c"), outputs=("a", "b", "c"))
    yield three, "embed", {}, r"output: models/m.onnx has 3 outputs \(a, b, c\): say which is the embedding"


@pytest.mark.parametrize(("data", "name", "params", "message"), list(_models()))
def test_models_that_are_refused(root: Path, data: bytes, name: str, params: Mapping[str, Any], message: str) -> None:
    (root / "models/m.onnx").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        run([], name, model="models/m.onnx", **params)


def test_a_model_is_a_file_below_the_data_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.onnx").write_bytes(onnx_models.same())
    (root / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    (root / "inside.onnx").write_bytes(onnx_models.same())
    (root / "models/link.onnx").symlink_to("../inside.onnx")
    for model, message in (
        ("models/none.onnx", "no file 'models/none.onnx' below the data root"),
        ("models", "no file 'models' below the data root"),
        ("link.onnx", "'link.onnx' leads outside the data root: copy the file into it"),
    ):
        with pytest.raises(ValueError, match=message):
            run([], "predict", model=model)
    for model in ("../outside.onnx", str(tmp_path / "outside.onnx")):
        with pytest.raises(ValueError, match="relative to the data root"):
            BUILTINS["predict"].bind({"model": model})
    assert run([], "predict", model="models/link.onnx") == []


def test_without_onnxruntime_the_extra_is_named(garments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "pipelinejob.functions.network", raising=False)
    with pytest.raises(ValueError, match=r"onnxruntime is not to be had here .*: pip install 'pipelinejob\[predict\]'"):
        run([], "predict")


def test_the_functions_load_without_it() -> None:
    code = "import sys, pipelinejob.functions; assert not {'numpy', 'onnxruntime', 'dataclasses'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the digest of a job --------------------------------------------------------------------------------------------


def test_the_digest_of_a_function_in_a_job_is_of_its_files_as_well(garments: Path) -> None:
    function, model, labels = BUILTINS["predict"], garments / "models/garments.onnx", garments / "models/garments.labels.txt"
    params = function.resolve({"model": "models/garments.onnx"})
    digests = [function.digest_with(params, garments)]
    assert digests[0].startswith("builtin:predict@1+sha256:") and function.digest_with(params, garments) == digests[0]
    labels.write_text("".join(f"{line}.\n" for line in LABELS.read_text().splitlines()))
    digests.append(function.digest_with(params, garments))
    labels.unlink()
    digests.append(function.digest_with(params, garments))
    model.write_bytes(onnx_models.same())
    digests.append(function.digest_with(params, garments))
    assert len(set(digests)) == 4
    assert BUILTINS["embed"].digest_with(params, garments) == f"builtin:embed@1+sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
    assert BUILTINS["phash"].digest_with({}, garments) == BUILTINS["phash"].digest
    with pytest.raises(ValueError, match=r"no file 'models/none\.onnx' below the data root"):
        function.digest_with({**params, "model": "models/none.onnx"}, garments)
    with pytest.raises(ValueError, match="it is another model than the job was written for"):
        function.digest_with({**params, "digest": f"sha256:{'0' * 64}"}, garments)
