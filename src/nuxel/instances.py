"""The one currency between rooms: a label image and what is known of each nucleus in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, eq=False)
class Instances:
    """Every nucleus of one image.

    Parameters
    ----------
    labels
        ``(H, W)`` int32 label image: 0 is background, ``1..N`` is one nucleus each, without gaps.
    scores
        ``(N,)`` float32 in ``[0, 1]``: how sure the decoder is of nucleus ``i + 1``. Ones when omitted.

    Raises
    ------
    ValueError
        If ``labels`` is not a two-dimensional int32 array or ``scores`` has not one entry per nucleus.

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
        if self.labels.ndim != 2 or self.labels.dtype != np.int32:
            raise ValueError(f"labels must be (H, W) int32, got {self.labels.shape} {self.labels.dtype}")
        count = int(self.labels.max(initial=0))
        if self.scores.size == 0 and count:
            object.__setattr__(self, "scores", np.ones(count, np.float32))
        if self.scores.shape != (count,):
            raise ValueError(f"{count} nuclei need {count} scores, got an array of shape {self.scores.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def boxes(self) -> NDArray[np.int32]:
        """``(N, 4)`` int32 bounding boxes ``(y0, x0, y1, x1)``, half-open."""
        found = ndimage.find_objects(self.labels, max_label=len(self))
        boxes = [(0, 0, 0, 0) if s is None else (s[0].start, s[1].start, s[0].stop, s[1].stop) for s in found]
        return np.array(boxes, np.int32).reshape(-1, 4)
