"""One random training view of an annotated image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nuxel.data.clusters import paste_clusters
from nuxel.training.appearance import random_appearance
from nuxel.training.augment import Augmentation, Rng, chosen
from nuxel.training.paint import paint
from nuxel.training.warp import random_warp


def random_view(
    image: NDArray[np.uint8], labels: NDArray[np.int32], crop: int, how: Augmentation, rng: Rng
) -> tuple[Tensor, NDArray[np.int32]]:
    """One random training view.

    Returns the image ``(3, crop, crop)`` float32 in ``[0, 1]`` and its labels ``(crop, crop)`` int32, every connected
    piece of a nucleus with a label of its own; not annotated pixels stay negative.
    """
    if chosen(how.cluster_p, rng):
        image, labels = paste_clusters(image, labels, rng)
    picture, drawn = random_warp(image, labels, crop, how, rng)
    if chosen(how.paint_p, rng):
        picture = paint(picture, drawn, rng)
    picture = random_appearance(picture, torch.from_numpy(drawn), how, rng)
    return picture, drawn
