"""predict and embed: what a user's ONNX model says of the pictures.

A model is a file below the data root, so that a laptop and a cluster find it by the same name. Nothing heavy is imported before an
object is made, once in each process: `network` brings numpy and onnxruntime.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from PIL import Image

from pipelinejob.functions.builtin import Fit, Side
from pipelinejob.functions.params import Range
from pipelinejob.functions.registry import BUILTINS, Row, batched

if TYPE_CHECKING:
    from pipelinejob.functions.network import Network

__all__ = ["BUILTINS"]  # with predict and embed in it

DATA_ROOT = "PIPELINEJOB_DATA"  # the variable with the data root; without it, that is the current folder

Channels = Literal["RGB", "BGR", "L"]
Layout = Literal["NCHW", "NHWC"]
Numbers = list[float]  # one for all channels, or one for each
BatchSize = Annotated[int, Range(1, 1024)]
Threads = Annotated[int, Range(1, 64)]
Images = list[Image.Image | None]
Results = list[Mapping[str, object] | Exception]

_ZERO, _ONE = [0.0], [1.0]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Input(NamedTuple):
    """How pictures become what a model takes; sizes in pixels, None: as the model says."""

    width: int | None
    height: int | None
    layout: Layout
    channels: Channels
    mean: Numbers
    std: Numbers
    fit: Fit


def _problems(params: Mapping[str, object]) -> list[tuple[str, str]]:
    """What the annotations cannot say."""
    found = [
        (name, problem)
        for name in ("model", "labels")
        if params.get(name) is not None and (problem := _path_problem(str(params[name]))) is not None
    ]
    digest = params.get("digest")
    if digest is not None and not _DIGEST.fullmatch(str(digest)):
        found.append(("digest", f"must be sha256: and 64 hex digits, as sha256sum prints them, got {str(digest)[:80]!r}"))
    count = 1 if params.get("channels") == "L" else 3
    for name in ("mean", "std"):
        values = params.get(name, _ONE)
        numbers = isinstance(values, list) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if not numbers or not isinstance(values, list) or len(values) not in (1, count):
            wanted = "a list of one number" + ("" if count == 1 else f", or of {count}: one for each channel")
            found.append((name, f"must be {wanted}, got {str(values)[:80]}"))
        elif name == "std" and not all(value > 0 for value in values):
            found.append((name, f"must be above 0, got {values}"))
    if params.get("column") == "":
        found.append(("column", "must be a text that is not empty"))
    return found


def _files_of(params: Mapping[str, object], root: Path) -> str:
    """A digest of the bytes of the model and, where there are any, of its labels."""
    model, labels = str(params["model"]), None
    if "labels" in params:  # those of predict
        labels = _labels_of(model, params["labels"], root)
    digests = []
    for name in (model, labels):
        if name is not None:
            with _open(name, root) as file:
                digests.append(f"sha256:{file_digest(file, 'sha256').hexdigest()}")
    _check_digest(model, params.get("digest"), digests[0])
    return digests[0] if len(digests) == 1 else f"sha256:{sha256(' '.join(digests).encode()).hexdigest()}"


@batched(rule=_problems, digest_of=_files_of)
class predict:
    """Tell what an ONNX model takes the picture for, in the columns label and score, with top_k also label_2, score_2 and so on.

    The model is one file below the data root, with one input: pictures, resized to its size, divided by 255, less `mean`, divided by
    `std`. Its last output, or the one that `output` names, has a number for each class; `labels` is a text file with a line for each,
    by default the model's path with .labels.txt in place of .onnx. What is transparent counts as white.

    Scores have 6 decimals and do not depend on the pictures beside: onnxruntime's matrix products and convolutions give the very same
    bits in a batch and alone (tests/unit/test_predict.py looks). A model that mixes the pictures of a batch breaks this promise, and on
    another kind of processor the last decimal may be another.
    """

    def __init__(
        self,
        *,
        model: str,
        labels: str | None = None,
        top_k: Annotated[int, Range(1, 100)] = 1,
        softmax: bool = True,
        output: str | None = None,
        width: Side | None = None,
        height: Side | None = None,
        layout: Layout = "NCHW",
        channels: Channels = "RGB",
        mean: Numbers = _ZERO,
        std: Numbers = _ONE,
        fit: Fit = "stretch",
        digest: str | None = None,
        batch: BatchSize = 32,
        threads: Threads = 1,
    ) -> None:
        taking = Input(width, height, layout, channels, mean, std, fit)
        self._network = _network(model, digest, taking, output, batch, threads)
        self.batch_size = self._network.batch_size
        self._top_k, self._softmax = top_k, softmax
        self._labels = _labels(model, labels, self._network.numbers)
        if top_k > len(self._labels):
            raise ValueError(f"top_k: {model} tells {len(self._labels)} classes apart, got {top_k}")

    def __call__(self, images: Images, rows: list[Row]) -> Results:
        """What is told of each picture, or why it cannot be told.

        Raises:
            Exception: onnxruntime refuses these pictures together; the chain then gives it each by itself.
        """
        return self._network.of_each(images, self._told)

    def _told(self, values: Any) -> Results:
        from pipelinejob.functions.network import best, rounded, shares  # noqa: PLC0415 - as _network

        scores = rounded(shares(values) if self._softmax else values)
        return [dict(self._columns(each)) for each in best(scores, self._top_k)]

    def _columns(self, found: Iterable[tuple[int, float]]) -> Iterator[tuple[str, object]]:
        for place, (number, score) in enumerate(found, 1):
            ending = "" if place == 1 else f"_{place}"
            yield f"label{ending}", self._labels[number]
            yield f"score{ending}", score


@batched(rule=_problems, digest_of=_files_of)
class embed:
    """Tell what an ONNX model makes of the picture as a list of numbers, in the column embedding.

    As predict, but for the output: the one that `output` names, else the first of two (the last tells the classes), or the only one.
    Numbers have 6 decimals; lists of pictures that the model finds alike point the same way.
    """

    def __init__(
        self,
        *,
        model: str,
        output: str | None = None,
        column: str = "embedding",
        width: Side | None = None,
        height: Side | None = None,
        layout: Layout = "NCHW",
        channels: Channels = "RGB",
        mean: Numbers = _ZERO,
        std: Numbers = _ONE,
        fit: Fit = "stretch",
        digest: str | None = None,
        batch: BatchSize = 32,
        threads: Threads = 1,
    ) -> None:
        taking = Input(width, height, layout, channels, mean, std, fit)
        self._network = _network(model, digest, taking, output, batch, threads, embedding=True)
        self.batch_size = self._network.batch_size
        self._column = column

    def __call__(self, images: Images, rows: list[Row]) -> Results:
        """As that of predict."""
        return self._network.of_each(images, self._told)

    def _told(self, values: Any) -> Results:
        from pipelinejob.functions.network import rounded  # noqa: PLC0415 - as _network

        return [{self._column: each} for each in rounded(values).tolist()]


def _network(
    model: str, digest: str | None, taking: Input, output: str | None, batch: int, threads: int, *, embedding: bool = False
) -> Network:
    try:
        from pipelinejob.functions.network import Network  # noqa: PLC0415 - imports numpy and onnxruntime
    except ImportError as error:
        raise ValueError(f"onnxruntime is not to be had here ({error}): pip install 'pipelinejob[predict]'") from None
    with _open(model, _data_root()) as file:
        data = file.read()
    _check_digest(model, digest, f"sha256:{sha256(data).hexdigest()}")
    return Network(model, data, taking, output, batch, threads, embedding=embedding)


def _labels(model: str, given: str | None, count: int) -> list[str]:
    name = _labels_of(model, given, _data_root())
    if name is None:
        return [str(number) for number in range(count)]
    with _open(name, _data_root()) as file:
        data = file.read()
    try:
        found = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"labels: {name} is no UTF-8 text") from None
    if len(found) != count:
        raise ValueError(f"labels: {model} tells {count} classes apart, and {name} has {len(found)} lines: expected a line for each class")
    return found


def _labels_of(model: str, given: object, root: Path) -> str | None:
    """The file with the labels: the one given, else the one beside the model, if it is there."""
    if given is not None:
        return str(given)
    beside = f"{model.removesuffix('.onnx')}.labels.txt"
    return beside if os.path.lexists(root / beside) else None


def _check_digest(model: str, wanted: object, found: str) -> None:
    if wanted is not None and wanted != found:
        raise ValueError(f"digest: {model} has {found}, expected {wanted}: it is another model than the job was written for")


def _data_root() -> Path:
    return Path(os.environ.get(DATA_ROOT) or ".")


def _open(name: str, root: Path) -> BufferedReader:
    """A file below the data root; links may not lead outside.

    Raises:
        ValueError: it is not there, not below the root, or not to be read.
    """
    if (problem := _path_problem(name)) is not None:
        raise ValueError(f"{name!r}: {problem}")
    path = Path(os.path.realpath(root / name))
    if not path.is_relative_to(os.path.realpath(root)):
        raise ValueError(f"{name!r} leads outside the data root: copy the file into it")
    if not path.is_file():
        raise ValueError(f"no file {name!r} below the data root")
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from None


def _path_problem(path: str) -> str | None:
    if path and not path.startswith("/") and ".." not in path.split("/") and "\0" not in path:
        return None
    return f"must be a path relative to the data root, without '..', got {path[:80]!r}"
