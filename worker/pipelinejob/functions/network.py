"""An ONNX model in this process: loaded once, and given pictures in the form that it takes. Needs onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from pipelinejob.functions.builtin import resize
from pipelinejob.functions.errors import FunctionFailure, told
from pipelinejob.functions.predict import Input
from pipelinejob.functions.window import Window
from pipelinejob.images import flatten

Array = NDArray[Any]

DECIMALS = 6
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_ERRORS_ONLY = 3


class Network:
    """A model with what it takes and what is asked of it.

    Args:
        name: the model's path, for messages.
        data: its bytes.
        taking: how pictures become what it takes.
        output: the output that is asked for; None: the last one, or for an embedding the last but one of two.
        batch: how many pictures it gets at once, at most.
        threads: how many work on them.
        embedding: whether an embedding is asked for.

    Raises:
        ValueError: it is no model, or none for pictures in this form.
    """

    def __init__(self, name: str, data: bytes, taking: Input, output: str | None, batch: int, threads: int, *, embedding: bool) -> None:
        self._name, self._taking = name, taking
        self._session = _session(name, data, threads)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(each.name for each in inputs)
            raise ValueError(f"{name} has {len(inputs)} inputs ({names}): expected one, the pictures")
        self._input: str = inputs[0].name
        self._output = self._chosen(output, embedding=embedding)
        if inputs[0].type not in _TYPES:
            raise ValueError(f"{name} takes {inputs[0].type}: expected one of {', '.join(_TYPES)}")
        self._type = _TYPES[inputs[0].type]
        self._width, self._height = self._size(list(inputs[0].shape))
        self.batch_size = batch
        # (value / 255 - mean) / std, in one multiplication and one addition
        mean, std = np.asarray(taking.mean, np.float64), np.asarray(taking.std, np.float64)
        shape = (-1, 1, 1) if taking.layout == "NCHW" else (-1,)
        self._factor = (1 / (255 * std)).astype(self._type).reshape(shape)
        self._offset = (-mean / std).astype(self._type).reshape(shape)
        blank = self._pixels(Image.new("RGB", (self._width, self._height)))
        try:
            self.numbers = self._run([blank]).shape[1]
        except Exception as error:
            form = f"{taking.layout}, {taking.channels}, {self._width}x{self._height}"
            raise ValueError(f"{name} does not take pictures in this form ({form}): {told(error)}") from None
        try:
            self._run([blank, blank])
        except Exception:  # whatever it says that it takes
            self.batch_size = 1

    def of_each(self, images: Sequence[Image.Image | None], tell: Callable[[Array], list[Any]]) -> list[Any]:
        """What `tell` says of the numbers that the model gives for each picture, or why there is nothing to say.

        Args:
            images: as a chain has them.
            tell: from numbers (pictures, numbers of each) to something for each picture.

        Raises:
            Exception: onnxruntime refuses these pictures.
        """
        found: list[Any] = []
        for image in images:
            try:
                found.append(self._pixels(image))
            except Exception as error:
                found.append(error)
        good = [at for at, each in enumerate(found) if not isinstance(each, Exception)]
        if not good:
            return found
        values = self._run([found[at] for at in good])
        finite: Array = np.asarray(np.isfinite(values).all(axis=1))
        said = iter(tell(values[finite]))
        for at, is_finite in zip(good, finite.tolist(), strict=True):
            found[at] = next(said) if is_finite else FunctionFailure("the model gave numbers that are not finite")
        return found

    def _run(self, pixels: Sequence[Array]) -> Array:
        """The numbers that the model gives, (pictures, numbers of each), as 64-bit floats."""
        stacked = np.stack(pixels)
        if self._taking.layout == "NCHW":
            stacked = stacked.transpose(0, 3, 1, 2)
        values = np.empty(stacked.shape, self._type)
        np.multiply(stacked, self._factor, out=values, casting="unsafe")
        values += self._offset
        (found,) = self._session.run([self._output], {self._input: values})
        if not isinstance(found, np.ndarray) or found.ndim < 2 or len(found) != len(pixels):
            shape = "x".join(map(str, found.shape)) if isinstance(found, np.ndarray) else type(found).__name__
            raise FunctionFailure(f"its output {self._output} is {shape} for {len(pixels)} pictures: expected numbers for each picture")
        return found.reshape(len(pixels), -1).astype(np.float64)

    def _pixels(self, image: Image.Image | None) -> Array:
        """One picture as bytes: (height, width, channels)."""
        if image is None:
            raise FunctionFailure("needs an image, and this row has none")
        mode = "L" if self._taking.channels == "L" else "RGB"
        if image.mode != mode:
            image = (flatten(image, "white") if image.mode in ("LA", "RGBA") else image).convert(mode)
        whole = Window(0, 0, *image.size)
        image = resize(whole, width=self._width, height=self._height, fit=self._taking.fit).apply(image, 1)
        pixels = np.asarray(image).reshape(self._height, self._width, -1)
        return pixels[:, :, ::-1] if self._taking.channels == "BGR" else pixels

    def _chosen(self, output: str | None, *, embedding: bool) -> str:
        """The name of the output that is asked for."""
        names = [str(each.name) for each in self._session.get_outputs()]
        if output is not None and output not in names:
            raise ValueError(f"output: {self._name} has no output {output!r}: expected one of {', '.join(names)}")
        if output is None and embedding and len(names) > 2:
            raise ValueError(f"output: {self._name} has {len(names)} outputs ({', '.join(names)}): say which is the embedding")
        return output or (names[0] if embedding else names[-1])

    def _size(self, shape: list[object]) -> tuple[int, int]:
        """(width, height) of the pictures of an input of this shape."""
        taking = self._taking
        if len(shape) != 4:
            shown = "x".join(map(str, shape))
            raise ValueError(f"{self._name} takes {shown}: expected pictures, of four dimensions in the order {taking.layout}")
        found = {letter: size if isinstance(size, int) and size > 0 else None for letter, size in zip(taking.layout, shape, strict=True)}
        channels = 1 if taking.channels == "L" else 3
        if found["C"] not in (None, channels):
            raise ValueError(
                f"channels: {self._name} takes {found['C']} channels in the order {taking.layout}, and {taking.channels} are {channels}"
            )
        if found["N"] not in (None, 1):
            raise ValueError(f"{self._name} takes {found['N']} pictures at once: expected any number, or 1")
        return self._side("width", taking.width, found["W"]), self._side("height", taking.height, found["H"])

    def _side(self, param: str, given: int | None, found: int | None) -> int:
        if given is None and found is None:
            raise ValueError(f"{param}: is required: {self._name} takes pictures of any {param}")
        if given is not None and found is not None and given != found:
            raise ValueError(f"{param}: {self._name} takes pictures of {param} {found}, got {given}")
        return given or found or 0


def _session(name: str, data: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{name} is no ONNX model that onnxruntime {onnxruntime.__version__} can run: {told(error)}") from None


def shares(values: Array) -> Array:
    """Softmax of each row."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def rounded(values: Array) -> Array:
    """The numbers as they are written."""
    return np.asarray(values.round(DECIMALS) + 0.0)  # no -0.0


def best(scores: Array, count: int) -> list[list[tuple[int, float]]]:
    """For each row its highest scores as (number, score): highest first, of equal ones the first."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    found = np.take_along_axis(scores, order, axis=1)
    return [list(zip(*each, strict=True)) for each in zip(order.tolist(), found.tolist(), strict=True)]
