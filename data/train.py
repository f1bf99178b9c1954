"""Train a small network to tell the articles of a drawn catalogue apart, and write it as an ONNX model with its labels.

    python data/train.py                       # a minute: draws 10,000 products, trains on 8,000, tells how it does on 2,000 others

The catalogue is drawn by generate.py with another seed than the one that ships, into a temporary folder. Everything is plain
numpy. The same options give the same model with the same numpy on the same kind of processor: sums in another order differ in their
last digits. The model takes pictures of 36x48 pixels, RGB, 0 to 1, and gives two outputs: `embedding`, 48 numbers, and `logits`,
one for each label.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import generate
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

Array = NDArray[Any]
Weights = list[Array]  # of each layer its matrix, then its offset

HERE: Final = Path(__file__).parent
WIDTH, HEIGHT, CHANNELS = 36, 48, 3
CONVOLUTIONS: Final = ((5, 12), (3, 24), (3, 32))  # (side of the kernel, filters); each halves the sides of what it gets
HIDDEN: Final = 48
CATALOGUE_SEED: Final = 1001  # the catalogue that ships has 7
HELD_OUT: Final = 5  # every fifth product
STEP, BATCH, SMOOTHING = 2e-3, 64, 0.05
OPSET, IR_VERSION = 17, 8


def draw(folder: Path, rows: int) -> tuple[Array, list[str]]:
    """A catalogue: its pictures as bytes (rows, HEIGHT, WIDTH, 3), and the article of each."""
    generate.generate(generate.Options(folder, rows, CATALOGUE_SEED, (60, 80), 0, 0, 0, distinct=rows, expected=False))
    with open(folder / "styles.csv", newline="", encoding="utf-8") as file:
        products = [(row["id"], row["articleType"]) for row in csv.DictReader(file)]
    pictures = np.empty((rows, HEIGHT, WIDTH, CHANNELS), np.uint8)
    for number, (identity, _) in enumerate(products):
        with Image.open(folder / f"images/{identity}.jpg") as image:
            pictures[number] = np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    return pictures, [article for _, article in products]


def network(random: np.random.Generator, classes: int) -> Weights:
    """Weights to begin with."""
    sizes: list[tuple[int, ...]] = []
    height, width, depth = HEIGHT, WIDTH, CHANNELS
    for side, filters in CONVOLUTIONS:
        sizes.append((side * side * depth, filters))
        height, width, depth = (height + 1) // 2, (width + 1) // 2, filters
    sizes += [(height * width * depth, HIDDEN), (HIDDEN, classes)]
    drawn = [(random.standard_normal(size) * np.sqrt(2 / size[0])).astype(np.float32) for size in sizes]
    return [part for matrix in drawn for part in (matrix, np.zeros(matrix.shape[1], np.float32))]


def patches(images: Array, side: int) -> Array:
    """What a convolution of stride 2 sees at each place: (images, height, width, side * side * depth)."""
    edge = side // 2
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))[:, ::2, ::2]
    count, height, width, depth = seen.shape[:4]
    return np.ascontiguousarray(seen.transpose(0, 1, 2, 4, 5, 3)).reshape(count, height, width, side * side * depth)


def unpatched(seen: Array, shape: tuple[int, ...], side: int) -> Array:
    """The way back: what belongs to each pixel, summed."""
    edge, (count, height, width, _) = side // 2, seen.shape
    padded = np.zeros((count, shape[1] + 2 * edge, shape[2] + 2 * edge, shape[3]), np.float32)
    parts = seen.reshape(count, height, width, side, side, shape[3])
    for down in range(side):
        for across in range(side):
            padded[:, down : down + 2 * height : 2, across : across + 2 * width : 2] += parts[:, :, :, down, across]
    return padded[:, edge : edge + shape[1], edge : edge + shape[2]]


def forward(weights: Weights, images: Array) -> tuple[Array, Array, list[tuple[Array, Array]]]:
    """Logits and embedding, and for each convolution what it saw and what it gave."""
    kept = []
    given = 1 - images.astype(np.float32) / 255  # white ground becomes 0, as what is beyond the edges
    for layer, (side, _) in enumerate(CONVOLUTIONS):
        seen = patches(given, side)
        given = np.maximum(seen @ weights[2 * layer] + weights[2 * layer + 1], 0)
        kept.append((seen, given))
    flat = given.reshape(len(given), -1)
    embedding = np.maximum(flat @ weights[-4] + weights[-3], 0)
    return embedding @ weights[-2] + weights[-1], embedding, kept


def gradients(weights: Weights, images: Array, wanted: Array) -> Weights:
    """How the loss (cross entropy against `wanted`, a share for each class) changes with each weight."""
    logits, embedding, kept = forward(weights, images)
    flat = kept[-1][1].reshape(len(images), -1)
    back = (shares(logits) - wanted) / len(images)
    found = [back.sum(0), embedding.T @ back]
    back = (back @ weights[-2].T) * (embedding > 0)
    found += [back.sum(0), flat.T @ back]
    back = (back @ weights[-4].T).reshape(kept[-1][1].shape)
    for layer in reversed(range(len(CONVOLUTIONS))):
        seen, given = kept[layer]
        back = (back * (given > 0)).reshape(-1, given.shape[-1])
        found += [back.sum(0), seen.reshape(len(back), -1).T @ back]
        if layer:
            shape = kept[layer - 1][1].shape
            back = unpatched((back @ weights[2 * layer].T).reshape(seen.shape), shape, CONVOLUTIONS[layer][0])
    return found[::-1]


def shares(logits: Array) -> Array:
    """Softmax."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def moved(random: np.random.Generator, images: Array) -> Array:
    """Pictures mirrored at random, and moved by up to a pixel."""
    result = np.where(random.random((len(images), 1, 1, 1)) < 0.5, images, images[:, :, ::-1])
    down, across = random.integers(-1, 2, 2)
    return np.roll(result, (down, across), (1, 2))


def train(images: Array, labels: Array, classes: int, epochs: int, seed: int, say: Callable[[str], None]) -> Weights:
    """Adam, its steps shrinking to nothing along a cosine."""
    random = np.random.default_rng(seed)
    weights = network(random, classes)
    means, squares = ([np.zeros_like(part) for part in weights] for _ in range(2))
    steps, step = epochs * (len(images) // BATCH), 0
    for epoch in range(epochs):
        for chosen in _batches(random, len(images)):
            step += 1
            size = STEP * (1 + np.cos(np.pi * step / steps)) / 2
            wanted = np.eye(classes, dtype=np.float32)[labels[chosen]] * (1 - SMOOTHING) + SMOOTHING / classes
            slopes = gradients(weights, moved(random, images[chosen]), wanted)
            for part, mean, square, slope in zip(weights, means, squares, slopes, strict=True):
                _adam(part, mean, square, slope, size, step)
        say(f"epoch {epoch + 1} of {epochs}: {accuracy(weights, images[:2000], labels[:2000]):.1%} of the first 2,000 it was trained on")
    return weights


def _adam(part: Array, mean: Array, square: Array, slope: Array, size: float, step: int) -> None:
    mean += 0.1 * (slope - mean)
    square += 0.01 * (slope**2 - square)
    part -= (size * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)).astype(np.float32)


def accuracy(weights: Weights, images: Array, labels: Array) -> float:
    """The share of pictures whose article it tells."""
    right = [forward(weights, images[at : at + 500])[0].argmax(1) == labels[at : at + 500] for at in range(0, len(images), 500)]
    return float(np.concatenate(right).mean())


def model_of(weights: Weights, classes: int) -> onnx.ModelProto:
    """The network as ONNX: pictures first by channel, then by line, as most models have them."""
    tensors, nodes = [numpy_helper.from_array(np.ones(1, np.float32), "one")], [helper.make_node("Sub", ["one", "image"], ["ink"])]
    height, width, depth, last = HEIGHT, WIDTH, CHANNELS, "ink"
    for layer, (side, filters) in enumerate(CONVOLUTIONS):
        kernel = weights[2 * layer].reshape(side, side, depth, filters).transpose(3, 2, 0, 1)
        height, width, depth, name = (height + 1) // 2, (width + 1) // 2, filters, f"convolution{layer}"
        nodes += _layer("Conv", last, name, tensors, kernel, weights[2 * layer + 1], strides=[2, 2], pads=[side // 2] * 4)
        nodes.append(helper.make_node("Relu", [name], [last := f"{name}_relu"]))
    nodes.append(helper.make_node("Flatten", [last], ["flat"]))
    hidden = weights[-4].reshape(height, width, depth, HIDDEN).transpose(2, 0, 1, 3).reshape(-1, HIDDEN)
    nodes += _layer("Gemm", "flat", "hidden", tensors, hidden, weights[-3])
    nodes.append(helper.make_node("Relu", ["hidden"], ["embedding"]))
    nodes += _layer("Gemm", "embedding", "logits", tensors, weights[-2], weights[-1])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["pictures", CHANNELS, HEIGHT, WIDTH])
    sizes = {"embedding": HIDDEN, "logits": classes}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["pictures", size]) for name, size in sizes.items()]
    graph = helper.make_graph(nodes, "garments", [image], outputs, tensors)
    model = helper.make_model(graph, producer_name="pipelinejob data/train.py", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION  # old enough for every onnxruntime in use
    onnx.checker.check_model(model)
    return model


def _layer(kind: str, given: str, name: str, tensors: list[Any], matrix: Array, offset: Array, **attributes: Any) -> list[Any]:
    for part, values in ((f"{name}_weight", matrix), (f"{name}_offset", offset)):
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), part))
    return [helper.make_node(kind, [given, f"{name}_weight", f"{name}_offset"], [name], **attributes)]


def _batches(random: np.random.Generator, count: int) -> Iterator[Array]:
    order = random.permutation(count)
    return (order[at : at + BATCH] for at in range(0, count - BATCH + 1, BATCH))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "models/garments.onnx", metavar="FILE", help="the model; labels go beside it")
    parser.add_argument("--rows", type=int, default=10_000, metavar="N", help="products to draw; a fifth is held out (default 10000)")
    parser.add_argument("--epochs", type=int, default=14, metavar="N", help="how often each is seen (default 14)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the weights and of the order (default 1)")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    with TemporaryDirectory(prefix="pipelinejob-train-") as folder:
        images, articles = draw(Path(folder), given.rows)
    names = sorted(set(articles))
    labels = np.array([names.index(article) for article in articles])
    held_out = np.arange(given.rows) % HELD_OUT == 0
    weights = train(images[~held_out], labels[~held_out], len(names), given.epochs, given.seed, print)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model_of(weights, len(names)), given.out)
    given.out.with_suffix(".labels.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    told = accuracy(weights, images[held_out], labels[held_out])
    seconds, size = time.monotonic() - began, given.out.stat().st_size
    print(f"{given.out.name}: {told:.1%} of {held_out.sum():,} held-out right, {len(names)} articles; {size:,} bytes, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
