"""Tables as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nuxel.export.atomic import replacing


class Table(Protocol):
    """Anything with named columns of equal length, such as ``measure.table.NucleusTable``."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]: ...


def write_table(path: Path | str, table: Table) -> None:
    r"""Write a table of numbers as CSV: UTF-8, a header, commas, lines ending in ``\n``.

    Floats have seven significant digits, integers all of theirs; what is NaN is an empty field.

    Parameters
    ----------
    path
        Where to; an existing file is replaced.
    table
        One-dimensional columns of booleans, integers or floats. Without rows only the header is written.

    Raises
    ------
    NuxelError
        If the file cannot be written.
    """
    cells, formats = [], []
    for column in table.columns.values():
        values, pattern = _cells(column)
        cells.append(values)
        formats.append(pattern)
    line = ",".join(formats) + "\n"
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(table.columns)
        file.writelines(line % row for row in zip(*cells, strict=True))


def _cells(column: NDArray[Any]) -> tuple[list[Any], str]:
    """The values of a column and the pattern that prints each."""
    if column.dtype.kind != "f":
        return column.tolist(), "%d"
    values = column.tolist()
    if np.isnan(column).any():
        return ["" if value != value else f"{value:.7g}" for value in values], "%s"
    return values, "%.7g"
