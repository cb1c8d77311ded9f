"""Nuclei of an annotated view in colours and textures that no laboratory has shown: what is left is shape.

A network that has seen a few laboratories takes their colours, brightness and texture for what a nucleus is. Images
drawn from label images at random, as in SynthSeg (Billot et al., Medical Image Analysis 86, 2023), teach it that
none of that is certain.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

Rng = np.random.Generator
Field = NDArray[np.float32]

LEAST_CONTRAST = 0.15
"""Mean difference, over the colours, of nuclei from their surroundings; of a whole range of 1."""


def paint(picture: Tensor, labels: NDArray[np.int32], rng: Rng) -> Tensor:
    """A view with the same nuclei, coloured anew.

    Background and nuclei get a random colour each, at least :data:`LEAST_CONTRAST` apart, and random texture; nuclei
    differ from each other in strength, may have a rim, and may lie in cytoplasm of a third colour. Half of the views
    keep a share of the picture's own detail, which is its difference from the mean colour of nuclei and of background.

    Parameters
    ----------
    picture
        ``(3, H, W)`` float32 in ``[0, 1]``.
    labels
        ``(H, W)``; 0 background, positive one nucleus each, negative not annotated.

    Returns
    -------
    ``(3, H, W)`` float32 in ``[0, 1]``; the picture itself where something is not annotated, whose nuclei nobody knows,
    or where it is all one.
    """
    inside = labels > 0
    if (labels < 0).any() or not inside.any() or inside.all():
        return picture
    shape = labels.shape
    ground, nuclei = _two_colours(rng)
    painted = ground + _texture(shape, rng, rng.uniform(0, 0.12)) * _direction(rng)
    solid = ndimage.gaussian_filter(inside.astype(np.float32), rng.uniform(0.3, 1.0))
    if rng.random() < 0.5:
        painted = painted + _around(solid, rng) * (_colour(rng) - ground)
    strength = rng.uniform(rng.uniform(0.3, 0.9), 1.1, int(labels.max()) + 1).astype(np.float32)[labels]
    if rng.random() < 0.5:
        rim = inside * (1 - ndimage.gaussian_filter(inside.astype(np.float32), rng.uniform(1.0, 2.5)))
        strength = strength * (1 + rng.uniform(-1.0, 1.0) * rim)
    body = nuclei + _texture(shape, rng, rng.uniform(0, 0.2)) * _direction(rng)
    share = np.clip(solid * ndimage.gaussian_filter(strength, 0.5), 0, 1)
    painted = painted * (1 - share) + body * share
    if rng.random() < 0.5:
        painted = painted + rng.uniform(0.3, 1.0) * rng.choice([-1, 1]) * _detail(picture.numpy(), inside)
    return torch.from_numpy(np.clip(painted, 0, 1).astype(np.float32))


def _two_colours(rng: Rng) -> tuple[Field, Field]:
    """Colours ``(3, 1, 1)`` of background and nuclei that differ enough."""
    grey = rng.random() < 0.4
    while True:
        first, second = (_colour(rng, grey=grey) for _ in range(2))
        if np.abs(first - second).mean() >= LEAST_CONTRAST:
            return first, second


def _colour(rng: Rng, *, grey: bool = False) -> Field:
    return np.full((3, 1, 1), rng.random(), np.float32) if grey else rng.random((3, 1, 1), np.float32)


def _direction(rng: Rng) -> Field:
    """In which a texture changes the colour: all alike, or each for itself."""
    if rng.random() < 0.5:
        return np.ones((3, 1, 1), np.float32)
    return rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32)


def _texture(shape: tuple[int, int], rng: Rng, amplitude: float) -> Field:
    """A smooth random field, the sum of a coarse and a fine one."""
    total = np.zeros(shape, np.float32)
    for finest, coarsest in ((2, 6), (8, 64)):
        knots = [max(2, round(side / rng.uniform(finest, coarsest))) for side in shape]
        coarse = torch.from_numpy(rng.standard_normal((1, 1, *knots), np.float32))
        field = functional.interpolate(coarse, shape, mode="bilinear", align_corners=True)
        total += rng.random() * field[0, 0].numpy()
    return np.float32(amplitude) * total


def _around(solid: Field, rng: Rng) -> Field:
    """How much cytoplasm there is, ``(H, W)`` in ``[0, 1]``: a soft zone around the nuclei, thicker in some places."""
    spread = ndimage.gaussian_filter(solid, rng.uniform(3, 10))
    cytoplasm: Field = np.clip(2 * spread * (1 + _texture((solid.shape[0], solid.shape[1]), rng, 0.5)), 0, 1)
    return cytoplasm


def _detail(picture: Field, inside: NDArray[np.bool_]) -> Field:
    detail = picture.copy()
    for where in (inside, ~inside):
        detail[:, where] -= picture[:, where].mean(1, keepdims=True)
    return detail
