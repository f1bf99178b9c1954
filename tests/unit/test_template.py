"""The template of image paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinejob.template import parse


@pytest.mark.parametrize(
    ("text", "columns", "folder", "filled"),
    [
        ("fashion/images/{id}.jpg", ("id",), "fashion/images", "fashion/images/7.jpg"),
        ("{image}", ("image",), "", "a/b.png"),
        ("{id}/{id}-{image}", ("id", "image"), "", "7/7-a/b.png"),
        ("img/{id}/{id}.jpg", ("id",), "img", "img/7/7.jpg"),
        ("img/x{id}.jpg", ("id",), "img", "img/x7.jpg"),
        ("one.jpg", (), "", "one.jpg"),
        ("a/one.jpg", (), "a", "a/one.jpg"),
        ("{{{id}}}/{{id}}", ("id",), "", "{7}/{id}"),
        ("a{{b/{id}", ("id",), "a{b", "a{b/7"),
        ("{a b}{ä}{,}", ("a b", "ä", ","), "", "123"),
        ("", (), "", ""),
    ],
)
def test_parts(text: str, columns: tuple[str, ...], folder: str, filled: str) -> None:
    row = {"id": "7", "image": "a/b.png", "a b": "1", "ä": "2", ",": "3"}
    template = parse(text)
    assert template.columns == columns
    assert template.folder == folder
    assert template.fill(row) == filled
    names = list(row)
    indexes = [names.index(piece) if is_column else -1 for is_column, piece in template.pieces]
    assert template.fill_cells(indexes, list(row.values())) == filled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{id", "has a single '{': write '{{' for the character itself"),
        ("id}.jpg", "has a single '}': write '}}' for the character itself"),
        ("{{id}", "has a single '}': write '}}' for the character itself"),
        ("{id}}", "has a single '}': write '}}' for the character itself"),
        ("{a{b}", "has a single '{': write '{{' for the character itself"),
        ("{}.jpg", "has '{}': name a column, as in '{id}'"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_cells_are_not_templates_themselves() -> None:
    assert parse("x/{id}").fill({"id": "{name}{{", "name": "n"}) == "x/{name}{{"


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.tuples(st.booleans(), st.text("ab/{}.é ", min_size=1, max_size=4)), max_size=5))
def test_any_text_can_be_written(pieces: list[tuple[bool, str]]) -> None:
    """Literals are written with doubled braces; what a row fills in stands between them unchanged."""
    text = "".join(
        f"{{c{at}}}" if is_column else piece.replace("{", "{{").replace("}", "}}") for at, (is_column, piece) in enumerate(pieces)
    )
    row = {f"c{at}": piece for at, (_, piece) in enumerate(pieces)}
    assert parse(text).fill(row) == "".join(piece for _, piece in pieces)


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab{}/", max_size=12))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        template = parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert template.fill(dict.fromkeys(template.columns, "")).count("{") <= text.count("{{")
