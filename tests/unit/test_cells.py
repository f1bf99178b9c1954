"""What functions returned, as columns of metadata.csv."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinejob.finalize import cell_text, column_names
from pipelinejob.rows import csv_line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("", ""),
        ("as is, \n ", "as is, \n "),
        ("true", "true"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (10**30, "1" + "0" * 30),
        (1.0, "1.0"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e300, "1e+300"),
        (-0.0, "-0.0"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ([1, "é", None, True, 1.5], '[1, "é", null, true, 1.5]'),
        ({"b": 1, "a": [{}]}, '{"b": 1, "a": [{}]}'),  # in the order in which it was returned
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_cell_text(value: object, text: str) -> None:
    assert cell_text(value) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(value=json_values)
def test_every_value_can_be_read_back(value: object) -> None:
    text = cell_text(value)
    if isinstance(value, str):
        assert text == value
    elif isinstance(value, float):
        assert float(text) == value
    else:
        assert json.loads(text or "null") == value
    if "\0" not in text:
        assert next(csv.reader(io.StringIO(csv_line(["", text]) + "\n", newline=""))) == ["", text]


@pytest.mark.parametrize(
    ("taken", "returned", "names"),
    [
        (["id", "url"], [(0, "mark", "year")], ["year"]),
        (["id", "year", "url"], [(0, "mark", "year")], ["mark.year"]),
        (["id", "url"], [(0, "mark", "url"), (0, "mark", "x")], ["mark.url", "x"]),
        (["id", "link"], [(0, "mark", "url")], ["url"]),  # urlColumn: link
        (["id"], [(0, "a", "x"), (1, "b", "x")], ["x", "b.x"]),
        (["id"], [(0, "a", "x"), (1, "a", "x"), (2, "a", "x")], ["x", "a.x", "a.2.x"]),
        (["id", "x", "a.x"], [(3, "a", "x")], ["a.3.x"]),
        (["id", "Year"], [(0, "mark", "year")], ["year"]),
        ([], [], []),
    ],
)
def test_column_names(taken: list[str], returned: list[tuple[int, str, str]], names: list[str]) -> None:
    assert column_names(taken, returned) == names


@settings(max_examples=200, deadline=None)
@given(
    taken=st.sets(st.sampled_from(["x", "y", "url", "f.x", "g.x"]), max_size=5),
    returned=st.sets(st.tuples(st.integers(0, 2), st.sampled_from("fg"), st.sampled_from(["x", "y", "url"])), max_size=6),
)
def test_no_two_columns_have_one_name(taken: set[str], returned: set[tuple[int, str, str]]) -> None:
    functions = {position: function for position, function, _ in returned}  # a position has one function
    columns = sorted({(position, functions[position], column) for position, _, column in returned})
    names = column_names(taken, columns)
    assert len(names) == len(columns) and len({*taken, *names}) == len(taken) + len(names)
    assert all(name.endswith(column) for name, (_, _, column) in zip(names, columns, strict=True))
