"""The index of a set of images: a CSV with a row an image, by which images are chosen and put into groups."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nuxel.data.image_names import composed
from nuxel.errors import NuxelError
from nuxel.image.formats import is_image_name, stem
from nuxel.labels.run_length import bare_name


def read_index_rows(path: Path, ids: Sequence[str]) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """The columns of an index, and its rows by image: the first of the columns ``ids`` that it has names the image, and
    accented letters are written in one way (:func:`nuxel.data.image_names.composed`).

    The extension of an image or a label image in it is left out, and so are rows without a name, which spreadsheets
    leave.

    Raises
    ------
    NuxelError
        If the file cannot be read, has none of these columns, or says different things of one image.
    """
    try:
        # spreadsheets put a byte order mark in front of the first column's name
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="")
            columns = tuple(table.fieldnames or ())
            lines = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no text table"
        raise NuxelError(f"{path}: not a readable CSV ({reason})") from error
    key = next((name for name in ids if name in columns), None)
    if key is None:
        raise NuxelError(f"{path}: no column {' or '.join(ids)}; it has {', '.join(columns) or 'none'}")
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        image = composed(_image_of(line[key].strip()))
        if image and rows.setdefault(image, line) != line:
            raise NuxelError(f"{path}: two rows say different things of {image}; leave one")
    return columns, rows


def _image_of(cell: str) -> str:
    path = PurePosixPath(cell)
    return path.with_name(stem(path)).as_posix() if is_image_name(path) else bare_name(cell)
