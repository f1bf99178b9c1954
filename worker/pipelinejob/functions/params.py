"""A function's parameters: what a signature's annotations and defaults say about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin


class Range(NamedTuple):
    """Marks a number as within [low, high], or within (low, high] when `above` is set."""

    low: float
    high: float
    above: bool = False


class Colour(NamedTuple):
    """Marks a text as a colour that Pillow knows: a name or #rrggbb."""


class Param(NamedTuple):
    """One parameter. `type` is int, float, str, bool or None for any JSON value; `default` counts unless `required`."""

    name: str
    type: type | None
    range: Range | None
    colour: bool
    choices: tuple[str, ...]
    default: Any
    required: bool

    @property
    def expected(self) -> str:
        """What a value must be, for people: "a positive integer of at most 16384"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.colour:
            return "a colour name or #rrggbb"
        if self.type in (int, float):
            return _number("an integer" if self.type is int else "a number", self.range)
        return {bool: "true or false", str: "a text"}.get(self.type or object, "any value")

    def problem(self, value: object) -> str | None:
        """What is wrong with `value`, or None."""
        if (value is None and self.default is None and not self.required) or self._accepts(value):
            return None
        shown = repr(value)
        return f"must be {self.expected}, got {shown if len(shown) <= 80 else shown[:80] + '…'}"

    def _accepts(self, value: object) -> bool:
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if self.type is int or self.type is float:
            return _is_number(value, self.type) and _within(value, self.range)
        return (self.type is None or isinstance(value, self.type)) and (not self.colour or _is_colour(value))


def params_of(function: Callable[..., object], leading: int) -> tuple[tuple[Param, ...], bool]:
    """The parameters of `function` after its first `leading` ones, and whether it takes any further name (**kwargs)."""
    import inspect  # noqa: PLC0415 - the processes that run rows have no need of it

    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # annotations that cannot be evaluated say nothing
        signature = inspect.signature(function)
    rest = list(signature.parameters.values())[leading:]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    params = tuple(
        _param(each.name, each.annotation, each.default, required=each.default is inspect.Parameter.empty)
        for each in rest
        if each.kind not in variable
    )
    return params, any(each.kind is inspect.Parameter.VAR_KEYWORD for each in rest)


def _param(name: str, annotation: Any, default: object, *, required: bool) -> Param:
    kind, *markers = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    alternatives = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is Literal:
        choices = tuple(each for each in get_args(kind) if isinstance(each, str))
        return Param(name, str, None, False, choices, default, required)
    if len(alternatives) == 1 and type(None) in get_args(kind):  # X | None
        return _param(name, alternatives[0], default, required=required)
    bounds = next((each for each in markers if isinstance(each, Range)), None)
    colour = any(isinstance(each, Colour) for each in markers)
    return Param(name, kind if kind in (int, float, str, bool) else None, bounds, colour, (), default, required)


def _number(noun: str, bounds: Range | None) -> str:
    if bounds is None:
        return noun
    if bounds.above:
        return f"{noun} above {bounds.low:g} and at most {bounds.high:g}"
    if bounds.low == 1 and noun == "an integer":
        return f"a positive integer of at most {bounds.high:.0f}"
    return f"{noun} from {bounds.low:.15g} to {bounds.high:.15g}"


def _is_number(value: object, kind: type) -> bool:
    """Whether JSON's `value` is an int, or where `kind` is float a finite number; True and False are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or (kind is float and math.isfinite(value))


def _within(value: Any, bounds: Range | None) -> bool:
    if bounds is None:
        return True
    return bounds.low <= value <= bounds.high and not (bounds.above and value == bounds.low)


def _is_colour(value: object) -> bool:
    from PIL import ImageColor  # noqa: PLC0415 - as above

    try:
        ImageColor.getrgb(str(value))
    except ValueError:
        return False
    return True
