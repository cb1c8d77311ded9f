"""The card of a trained network, and how far the network looks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from nuxel import __version__
from nuxel.errors import NuxelError
from nuxel.predict.card import ModelCard
from nuxel.training.recipe import Recipe

INPUT = "uint8 RGB stretched over the whole image's percentiles, divided by 255, (1, 3, H, W)"


def make_card(recipe: Recipe, network: Any, scores: Mapping[str, float] | None = None) -> ModelCard:
    """Everything that predicting with ``network`` needs to know."""
    system, about = recipe.system, recipe.about
    return ModelCard(
        title=about.title or system.name,
        system=system.name,
        decoder=system.decoder,
        decoder_rule=asdict(system.decoder_rule),
        maps=system.maps,
        stride=network.stride,
        reach=measure_reach(network, network.stride),
        context=system.context,
        diameters=system.diameters,
        input=INPUT,
        training_data=about.training_data,
        licence=about.licence,
        nuxel_version=__version__,
        scores=dict(scores or {}),
    )


def measure_reach(network: nn.Module, stride: int) -> int:
    """How far the network looks, in pixels: the greatest distance of an input pixel from a block of ``stride`` x
    ``stride`` output pixels (aligned with the strides, as tiles are) that depends on it.

    Found from the gradient of a copy whose weights are all positive, so that no path can cancel another.

    Raises
    ------
    NuxelError
        If the network looks at the whole of an image of 64 strides.
    """
    probe = copy.deepcopy(network).double().cpu().eval()
    with torch.no_grad():
        for part in probe.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.fill_(
                    0.5 / part.weight[0].numel()
                )  # small, so that no clipped activation saturates
                if part.bias is not None:
                    part.bias.fill_(0)
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)
    return max(_reach_along(probe, stride, axis) for axis in (2, 3))


def _reach_along(probe: nn.Module, stride: int, axis: int) -> int:
    """The reach along one axis, found on a narrow image: one stride wide, long enough to hold the reach."""
    length = 64 * stride
    shape = [1, 3, stride, stride]
    shape[axis] = length
    image = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    first, after = length // 2, length // 2 + stride
    with torch.enable_grad():
        answer = probe(image).movedim(axis, 0)[first:after].sum()
    (gradient,) = torch.autograd.grad(answer, image)
    seen = torch.nonzero(gradient.abs().movedim(axis, 0).flatten(1).sum(1)).flatten()
    if int(seen[0]) == 0 or int(seen[-1]) == length - 1:
        raise NuxelError(
            f"the network looks further than {first} pixels, or at the whole image (as squeeze-and-excitation does): "
            "its answer would depend on the tiling; choose an encoder without global operations, or less depth"
        )
    return max(first - int(seen[0]), int(seen[-1]) - after + 1)
