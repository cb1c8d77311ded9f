"""Small tables as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def encode_csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """A table in UTF-8. Floats have six significant digits; what is None or not finite is an empty field.

    File names may hold bytes that are no text; they are shown as escapes.

    Examples
    --------
    >>> encode_csv(["file", "area"], [["a.png", 1 / 3], ["b.png", None]])
    b'file,area\\na.png,0.333333\\nb.png,\\n'
    """
    lines = [csv_line(header), *(csv_line(_cell(cell) for cell in row) for row in rows)]
    return "".join(lines).encode("utf-8", "backslashreplace")


def csv_line(fields: Iterable[str]) -> str:
    r"""One row with ``\n`` at its end, in which whatever else ends a line for a reader is quoted.

    Examples
    --------
    >>> csv_line(["a\rb", "1,5", "c"])
    '"a\rb","1,5",c\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(fields)  # quotes what its own end of line consists of
    return text.getvalue()[:-2] + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else str(value)
