"""Run-length CSV files of the 2018 Data Science Bowl: ``ImageId,EncodedPixels``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.labels.read import LABEL_SUFFIXES
from nuxel.labels.runs import find_runs

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class RunLengths:
    """The nuclei of one image as runs of pixels, counted from 1 down the columns, column after column.

    Parameters
    ----------
    source
        Which image of which file, for messages.
    nuclei
        For each nucleus ``(R, 2)`` int64: start (from 1) and length of each run.
    shape
        ``(H, W)`` where the file says so, else None.
    """

    source: str
    nuclei: tuple[NDArray[np.int64], ...]
    shape: Shape | None = None

    @classmethod
    def of(cls, labels: NDArray[np.int32], source: str = "") -> RunLengths:
        """The nuclei of a label image ``(H, W)``, in the order of their labels.

        Examples
        --------
        >>> [runs.tolist() for runs in RunLengths.of(np.array([[1, 0, 2], [1, 1, 0]], np.int32)).nuclei]
        [[[1, 2], [4, 1]], [[5, 1]]]
        """
        runs = find_runs(labels.reshape(1, -1, order="F"))
        runs = runs.where(runs.value > 0)
        pairs = np.stack([runs.start + 1, runs.stop - runs.start], axis=1)
        order = np.argsort(runs.value, kind="stable")
        cuts = np.flatnonzero(np.diff(runs.value[order])) + 1
        nuclei = np.split(pairs[order], cuts) if len(order) else []
        return cls(source, tuple(nuclei), (labels.shape[0], labels.shape[1]))

    def paint(self, shape: Shape) -> NDArray[np.int32]:
        """The label image of this shape; where nuclei overlap, the earlier one keeps the pixel.

        Raises
        ------
        NuxelError
            If a run reaches beyond the image.

        Examples
        --------
        >>> RunLengths("a", (np.array([[1, 2], [4, 1]]),)).paint((2, 3)).tolist()
        [[1, 0, 0], [1, 1, 0]]
        """
        flat = np.zeros(shape[0] * shape[1], np.int32)
        for number, runs in reversed(list(enumerate(self.nuclei, 1))):
            beyond = runs[:, 0] - 1 > flat.size - runs[:, 1]  # their sum may be more than 64 bits hold
            if beyond.any():
                start, length = runs[beyond][0].tolist()
                raise NuxelError(
                    f"{self.source}: a run ends at pixel {start + length - 1}, but the image of "
                    f"{shape[0]} x {shape[1]} has only {flat.size}; the runs belong to another image, or do not count "
                    "from 1."
                )
            for start, length in runs.tolist():
                flat[start - 1 : start - 1 + length] = number
        return np.ascontiguousarray(flat.reshape(shape, order="F"))


def read_run_lengths(path: Path | str) -> dict[str, RunLengths]:
    """Read a run-length CSV: one row a nucleus; a row with empty ``EncodedPixels`` is an image without nuclei.

    Columns ``Height`` and ``Width``, where there are any, give the shape of the image. The extension of an image in
    ``ImageId`` is left out.

    Returns
    -------
    For each image, in the order of the file, its nuclei.

    Raises
    ------
    NuxelError
        If the file cannot be read or is no run-length file.
    """
    path = Path(path)
    nuclei: dict[str, list[NDArray[np.int64]]] = {}
    shapes: dict[str, Shape | None] = {}
    whole: dict[str, str] = {}
    for number, row in _rows(path):
        given = (row["ImageId"] or "").strip()
        image = bare_name(given)
        where = f"{path}, line {number}"
        if not image:
            raise NuxelError(f"{where}: ImageId is empty; name the image of each row.")
        if given != image and whole.setdefault(image, given) != given:
            raise NuxelError(
                f"{where}: {whole[image]} and {given} would be one image; give them names that differ."
            )
        runs = _runs(row["EncodedPixels"] or "", where)
        nuclei.setdefault(image, []).extend([runs] if len(runs) else [])
        shapes[image] = shapes.get(image) or _shape(row, where)
    return {image: RunLengths(f"{path}: {image}", tuple(nuclei[image]), shapes[image]) for image in nuclei}


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no text table"
        raise NuxelError(f"{path}: cannot be read as a run-length CSV ({reason}).") from error
    missing = [name for name in ("ImageId", "EncodedPixels") if name not in columns]
    if missing:
        raise NuxelError(
            f"{path}: is no run-length CSV, it has no column {' and no column '.join(missing)}; "
            "the first line must be ImageId,EncodedPixels."
        )
    return rows


def bare_name(image: str) -> str:
    """The name of an image in a table, without the extension of a label image.

    Examples
    --------
    >>> bare_name(" A1.png "), bare_name("A1.dapi")
    ('A1', 'A1.dapi')
    """
    image = image.strip()
    known = PurePosixPath(image).suffix.lower() in LABEL_SUFFIXES
    return image[: image.rindex(".")] if known else image


def _runs(text: str, where: str) -> NDArray[np.int64]:
    try:
        numbers = np.array(text.split(), np.int64)
    except (ValueError, OverflowError):
        numbers = np.zeros(1, np.int64)
    if len(numbers) % 2 or (numbers < 1).any():
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise NuxelError(
            f"{where}: '{shown}' are no runs; EncodedPixels must be pairs of a start (from 1) and a length."
        )
    return numbers.reshape(-1, 2)


def _shape(row: dict[str, str], where: str) -> Shape | None:
    sides = [row.get(name) or "" for name in ("Height", "Width")]
    if not any(sides):
        return None
    if not all(side.strip().isdecimal() for side in sides):
        raise NuxelError(f"{where}: Height and Width are {' and '.join(sides)}; they must be whole numbers.")
    return int(sides[0]), int(sides[1])
