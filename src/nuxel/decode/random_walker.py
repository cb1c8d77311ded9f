"""Random walker: each pixel goes to the marker that a random walk from it reaches first.

Source: L. Grady, "Random Walks for Image Segmentation" (2006), by scikit-image; multi-head U-Net paper, future work.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.decode.flood import flood
from nuxel.errors import NuxelError
from nuxel.silence import silenced

BETA = 130.0
"""How strongly steps of the landscape hinder a walk: scikit-image's own default."""


def walk(
    height: NDArray[np.int16], markers: NDArray[np.int32], inside: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Divide clumps among their markers; arguments and result are those of :func:`nuxel.decode.flood.flood`.

    Each 4-connected part of ``inside`` is walked by itself, so that the work grows with the pixels inside alone. A part
    without marker stays 0. scikit-image measures steps in standard deviations of the clump's landscape; where that is
    flat, all walks are equally easy and the nearest marker takes a pixel.

    Raises
    ------
    NuxelError
        If scikit-image is not installed.

    Examples
    --------
    >>> height = np.array([[0, 0, 90, 0, 0]], np.int16)
    >>> markers = np.array([[1, 0, 0, 0, 2]], np.int32)
    >>> walk(height, markers, np.ones((1, 5), bool)).tolist()[0][:2]
    [1, 1]
    """
    try:
        from skimage.segmentation import random_walker
    except ImportError:
        raise NuxelError(
            "the random walker needs scikit-image: pip install scikit-image, or decode with the watershed"
        ) from None
    result = np.zeros(markers.shape, np.int32)
    clumps, count = ndimage.label(inside)
    for number, box in enumerate(ndimage.find_objects(clumps, count), 1):
        mask = clumps[box] == number
        seeds = np.where(mask, markers[box], -1)
        present = np.unique(seeds[seeds > 0])
        if len(present) > 1:
            ground = np.where(mask, height[box], np.rint(height[box][mask].mean())).astype(np.float64)
            if not ground.std():
                result[box][mask] = flood(height[box], np.maximum(seeds, 0), mask)[mask]
                continue
            ranks = np.where(seeds > 0, np.searchsorted(present, seeds) + 1, seeds)
            with silenced():  # of solvers that are not installed, and of slow convergence
                walked = random_walker(ground, ranks, beta=BETA, mode="cg_j")
            found = np.where(mask, present[np.maximum(walked, 1) - 1], 0)
            result[box][mask] = _with_their_markers(found, seeds, mask)[mask]
        elif len(present):
            result[box][mask] = present[0]
    return result


def _with_their_markers(
    labels: NDArray[np.int32], seeds: NDArray[np.int32], mask: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """What the solver's rounding cut off from its marker goes to a neighbour instead."""
    held = np.zeros_like(labels)
    for number in np.unique(labels[mask]):
        pieces = ndimage.label(labels == number)[0]
        held[np.isin(pieces, pieces[seeds == number])] = number
    held[~mask] = 0
    return flood(np.zeros(labels.shape, np.int16), held, mask)
