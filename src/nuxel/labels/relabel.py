"""Numbers of nuclei made sequential."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.labels.runs import find_runs


def relabel(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Number the nuclei 1..N without gaps, in the order of their old numbers.

    Parameters
    ----------
    labels
        ``(H, W)`` label image of any integer dtype. 0 is background. Negative means not annotated and stays
        as it is.

    Returns
    -------
    ``(H, W)`` int32, always a new array.

    Raises
    ------
    ValueError
        If ``labels`` is not a two-dimensional array of integers.

    Examples
    --------
    >>> relabel(np.array([[-1, 40], [0, 7]])).tolist()
    [[-1, 2], [0, 1]]
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be (H, W) integers, got {labels.shape} {labels.dtype}")
    runs = find_runs(labels)
    values, which = np.unique(runs.value, return_inverse=True)
    numbers = np.cumsum(values > 0, dtype=np.int32)
    numbers[values <= 0] = values[values <= 0]
    return np.repeat(numbers[which], runs.stop - runs.start).reshape(labels.shape)
