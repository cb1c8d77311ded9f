"""From the multi-head U-Net's maps to nuclei: watershed on the nucleus map, markers from the other two.

Source: multi-head U-Net paper, section 5.3.1: the markers are the shrunk nuclei minus the touching borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from nuxel.instances import Instances

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class WatershedRule:
    """Parameters of the decoder; all probabilities in ``[0, 1]``, areas in pixels of the maps.

    Parameters
    ----------
    threshold
        A pixel belongs to a nucleus where the nucleus map is at least this.
    marker_threshold
        A pixel is part of a marker where ``shrunk - touching`` is above this.
    min_marker_area
        Smaller markers do not split a clump; a clump whose markers are all smaller is one nucleus.
    min_area
        Smaller nuclei are dropped.
    min_score
        Nuclei with a lower mean nucleus probability are dropped.
    """

    threshold: float = 0.5
    marker_threshold: float = 0.5
    min_marker_area: int = 2
    min_area: int = 8
    min_score: float = 0.0


def decode_watershed(maps: NDArray[np.uint8], rule: WatershedRule) -> Instances:
    """Find the nuclei in the maps of one whole image.

    Parameters
    ----------
    maps
        ``(3, H, W)`` uint8, probability times 255: nucleus, shrunk nucleus, touching border.
    rule
        Thresholds and areas.

    Returns
    -------
    The nuclei, numbered from the top; the score of each is its mean nucleus probability. Every nucleus is one
    4-connected region; holes that lie inside one nucleus are filled.
    """
    nucleus, shrunk, touching = maps
    foreground = nucleus >= np.uint8(np.ceil(rule.threshold * 255))
    clumps = ndimage.label(foreground)[0]
    level = int(rule.marker_threshold * 255)
    core = foreground & (shrunk > level)
    core &= (shrunk - np.minimum(shrunk, touching)) > level
    labels = _grow(clumps, _markers(core, rule.min_marker_area), maps)
    _fill_holes(labels)
    return _keep(labels, nucleus, rule)


def _markers(core: NDArray[np.bool_], min_area: int) -> Labels:
    """Number the connected parts of ``core``, those below ``min_area`` left out."""
    markers, count = ndimage.label(core)
    areas = np.bincount(markers.ravel(), minlength=count + 1)
    number = np.zeros(count + 1, np.int32)
    kept = np.flatnonzero(areas[1:] >= min_area) + 1
    number[kept] = np.arange(1, len(kept) + 1)
    numbered: Labels = number[markers]
    return numbered


def _grow(clumps: Labels, markers: Labels, maps: NDArray[np.uint8]) -> Labels:
    """One label a nucleus: clumps with one marker or none are whole nuclei, only the others need flooding."""
    count = int(clumps.max(initial=0))
    marked = np.flatnonzero(markers)
    pairs = np.unique(np.stack([clumps.flat[marked], markers.flat[marked]]), axis=1)
    split = np.zeros(count + 1, bool)
    split[np.flatnonzero(np.bincount(pairs[0], minlength=count + 1) > 1)] = True
    if not split.any():
        return clumps
    inside = split[clumps]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = inside[window]
    nucleus, shrunk, touching = (m[window].astype(np.int16) for m in maps)
    flooded = watershed(touching - shrunk - nucleus, np.where(inside, markers[window], 0), mask=inside)
    labels = clumps.copy()
    labels[window][inside] = flooded[inside] + count
    return labels


def _fill_holes(labels: Labels) -> None:
    """Give background regions that are enclosed by a single nucleus to it, in place."""
    gaps, count = ndimage.label(labels == 0)
    if count < 2:
        return
    low = np.full(count + 1, np.iinfo(np.int32).max, np.int32)
    high = np.zeros(count + 1, np.int32)
    for axis in (0, 1):
        one, two = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        gap_one, gap_two = np.moveaxis(gaps, axis, 0)[:-1], np.moveaxis(gaps, axis, 0)[1:]
        for gap, other, border in (
            (gap_one, two, (one == 0) & (two > 0)),
            (gap_two, one, (two == 0) & (one > 0)),
        ):
            np.minimum.at(low, gap[border], other[border])
            np.maximum.at(high, gap[border], other[border])
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        high[edge] = -1
    fill = np.where(low == high, low, 0)
    fill[0] = 0
    holes = (gaps > 0) & (fill[gaps] > 0)
    labels[holes] = fill[gaps[holes]]


def _keep(labels: Labels, nucleus: NDArray[np.uint8], rule: WatershedRule) -> Instances:
    """Drop what is too small or too faint, and number the rest in the order of their first pixel."""
    flat = labels.ravel()
    areas = np.bincount(flat)
    score = np.bincount(flat, weights=nucleus.ravel()) / np.maximum(areas, 1) / 255
    kept = (areas >= rule.min_area) & (areas > 0) & (score >= rule.min_score)
    kept[0] = False
    present, first = np.unique(flat, return_index=True)
    chosen = kept[present]
    order = present[chosen][np.argsort(first[chosen])]
    number = np.zeros(len(areas), np.int32)
    number[order] = np.arange(1, len(order) + 1)
    return Instances(number[labels], score[order].astype(np.float32))
