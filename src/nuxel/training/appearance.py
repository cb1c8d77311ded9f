"""Changes of how a view looks, its geometry untouched: light, stains, what lies between nuclei, sharpness, noise.

Source: multi-head U-Net paper, section 5.1 (channel shuffle) and section 8, future work (blur, Gaussian noise, pixel
dropout, emboss, brightness and contrast); the paper gives no sizes. Stains, shading, inversion, holes, resolution and
compression go beyond it.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as v2

from nuxel.training.augment import Augmentation, Rng, chosen


def random_appearance(picture: Tensor, labels: Tensor, how: Augmentation, rng: Rng) -> Tensor:
    """Change stain, light, sharpness and noise of ``(3, H, W)`` in ``[0, 1]``; the geometry stays."""
    if rng.random() < how.nucleus_contrast_p:
        picture = _nucleus_contrast(picture, labels, rng)
    if chosen(how.holes_p, rng):
        picture = with_holes(picture, labels.numpy(), rng)
    picture = _random_stain(picture, how, rng)
    if rng.random() < how.light_p:
        gamma = float(np.exp(rng.normal(0, 0.35)))
        gain, shift = rng.uniform(0.6, 1.15), rng.uniform(-0.1, 0.15)
        picture = picture.clamp(0, 1) ** gamma * gain + shift
    if rng.random() < how.shading_p:
        picture = _shading(picture, rng)
    if rng.random() < how.invert_p:
        picture = 1 - picture
    return _random_sharpness(picture.clamp(0, 1), how, rng).clamp(0, 1).contiguous()


def _nucleus_contrast(picture: Tensor, labels: Tensor, rng: Rng) -> Tensor:
    """Some nuclei fade into their surroundings: stains differ between nuclei more than a few laboratories show."""
    inside = labels > 0
    if not inside.any() or inside.all():
        return picture
    background = picture[:, ~inside].median(1).values[:, None, None]
    weakest = rng.uniform(0.25, 0.8)
    strength = torch.from_numpy(rng.uniform(weakest, 1.1, int(labels.max()) + 1).astype(np.float32))
    strength[0] = 1
    factor = _blurred(strength[labels.clamp(min=0).long()][None], 1.0, 2)
    return background + (picture - background) * factor


def _random_stain(picture: Tensor, how: Augmentation, rng: Rng) -> Tensor:
    grey = bool((picture[0] - picture[1]).abs().max() < 0.02 and (picture[0] - picture[2]).abs().max() < 0.02)
    if grey:
        if rng.random() < how.tint_p:
            gains = rng.uniform(0, 1, 3)
            gains[rng.integers(3)] = 1
            picture = picture * torch.from_numpy(gains.astype(np.float32))[:, None, None]
        return picture
    if chosen(how.restain_p, rng):
        picture = restained(picture, rng)
    elif chosen(how.concentration_p, rng):
        picture = _other_concentrations(picture, rng)
    if rng.random() < how.stain_p:
        powers = torch.from_numpy(np.exp(rng.normal(0, 0.25, 3)).astype(np.float32))[:, None, None]
        picture = picture.clamp(0, 1) ** powers
        picture = v2.adjust_hue(picture, float(rng.uniform(-0.06, 0.06)))
        picture = v2.adjust_saturation(picture, float(rng.uniform(0.5, 1.5)))
    if rng.random() < how.shuffle_p:
        picture = picture[torch.from_numpy(rng.permutation(3))]
    if rng.random() < how.grey_p:
        weights = torch.from_numpy(rng.dirichlet([1, 1, 1]).astype(np.float32))[:, None, None]
        picture = (picture * weights).sum(0, keepdim=True).expand(3, -1, -1)
    return picture


_UNMIXED, _MIXED = (torch.from_numpy(m.T.astype(np.float32)) for m in (hed_from_rgb, rgb_from_hed))

NUCLEAR_DYES = ((0.650, 0.704, 0.286), (0.820, 0.530, 0.220))
"""Haematoxylin as in Ruifrok and Johnston 2001, and a bluer one: optical densities for red, green and blue light."""

COUNTERSTAINS = ((0.072, 0.990, 0.105), (0.268, 0.570, 0.776), (0.214, 0.851, 0.478))
"""Eosin, DAB and fast red: optical densities for red, green and blue light (Ruifrok and Johnston 2001)."""


def _other_concentrations(picture: Tensor, rng: Rng) -> Tensor:
    """More or less of each stain: the optical densities of ``(3, H, W)``, unmixed, scaled, shifted and mixed again."""
    scale = torch.from_numpy(np.exp(rng.normal(0, 0.3, (3, 1))).astype(np.float32))
    shift = torch.from_numpy(rng.normal(0, 0.03, (3, 1)).astype(np.float32))
    density = -picture.clamp(1 / 256, 1).log().reshape(3, -1)
    stains = (_UNMIXED @ density) * scale + shift
    return (-(_MIXED @ stains)).exp().clamp(0, 1).reshape(picture.shape)


def restained(picture: Tensor, rng: Rng) -> Tensor:
    """Another protocol: haematoxylin paler or darker, and next to no counterstain or far too much, in another dye.

    Haematoxylin is told from all else by colour deconvolution (Ruifrok and Johnston 2001); both are shown in dyes
    drawn from :data:`NUCLEAR_DYES` and :data:`COUNTERSTAINS`, colours slightly off. In half of the views some places
    hold less of the counterstain than others. Where it is strong, nuclei may be brighter than what surrounds them, as
    in immunohistochemistry, and colour alone tells them.

    Parameters
    ----------
    picture
        ``(3, H, W)`` float32 in ``[0, 1]``, of a stained section.

    Returns
    -------
    ``(3, H, W)`` float32 in ``[0, 1]``.
    """
    shape = picture.shape
    density = -picture.clamp(1 / 256, 1).log().reshape(3, -1)
    nuclear, eosin, rest = (_UNMIXED @ density).clamp(min=0).reshape(shape)
    counter = eosin + rest
    if rng.random() < 0.5:
        coarse = torch.from_numpy(rng.uniform(0, 1, (1, 1, 4, 4)).astype(np.float32))
        field = functional.interpolate(coarse, shape[1:], mode="bicubic", align_corners=True)[0, 0]
        counter = counter * field.clamp(0, 1)
    strengths = np.exp([rng.uniform(*np.log((0.35, 1.3))), rng.uniform(*np.log((0.15, 5.0)))])
    mixed = torch.zeros_like(picture)
    for amount, dyes, own, strength in zip(
        (nuclear, counter), (NUCLEAR_DYES, COUNTERSTAINS), (0, 1), strengths, strict=True
    ):
        dye = np.array(dyes[rng.integers(len(dyes))]) * np.exp(rng.normal(0, 0.15, 3))
        length = float(_MIXED[:, own].norm()) * strength / np.linalg.norm(dye)
        mixed += amount * torch.from_numpy((dye * length).astype(np.float32))[:, None, None]
    return (-mixed).exp()


def with_holes(picture: Tensor, labels: NDArray[np.int32], rng: Rng) -> Tensor:
    """Round patches without tissue, as empty as the ground can be: lumens, vacuoles, fat, bubbles.

    They are as large as nuclei and have sharp edges, so that a network that knows bright nuclei on a dark ground
    takes them for such; they lie beside nuclei, never on them.

    Parameters
    ----------
    picture
        ``(3, H, W)`` float32 in ``[0, 1]``.
    labels
        ``(H, W)``; positive one nucleus each.

    Returns
    -------
    ``(3, H, W)`` float32 in ``[0, 1]``; the picture itself where nuclei are no darker and no brighter than the rest.
    """
    inside = labels > 0
    if not inside.any() or inside.all():
        return picture
    ground, nuclei = (float(picture[:, torch.from_numpy(where)].median()) for where in (~inside, inside))
    if abs(ground - nuclei) < 0.03:
        return picture
    height, width = labels.shape
    typical = math.sqrt(inside.sum() / max(1, len(np.unique(labels[inside]))) / math.pi)
    down, right = np.mgrid[:height, :width]
    empty = np.zeros(labels.shape, np.float32)
    for _ in range(int(rng.integers(1, 13))):
        radius = typical * np.exp(rng.uniform(*np.log((0.4, 2.5))))
        y, x, angle = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, np.pi)
        along = (down - y) * np.cos(angle) + (right - x) * np.sin(angle)
        across = (right - x) * np.cos(angle) - (down - y) * np.sin(angle)
        squeeze = np.exp(rng.uniform(0, 0.35))
        distance = np.hypot(along / squeeze, across * squeeze)
        empty = np.maximum(empty, (distance < radius) * np.float32(rng.uniform(0.6, 1)))
    empty = ndimage.gaussian_filter(empty, rng.uniform(0.5, 1.5)) * ~inside
    flat = picture.reshape(3, -1)
    extreme = flat.quantile(0.99 if ground > nuclei else 0.01, dim=1)
    colour = extreme + float(rng.random()) * (float(ground > nuclei) - extreme)
    share = torch.from_numpy(empty.astype(np.float32))
    return picture * (1 - share) + colour[:, None, None] * share


def _shading(picture: Tensor, rng: Rng) -> Tensor:
    """Uneven illumination: a smooth field times, or on top of, the picture."""
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 3, 3)).astype(np.float32))
    field = functional.interpolate(coarse, picture.shape[1:], mode="bicubic", align_corners=True)[0]
    strength = rng.uniform(0.1, 0.4)
    return picture * (1 + strength * field) if rng.random() < 0.5 else picture + 0.5 * strength * field


def _random_sharpness(picture: Tensor, how: Augmentation, rng: Rng) -> Tensor:
    height, width = picture.shape[1:]
    if rng.random() < how.blur_p:
        sigma = float(np.exp(rng.uniform(np.log(0.4), np.log(2.5))))
        blurred = _blurred(picture, sigma, math.ceil(2 * sigma))
        sharpen = rng.random() < 0.3
        picture = picture + (picture - blurred) * float(rng.uniform(0.3, 1)) if sharpen else blurred
    if rng.random() < how.resolution_p:
        part = rng.uniform(0.4, 0.8)
        small = functional.interpolate(picture[None], scale_factor=part, mode="area")
        picture = functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0]
    if chosen(how.emboss_p, rng):
        picture = embossed(picture, rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2))
    if rng.random() < how.noise_p:
        picture = picture + _noise(picture, rng)
    if chosen(how.dropout_p, rng):
        channels = 1 if rng.random() < 0.5 else 3
        lost = rng.random((channels, height, width)) < rng.uniform(0.01, 0.1)
        picture = picture * torch.from_numpy(~lost)
    if chosen(how.compression_p, rng):
        picture = compressed(picture, int(rng.integers(20, 90)))
    return picture


def compressed(picture: Tensor, quality: int) -> Tensor:
    """What JPEG at this quality (1 to 95) leaves of ``(3, H, W)`` in ``[0, 1]``."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(stored))).permute(2, 0, 1).float() / 255


def _blurred(picture: Tensor, sigma: float, radius: int) -> Tensor:
    """A Gaussian blur of ``(C, H, W)``, mirrored at the edge."""
    sigmas, radii = (0, sigma, sigma), (0, radius, radius)
    return torch.from_numpy(ndimage.gaussian_filter(picture.numpy(), sigmas, mode="mirror", radius=radii))


def embossed(picture: Tensor, angle: float, strength: float) -> Tensor:
    """A relief lit from ``angle``: ``strength`` times the slope in that direction on top of ``(C, H, W)``."""
    around = functional.pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    down = (around[:, 2:, 1:-1] - around[:, :-2, 1:-1]) / 2
    right = (around[:, 1:-1, 2:] - around[:, 1:-1, :-2]) / 2
    return picture + strength * (math.sin(angle) * down + math.cos(angle) * right)


def _noise(picture: Tensor, rng: Rng) -> Tensor:
    """Noise of a camera: constant and signal-dependent parts, the same in all channels or not, sharp or blurred."""
    channels = 1 if rng.random() < 0.5 else 3
    noise = torch.from_numpy(rng.standard_normal((channels, *picture.shape[1:]), np.float32))
    if rng.random() < 0.3:
        noise = _blurred(noise, 0.8, 1) * 2
    spread = float(np.exp(rng.uniform(np.log(0.01), np.log(0.12))))
    signal = picture.clamp(0, 1).sqrt() if rng.random() < 0.5 else torch.ones(())
    return spread * signal * noise
