"""Rows of CSV that any reader takes for the rows they were."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from nuxel.export.csv_text import csv_line, encode_csv

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.lists(TEXT, min_size=2, max_size=3), max_size=4))
def test_what_is_written_is_read(rows: list[list[str]]) -> None:
    text = "".join(csv_line(row) for row in rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
    assert text.count("\n") >= len(rows)


def test_values() -> None:
    rows = [[1 / 3, None, float("nan"), 5, "a\udce4"]]
    assert encode_csv(["a", "b", "c", "d", "e"], rows) == b"a,b,c,d,e\n0.333333,,,5,a\\udce4\n"
