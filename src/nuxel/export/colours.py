"""Colours that tell neighbouring nuclei apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Pixels between two nuclei up to which they count as neighbours.
NEIGHBOUR_GAP = 3

# Saturated and of middle luminance, so each shows on a black and on a white background; none is as dark
# and blue as haematoxylin.
_PALETTE = np.array(
    [
        (255, 40, 40),
        (0, 165, 0),
        (0, 125, 255),
        (240, 125, 0),
        (255, 70, 175),
        (0, 170, 175),
        (150, 160, 0),
        (210, 0, 255),
    ],
    np.uint8,
)


def find_neighbours(padded: NDArray[np.int32], border: NDArray[np.int64]) -> NDArray[np.int32]:
    """Pairs of nuclei that touch or have at most ``NEIGHBOUR_GAP`` pixels between them.

    Parameters
    ----------
    padded
        ``(H, W)`` int32 label image with at least ``NEIGHBOUR_GAP + 1`` pixels of background on every side.
    border
        ``(B,)`` int64 border pixels, as ``labels.border.border_pixels`` gives them.

    Returns
    -------
    ``(P, 2)`` int32 pairs of labels, the smaller first, each pair once, in rising order.

    Examples
    --------
    >>> padded = np.pad(np.array([[1, 1, 0, 2, 0, 0, 0, 0, 3]], np.int32), 4)
    >>> find_neighbours(padded, np.flatnonzero(padded)).tolist()
    [[1, 2]]
    """
    flat = padded.ravel()
    own = flat[border]
    base = int(own.max(initial=0)) + 1
    pairs = [np.empty(0, np.int64)]
    for down, right in _steps():
        other = flat.take(border + (down * padded.shape[1] + right))
        met = np.flatnonzero((other > 0) & (other != own))
        low, high = np.minimum(own[met], other[met]), np.maximum(own[met], other[met])
        pairs.append(np.unique(low.astype(np.int64) * base + high))
    return np.stack(np.divmod(np.unique(np.concatenate(pairs)), base), axis=1).astype(np.int32)


def choose_colours(padded: NDArray[np.int32], border: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """One colour a nucleus, different from those of all its neighbours.

    Parameters
    ----------
    padded, border
        As for :func:`find_neighbours`, with the nuclei 1..N.
    count
        N.

    Returns
    -------
    ``(N, 3)`` uint8 red, green, blue: row ``i`` is for nucleus ``i + 1``.
    """
    numbers = _colour_greedily(find_neighbours(padded, border) - 1, count)
    rounds, colour = np.divmod(numbers, len(_PALETTE))
    # Crowds of specks can have more neighbours than the palette has colours: each further round is darker.
    return np.asarray(_PALETTE[colour] * 0.7 ** rounds[:, None], np.uint8)


def _colour_greedily(pairs: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """The first number that no neighbour has yet; those with most neighbours choose first.

    Nuclei take turns through the first colours, so that lone nuclei do not all look the same.
    """
    both = np.concatenate((pairs, pairs[:, ::-1]))
    both = both[np.argsort(both[:, 0], kind="stable")]
    degree = np.bincount(both[:, 0], minlength=count)
    first = np.concatenate(([0], np.cumsum(degree))).tolist()
    neighbours = both[:, 1].tolist()
    colours = [-1] * count
    for nucleus in np.argsort(-degree, kind="stable").tolist():
        taken = {colours[other] for other in neighbours[first[nucleus] : first[nucleus + 1]]}
        colours[nucleus] = _first_free(taken, nucleus)
    return np.array(colours, np.int64)


def _first_free(taken: set[int], nucleus: int) -> int:
    size = len(_PALETTE)
    for turn in range(size):
        colour = (nucleus + turn) % size
        if colour not in taken:
            return colour
    colour = size
    while colour in taken:
        colour += 1
    return colour


def _steps() -> list[tuple[int, int]]:
    """Steps that span half a disc, since the other half meets the same pairs from the far side."""
    radius = NEIGHBOUR_GAP + 1
    reach = range(-radius, radius + 1)
    disc = [(down, right) for down in reach for right in reach if down**2 + right**2 <= radius**2]
    return [step for step in disc if step > (0, 0)]
