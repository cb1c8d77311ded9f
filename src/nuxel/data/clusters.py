"""Synthetic conglomerates: nuclei of an image, cut out and pasted so that they touch others of the same image.

Source: multi-head U-Net paper, section 8 (future work): "generation of synthetic conglomerate cell blocks to improve
touching border predictions". It does not say how. Here a pasted nucleus comes from the same image, so that stain,
light, focus and noise are right as they are, and it is turned by quarters and flipped only, so that no interpolation
tells it from the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

KEPT = 0.7
"""Share of a nucleus' area that whatever is pasted on it leaves at least."""

LARGEST_CLUSTER = 5
"""Nuclei of a cluster, the one included that it starts from."""

_MARGIN = 3
_SOFTNESS = 0.8
_OVERLAP = (0.01, 0.12)

Box = tuple[slice, slice]


@dataclass(frozen=True)
class _Cutting:
    """A nucleus and ``_MARGIN`` pixels around it: pixels ``(h, w, 3)``, where it and where background is ``(h, w)``."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    background: NDArray[np.bool_]

    def turned(self, quarters: int, flip: bool) -> _Cutting:
        across = -1 if flip else 1
        return _Cutting(
            np.rot90(self.pixels, quarters)[:, ::across],
            np.rot90(self.mask, quarters)[:, ::across],
            np.rot90(self.background, quarters)[:, ::across],
        )


def paste_clusters(
    image: NDArray[np.uint8], labels: NDArray[np.int32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Build clusters of touching nuclei out of the image's own.

    Each cluster starts from a nucleus that is there. One to four copies of nuclei, turned and flipped, come to it from
    random directions and stop where they lie on a little of it: the later one on top, no gap between them. A copy is
    left out that would hide more than ``1 - KEPT`` of a nucleus, cut one in two, lie on a pixel that nobody annotated
    or reach the image's edge.

    Parameters
    ----------
    image, labels
        ``(H, W, 3)`` uint8 and ``(H, W)`` int32: 0 background, 1..N one nucleus each, negative not annotated.
        Nuclei at the image's edge or beside pixels that nobody annotated may be cut off; they are never copied.
    rng
        The result is a function of the arguments and of this generator's state alone.

    Returns
    -------
    A new image and new labels of the same shapes. Every nucleus keeps its label; each copy has a new one above them.

    Examples
    --------
    >>> labels = np.zeros((40, 40), np.int32)
    >>> labels[15:25, 15:25] = 1
    >>> image = np.repeat(np.where(labels > 0, 200, 20).astype(np.uint8)[..., None], 3, axis=2)
    >>> _, drawn = paste_clusters(image, labels, np.random.default_rng(0))
    >>> len(np.unique(drawn)) > 2
    True
    """
    canvas = _Canvas(image, labels)
    present, sources = np.flatnonzero(canvas.areas), _sources(labels)
    if not len(sources):
        return canvas.image, canvas.labels
    boxes = list(canvas.boxes)
    for _ in range(1 + int(rng.integers(1 + len(present) // 4))):
        members = [int(rng.choice(present))]
        for _ in range(int(rng.integers(1, LARGEST_CLUSTER))):
            number = int(rng.choice(sources))
            cutting = _cut(image, labels, number, boxes[number - 1])
            pasted = canvas.attach(
                cutting.turned(int(rng.integers(4)), bool(rng.integers(2))),
                int(rng.choice(members)),
                angle=rng.uniform(0, 2 * math.pi),
                overlap=rng.uniform(*_OVERLAP),
            )
            if pasted is not None:
                members.append(pasted)
    return canvas.image, canvas.labels


def _sources(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Nuclei worth copying: no specks, and their whole outline is their own: no other nucleus touches them, and
    neither the image's edge nor what is not annotated cuts them off.
    """
    areas = np.bincount(labels[labels > 0], minlength=1)
    if not areas.any():
        return np.empty(0, np.intp)
    usable = areas >= max(1, np.median(areas[areas > 0]) / 4)
    inside = labels[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    usable &= np.bincount(inside[inside > 0], minlength=len(areas)) == areas
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        met = (one != other) & (one != 0) & (other != 0)
        usable[np.maximum(one[met], 0)] = usable[np.maximum(other[met], 0)] = False
    return np.flatnonzero(usable)


def _cut(image: NDArray[np.uint8], labels: NDArray[np.int32], number: int, box: Box) -> _Cutting:
    rows, columns = (slice(side.start - _MARGIN, side.stop + _MARGIN) for side in box)
    window = labels[rows, columns]
    return _Cutting(image[rows, columns], window == number, window == 0)


class _Canvas:
    """An image with its labels while nuclei are pasted on it. ``areas`` are those before anything covers them."""

    def __init__(self, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> None:
        self.image, self.labels = image.copy(), labels.copy()
        nuclei = np.maximum(labels, 0)
        self.areas: list[int] = np.bincount(nuclei.ravel(), minlength=1).tolist()
        self.areas[0] = 0
        self.boxes: list[Box] = ndimage.find_objects(nuclei)

    def attach(self, cutting: _Cutting, target: int, *, angle: float, overlap: float) -> int | None:
        """Paste a nucleus so that it touches another; its label, or None if there is no good place."""
        window = self._approach(cutting.mask, target, angle, overlap)
        if window is None or not self._may_cover(window, cutting.mask, target):
            return None
        self._blend(window, cutting)
        self.labels[window][cutting.mask] = number = len(self.areas)
        self.areas.append(int(cutting.mask.sum()))
        rows, columns = window
        self.boxes.append(
            (
                slice(rows.start + _MARGIN, rows.stop - _MARGIN),
                slice(columns.start + _MARGIN, columns.stop - _MARGIN),
            )
        )
        return number

    def _approach(self, mask: NDArray[np.bool_], target: int, angle: float, overlap: float) -> Box | None:
        """Come nearer from outside until the next step would cover too much; None if that never touches."""
        box, size = self.boxes[target - 1], np.array(mask.shape)
        low, high = np.array([[side.start for side in box], [side.stop for side in box]])
        way = np.array([math.sin(angle), math.cos(angle)])
        most = overlap * min(self.areas[target], int(mask.sum()))
        found = None
        for distance in range(math.ceil(math.hypot(*(high - low + size)) / 2), 0, -1):
            top, left = np.round((low + high - size) / 2 + distance * way).astype(int).tolist()
            window = (slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1]))
            below = self.labels[window] if min(top, left) >= 0 else self.labels[:0]
            if below.shape != mask.shape:
                continue
            covered = np.count_nonzero(below[mask] == target)
            if covered > most:
                break
            found = window if covered else found
        return found

    def _may_cover(self, window: Box, mask: NDArray[np.bool_], target: int) -> bool:
        below = self.labels[window]
        around = ndimage.binary_dilation(mask) & ~mask
        if not (below[around] == target).any() or (below[mask] < 0).any():
            return False
        for number in np.unique(below[mask & (below > 0)]).tolist():
            box = self.boxes[number - 1]
            rows, columns = (
                slice(min(one.start, other.start), max(one.stop, other.stop))
                for one, other in zip(box, window, strict=True)
            )
            before = self.labels[rows, columns] == number
            after = before.copy()
            after[_within(window, rows.start, columns.start)][mask] = False
            if after.sum() < KEPT * self.areas[number]:
                return False
            if ndimage.label(after)[1] > ndimage.label(before)[1]:
                return False
        return True

    def _blend(self, window: Box, cutting: _Cutting) -> None:
        """The nucleus with a soft edge, and its faint surroundings where background lies on background."""
        opacity = ndimage.gaussian_filter(
            cutting.mask.astype(np.float32), _SOFTNESS, truncate=_MARGIN / _SOFTNESS
        )
        opacity[~cutting.mask & ~(cutting.background & (self.labels[window] == 0))] = 0
        below = self.image[window]
        mixed = below + opacity[..., None] * (cutting.pixels.astype(np.float32) - below)
        self.image[window] = np.round(mixed).astype(np.uint8)


def _within(window: Box, top: int, left: int) -> Box:
    """The same window in coordinates that start at (top, left)."""
    rows, columns = window
    return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
