"""``nuxel propagate``: a model's nuclei where nobody annotated, and people's annotations as they are.

Source: partially labeled exemplars paper, sections III.C and III.D, figures 6 and 7: a model trained on some of the
nuclei proposes the others, a person corrects, and so on until all are annotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.annotate.annotations import HUMAN, PROPOSED, Labels
from nuxel.data.thin import UNKNOWN
from nuxel.decode.detections import LEAST_LEFT
from nuxel.decode.paste import largest_region
from nuxel.errors import NuxelError
from nuxel.instances import Instances
from nuxel.labels.border import border_pixels
from nuxel.labels.relabel import relabel

_ANNOTATED, _ADDED, _TRUE = (0, 125, 255), (240, 125, 0), (0, 165, 0)
"""Colours of outlines: what people annotated, what is proposed, and the truth."""
_AGAIN = 0.5
_TINY = 1e-9
_GAP = 4
_GREY = 128


@dataclass(frozen=True, eq=False)
class Propagated:
    """Annotated and proposed nuclei of one image.

    Parameters
    ----------
    labels
        ``(H, W)`` int32 label image. Annotated nuclei have the numbers that they had, proposed ones those that follow
        the highest of these; 0 is known to be background, and -1 is what nobody annotated and no proposal covers.
    scores
        The score of each proposed nucleus by its number, in ``[0, 1]``, or None where it is not known any more.
    """

    labels: Labels
    scores: Mapping[int, float | None]

    def sources(self) -> dict[int, str]:
        """``"human"`` or ``"proposed"`` for each nucleus by its number, in rising order."""
        numbers = np.unique(self.labels[self.labels > 0]).tolist()
        return {number: PROPOSED if number in self.scores else HUMAN for number in numbers}


def propagate(annotations: Labels, proposals: Instances, taken: int = 0) -> Propagated:
    """Add the proposals that lie where nobody annotated.

    Parameters
    ----------
    annotations
        ``(H, W)`` int32: a nucleus where positive, known to be none where 0, not annotated where negative. Numbers may
        be missing, and a nucleus may consist of several parts.
    proposals
        What a model finds in the image.
    taken
        The highest number that an annotated nucleus without a pixel has: no proposal gets that or a lower one.

    Returns
    -------
    Every annotated nucleus with its number and exactly its pixels. No proposal has an annotated pixel: one that reaches
    into what is annotated keeps the largest 4-connected region of what lies outside if that is more than half of it
    (:data:`~nuxel.decode.detections.LEAST_LEFT`), and is left out otherwise: then it mostly shows a nucleus that is
    annotated already, or one where there is known to be none. It is left out, too, if that region lies around an
    annotated nucleus of which the proposal covers more than half: then it shows that nucleus, which somebody outlined
    tightly.

    Raises
    ------
    NuxelError
        If the shapes differ, or the numbers of the annotations leave none for the proposals.

    Examples
    --------
    >>> annotations = np.array([[5, 5, -1, -1, -1, -1, 0, 0]], np.int32)
    >>> found = Instances(np.array([[1, 1, 1, 0, 2, 2, 2, 3]], np.int32), np.array([0.9, 0.8, 0.7], np.float32))
    >>> propagate(annotations, found).labels.tolist()
    [[5, 5, -1, -1, 6, 6, 0, 0]]
    """
    if annotations.shape != proposals.labels.shape:
        raise NuxelError(
            f"the annotations are {annotations.shape}, but the image is {proposals.labels.shape}"
        )
    labels = np.maximum(annotations, UNKNOWN)
    number = max(int(labels.max(initial=0)), taken)
    if number > np.iinfo(np.int32).max - len(proposals):
        raise NuxelError(f"the annotations have the number {number}, which leaves none for what is proposed")
    annotated = relabel(np.maximum(annotations, 0))  # a number may be in the thousands of millions
    areas = np.bincount(annotated.ravel())
    scores: dict[int, float | None] = {}
    for index, box in enumerate(ndimage.find_objects(proposals.labels, len(proposals))):
        whole = proposals.labels[box] == index + 1
        free = whole & (annotations[box] < 0)
        if free.sum() < whole.sum():
            free = largest_region(free)
            covered = np.bincount(annotated[box][whole])
            again = 1 + np.flatnonzero(covered[1:] > _AGAIN * areas[1 : len(covered)])
            if any(_lies_around(free, whole & (annotated[box] == nucleus)) for nucleus in again):
                continue
        if free.sum() > LEAST_LEFT * whole.sum():
            number += 1
            labels[box][free] = number
            scores[number] = float(proposals.scores[index])
    return Propagated(labels, scores)


def _lies_around(region: NDArray[np.bool_], nucleus: NDArray[np.bool_]) -> bool:
    """Whether no straight line through the middle of the nucleus has all of the region on one side."""
    offsets = np.argwhere(region) - np.argwhere(nucleus).mean(axis=0)
    rows, columns = offsets[offsets.any(axis=1)].T
    directions = np.sort(np.arctan2(rows, columns))
    gaps = np.diff(directions, append=directions[:1] + 2 * np.pi)
    return bool(directions.size and gaps.max() < np.pi - _TINY)


def draw_propagated(
    display: NDArray[np.uint8], annotations: Labels, propagated: Propagated, truth: Labels | None = None
) -> NDArray[np.uint8]:
    """The image with outlines, side by side: the annotations, the truth if it is given, and the result (figure 6).

    Annotated nuclei are blue, proposed ones orange, true ones green.

    Parameters
    ----------
    display
        ``(H, W, 3)`` uint8.
    annotations, truth
        ``(H, W)`` int32.

    Returns
    -------
    ``(H, W', 3)`` uint8.
    """
    nuclei = np.maximum(propagated.labels, 0)
    proposed = np.isin(nuclei, list(propagated.scores))
    panels = [_outlined(display, annotations, _ANNOTATED)]
    if truth is not None:
        panels.append(_outlined(display, truth, _TRUE))
    result = _outlined(display, np.where(proposed, 0, nuclei), _ANNOTATED)
    panels.append(_outlined(result, np.where(proposed, nuclei, 0), _ADDED))
    gap = np.full((len(display), _GAP, 3), _GREY, np.uint8)
    return np.hstack([part for panel in panels for part in (gap, panel)][1:])


def _outlined(display: NDArray[np.uint8], labels: Labels, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    row, column = np.divmod(border_pixels(np.pad(labels, 1)), labels.shape[1] + 2)
    drawn = np.array(display)
    drawn[row - 1, column - 1] = colour
    return drawn
