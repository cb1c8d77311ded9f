"""Label images band by band, so that a slide never has to be in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nuxel.errors import NuxelError
from nuxel.labels.read import TIFF_SUFFIXES, count_marked, refuse_mask

Labels = NDArray[Any]


def plane_shape(path: Path) -> tuple[int, int] | None:
    """``(H, W)`` of a TIFF that is one plane of integers and can be read in bands; None for any other file."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    # A damaged file, whose error can be of any type, is for the reader of whole images to refuse with its reason.
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if (
                len(file.pages) != 1
                or len(page.shape) != 2
                or page.dtype is None
                or page.dtype.kind not in "iu"
            ):
                return None
            return page.shape[0], page.shape[1]
    except Exception:
        return None


def read_bands(path: Path) -> Iterator[Labels]:
    """Bands of whole rows from top to bottom, as high as the tiles or strips of a TIFF (see :func:`plane_shape`).

    Raises
    ------
    NuxelError
        If the file is damaged, or, once it is at an end, if it was a yes/no mask: of one number beside 0, in more than
        :data:`nuxel.labels.read.MOST_PARTS` regions of one band.
    """
    marked: set[int] = set()
    regions = 0
    for band in _bands(path):
        if len(marked) < 2 and band.any():
            number, count = count_marked(band)
            marked.add(number)
            regions = max(regions, count)
        yield band
    if len(marked) == 1:
        refuse_mask(path, marked.pop(), regions)


def _bands(path: Path) -> Iterator[Labels]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        height, width = page.shape
        band, top = np.empty((0, width), page.dtype), 0
        try:
            for data, (_, _, y, x, _), (_, rows, _columns, _) in page.segments(maxworkers=1):
                if y != top or not len(band):
                    if len(band):
                        yield band
                    band, top = np.zeros((min(rows, height - y), width), page.dtype), y
                if data is not None:
                    part = data[0, : len(band), : width - x, 0]
                    band[: part.shape[0], x : x + part.shape[1]] = part
        # Each decoder has errors of its own, and all mean that this file cannot be used.
        except Exception as error:
            raise NuxelError(f"{path}: cannot be read as a label image ({error}).") from error
        yield band


def aligned(first: Iterable[Labels], second: Iterable[Labels]) -> Iterator[tuple[Labels, Labels]]:
    """Cut two series of bands at the rows where either has a border, so that they go in pairs.

    Examples
    --------
    >>> cut = aligned([np.zeros((3, 2))], [np.zeros((1, 2)), np.zeros((2, 2))])
    >>> [(len(a), len(b)) for a, b in cut]
    [(1, 1), (2, 2)]
    """
    left, right = iter(first), iter(second)
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        rows = min(len(a), len(b))
        yield a[:rows], b[:rows]
        a = a[rows:] if rows < len(a) else next(left, None)
        b = b[rows:] if rows < len(b) else next(right, None)
