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

BATCH_SIZE = 32  # rows in one call of a function that takes lists, unless it says otherwise

_NO_IMAGE = "needs an image, and this row has none"


class Outcome(NamedTuple):
    """What became of a row: its picture, what each function returned as (position, function name, columns), or skipped."""

    image: Image.Image | None
    columns: tuple[tuple[int, str, dict[str, object]], ...]
    skipped: bool


class Going(NamedTuple):
    """A row that goes into the chain: its picture (see Chain.run), its source cells by column, and its id."""

    image: Image.Image | None
    row: Mapping[str, str]
    id: str


class _Step(NamedTuple):
    position: int
    function: Function
    call: Callable[..., Any]  # the function with its parameters
    at_once: int  # rows in one call


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


class _OnTheWay:
    """A row in the chain: what it has become so far."""

    def __init__(self, going: Going) -> None:
        self.picture, self.row, self.id = _Picture(going.image), going.row, going.id
        self.columns: list[tuple[int, str, dict[str, object]]] = []
        self.end: Outcome | RowFailure | None = None


At = Callable[[int, int, int], None]


def _unobserved(first: int, count: int, position: int) -> None:
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
        bound = [(function, function.bind(params)) for function, params in loaded]
        self._steps = tuple(_Step(at, function, call, _at_once(function, call)) for at, (function, call) in enumerate(bound))

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

    @property
    def rows_at_once(self) -> int:
        """How many rows a function takes in one call at most; 1 when all take one."""
        return max((step.at_once for step in self._steps), default=1)

    def run(self, image: Image.Image | None, row: Mapping[str, str], id: str, at: Callable[[int], None] | None = None) -> Outcome:
        """Run the functions over one row.

        Args:
            image: as `images.decode` gives it, at the full size or at what `scale` said; None for a row without image.
            row: the source cells by column.
            id: the row's id.
            at: called with each function's position before it runs.

        Raises:
            RowFailure: FunctionError, naming the function, whatever it raised; SystemExit included.
        """
        tell = _unobserved if at is None else lambda first, count, position: at(position)
        (end,) = self.run_all([Going(image, row, id)], tell)
        if isinstance(end, RowFailure):
            raise end
        return end

    def run_all(self, rows: Sequence[Going], at: At = _unobserved) -> list[Outcome | RowFailure]:
        """Run the functions over rows, each function over all of them before the next.

        Args:
            rows: in any number; a function that takes many gets as many as it takes at once.
            at: called with (index of the first row, number of rows, the function's position) before each call.

        Returns:
            What became of each row, in their order.
        """
        going = [_OnTheWay(row) for row in rows]
        for step in self._steps:
            left = [(index, row) for index, row in enumerate(going) if row.end is None]
            for start in range(0, len(left), step.at_once):
                some = left[start : start + step.at_once]
                if len(some) > 1:
                    at(some[0][0], len(some), step.position)
                    if self._apply_to_all(step, [row for _, row in some]):
                        continue
                for index, row in some:
                    at(index, 1, step.position)
                    self._apply_to(step, row)
        return [row.end or Outcome(row.picture.pixels(), tuple(row.columns), False) for row in going]

    def _apply_to(self, step: _Step, row: _OnTheWay) -> None:
        """Run one function over one row."""
        try:
            found = self._apply(step, row.picture, row.row, row.id)
            self._note(step, row, found)
        except BaseException as error:
            row.end = _failure(step, error)

    def _apply_to_all(self, step: _Step, rows: list[_OnTheWay]) -> bool:
        """Run one function over many rows at once; False when it could not do them together, and each is to be run by itself."""
        try:
            results = step.call([row.picture.pixels() for row in rows], [dict(row.row) for row in rows])
        except BaseException:  # of which row, only each by itself can tell
            return False
        if not isinstance(results, list) or len(results) != len(rows):
            return False
        for row, result in zip(rows, results, strict=True):
            try:
                self._note(step, row, _taken(result, row.picture))
            except BaseException as error:
                row.end = _failure(step, error)
        return True

    def _note(self, step: _Step, row: _OnTheWay, found: dict[str, object] | None) -> None:
        """Notes what a function returned for a row: columns, or None for "skip this row"."""
        if found is None:
            row.end = Outcome(None, (), True)
            return
        if step is self._steps[-1]:
            row.picture.pixels()  # what is left to be cut is this function's
        if found:
            row.columns.append((step.position, step.function.name, found))

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
            if not function.batched:
                return _taken(step.call(picture.pixels(), dict(row)), picture)
            results = step.call([picture.pixels()], [dict(row)])
            if not isinstance(results, list) or len(results) != 1:
                found = f"a list of {len(results)}" if isinstance(results, list) else type(results).__name__
                raise FunctionFailure(f"returned {found} for a list of 1 row; expected a list with a result for each row")
            return _taken(results[0], picture)
        return {}


def _at_once(function: Function, call: Callable[..., Any]) -> int:
    """As many as a function that takes lists says by its attribute batch_size."""
    if not function.batched:
        return 1
    size = getattr(call, "batch_size", None) or getattr(function.call, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else BATCH_SIZE


def _failure(step: _Step, error: BaseException) -> RowFailure:
    failure = RowFailure(RowReason.FUNCTION_ERROR, told(error), step.function.name)
    failure.__cause__ = error.with_traceback(None) if isinstance(error, MemoryError) else error  # which would hold what was too much
    return failure


def _taken(result: object, picture: _Picture) -> dict[str, object] | None:
    """Puts the picture that a user's function returned for a row in its place; returns its columns, None for "skip this row"."""
    if isinstance(result, Exception):  # of one row in a list
        raise result
    if result is None:
        return None
    image, found = _unpacked(result)
    if image is not None:
        image.load()  # one opened from a file may be broken: then it is this function's error
        picture.put(plain(image))
    return {_column_name(name): _column_value(name, value) for name, value in found.items()}


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
