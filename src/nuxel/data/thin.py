"""Partly annotated sets made from fully annotated ones, to study how few annotations are enough.

Source: partially labeled exemplars paper, section III and figure 3: DH25 keeps a random quarter of the nuclei,
its control DH25crop everything in a random quarter of each image. What is not kept is unknown (-1), not background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuxel.errors import NuxelError, UsageError

UNKNOWN = -1
"""The label of a pixel that nobody annotated."""


def nuclei_in(labels: NDArray[Any]) -> NDArray[np.int32]:
    """The numbers of the nuclei in a label image, ``(N,)`` int32, rising."""
    return np.unique(labels[labels > 0]).astype(np.int32)


def thin(labels: Sequence[NDArray[np.int32]], keep: float, seed: int = 0) -> list[NDArray[np.int32]]:
    """Keep a random share of the nuclei of a whole set; every other pixel, the background too, becomes unknown.

    Parameters
    ----------
    labels
        ``(H, W)`` int32 label images; negative is not annotated. One may be without nuclei, not all.
    keep
        Share of the nuclei to keep, above 0 and at most 1: exactly ``round(keep * total)`` of them, each with the same
        chance, so that images keep different shares.
    seed
        Not negative. With one seed, what a smaller share keeps a larger one keeps too.

    Returns
    -------
    New label images in the same order: kept nuclei with their numbers, all else -1.

    Raises
    ------
    UsageError
        If the share or the seed is out of its range, or so few nuclei remain that there is none.
    NuxelError
        If there is no nucleus to begin with.

    Examples
    --------
    >>> [image.tolist() for image in thin([np.array([[1, 1, 0, 2, 3]], np.int32)], keep=0.34)]
    [[[-1, -1, -1, -1, 3]]]
    """
    _check(keep, seed)
    numbers = [nuclei_in(image) for image in labels]
    total = sum(map(len, numbers))
    _refuse_none(total)
    kept = np.zeros(total, bool)
    kept[np.random.default_rng(seed).permutation(total)[: round(keep * total)]] = True
    if not kept.any():
        raise UsageError(f"a share of {keep} of {total} nuclei is none of them; keep a larger share")
    kept_in = np.split(kept, np.cumsum([len(image) for image in numbers])[:-1])
    return [
        np.where(np.isin(image, of_image[chosen]), image, np.int32(UNKNOWN))
        for image, of_image, chosen in zip(labels, numbers, kept_in, strict=True)
    ]


def crop(labels: Sequence[NDArray[np.int32]], keep: float, seed: int = 0) -> list[NDArray[np.int32]]:
    """Keep a rectangle at a random place in each image as it is; every pixel outside becomes unknown.

    Parameters
    ----------
    labels
        ``(H, W)`` int32 label images; negative is not annotated.
    keep
        Share of each image's area to keep, above 0 and at most 1: the rectangle's sides are those of the image times
        ``sqrt(keep)``, rounded, and at least one pixel.
    seed
        Not negative.

    Returns
    -------
    New label images in the same order: inside the rectangle unchanged, background included, outside -1. Of a nucleus
    that its edge cuts the part inside is kept.

    Raises
    ------
    UsageError
        If the share or the seed is out of its range, or no nucleus lies in any rectangle.
    NuxelError
        If there is no nucleus to begin with.

    Examples
    --------
    >>> [image.tolist() for image in crop([np.array([[1, 1, 0, 2], [1, 1, 0, 0]], np.int32)], keep=0.25)]
    [[[-1, -1, -1, -1], [-1, 1, 0, -1]]]
    """
    cropped = []
    for image, window in zip(labels, crop_windows(labels, keep, seed), strict=True):
        cropped.append(np.full(image.shape, UNKNOWN, np.int32))
        cropped[-1][window] = image[window]
    return cropped


def crop_windows(
    labels: Sequence[NDArray[np.int32]], keep: float, seed: int = 0
) -> list[tuple[slice, slice]]:
    """The rows and columns of each image that :func:`crop` keeps; parameters and errors are those of it."""
    _check(keep, seed)
    _refuse_none(sum(len(nuclei_in(image)) for image in labels))
    rng = np.random.default_rng(seed)
    windows = [(_stretch(image.shape[0], keep, rng), _stretch(image.shape[1], keep, rng)) for image in labels]
    if not any((image[window] > 0).any() for image, window in zip(labels, windows, strict=True)):
        raise UsageError(
            f"a share of {keep} of each image holds no nucleus; keep a larger share or change the seed"
        )
    return windows


def _stretch(side: int, keep: float, rng: np.random.Generator) -> slice:
    length = min(side, max(1, round(side * math.sqrt(keep))))
    start = int(rng.integers(side - length + 1))
    return slice(start, start + length)


def _check(keep: float, seed: int) -> None:
    if not 0 < keep <= 1:
        raise UsageError(f"the share to keep must be above 0 and at most 1, got {keep}")
    if seed < 0:
        raise UsageError(f"the seed must not be negative, got {seed}")


def _refuse_none(total: int) -> None:
    if not total:
        raise NuxelError("there is no nucleus in any of the label images, and so none to keep")
