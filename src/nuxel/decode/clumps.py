"""From the multi-head U-Net's maps to nuclei: clumps from the nucleus map, split from markers in the other two.

Source: multi-head U-Net paper, section 5.3.1: the markers are the shrunk nuclei minus the touching borders, and a
watershed grows them. It floods the sum of the nucleus and shrunk maps minus the touching one, where the paper has the
nucleus map alone. From its future work: a random walker instead. The control splits nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.decode.flood import flood
from nuxel.decode.random_walker import walk
from nuxel.errors import UsageError
from nuxel.instances import Instances
from nuxel.labels.runs import find_runs

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class ClumpRule:
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
    split
        How a clump with several markers is divided: ``"watershed"``, ``"random_walker"`` (needs scikit-image), or
        ``"none"``: every clump is one nucleus, and only the nucleus map is needed.

    Raises
    ------
    UsageError
        If a value is out of its range.
    """

    threshold: float = 0.5
    marker_threshold: float = 0.5
    min_marker_area: int = 2
    min_area: int = 8
    min_score: float = 0.0
    split: str = "watershed"

    def __post_init__(self) -> None:
        for name in ("threshold", "marker_threshold", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"{name} is a probability and must lie between 0 and 1, got {getattr(self, name)}"
                )
        for name in ("min_marker_area", "min_area"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.split not in SPLITS:
            raise UsageError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps that are needed, in the order in which they are expected."""
        return ("nucleus",) if self.split == "none" else ("nucleus", "shrunk", "touching")

    def with_threshold(self, threshold: float) -> Self:
        """The rule with the threshold that a user asks for.

        The least score goes down with it: see :func:`lower_score`.
        """
        score = lower_score(self.min_score, self.threshold, threshold)
        return replace(self, threshold=threshold, min_score=score)

    def enlarged(self, area: float) -> Self:
        """The rule for maps in which everything has ``area`` times as many pixels."""
        return replace(
            self, min_area=round(self.min_area * area), min_marker_area=round(self.min_marker_area * area)
        )


def lower_score(min_score: float, threshold: float, wanted: float) -> float:
    """The least mean probability of a nucleus when its pixels need only ``wanted`` in place of ``threshold``.

    It goes down in proportion, because nuclei that grow have a lower mean: they would be dropped whole otherwise, and
    fewer would be found the lower the threshold is. A higher threshold leaves it as it is.

    Examples
    --------
    >>> lower_score(0.8, 0.5, 0.25), lower_score(0.8, 0.5, 0.9)
    (0.4, 0.8)
    """
    return min_score * min(1.0, wanted / threshold) if threshold else min_score


BAND = 1 << 20
"""Pixels of which clumps are divided together, about."""

SPLITS = ("watershed", "random_walker", "none")


def decode_clumps(maps: NDArray[np.uint8], rule: ClumpRule) -> Instances:
    """Find the nuclei in the maps of one whole image.

    Parameters
    ----------
    maps
        ``(K, H, W)`` uint8, probability times 255: the maps that the rule names, first the nucleus.
    rule
        Thresholds and areas.

    Returns
    -------
    The nuclei, numbered in the order of their first pixel, row by row; the score of each is its mean nucleus
    probability. Every nucleus is one 4-connected region; holes that lie inside one nucleus are filled.

    Examples
    --------
    >>> nucleus = [[255, 255, 255, 0, 153, 153]]
    >>> shrunk = [[255, 0, 255, 0, 0, 0]]
    >>> touching = [[0, 255, 0, 0, 0, 0]]
    >>> maps = np.array([nucleus, shrunk, touching], np.uint8)
    >>> nuclei = decode_clumps(maps, ClumpRule(min_marker_area=1, min_area=1))
    >>> nuclei.labels.tolist(), [round(score, 3) for score in nuclei.scores.tolist()]
    ([[1, 1, 2, 0, 3, 3]], [1.0, 1.0, 0.6])
    """
    nucleus = maps[0]
    labels: Labels = ndimage.label(nucleus >= math.ceil(rule.threshold * 255))[0]
    if rule.split != "none":
        _, shrunk, touching = maps
        seeds = shrunk - np.minimum(shrunk, touching) > math.floor(rule.marker_threshold * 255)
        seeds &= labels > 0
        labels = _split(labels, _markers(seeds, rule.min_marker_area), maps, rule.split)
    _fill_holes(labels)
    return keep(labels, nucleus, rule.min_area, rule.min_score)


def _markers(seeds: NDArray[np.bool_], min_area: int) -> Labels:
    """Number the connected parts of ``seeds``, those below ``min_area`` left out; numbers may be skipped."""
    markers: Labels = ndimage.label(seeds)[0]
    flat, pixels = markers.reshape(-1), np.flatnonzero(seeds)
    numbers = flat[pixels]
    flat[pixels[np.bincount(numbers)[numbers] < min_area]] = 0
    return markers


def _split(clumps: Labels, markers: Labels, maps: NDArray[np.uint8], how: str) -> Labels:
    """Divide the clumps that hold several markers among them, in place: one label a nucleus.

    Clumps with one marker or none are whole nuclei.
    """
    pixels = np.flatnonzero(markers != 0)  # several times as fast as of integers
    if not pixels.size:
        return clumps
    clump_of = np.zeros(int(markers.max()) + 1, np.int32)
    clump_of[markers.reshape(-1)[pixels]] = clumps.reshape(-1)[pixels]
    markers_in = np.bincount(clump_of)
    markers_in[0] = 0
    crowded = markers_in > 1
    if not crowded.any():
        return clumps
    highest = int(clumps.max())
    boxes = ndimage.find_objects(clumps, len(crowded) - 1)
    for numbers, window in _bands(np.flatnonzero(crowded), boxes, clumps.shape):
        part = clumps[window]
        members = np.zeros(highest + 2, np.bool_)
        members[numbers] = True
        inside = members.take(part, mode="clip")  # what another band has divided is beyond them all
        nucleus, shrunk, touching = (one[window] for one in maps)
        height = touching.astype(np.int16)
        height -= shrunk
        height -= nucleus
        grown = (flood if how == "watershed" else walk)(height, markers[window], inside)
        np.add(grown, highest, out=part, where=inside)
    return clumps


def _bands(
    numbers: NDArray[np.intp], boxes: Sequence[tuple[slice, slice]], shape: tuple[int, ...]
) -> list[tuple[NDArray[np.intp], tuple[slice, slice]]]:
    """Clumps in groups that begin within the same rows, and the window that holds each group whole.

    Clumps know nothing of one another, so the bands change no result; but what fits into the processor's cache is done
    sooner than a large image at once. Where clumps are so long that windows overlap much, all are one group.

    Parameters
    ----------
    numbers
        Of the clumps; those whose box begins higher have lower ones.
    boxes
        Rows and columns of clump ``k`` at ``k - 1``.
    shape
        Of the image: bands have about :data:`BAND` pixels.
    """
    tops = np.array([boxes[number - 1][0].start for number in numbers])
    band = tops // max(1, BAND // shape[1])
    groups = np.split(numbers, np.flatnonzero(np.diff(band)) + 1)
    windows = [_around([boxes[number - 1] for number in group]) for group in groups]
    area = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in windows)
    if area > 2 * shape[0] * shape[1]:
        return [(numbers, _around([boxes[number - 1] for number in numbers]))]
    return list(zip(groups, windows, strict=True))


def _around(boxes: Sequence[tuple[slice, slice]]) -> tuple[slice, slice]:
    rows, columns = zip(*boxes, strict=True)
    return (
        slice(min(one.start for one in rows), max(one.stop for one in rows)),
        slice(min(one.start for one in columns), max(one.stop for one in columns)),
    )


def _fill_holes(labels: Labels) -> None:
    """Give each 4-connected background region that borders on one nucleus only, and not on the image's edge, to it."""
    empty = labels == 0
    gaps, count = ndimage.label(empty)
    lowest = np.full(count + 1, np.iinfo(np.int32).max, np.int32)
    highest = np.zeros(count + 1, np.int32)
    nuclei_flat, gaps_flat, empty_flat = labels.ravel(), gaps.ravel(), empty.ravel()
    # Neighbours in the flat image are neighbours in the image, but for those at the two ends of a row change; a gap
    # there lies on the edge, which excludes it below.
    for step in (1, labels.shape[1]):
        here = np.flatnonzero(empty_flat[step:] != empty_flat[:-step])
        gap = gaps_flat[here] + gaps_flat[here + step]
        nucleus = nuclei_flat[here] + nuclei_flat[here + step]
        np.minimum.at(lowest, gap, nucleus)
        np.maximum.at(highest, gap, nucleus)
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        highest[edge] = 0
    fill = np.where(lowest == highest, lowest, 0)
    if fill.any():
        # band by band, because what is added would be as large as the image
        rows = max(1, BAND // labels.shape[1])
        for top in range(0, len(labels), rows):
            labels[top : top + rows] += fill[gaps[top : top + rows]]


def keep(labels: Labels, nucleus: NDArray[np.uint8], min_area: int, min_score: float) -> Instances:
    """Drop what is too small or too faint, and number the rest in the order of their first pixel.

    Parameters
    ----------
    labels
        ``(H, W)``, from 0; numbers may be skipped.
    nucleus
        ``(H, W)``, probability times 255; the score of a label is its mean, in ``[0, 1]``.
    """
    runs = find_runs(labels)
    lengths = runs.stop - runs.start
    sums = np.add.reduceat(nucleus.ravel(), runs.row * labels.shape[1] + runs.start)
    areas = np.bincount(runs.value, weights=lengths)
    scores = np.bincount(runs.value, weights=sums) / np.maximum(areas, 1) / 255
    kept = (areas >= max(min_area, 1)) & (scores >= min_score)
    kept[0] = False
    present, first = np.unique(runs.value, return_index=True)
    order = present[np.argsort(first)]
    order = order[kept[order]]
    number = np.zeros(len(areas), np.int32)
    number[order] = np.arange(1, len(order) + 1)
    numbered = np.repeat(number[runs.value], lengths).reshape(labels.shape)
    return Instances(numbered, scores[order].astype(np.float32))
