"""The grammar of `where` and what each operator makes of a cell."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinejob.where import OPERATORS, compile_where, problems


def holds(condition: object, cell: str) -> bool:
    assert list(problems({"c": condition})) == []
    return compile_where({"c": condition}, ["b", "c"])(["other", cell])


ALL = ", ".join(OPERATORS)
NOT_NUMBERS = ["", "ten", "nan", "NaN", "inf", "-Infinity", "1e999", "10,0", "1 0", "0x0a", "10 kg", "--10"]


@pytest.mark.parametrize("cell", ["10", "10.0", " 10 ", "1e1", "+10", "010", "\t10\n", "1_0"])
def test_a_number_equals_the_cell_as_pythons_float(cell: str) -> None:
    assert holds(10, cell) and holds(10.0, cell) and holds([3, 10], cell) and holds({"in": [10]}, cell)
    assert holds({"gte": 10}, cell) and holds({"lte": 10}, cell) and not holds({"gt": 10}, cell) and not holds({"lt": 10}, cell)
    assert not holds({"ne": 10}, cell) and not holds({"notIn": [10]}, cell)


@pytest.mark.parametrize("cell", NOT_NUMBERS)
def test_a_cell_that_is_no_finite_number_matches_no_number(cell: str) -> None:
    for value in (10, 0, -1e308, 1e308):
        for name in ("gte", "lte", "gt", "lt"):
            assert not holds({name: value}, cell)
        assert not holds(value, cell) and not holds([value], cell) and not holds({"in": [value]}, cell)
        assert holds({"ne": value}, cell) and holds({"notIn": [value]}, cell)


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ("Men", ["Men"], ["men", " Men", "Men ", "Women", ""]),
        ("10", ["10"], ["10.0", " 10 ", "1e1"]),  # a string is the cell as it stands
        ("", [""], [" ", "0", '""']),
        (["Fall", "Winter"], ["Fall", "Winter"], ["fall", "Fal", "Fall,Winter"]),
        (["Fall", 10], ["Fall", "10.0"], ["10 Fall"]),
        ([], [], ["", "x"]),
        ({"in": ["", "x"]}, ["", "x"], ["X"]),
        ({"notIn": ["x", 1]}, ["X", "", "2"], ["x", "1.0"]),
        ({"notIn": []}, ["", "x"], []),
        ({"ne": "x"}, ["X", "", " x"], ["x"]),
        ({"ne": ""}, ["x", " "], [""]),
        ({"contains": "an"}, ["an", "Hans", "banana"], ["AN", "a n", ""]),
        ({"contains": ""}, ["", "x"], []),
        ({"gte": 2010}, ["2010", "2010.5", "1e9"], ["2009.999", "-2011"]),
        ({"gt": -1.5}, ["0", "-1.4"], ["-1.5", "-2"]),
        ({"lt": 0}, ["-0.001"], ["0", "-0", "0.0"]),
        ({"lte": 0}, ["-0", "-1"], ["1e-300"]),
        ({"gte": "2011-02"}, ["2011-02", "2011-19", "2012"], ["2011-01-31", "2011", ""]),
        ({"lt": "b"}, ["a", "B", "", "Z", "10"], ["b", "ba", "é"]),
        ({"gt": "Z"}, ["a", "é", "Za"], ["Z", "A", ""]),
        ({"gt": "\uffff"}, ["\U00010000"], ["\uffff", "z"]),  # by code points, not by UTF-16's units
        ({"gte": 1, "lte": 9, "ne": 5}, ["1", "9", "4.99"], ["0.9", "9.1", "5.0"]),
    ],
)
def test_operators(condition: object, yes: list[str], no: list[str]) -> None:
    assert [cell for cell in yes if not holds(condition, cell)] == []
    assert [cell for cell in no if holds(condition, cell)] == []


def test_all_conditions_must_hold() -> None:
    where = {"gender": "Men", "season": ["Fall", "Winter"], "year": {"gte": 2010}}
    predicate = compile_where(where, ["id", "year", "season", "gender"])
    assert predicate(["1", "2011", "Winter", "Men"]) and predicate(["1", " 2010.0", "Fall", "Men"])
    for row in (["1", "2009", "Fall", "Men"], ["1", "2010", "Summer", "Men"], ["1", "2010", "Fall", "Women"], ["1", "", "Fall", "Men"]):
        assert not predicate(row)
    assert compile_where({}, ["id"])(["anything"])


cells = st.one_of(
    st.text(max_size=5), st.floats().map(str), st.integers(-99, 99).map(str), st.sampled_from([" 1", "1.0", "1e0", "nan", "", "a"])
)
values = st.one_of(
    st.text(max_size=3), st.integers(-99, 99), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["a", "", 1, 1.0, "1"])
)


@settings(max_examples=300, deadline=None)
@given(cell=cells, value=values, others=st.lists(values, max_size=3))
def test_ne_and_not_in_are_exact_negations(cell: str, value: object, others: list[object]) -> None:
    assert holds({"ne": value}, cell) is not holds(value, cell)
    assert holds({"notIn": [value, *others]}, cell) is not holds({"in": [value, *others]}, cell)
    assert holds([value, *others], cell) is holds({"in": [value, *others]}, cell)
    assert holds([value, *others], cell) is any(holds(each, cell) for each in [value, *others])


@settings(max_examples=300, deadline=None)
@given(cell=cells, value=values)
def test_comparisons_agree_with_python(cell: str, value: Any) -> None:
    left: Any = cell
    if not isinstance(value, str):
        try:
            left, value = float(cell), float(value)
        except ValueError:
            left = math.nan
        if not math.isfinite(left):
            left = math.nan
    expected = [left >= value, left <= value, left > value, left < value, left == value]
    assert [holds({name: value}, cell) for name in ("gte", "lte", "gt", "lt")] + [holds(value, cell)] == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (True, [("c", "must be a string or a number, got true: quote it")]),
        (False, [("c", "must be a string or a number, got false: quote it")]),
        (None, [("c", "must be a string or a number, got null: quote it")]),
        (["x", True, None], [
            ("c[1]", "must be a string or a number, got true: quote it"),
            ("c[2]", "must be a string or a number, got null: quote it"),
        ]),
        ({"ne": None}, [("c.ne", "must be a string or a number, got null: quote it")]),
        ({"gte": False}, [("c.gte", "must be a string or a number, got false: quote it")]),
        ({"in": [True]}, [("c.in[0]", "must be a string or a number, got true: quote it")]),
        ({"in": "x"}, [("c.in", "must be a list, got 'x'")]),
        ({"notIn": 3}, [("c.notIn", "must be a list, got 3")]),
        ({"in": [["x"]]}, [("c.in[0]", "must be a string or a number, got ['x']")]),
        ({"ne": ["x"]}, [("c.ne", "must be a string or a number, got ['x']")]),
        ([{"gte": 3}], [("c[0]", "must be a string or a number, got {'gte': 3}")]),
        ({"contains": 3}, [("c.contains", "must be a string, got 3: quote it")]),
        ({"contains": True}, [("c.contains", "must be a string, got True: quote it")]),
        ({}, [("c", f"needs at least one of {ALL}")]),
        ({"gtee": 1}, [("c.gtee", "unknown operator; did you mean 'gte'?")]),
        ({"notin": [1]}, [("c.notin", "unknown operator; did you mean 'notIn'?")]),
        ({"contain": "x"}, [("c.contain", "unknown operator; did you mean 'contains'?")]),
        ({"==": 1}, [("c.==", f"unknown operator: expected one of {ALL}")]),
        ({"gte": math.nan}, [("c.gte", "must be a finite number, got nan")]),
        (math.inf, [("c", "must be a finite number, got inf")]),
        ({"gte": 1, "lt": None, "xyz": 1}, [
            ("c.lt", "must be a string or a number, got null: quote it"),
            ("c.xyz", f"unknown operator: expected one of {ALL}"),
        ]),
    ],
)  # fmt: skip
def test_problems(condition: object, expected: list[tuple[str, str]]) -> None:
    assert list(problems({"good": "x", "c": condition})) == expected


def test_problems_of_several_columns() -> None:
    assert [path for path, _ in problems({"a": True, "b": 1, "c": {"in": 1}})] == ["a", "c.in"]
    assert OPERATORS == ("gte", "lte", "gt", "lt", "ne", "in", "notIn", "contains")
