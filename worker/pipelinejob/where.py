"""The `where` of a source: checking its grammar, and turning it into a predicate over the cells of a row."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

Predicate = Callable[[Sequence[str]], bool]
Test = Callable[[str], bool]

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gte": operator.ge,
    "lte": operator.le,
    "gt": operator.gt,
    "lt": operator.lt,
}
OPERATORS = (*_ORDER, "ne", "in", "notIn", "contains")


def problems(where: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yields (path below `where`, message) for everything in it that is no valid condition."""
    for column, condition in where.items():
        if not isinstance(condition, Mapping):
            yield from _value_problems(column, condition, lists=True)
            continue
        if not condition:
            yield column, f"needs at least one of {', '.join(OPERATORS)}"
        for name, value in condition.items():
            path = f"{column}.{name}"
            if name not in OPERATORS:
                close = get_close_matches(str(name), OPERATORS, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f": expected one of {', '.join(OPERATORS)}"
                yield path, f"unknown operator{hint}"
            elif name in ("in", "notIn"):
                if isinstance(value, list):
                    yield from _value_problems(path, value, lists=True)
                else:
                    yield path, f"must be a list, got {value!r}"
            elif name == "contains" and not isinstance(value, str):
                yield path, f"must be a string, got {value!r}: quote it"
            else:
                yield from _value_problems(path, value, lists=False)


def _value_problems(path: str, value: object, *, lists: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and lists:
        for index, item in enumerate(value):
            yield from _value_problems(f"{path}[{index}]", item, lists=False)
    elif value is None or isinstance(value, bool):
        yield path, f"must be a string or a number, got {_as_yaml(value)}: quote it"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"must be a finite number, got {value!r}"
    elif not isinstance(value, str | int | float):
        yield path, f"must be a {'string, a number or a list of these' if lists else 'string or a number'}, got {value!r}"


def _as_yaml(value: object) -> str:
    return {None: "null", True: "true", False: "false"}[value]  # type: ignore[index]


def compile_where(where: Mapping[str, object], columns: Sequence[str]) -> Predicate:
    """Returns a predicate over the cells of a row (in the order of `columns`) that says whether all conditions hold.

    The conditions are checked ones (see `problems`) and name columns that exist.
    """
    tests = [(columns.index(column), test) for column, condition in where.items() for test in _tests(condition)]
    return lambda cells: all(test(cells[index]) for index, test in tests)


def _tests(condition: object) -> Iterator[Test]:
    if isinstance(condition, Mapping):
        for name, value in condition.items():
            yield _operator_test(name, value)
    else:
        yield _any_of(condition if isinstance(condition, list) else [condition])


def _operator_test(name: str, value: object) -> Test:
    if name == "contains":
        return lambda cell: str(value) in cell
    if name == "in":
        return _any_of(value)
    if name in ("ne", "notIn"):
        test = _any_of(value if isinstance(value, list) else [value])
        return lambda cell: not test(cell)
    compare = _ORDER[name]
    if isinstance(value, str):
        return lambda cell: compare(cell, value)
    bound = float(value)  # type: ignore[arg-type]

    def ordered(cell: str) -> bool:
        number = _number(cell)
        return number is not None and compare(number, bound)

    return ordered


def _any_of(values: object) -> Test:
    assert isinstance(values, list)
    strings = frozenset(value for value in values if isinstance(value, str))
    numbers = frozenset(float(value) for value in values if not isinstance(value, str))
    if not numbers:
        return strings.__contains__
    return lambda cell: cell in strings or _number(cell) in numbers


def _number(cell: str) -> float | None:
    """The cell, stripped, as Python's float; None where it is no finite number."""
    try:
        number = float(cell.strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None
