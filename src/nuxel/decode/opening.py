"""From one map of nucleus pixels to nuclei, by a morphological opening: erode, number what is left, dilate back.

Source: "Instance Segmentation of Nucleus Images" (FCN-8s and Mask R-CNN paper), section 2.1: "eroding the edges of
the nuclei to shrink their areas while keep their shapes, separating every mask of a single nucleus according to the
connectivity, and then dilating the masks at the same degree as erosion". The paper prints no structuring element, and
does not say what happens where two dilated nuclei meet; what is done here stands at `decode_opening`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.decode.clumps import keep, lower_score
from nuxel.errors import UsageError
from nuxel.instances import Instances

Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class OpeningRule:
    """Parameters of the decoder; probabilities in ``[0, 1]``, lengths and areas in pixels of the maps.

    Parameters
    ----------
    threshold
        A pixel belongs to a nucleus where the nucleus map is at least this.
    degree
        Times that the foreground is eroded by one pixel, and the nuclei dilated. Bridges up to twice as wide, in
        pixels, are cut, and nuclei up to twice as wide are lost. 0 splits nothing.
    min_area
        Smaller nuclei are dropped.
    min_score
        Nuclei with a lower mean nucleus probability are dropped.

    Raises
    ------
    UsageError
        If a value is out of its range.
    """

    threshold: float = 0.5
    degree: int = 2
    min_area: int = 8
    min_score: float = 0.0

    def __post_init__(self) -> None:
        for name in ("threshold", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"{name} is a probability and must lie between 0 and 1, got {getattr(self, name)}"
                )
        for name in ("degree", "min_area"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps that are needed, in the order in which they are expected."""
        return ("nucleus",)

    def with_threshold(self, threshold: float) -> Self:
        """The rule with the threshold that a user asks for; see :func:`nuxel.decode.clumps.lower_score`."""
        score = lower_score(self.min_score, self.threshold, threshold)
        return replace(self, threshold=threshold, min_score=score)

    def enlarged(self, area: float) -> Self:
        """The rule for maps in which everything has ``area`` times as many pixels.

        Examples
        --------
        >>> OpeningRule(degree=3, min_area=10).enlarged(4)
        OpeningRule(threshold=0.5, degree=6, min_area=40, min_score=0.0)
        """
        return replace(
            self, degree=round(self.degree * math.sqrt(area)), min_area=round(self.min_area * area)
        )


def decode_opening(maps: NDArray[np.uint8], rule: OpeningRule) -> Instances:
    """Find the nuclei in the map of one whole image.

    The structuring element of degree d is an octagon, by turns a cross (4 neighbours) and a square (8 neighbours)
    dilated: as near to a disc of radius d as small steps come (degrees 1 and 3 are discs of 5 and 37 pixels), and a few
    sweeps over the image, where a Euclidean distance transform costs many times as much. Beyond the edge of the image
    everything counts as foreground, so that nuclei that it cuts are not eroded from there.

    What is left of the foreground falls into cores, one a nucleus, which grow by the same steps. Together they cover
    the opening of the foreground by the octagon: no nucleus leaves the foreground, and none is more than its own core
    dilated. A pixel that several cores reach goes to the one that is there in the fewest steps; if they are equal, to
    the one that comes along the row (a square is a step along the row, then one along the column), then to the lower
    label. Foreground that holds no octagon is lost: that is the opening.

    Pixels that meet at a corner are one core, because the core of a slanting nucleus is thin and would fall apart
    otherwise. With degree 0 they are two nuclei: those are the 4-connected parts of the foreground.

    Parameters
    ----------
    maps
        ``(1, H, W)`` uint8, probability of nucleus times 255.
    rule
        Threshold, degree and what is dropped.

    Returns
    -------
    The nuclei, numbered in the order of their first pixel, row by row; the score of each is its mean nucleus
    probability. Every nucleus is one 4-connected region.

    Examples
    --------
    Two nuclei joined by a bridge one pixel wide:

    >>> picture = ["###...###", "#########", "###...###"]
    >>> maps = np.array([[[255 * (mark == "#") for mark in row] for row in picture]], np.uint8)
    >>> print(decode_opening(maps, OpeningRule(degree=1)).labels)
    [[1 1 1 0 0 0 2 2 2]
     [1 1 1 1 0 2 2 2 2]
     [1 1 1 0 0 0 2 2 2]]
    """
    nucleus = maps[0]
    labels = _open(nucleus >= math.ceil(rule.threshold * 255), rule.degree)
    return keep(labels, nucleus, rule.min_area, rule.min_score)


_CROSS = ((1, 0),)
_SQUARE = ((1,), (0,))


def _open(foreground: Mask, degree: int) -> Labels:
    """Erode, number, dilate back. Each step is along some axes at once, so that every label moves to a 4-neighbour."""
    steps = [axes for number in range(degree) for axes in (_SQUARE if number % 2 else _CROSS)]
    # To erode the foreground is to dilate the background, which there is none of beyond the edge.
    background = ~foreground
    for axes in steps:
        background = _dilate(background, axes)
    covered = ~background
    # The first cross gives the two pixels beside a corner to the core that meets there: they have no other neighbours.
    labels: Labels = ndimage.label(covered, np.ones((3, 3)) if degree else None)[0]
    for axes in steps:
        grown = _dilate(covered, axes)
        _take(labels, np.nonzero(grown & ~covered), axes)
        covered = grown
    return labels


def _dilate(mask: Mask, axes: tuple[int, ...]) -> Mask:
    """``mask`` and its neighbours before and after along each of the axes."""
    grown = mask.copy()
    for axis in axes:
        old, new = mask.swapaxes(0, axis), grown.swapaxes(0, axis)
        new[1:] |= old[:-1]
        new[:-1] |= old[1:]
    return grown


def _take(labels: Labels, pixels: tuple[NDArray[np.intp], ...], axes: tuple[int, ...]) -> None:
    """Give background ``pixels``, in place, the least label among their neighbours along the axes; each has one."""
    least = np.full(len(pixels[0]), np.iinfo(np.uint32).max, np.uint32)
    for axis in axes:
        for shift in (-1, 1):
            places = list(pixels)
            # At the edge a pixel is its own neighbour there, and has no label.
            places[axis] = np.clip(places[axis] + shift, 0, labels.shape[axis] - 1)
            # No label, 0, wraps around to the greatest number.
            np.minimum(least, labels[tuple(places)].view(np.uint32) - np.uint32(1), out=least)
    labels[pixels] = least + np.uint32(1)
