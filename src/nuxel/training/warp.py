"""Where each pixel of a training view comes from: one warp for pixels and labels.

Source: multi-head U-Net paper, section 5.1 (rotations, flips, zoom, shear) and section 8, future work (piecewise
affine, perspective); the paper gives no sizes. The elastic field goes beyond it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import label as connected_components
from torch import Tensor
from torch.nn import functional

from nuxel.data.targets import diameters
from nuxel.training.augment import Augmentation, Rng, chosen


def random_warp(
    image: NDArray[np.uint8], labels: NDArray[np.int32], crop: int, how: Augmentation, rng: Rng
) -> tuple[Tensor, NDArray[np.int32]]:
    """Zoom, rotation, flip, shear, shift and what bends; beyond the image's edge it is mirrored.

    So a view may be larger than the image: ``(3, crop, crop)`` and ``(crop, crop)`` for an image of any size.
    """
    zoom = _zoom(labels, how, rng)
    if zoom < 0.75:  # shrink with an anti-aliasing filter first: the warp only interpolates
        size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
        image = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        labels = np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        zoom = 1.0
    places = _places(image.shape[:2], crop, zoom, how, rng)
    # only what the view shows is widened: of a large image that is little
    window = [seen_part(places[..., axis], image.shape[axis]) for axis in (0, 1)]
    image, labels = image[tuple(window)], labels[tuple(window)]
    # grid_sample wants the place across first, and edges at -1 and 1
    within = [(places[..., axis] - window[axis].start) * 2 / image.shape[axis] - 1 for axis in (1, 0)]
    grid = torch.from_numpy(np.stack(within, -1)[None])
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    picture = functional.grid_sample(pixels, grid.float(), "bilinear", "reflection", align_corners=False)[0]
    numbers = torch.from_numpy(np.ascontiguousarray(labels))[None, None].double()
    drawn = functional.grid_sample(numbers, grid, "nearest", "reflection", align_corners=False)[0, 0]
    whole = drawn.numpy().astype(np.int32)
    pieces = connected_components(np.maximum(whole, 0), connectivity=1).astype(np.int32)
    return picture, np.where(whole < 0, -1, pieces)


def seen_part(places: NDArray[np.float64], side: int) -> slice:
    """The part of an axis that places on it are read from, where they are mirrored beyond its ends.

    Parameters
    ----------
    places
        From 0 to ``side`` within the image: pixel i spans ``[i, i + 1)``.

    Examples
    --------
    >>> seen_part(np.array([3.2, 5.0]), 10), seen_part(np.array([-4.5, 1.0]), 10), seen_part(np.array([11.0]), 10)
    (slice(2, 6, None), slice(0, 6, None), slice(8, 10, None))
    """
    low, high = math.floor(places.min()) - 1, math.ceil(places.max()) + 1
    if low >= 0 and high <= side:
        return slice(low, high)
    if high <= side:
        return slice(0, min(side, max(high, -low)))
    if low >= 0:
        return slice(max(0, min(low, 2 * side - high)), side)
    return slice(0, side)


def _zoom(labels: NDArray[np.int32], how: Augmentation, rng: Rng) -> float:
    if how.zoom_range is not None:
        return float(2 ** rng.uniform(*np.log2(how.zoom_range)))
    present = diameters(np.maximum(labels, 0))
    now = float(np.median(present)) if present.size else how.diameter
    if rng.random() < how.wide_p:
        low, high = np.log2(how.wide_range)
        wanted = 2 ** rng.uniform(low, high)
    else:
        wanted = how.diameter * 2 ** (how.diameter_octaves * rng.standard_normal())
    return float(np.clip(wanted / now, 1 / 8, 8))


def _places(
    shape: tuple[int, ...], crop: int, zoom: float, how: Augmentation, rng: Rng
) -> NDArray[np.float64]:
    """Where each pixel of the view comes from, ``(crop, crop, 2)``: down and across, pixel i spans ``[i, i + 1)``."""
    angle = rng.uniform(0, 2 * np.pi)
    if not how.turn:
        angle = np.pi * (angle > np.pi)  # half a turn and a flip along one axis are a flip along the other
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    squeeze = np.exp(rng.uniform(-how.stretch, how.stretch))
    shape_change = np.array([[squeeze, rng.uniform(-how.shear, how.shear)], [0, 1 / squeeze]])
    flip = np.diag([rng.choice([-1, 1]), 1])
    matrix = rotation @ shape_change @ flip / zoom
    reach = np.minimum(np.array(shape) / 2, crop / 2 / zoom)
    centre = rng.uniform(reach, np.array(shape) - reach)
    axis = np.arange(crop) + 0.5 - crop / 2
    down, right = axis[:, None], axis[None, :]
    if rng.random() < how.elastic_p:
        field = _smooth_field(crop, rng)
        down, right = down + field[0], right + field[1]
    if chosen(how.piecewise_p, rng):
        count = int(rng.integers(4, 9))
        cell = crop / (count - 1)
        nodes = rng.uniform(-1, 1, (count, count, 2)) * cell * rng.uniform(0.05, 0.2)
        shift = piecewise_affine_shift(nodes, crop)
        down, right = down + shift[..., 0], right + shift[..., 1]
    if chosen(how.perspective_p, rng):
        offsets = np.stack(np.broadcast_arrays(down, right), -1)
        offsets = tilted(offsets, rng.uniform(-0.2, 0.2, 2) / (crop / 2))
        down, right = offsets[..., 0], offsets[..., 1]
    return np.stack([matrix[axis, 0] * down + matrix[axis, 1] * right + centre[axis] for axis in (0, 1)], -1)


def _smooth_field(crop: int, rng: Rng) -> NDArray[np.float32]:
    """Shifts down and right, ``(2, crop, crop)``."""
    knots = int(rng.integers(4, 9))
    amplitude = rng.uniform(0.05, 0.2) * crop / knots
    coarse = torch.from_numpy((rng.standard_normal((1, 2, knots, knots)) * amplitude).astype(np.float32))
    field: NDArray[np.float32] = functional.interpolate(
        coarse, (crop, crop), mode="bicubic", align_corners=True
    )[0].numpy()
    return field


def piecewise_affine_shift(nodes: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """The shift of each pixel of a square that is cut into triangles, linear within each triangle.

    Parameters
    ----------
    nodes
        ``(K, K, 2)`` shifts, in pixels, of a regular grid of nodes that spans the square. Less than a quarter of the
        distance between nodes along each axis, so that no triangle turns over and nothing is folded.
    side
        Pixels along a side of the square.

    Returns
    -------
    ``(side, side, 2)``.

    Examples
    --------
    >>> piecewise_affine_shift(np.array([[[0.0, 0], [0, 4]], [[0, 0], [0, 4]]]), 4)[0, :, 1].tolist()
    [0.5, 1.5, 2.5, 3.5]
    """
    cells = len(nodes) - 1
    place = (np.arange(side) + 0.5) / side * cells
    cell = np.minimum(place.astype(int), cells - 1)
    down, right = np.meshgrid(place - cell, place - cell, indexing="ij")
    at = {(y, x): nodes[np.ix_(cell + y, cell + x)] for y in (0, 1) for x in (0, 1)}
    upper = (down + right <= 1)[..., None]
    from_corner = np.where(upper, at[0, 0], at[1, 1])
    vertical = np.where(upper, at[1, 0], at[0, 1]) - from_corner
    horizontal = np.where(upper, at[0, 1], at[1, 0]) - from_corner
    down, right = np.where(upper[..., 0], down, 1 - down), np.where(upper[..., 0], right, 1 - right)
    shift: NDArray[np.float64] = from_corner + down[..., None] * vertical + right[..., None] * horizontal
    return shift


def tilted(offsets: NDArray[np.float64], tilt: NDArray[np.float64]) -> NDArray[np.float64]:
    """A plane seen in perspective: offsets ``(..., 2)`` from the centre over one plus their product with ``tilt``.

    Straight lines stay straight. ``tilt`` is in 1/pixels; the divisor must be positive everywhere.
    """
    seen: NDArray[np.float64] = offsets / (1 + offsets @ tilt)[..., None]
    return seen
