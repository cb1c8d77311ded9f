"""A label image as horizontal runs: the form in which counting costs one step a run, not one a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Runs:
    """Horizontal stretches of one value, in reading order.

    Parameters
    ----------
    value
        ``(R,)`` the value of each run, in the dtype of the image.
    row, start, stop
        ``(R,)`` int64: run ``i`` covers the columns ``start[i]:stop[i]`` of row ``row[i]``.
    """

    value: NDArray[Any]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    def where(self, chosen: NDArray[np.bool_]) -> Runs:
        """Only the runs for which ``chosen`` is true."""
        return Runs(self.value[chosen], self.row[chosen], self.start[chosen], self.stop[chosen])


def find_runs(labels: NDArray[Any]) -> Runs:
    """Cut a label image into horizontal runs of equal value. They cover it all, background included.

    Parameters
    ----------
    labels
        ``(H, W)`` array of any dtype.

    Examples
    --------
    >>> runs = find_runs(np.array([[0, 7, 7], [7, 7, 0]]))
    >>> [r.tolist() for r in (runs.value, runs.row, runs.start, runs.stop)]
    [[0, 7, 7, 0], [0, 0, 1, 1], [0, 1, 0, 2], [1, 3, 2, 3]]
    """
    width = labels.shape[1]
    flat = labels.ravel()
    if flat.size == 0:
        none = np.empty(0, np.int64)
        return Runs(flat, none, none, none)
    begins = np.empty(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    begin = np.flatnonzero(begins)
    row, start = np.divmod(begin, width)
    length = np.diff(begin, append=flat.size)
    return Runs(flat[begin], row, start, start + length)
