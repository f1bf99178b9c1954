"""The chain: a spec's functions, run in order over one row after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from pipelinejob.functions.draws import Draws
from pipelinejob.functions.errors import FunctionFailure, told
from pipelinejob.functions.loading import load
from pipelinejob.functions.registry import Function, Kind
from pipelinejob.functions.window import Resample, Window
from pipelinejob.images import SCALED, plain
from pipelinejob.reasons import RowFailure, RowReason

# Below this many pixels a full decode takes less than 0.3 ms, and working out a scale is not worth its time.
_WORTH_SCALING = 256 * 256

_NO_IMAGE = "needs an image, and this row has none"


class Outcome(NamedTuple):
    """What became of a row: its picture, what each function returned as (position, function name, columns), or skipped."""

    image: Image.Image | None
    columns: tuple[tuple[int, str, dict[str, object]], ...]
    skipped: bool


class _Step(NamedTuple):
    position: int
    function: Function
    call: Callable[..., Any]  # the function with its parameters


class _Picture:
    """The picture on its way through the chain: pixels, perhaps at 1/scale, and the window still to be cut from them."""

    def __init__(self, image: Image.Image | None) -> None:
        self._image = image
        self._window: Window | None = None  # None: all of it, and then the scale is 1
        self._scale = 1
        if image is not None and SCALED in image.info:
            self._scale, size = image.info.pop(SCALED)
            self._window = Window(0, 0, *size)

    def put(self, image: Image.Image) -> None:
        self._image, self._window, self._scale = image, None, 1

    def pixels(self) -> Image.Image | None:
        """The picture at its full size, or None for a row without image."""
        if self._image is not None and self._window is not None:
            self.put(self._window.cut(self._image))
        return self._image

    def image(self) -> Image.Image:
        image = self.pixels()
        if image is None:
            raise FunctionFailure(_NO_IMAGE)
        return image

    def transform(self, work: Callable[[Window], Window | Resample]) -> None:
        """Move the window, or resample what it shows."""
        if self._image is None:
            raise FunctionFailure(_NO_IMAGE)
        result = work(self._window or Window(0, 0, *self._image.size))
        if isinstance(result, Resample):
            self.put(result.apply(self._image, self._scale))
        else:
            self._window = result


def _unobserved(position: int) -> None:
    """The default for `at`: nobody wants to know."""


class Chain:
    """The functions of a spec, bound to their parameters.

    Args:
        functions: entries as in the spec, {name, params?, file? | module?, path?}, with params already checked.
        seed: spec.seed.

    Raises:
        ValueError: a function cannot be loaded, or a class not be made.
    """

    def __init__(self, functions: Sequence[Mapping[str, Any]], *, seed: int) -> None:
        self._seed = seed
        loaded = [(load(entry), entry.get("params") or {}) for entry in functions]
        self._steps = tuple(_Step(at, function, function.bind(params)) for at, (function, params) in enumerate(loaded))

    @property
    def is_geometry(self) -> bool:
        """Whether there are functions, and all only move the window or resample it."""
        return bool(self._steps) and all(step.function.kind is Kind.GEOMETRY for step in self._steps)

    @property
    def last(self) -> int:
        """The position of the last function."""
        return len(self._steps) - 1

    def scale(self, size: tuple[int, int], id: str) -> int:
        """At what 1/scale (1, 2, 4 or 8) a picture of the upright `size` may be decoded for the row `id`.

        The largest at which the first resampling still has the pixels it asks for, and 1 when anything but crops and
        flips comes before it, or when the picture is small. The result stays within SCALED_PSNR_DB of a full decode's.
        """
        if size[0] * size[1] < _WORTH_SCALING:
            return 1
        found = self._first_resample(size, id)
        return found[0].scale() if found else 1

    def final_resample(self, size: tuple[int, int], id: str) -> Resample | None:
        """What the chain does to a picture of the upright `size`, if that is crops, flips and, last, one resampling.

        None for all else, and when a function fails.
        """
        found = self._first_resample(size, id)
        return found[0] if found and found[1] == self.last else None

    def _first_resample(self, size: tuple[int, int], id: str) -> tuple[Resample, int] | None:
        """The first resampling and its position; None when there is none, or when more than crops and flips come before."""
        window = Window(0, 0, *size)
        for step in self._steps:
            if step.function.kind is not Kind.GEOMETRY:
                return None
            try:
                result = self._geometry(step, window, id)
            except Exception:  # the row fails with it when the chain is run
                return None
            if isinstance(result, Resample):
                return result, step.position
            window = result
        return None

    def run(self, image: Image.Image | None, row: Mapping[str, str], id: str, at: Callable[[int], None] = _unobserved) -> Outcome:
        """Run the functions over one row.

        Args:
            image: as `images.decode` gives it, at the full size or at what `scale` said; None for a row without image.
            row: the source cells by column.
            id: the row's id.
            at: called with each function's position before it runs.

        Raises:
            RowFailure: FunctionError, naming the function, whatever it raised; SystemExit included.
        """
        picture = _Picture(image)
        columns: list[tuple[int, str, dict[str, object]]] = []
        for step in self._steps:
            at(step.position)
            try:
                found = self._apply(step, picture, row, id)
                if step is self._steps[-1]:
                    picture.pixels()
            except BaseException as error:
                raise RowFailure(RowReason.FUNCTION_ERROR, told(error), step.function.name) from error
            if found is None:
                return Outcome(None, (), True)
            if found:
                columns.append((step.position, step.function.name, found))
        return Outcome(picture.pixels(), tuple(columns), False)

    def _geometry(self, step: _Step, window: Window, id: str) -> Window | Resample:
        draws = (Draws(self._seed, id, step.position),) if step.function.random else ()
        result: Window | Resample = step.call(window, *draws)
        return result

    def _apply(self, step: _Step, picture: _Picture, row: Mapping[str, str], id: str) -> dict[str, object] | None:
        """Run one function on the picture; returns its columns, or None for "skip this row"."""
        function = step.function
        if function.kind is Kind.GEOMETRY:
            picture.transform(lambda window: self._geometry(step, window, id))
        elif function.kind is Kind.PIXELS:
            picture.put(step.call(picture.image()))
        elif function.kind is Kind.COLUMNS:
            return dict(step.call(picture.image()))
        else:
            # A copy of the row: what a function does to it must not reach metadata.csv.
            result = step.call(picture.pixels(), dict(row))
            if result is None:
                return None
            image, found = _unpacked(result)
            if image is not None:
                image.load()  # one opened from a file may be broken: then it is this function's error
                picture.put(plain(image))
            return {_column_name(name): _column_value(name, value) for name, value in found.items()}
        return {}


def _unpacked(result: object) -> tuple[Image.Image | None, Mapping[object, object]]:
    """A user's return value as (image or None for unchanged, columns)."""
    if isinstance(result, Image.Image):
        return result, {}
    if isinstance(result, Mapping):
        return None, result
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Image.Image) and isinstance(result[1], Mapping):
        return result[0], result[1]
    raise FunctionFailure(f"returned {type(result).__name__}; expected an image, a mapping, (image, mapping) or None")


def _column_name(name: object) -> str:
    if isinstance(name, str) and name and _is_text(name):
        return str.__str__(name)
    raise FunctionFailure(f"returned a column named {name!r}; expected a text that is not empty")


def _column_value(name: object, value: object) -> object:
    """`value` as a plain str, int, float, bool, None or JSON value: subclasses (numpy's floats, enums) become their base."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        if _is_text(text):
            return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        pass
    raise FunctionFailure(f"returned {type(value).__name__} in column {name!r}; expected a text, a number, or JSON")


def _is_text(value: str) -> bool:
    """Whether `value` can be written as UTF-8: a lone surrogate cannot."""
    return value.isascii() or value.encode("utf-8", "ignore").decode() == value
