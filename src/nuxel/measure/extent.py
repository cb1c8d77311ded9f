"""Where each nucleus lies and how it is spread: box, area, centroid, ellipse of equal second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nuxel.labels.runs import Runs


@dataclass(frozen=True)
class Ellipses:
    """Centroids and the ellipses with the second moments of the nuclei; all ``(N,)`` float64, in pixels."""

    centroid_y: NDArray[np.float64]
    centroid_x: NDArray[np.float64]
    major_axis: NDArray[np.float64]
    minor_axis: NDArray[np.float64]
    eccentricity: NDArray[np.float64]


def find_boxes(runs: Runs, count: int) -> NDArray[np.int64]:
    """``(N, 4)`` half-open boxes ``(y0, x0, y1, x1)`` of the nuclei 1..N; each must have a run."""
    nucleus = runs.value - 1
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    boxes[:, 2:] = 0
    np.minimum.at(boxes[:, 0], nucleus, runs.row)
    np.minimum.at(boxes[:, 1], nucleus, runs.start)
    np.maximum.at(boxes[:, 2], nucleus, runs.row + 1)
    np.maximum.at(boxes[:, 3], nucleus, runs.stop)
    return boxes


def find_areas(runs: Runs, count: int) -> NDArray[np.int64]:
    """``(N,)`` pixels of each nucleus 1..N."""
    return _total(runs.stop - runs.start, runs, count).astype(np.int64)


def fit_ellipses(runs: Runs, areas: NDArray[np.int64], boxes: NDArray[np.int64]) -> Ellipses:
    """Centroids and ellipses of the nuclei, as scikit-image's ``regionprops`` defines them.

    Each pixel counts as a point at its centre, so a nucleus of one pixel has axes of length 0 and a straight
    line a minor axis of 0; the eccentricity of a single point is 0.
    """
    count = len(areas)
    nucleus = runs.value - 1
    # Coordinates within the box keep every sum an integer that float64 holds exactly.
    y = runs.row - boxes[nucleus, 0]
    first = runs.start - boxes[nucleus, 1]
    length = runs.stop - runs.start
    sum_x = length * first + length * (length - 1) // 2
    sum_xx = length * first**2 + first * length * (length - 1) + (length - 1) * length * (2 * length - 1) // 6

    mean_y = _total(length * y, runs, count) / areas
    mean_x = _total(sum_x, runs, count) / areas
    var_y = _total(length * y**2, runs, count) / areas - mean_y**2
    var_x = _total(sum_xx, runs, count) / areas - mean_x**2
    covariance = _total(y * sum_x, runs, count) / areas - mean_y * mean_x

    middle = (var_y + var_x) / 2
    spread = np.hypot((var_y - var_x) / 2, covariance)
    largest = np.maximum(middle + spread, 0)
    smallest = np.maximum(middle - spread, 0)
    ratio = np.divide(smallest, largest, out=np.ones(count), where=largest > 0)
    return Ellipses(
        centroid_y=mean_y + boxes[:, 0],
        centroid_x=mean_x + boxes[:, 1],
        major_axis=4 * np.sqrt(largest),
        minor_axis=4 * np.sqrt(smallest),
        eccentricity=np.sqrt(1 - ratio),
    )


def _total(per_run: NDArray[np.int64], runs: Runs, count: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(runs.value - 1, weights=per_run, minlength=count), np.float64)
