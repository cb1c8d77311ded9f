"""What the multi-head U-Net learns to draw, computed from a label image.

Source: multi-head U-Net paper, section 5.3.1 and figure 4: the nuclei, the nuclei shrunk, and the borders where two
nuclei touch. The paper shrinks by a morphological operation of unstated size; here a nucleus shrinks to the
part that is deeper than a fraction of its own greatest depth, so that the rule is the same at every scale and
no nucleus disappears. Beyond the paper: where a pixel's nucleus has its centre, and how large that nucleus is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.errors import UsageError


@dataclass(frozen=True)
class TargetRule:
    """How targets are drawn.

    Parameters
    ----------
    shrink
        Share of a nucleus' greatest depth that is cut off all around, in ``(0, 1)``.
    touching_width
        A pixel lies on a touching border if two nuclei are within this many pixels of it (Chebyshev distance).

    Raises
    ------
    UsageError
        If a value is out of its range.
    """

    shrink: float = 0.4
    touching_width: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.shrink < 1:
            raise UsageError(f"shrink must lie between 0 and 1, got {self.shrink}")
        if self.touching_width < 1:
            raise UsageError(f"touching_width must be at least 1, got {self.touching_width}")


REFERENCE_DIAMETER = 16.0
"""Diameter in pixels at which the size target is zero."""


def multihead_targets(labels: NDArray[np.integer], rule: TargetRule) -> NDArray[np.float32]:
    """Draw the targets of one label image.

    Parameters
    ----------
    labels
        ``(H, W)``; 0 background, positive one nucleus each, negative not annotated.
    rule
        The sizes of shrinking and touching borders.

    Returns
    -------
    ``(6, H, W)`` float32: nucleus {0, 1}; shrunk nucleus {0, 1}, inside its nucleus and never empty; touching
    border {0, 1}; the way down and right from the pixel to the centre of its nucleus, in diameters (0 outside);
    ``log2(diameter / 16)`` of the pixel's nucleus (0 outside), the diameter being that of the disc of equal area.

    Examples
    --------
    >>> drawn = multihead_targets(np.array([[1, 1, 1, 2, 2, 0, -1]]), TargetRule(shrink=0.6))
    >>> for target in drawn[:3].astype(int):
    ...     print(*target[0])
    1 1 1 1 1 0 0
    1 1 0 1 1 0 0
    0 0 1 1 0 0 0
    """
    nuclei = np.maximum(labels, 0).astype(np.int32)
    targets = np.zeros((6, *labels.shape), np.float32)
    targets[0] = nuclei > 0
    targets[1] = relative_depth(nuclei) > rule.shrink
    targets[2] = touching_borders(nuclei, rule.touching_width)
    targets[3:5] = centre_offsets(nuclei)
    targets[5] = log_diameter(nuclei)
    return targets


def relative_depth(nuclei: NDArray[np.int32]) -> NDArray[np.float32]:
    """Depth of each pixel in its nucleus over that nucleus' greatest depth: ``(H, W)`` float32 in ``[0, 1]``.

    A pixel on the rim (a 4-neighbour that is not of the same nucleus) has depth 1, others 1 plus the Euclidean
    distance to the nearest rim pixel. Outside the nuclei 0; every nucleus has a pixel with exactly 1. The image's
    edge is no rim.

    Examples
    --------
    >>> relative_depth(np.array([[0, 5, 5, 5, 0, 9]], np.int32)).tolist()
    [[0.0, 0.5, 1.0, 0.5, 0.0, 1.0]]
    """
    inside = nuclei > 0
    rim = np.zeros_like(inside)
    for axis in (0, 1):
        differ = np.diff(nuclei, axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        rim[tuple(before)] |= differ
        rim[tuple(after)] |= differ
    if not rim.any():
        return inside.astype(np.float32)
    depth = 1 + ndimage.distance_transform_edt(~rim)
    depth[~inside] = 0
    greatest = np.zeros(int(nuclei.max(initial=0)) + 1)
    np.maximum.at(greatest, nuclei[inside], depth[inside])
    greatest[greatest == 0] = 1
    relative: NDArray[np.float32] = (depth / greatest[nuclei]).astype(np.float32)
    return relative


def touching_borders(nuclei: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """Pixels that have two different nuclei within ``width`` pixels (Chebyshev): ``(H, W)`` bool."""
    size = 2 * width + 1
    highest = ndimage.maximum_filter(nuclei, size, mode="nearest")
    beyond = np.iinfo(np.int32).max
    lowest = ndimage.minimum_filter(np.where(nuclei > 0, nuclei, beyond), size, mode="nearest")
    touching: NDArray[np.bool_] = (highest != lowest) & (lowest != beyond)
    return touching


def centre_offsets(nuclei: NDArray[np.int32]) -> NDArray[np.float32]:
    """The way from each pixel to the centroid of its nucleus over that nucleus' diameter: ``(2, H, W)`` float32.

    Down first, then right; the diameter is that of the disc of equal area, so that the values of a round nucleus lie
    within half of one whatever its size. 0 in the background. What the image's edge cuts off does not count.

    Examples
    --------
    >>> centre_offsets(np.array([[0, 7, 7, 7, 7]], np.int32))[1].round(2).tolist()
    [[0.0, 0.6600000262260437, 0.2199999988079071, -0.2199999988079071, -0.6600000262260437]]
    """
    offsets = np.zeros((2, *nuclei.shape), np.float32)
    rows, columns = np.nonzero(nuclei)
    numbers = nuclei[rows, columns]
    areas = np.maximum(np.bincount(numbers), 1)
    diameter = np.sqrt(4 / np.pi * areas)
    for offset, places in zip(offsets, (rows, columns), strict=True):
        centres = np.bincount(numbers, weights=places) / areas
        offset[rows, columns] = (centres[numbers] - places) / diameter[numbers]
    return offsets


def diameters(nuclei: NDArray[np.int32]) -> NDArray[np.float64]:
    """Diameter in pixels of the disc with the same area, of each nucleus that is there, in order of its label."""
    areas = np.bincount(nuclei[nuclei > 0])
    found: NDArray[np.float64] = np.sqrt(4 / np.pi * areas[areas > 0])
    return found


def log_diameter(nuclei: NDArray[np.int32]) -> NDArray[np.float32]:
    """``log2(diameter / 16)`` of each pixel's nucleus, 0 in the background: ``(H, W)`` float32."""
    areas = np.bincount(nuclei.ravel()).astype(np.float64)
    logs = 0.5 * np.log2(np.maximum(areas, 1) * 4 / np.pi) - np.log2(REFERENCE_DIAMETER)
    logs[0] = 0
    drawn: NDArray[np.float32] = logs[nuclei].astype(np.float32)
    return drawn
