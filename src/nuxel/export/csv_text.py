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
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else str(value)
