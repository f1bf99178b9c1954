"""Which ids can be file names, and which two would be one file."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelinejob import names
from pipelinejob.reasons import RowFailure, RowReason


def refusal(id: str, extension: str = "jpg", taken: dict[str, int] | None = None) -> RowFailure:
    with pytest.raises(RowFailure) as caught:
        names.claim(id, extension, {} if taken is None else taken, 5)
    return caught.value


@pytest.mark.parametrize(
    "id",
    [
        "1163",
        "a b",
        " ",
        "a.b",
        "a..",
        "-",
        "~",
        "x:y",
        'q"<>|?*',
        "é",
        "e\u0301",
        "表",
        "😀",
        "CON",
        "{id}",
        "%2F",
        "a\u2028b",
        "\u00ad",
        "a\u202eb",
    ],
)
def test_the_id_is_the_cell_as_it_stands(id: str) -> None:
    assert names.claim(id, "png", {}, 0) == f"{id}.png"


@pytest.mark.parametrize(
    ("id", "why"),
    [
        ("", "the id is empty"),
        (".", "the id begins with a dot"),
        ("..", "the id begins with a dot"),
        (".hidden", "the id begins with a dot"),
        ("a/b", "the id holds a slash or a backslash"),
        ("/", "the id holds a slash or a backslash"),
        ("a\\b", "the id holds a slash or a backslash"),
        *((f"a{char}b", "the id holds a control character") for char in "\0\x01\t\n\r\x1b\x1f\x7f\x80\x85\x9f"),
    ],
)
def test_invalid_output_name(id: str, why: str) -> None:
    taken: dict[str, int] = {}
    failure = refusal(id, taken=taken)
    assert (failure.reason, failure.message) == (RowReason.INVALID_OUTPUT_NAME, why)
    assert taken == {}  # a refused name is not taken


@pytest.mark.parametrize(
    ("id", "extension", "size"),
    [("x" * 251, "jpg", 255), ("x" * 250, "webp", 255), ("é" * 125 + "x", "jpg", 255), ("😀" * 62 + "xxx", "jpg", 255)],
)
def test_a_name_of_255_bytes_and_one_of_256(id: str, extension: str, size: int) -> None:
    name = names.claim(id, extension, {}, 0)
    assert len(name.encode()) == size == names.MAX_NAME_BYTES
    failure = refusal(id + "x", extension)
    assert (failure.reason, failure.message) == (RowReason.INVALID_OUTPUT_NAME, "the file name would have 256 bytes, more than 255")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("7", "7"),
        ("a", "A"),
        ("\u00c5", "A\u030a"),  # Å, precomposed and not
        ("\u212b", "\u00e5"),  # the sign for ångström, and å
        ("ß", "SS"),
        ("ẞ", "ß"),
        ("Σ", "ς"),
        ("ﬁ", "FI"),
        ("\u0130", "i\u0307"),  # İ
        ("\u1f80", "\u1f88"),  # ᾀ, ᾈ: folding undoes composition
        ("\u0390", "\u03aa\u0301"),  # ΐ: folding one of them decomposes it
        ("\u03b1\u0345\u0301", "\u1fb4"),  # ᾴ, with its marks in another order
        ("K", "\u212a"),  # the sign for kelvin
    ],
)
def test_ids_that_some_file_systems_hold_for_one(first: str, second: str) -> None:
    for one, other in ((first, second), (second, first)):
        taken: dict[str, int] = {}
        names.claim(one, "jpg", taken, 3)
        failure = refusal(other, taken=taken)
        assert (failure.reason, failure.message) == (RowReason.DUPLICATE_ID, "row 3 of the same batch has this id already")
        assert list(taken.values()) == [3]  # the first row goes on owning the name


@pytest.mark.parametrize(("first", "second"), [("a", "a "), ("a", "á"), ("①", "1"), ("i", "ı"), ("ｘ", "x"), ("x²", "x2")])
def test_ids_that_are_two(first: str, second: str) -> None:
    taken: dict[str, int] = {}
    names.claim(first, "jpg", taken, 0)
    assert names.claim(second, "jpg", taken, 1) == f"{second}.jpg"


@settings(max_examples=300, deadline=None)
@given(id=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_id_is_a_file_name_or_refused(id: str) -> None:
    taken: dict[str, int] = {}
    try:
        name = names.claim(id, "jpg", taken, 0)
    except RowFailure as failure:
        assert failure.reason is RowReason.INVALID_OUTPUT_NAME and taken == {}
    else:
        assert name == f"{id}.jpg" and not name.startswith(".") and not set(name) & set("/\\\0\n") and len(name.encode()) <= 255
        for form in ("NFC", "NFD"):  # however a file system spells it
            for variant in (id.casefold(), unicodedata.normalize(form, id)):
                assert refusal(variant, taken=taken).reason is RowReason.DUPLICATE_ID or len(variant.encode()) > 251


def test_folder() -> None:
    assert [names.folder(row) for row in (0, 200, 999_999_999)] == ["000000000", "000000200", "999999999"]
    assert names.folder(1_000_000_000) == "1000000000"
    assert names.EXTENSIONS == {"jpeg": "jpg", "png": "png", "webp": "webp"}
