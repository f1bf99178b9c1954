"""What a page says of the columns of metadata.csv."""

from __future__ import annotations

from io import BytesIO

from pipelinejob_gateway.columns import Bar, sample


def test_years_are_written_as_such_and_large_numbers_with_commas() -> None:
    data = b"year,price\n" + b"".join(b"%d,%d\n" % (2007 + row, 10_000 * row) for row in range(11))
    year, price = sample(BytesIO(data), len(data)).columns
    assert year.bars[0] == Bar("2007 to 2007.5", 1) and year.bars[-1] == Bar("2016.5 to 2017", 1)
    assert price.bars[0] == Bar("0 to 5000", 1) and price.bars[-1] == Bar("95,000 to 100,000", 1)
