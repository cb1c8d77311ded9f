"""The table of an image's nuclei, ``<stem>_nuclei.csv``, as it comes back from people and their spreadsheets."""

from __future__ import annotations

import csv
from pathlib import Path

_DELIMITERS = ",;\t"


def read_nuclei_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a table, and its rows by column; no rows if it has no column ``label``.

    Spreadsheets save it with a byte order mark, and where the decimal sign is a comma with semicolons or tabs: numbers
    have a point here in any case.

    Raises
    ------
    OSError, UnicodeDecodeError, csv.Error
        If it cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        delimiter = max(_DELIMITERS, key=header.count)
        reader = csv.DictReader(file, delimiter=delimiter, restkey="", restval="")
        columns = list(reader.fieldnames or ())
        rows = list(reader) if "label" in columns else []
    for row in rows:
        row.pop("", None)  # what stands beyond the last column
        if delimiter != ",":
            row.update({column: value.replace(",", ".") for column, value in row.items()})
    return columns, rows
