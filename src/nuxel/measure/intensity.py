"""Mean, smallest and largest value of each channel within each nucleus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.labels.runs import Runs

# Rows are read in bands of about this many pixels, so a large image is never copied whole.
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class Intensities:
    """``(N,)`` arrays of one channel; extremes have the dtype of the image (float64 for any float)."""

    mean: NDArray[np.float64]
    lowest: NDArray[Any]
    highest: NDArray[Any]


def measure_channels(runs: Runs, pixels: NDArray[Any], count: int) -> list[Intensities]:
    """Intensities of the nuclei 1..N in every channel.

    Parameters
    ----------
    runs
        The runs of the nuclei, in reading order.
    pixels
        ``(H, W, C)`` booleans, integers or floats. Values that are not finite are left out; where a nucleus
        has none that is, its intensities are NaN.
    count
        N.
    """
    if pixels.dtype.kind == "b":
        pixels = pixels.view(np.uint8)
    return [_measure_channel(runs, pixels[..., channel], count) for channel in range(pixels.shape[2])]


def _measure_channel(runs: Runs, channel: NDArray[Any], count: int) -> Intensities:
    low, high = _limits(channel.dtype)
    totals = np.zeros(count)
    counts = np.zeros(count)
    lowest = np.full(count, low)
    highest = np.full(count, high)
    for rows in _bands(channel.shape):
        first, last = np.searchsorted(runs.row, (rows.start, rows.stop))
        if first == last:
            continue
        values = np.ascontiguousarray(channel[rows]).ravel()
        begin = (runs.row[first:last] - rows.start) * channel.shape[1] + runs.start[first:last]
        length = runs.stop[first:last] - runs.start[first:last]
        total, number, smallest, largest = _measure_stretches(values, begin, length)
        nucleus = runs.value[first:last] - 1
        totals += np.bincount(nucleus, weights=total, minlength=count)
        counts += np.bincount(nucleus, weights=number, minlength=count)
        np.minimum.at(lowest, nucleus, smallest)
        np.maximum.at(highest, nucleus, largest)
    mean = np.divide(totals, counts, out=np.full(count, np.nan), where=counts > 0)
    if channel.dtype.kind == "f":
        lowest[counts == 0] = highest[counts == 0] = np.nan
    return Intensities(mean, lowest, highest)


def _measure_stretches(
    values: NDArray[Any], begin: NDArray[np.int64], length: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Sum, count, smallest and largest of the finite values in each ``values[begin : begin + length]``."""
    # reduceat takes the values between one index and the next: every second answer is a gap and is dropped.
    ends = np.stack((begin, begin + length), axis=1).ravel()[:-1]
    values = values[: begin[-1] + length[-1]]
    # sums of 64-bit integers may be more than 64 bits hold
    exact = values.dtype.kind in "iub" and values.dtype.itemsize < 8
    sums = np.dtype(f"{values.dtype.kind}8") if exact else np.float64
    low, high = _limits(values.dtype)
    finite = np.isfinite(values) if values.dtype.kind == "f" else None
    if finite is None or finite.all():
        total = np.add.reduceat(values, ends, dtype=sums)[::2]
        return total, length, np.minimum.reduceat(values, ends)[::2], np.maximum.reduceat(values, ends)[::2]
    return (
        np.add.reduceat(np.where(finite, values, 0), ends, dtype=sums)[::2],
        np.add.reduceat(finite, ends, dtype=np.int64)[::2],
        np.minimum.reduceat(np.where(finite, values, low), ends)[::2],
        np.maximum.reduceat(np.where(finite, values, high), ends)[::2],
    )


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """What every value is at most and at least: where a search for the smallest and the largest starts."""
    if dtype.kind == "f":
        return np.float64(np.inf), np.float64(-np.inf)
    return dtype.type(np.iinfo(dtype).max), dtype.type(np.iinfo(dtype).min)


def _bands(shape: Sequence[int]) -> list[slice]:
    rows = max(1, _BAND_PIXELS // max(1, shape[1]))
    return [slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows)]
