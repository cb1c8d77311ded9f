"""The index: a CSV that says of each image what group it belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nuxel.data.image_names import composed
from nuxel.data.index import read_index_rows
from nuxel.errors import NuxelError, UsageError

_ID_COLUMNS = ("id", "ImageId")
_MOST_GROUPS = 20


@dataclass(frozen=True)
class Index:
    """Rows by image.

    Parameters
    ----------
    path
        The file, for messages.
    columns
        All columns but the one of the images.
    rows
        For each image (its name, or the last part of it) the values of these columns.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]

    def row(self, image: str) -> Mapping[str, str] | None:
        """The row of an image by its whole name or by the last part of it."""
        name = composed(image)
        return self.rows.get(name, self.rows.get(name.rpartition("/")[2]))

    def select(self, images: Iterable[str], where: Mapping[str, str]) -> list[str]:
        """The images whose row has these values.

        Raises
        ------
        UsageError
            If a column does not exist or no image is left.
        """
        self._known(where)
        images = list(images)
        chosen = [image for image in images if self.has(image, where)]
        if not chosen:
            wanted = " and ".join(f"{column}={value}" for column, value in where.items())
            raise UsageError(f"{self.path}: none of the {len(images)} images has {wanted}")
        return chosen

    def has(self, image: str, where: Mapping[str, str]) -> bool:
        """Whether an image has a row, with these values."""
        row = self.row(image)
        return row is not None and all(row[column] == value for column, value in where.items())

    def groups(self, images: Sequence[str], columns: Sequence[str] = ()) -> dict[str, dict[str, str]]:
        """For each image its value in each of the columns.

        Without ``columns``: those that put two or more images together and not all of them, into at most 20 groups.

        Raises
        ------
        UsageError
            If a column does not exist.
        NuxelError
            If an image has no row.
        """
        self._known(columns)
        rows = {image: self.row(image) for image in images}
        missing = [image for image, row in rows.items() if row is None]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise NuxelError(
                f"{self.path}: no row for {', '.join(missing[:5])}{more}; add them to the index."
            )
        found = {image: row for image, row in rows.items() if row is not None}
        columns = columns or [
            name for name in self.columns if _tells_apart([r[name] for r in found.values()])
        ]
        return {image: {name: row[name] for name in columns} for image, row in found.items()}

    def _known(self, columns: Iterable[str]) -> None:
        unknown = [name for name in columns if name not in self.columns]
        if unknown:
            raise UsageError(
                f"{self.path}: no column {', '.join(unknown)}; it has {', '.join(self.columns) or 'no other column'}"
            )


def read_index(path: str | os.PathLike[str]) -> Index:
    """Read an index, a CSV with a column ``id`` or ``ImageId`` (the image's name or file stem) and any others.

    Raises
    ------
    NuxelError
        If it cannot be read, has no such column, or says different things of one image.
    """
    path = Path(path)
    columns, rows = read_index_rows(path, _ID_COLUMNS)
    key = next(name for name in _ID_COLUMNS if name in columns)
    others = tuple(name for name in columns if name != key)
    return Index(path, others, {image: {name: row[name] for name in others} for image, row in rows.items()})


def _tells_apart(values: Sequence[str]) -> bool:
    return 1 < len(set(values)) <= min(_MOST_GROUPS, len(values) - 1)
