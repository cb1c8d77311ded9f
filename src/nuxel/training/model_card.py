"""The card of a trained network, and how far the network looks."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from nuxel import __version__
from nuxel.errors import NuxelError
from nuxel.predict.card import ModelCard
from nuxel.training.recipe import Recipe

INPUT = "uint8 RGB stretched over the whole image's percentiles, divided by 255, (1, 3, H, W)"


def make_card(recipe: Recipe, network: Any) -> ModelCard:
    """Everything that predicting with ``network`` needs to know.

    Whether the network is local or global is found from the network itself. The answer of a global one, such as
    one with squeeze-and-excitation, depends on the window: it runs at one size, that of its training views if the
    recipe names no other, and has no reach. One that detects is global: it ranks all proposals of a window.

    Raises
    ------
    NuxelError
        If the network is local and yet looks too far to be tiled.
    """
    system, about = recipe.system, recipe.about
    reach = measure_reach(network, system.stride) if system.most is None else None
    return ModelCard(
        title=about.title or system.name,
        system=system.name,
        decoder=system.decoder,
        decoder_rule=asdict(system.decoder_rule),
        maps=system.maps,
        stride=system.stride,
        reach=reach or 0,
        context="global" if reach is None else "local",
        window=(recipe.schedule.window or recipe.schedule.crop) if reach is None else None,
        most=system.most,
        diameters=system.diameters,
        input=INPUT,
        training_data=about.training_data,
        licence=about.licence,
        nuxel_version=__version__,
    )


def measure_reach(network: nn.Module, stride: int) -> int | None:
    """How far the network looks, in pixels: the greatest distance of an input pixel from a block of ``stride`` x
    ``stride`` output pixels (aligned with the strides, as tiles are) that depends on it.

    Found from the gradient of a copy whose weights are random and all positive, so that no path can cancel another.
    Where a network standardises its weights they have either sign, so activations let negative values through, too.
    None if it looks at the whole, however large: if one end of an image of 64 strides depends on the other.

    Raises
    ------
    NuxelError
        If the network looks further than 32 strides without looking at the whole, or its answer depends on nothing.
    """
    probe = copy.deepcopy(network).double().cpu().eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in probe.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                # small, so that no clipped activation saturates
                part.weight.uniform_(0.2, 0.8, generator=rng).div_(part.weight[0].numel())
                if part.bias is not None:
                    part.bias.fill_(0)
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                nn.init.ones_(part.weight)
                nn.init.zeros_(part.bias)
            if isinstance(part, nn.MaxPool2d):
                part.register_forward_hook(_mean_instead)
            if isinstance(part, _CLIPPING):
                part.inplace = False
                part.register_forward_hook(_leak)
            for name, parameter in part.named_parameters(recurse=False):
                if name not in (
                    "weight",
                    "bias",
                ):  # gains, some of which begin at zero and hide what they scale
                    parameter.uniform_(0.2, 0.8, generator=rng)
    reach = 0
    for axis in (2, 3):
        along = _reach_along(probe, stride, axis)
        if along is None:
            return None
        reach = max(reach, along)
    return reach


_CLIPPING = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid)


def _leak(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + 0.1 * inputs[0]


def _mean_instead(pool: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """The mean over the windows of a max pooling: where all are equal, the maximum has a gradient in one pixel only."""
    assert isinstance(pool, nn.MaxPool2d)
    (image,) = inputs
    kernel = [d * (k - 1) + 1 for k, d in zip(_pair(pool.kernel_size), _pair(pool.dilation), strict=True)]
    step, padding = _pair(pool.stride), []
    for axis in (1, 0):  # torch's order: columns first
        total = (output.shape[2 + axis] - 1) * step[axis] + kernel[axis] - image.shape[2 + axis]
        first = max(_pair(pool.padding)[axis], total // 2)
        padding += [first, total - first]
    return nn.functional.avg_pool2d(nn.functional.pad(image, padding), kernel, step)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else value


def _reach_along(probe: nn.Module, stride: int, axis: int) -> int | None:
    """The reach along one axis, found on a narrow image: one stride wide, long enough to hold the reach."""
    length = 64 * stride
    first, after = length // 2, length // 2 + stride
    seen = _seen(probe, stride, axis, slice(first, after))
    if not seen:
        raise NuxelError(
            "the network's answer depends on no pixel: its parts cannot be probed, choose another encoder"
        )
    if seen[0] > 0 and seen[-1] < length - 1:
        return max(first - seen[0], seen[-1] - after + 1)
    if _seen(probe, stride, axis, slice(0, stride))[-1] == length - 1:
        return None
    raise NuxelError(
        f"the network looks further than {first} pixels, too far for tiles: choose a shallower encoder, or less depth"
    )


def _seen(probe: nn.Module, stride: int, axis: int, block: slice) -> list[int]:
    """Rows (columns) of an image of 64 strides on which the rows (columns) ``block`` of the answer depend."""
    shape = [1, 3, stride, stride]
    shape[axis] = 64 * stride
    image = torch.empty(shape, dtype=torch.float64).uniform_(
        0.5, 1, generator=torch.Generator().manual_seed(1)
    )
    image.requires_grad_()
    with torch.enable_grad():
        answer = probe(image).movedim(axis, 0)[block].sum()
    (gradient,) = torch.autograd.grad(answer, image)
    seen = torch.nonzero(gradient.abs().movedim(axis, 0).flatten(1).sum(1)).flatten()
    return [int(place) for place in seen]
