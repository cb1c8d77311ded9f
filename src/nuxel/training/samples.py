"""Training samples as a pure function of (seed, position): what makes a resumed run equal an unbroken one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.utils.data import Dataset, Sampler

from nuxel.data.thin import nuclei_in
from nuxel.tiling.grid import plan_windows
from nuxel.training.augment import Augmentation
from nuxel.training.validate import Whole
from nuxel.training.view import random_view

Sample = tuple[Tensor, Tensor, Tensor]
"""Image, targets and where is annotated: of one view, or of a batch of them."""


class RandomViews(Dataset[Sample]):
    """An endless list of random views; item ``k`` is always the same for the same seed.

    Groups are drawn with a probability proportional to their size to the power ``balance`` (1: as they come,
    0: every group alike), images evenly within their group; ``groups`` has the group of each image.

    A sample is as narrow as it can be, since processes hand it over faster than they could draw a wide one: the image
    ``(3, crop, crop)`` uint8, which is what predicting sees too; its targets as ``targets`` draws them; and where it
    is annotated, ``(1, crop, crop)`` bool. :func:`widened` makes them what a network takes.
    """

    def __init__(
        self,
        images: Sequence[Whole],
        groups: Sequence[str],
        targets: Callable[[NDArray[np.int32]], NDArray[np.floating]],
        augmentation: Augmentation,
        *,
        crop: int,
        balance: float,
        seed: int,
        candidates: int = 1,
    ) -> None:
        self.candidates = candidates
        self.targets, self.augmentation, self.crop, self.seed = targets, augmentation, crop, seed
        sizes = Counter(groups)
        weights = np.array([sizes[group] ** (balance - 1.0) for group in groups])
        self.probabilities = weights / weights.sum()
        self.images = images

    def __getitem__(self, position: int) -> Sample:
        rng = np.random.default_rng([self.seed, position])
        image, labels = self.images[rng.choice(len(self.images), p=self.probabilities)]
        views = [
            random_view(image, labels, self.crop, self.augmentation, rng) for _ in range(self.candidates)
        ]
        picture, drawn = max(views, key=lambda view: len(nuclei_in(view[1])))
        pixels = (picture * 255).round().to(torch.uint8)
        return pixels, torch.from_numpy(self.targets(drawn)), torch.from_numpy(drawn >= 0)[None]


def widened(sample: Sample) -> Sample:
    """A sample, or a batch, as float32: the image in ``[0, 1]``, the targets, annotated in {0, 1}."""
    pixels, targets, annotated = sample
    return pixels.float() / 255, targets.float(), annotated.float()


def patches(image: Whole, side: int, stride: int) -> list[Whole]:
    """Square patches of an image, row by row, that cover it; an image smaller than one is a patch itself.

    They are as far apart as makes them end at the image's edges, at most ``stride`` pixels. None is a copy.

    Examples
    --------
    >>> whole = np.zeros((1000, 250, 3), np.uint8), np.zeros((1000, 250), np.int32)
    >>> [labels.shape for _, labels in patches(whole, 400, 200)]
    [(400, 250), (400, 250), (400, 250), (400, 250)]
    """
    pixels, labels = image
    shape = (labels.shape[0], labels.shape[1])
    windows = [tile.window for tile in plan_windows(shape, side, side - stride)]
    return [(pixels[y0:y1, x0:x1], labels[y0:y1, x0:x1]) for y0, x0, y1, x1 in windows]


class EpochSampler(Sampler[int]):
    """The positions of one epoch on one of several devices; the loop sets the epoch.

    The first epoch of a run must be given: where it is resumed, loaders begin to draw before the loop says which it is.

    With W devices an epoch has ``W * length`` positions, and device ``r`` takes every W-th of them from the r-th on: no
    position is used twice, and one device alone takes them all in order.
    """

    def __init__(self, length: int, epoch: int = 0) -> None:
        self.length = length
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        together = distributed.is_available() and distributed.is_initialized()
        rank, devices = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        start = self.epoch * self.length * devices
        return iter(range(start + rank, start + self.length * devices, devices))
