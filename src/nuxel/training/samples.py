"""Training samples as a pure function of (seed, position): what makes a resumed run equal an unbroken one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.utils.data import Dataset, Sampler

from nuxel.data.dataset import Annotated, read_annotated
from nuxel.training.augment import Augmentation, random_view

Sample = tuple[Tensor, Tensor, Tensor]


class RandomViews(Dataset[Sample]):
    """An endless list of random views; item ``k`` is always the same for the same seed.

    Groups are drawn with a probability proportional to their size to the power ``balance`` (1: as they come,
    0: every group alike), images evenly within their group.
    """

    def __init__(
        self,
        items: Sequence[Annotated],
        targets: Callable[[NDArray[np.int32]], NDArray[np.float32]],
        augmentation: Augmentation,
        *,
        crop: int,
        balance: float,
        seed: int,
    ) -> None:
        self.targets, self.augmentation, self.crop, self.seed = targets, augmentation, crop, seed
        sizes = Counter(item.group for item in items)
        weights = np.array([sizes[item.group] ** (balance - 1.0) for item in items])
        self.probabilities = weights / weights.sum()
        self.images = [read_annotated(item) for item in items]

    def __getitem__(self, position: int) -> Sample:
        rng = np.random.default_rng([self.seed, position])
        image, labels = self.images[rng.choice(len(self.images), p=self.probabilities)]
        picture, drawn = random_view(image, labels, self.crop, self.augmentation, rng)
        annotated = torch.from_numpy((drawn >= 0).astype(np.float32))[None]
        return picture, torch.from_numpy(self.targets(drawn)), annotated


class EpochSampler(Sampler[int]):
    """The positions of one epoch on one of several devices; the loop sets the epoch.

    With W devices an epoch has ``W * length`` positions, and device ``r`` takes every W-th of them from the r-th on: no
    position is used twice, and one device alone takes them all in order.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        together = distributed.is_available() and distributed.is_initialized()
        rank, devices = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        start = self.epoch * self.length * devices
        return iter(range(start + rank, start + self.length * devices, devices))
