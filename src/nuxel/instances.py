"""The one currency between rooms: a label image and what is known of each nucleus in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.errors import UsageError

_ROUNDING = 1e-5
"""Of a mean of probabilities."""


@dataclass(frozen=True, eq=False)
class Instances:
    """Every nucleus of one image.

    Parameters
    ----------
    labels
        ``(H, W)`` label image of any integer type, held as int32: 0 is background, ``1..N`` is one nucleus each,
        without gaps (:func:`nuxel.labels.relabel.relabel` closes them).
    scores
        ``(N,)`` in ``[0, 1]``, held as float32: how sure the decoder is of nucleus ``i + 1``. Ones when omitted.

    Raises
    ------
    UsageError
        If ``labels`` is not a two-dimensional array of integers that int32 can hold, or ``scores`` has not one number
        in ``[0, 1]`` for each nucleus.

    Examples
    --------
    >>> labels = np.zeros((4, 6), np.int32)
    >>> labels[1:3, 2:5] = 1
    >>> nuclei = Instances(labels)
    >>> len(nuclei), nuclei.boxes.tolist()
    (1, [[1, 2, 3, 5]])
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise UsageError(f"labels must be (H, W) integers, got {labels.shape} {labels.dtype}")
        count, held = int(labels.max(initial=0)), np.iinfo(np.int32)
        if labels.dtype != np.int32 and (count > held.max or int(labels.min(initial=0)) < held.min):
            raise UsageError(f"labels must lie within {held.min}..{held.max}")
        scores = np.asarray(self.scores, np.float32)
        if scores.size == 0 and count:
            scores = np.ones(count, np.float32)
        if scores.shape != (count,):
            raise UsageError(f"{count} nuclei need {count} scores, got an array of shape {scores.shape}")
        if not ((scores >= 0) & (scores <= 1 + _ROUNDING)).all():
            raise UsageError(f"scores must lie between 0 and 1, got {scores.min():g} to {scores.max():g}")
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))
        object.__setattr__(self, "scores", scores if (scores <= 1).all() else scores.clip(max=1))

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def boxes(self) -> NDArray[np.int32]:
        """``(N, 4)`` int32 bounding boxes ``(y0, x0, y1, x1)``, half-open."""
        found = ndimage.find_objects(self.labels, max_label=len(self))
        boxes = [(0, 0, 0, 0) if s is None else (s[0].start, s[1].start, s[0].stop, s[1].stop) for s in found]
        return np.array(boxes, np.int32).reshape(-1, 4)
