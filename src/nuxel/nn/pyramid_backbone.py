"""Backbones of feature pyramids: torchvision's ResNets and any encoder of timm, with or without pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from nuxel.errors import NuxelError
from nuxel.nn.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder, load_imagenet_weights, read_state

_RESNETS = ("resnet*", "resnext*", "wide_resnet*")
_MASK_RCNN = "backbone.body."


class PyramidBackbone(nn.Module):
    """``(N, 3, H, W)`` in ``[0, 1]`` -> ``[C2, C3, C4, C5]``, the maps at strides 4, 8, 16 and 32.

    C1 is left out, "due to its large memory footprint" (attention paper, section V). H and W are multiples of 32; the
    maps are then exactly input / stride. The image is normalised here, by what the weights expect.

    Attributes
    ----------
    channels, strides
        Of each map, finest first.

    Parameters
    ----------
    name
        A ResNet or ResNeXt by torchvision's name, such as ``"resnet50"`` or ``"resnext101_64x4d"``, which is then
        torchvision's; or any encoder of timm that :class:`~nuxel.nn.encoder.Encoder` takes with five levels.
    weights
        ``"none"``: drawn at random. ``"imagenet"``: the first ImageNet weights that torchvision publishes, from which
        its own detectors start; for an encoder of timm, those that are bundled. ``"coco"``: the backbone of
        torchvision's Mask R-CNN, for ``"resnet50"``. Anything else is the path of a local file (a state dict,
        safetensors or ``torch.save``) with the keys of the classifier, or for a ResNet also with those of a Mask R-CNN
        of torchvision's (``backbone.body.*``). What torchvision publishes is fetched once and kept in PyTorch's cache.
    frozen_norm
        Batch normalisation becomes a constant scale and offset (:class:`torchvision.ops.FrozenBatchNorm2d`), with the
        statistics and the affine parameters of the weights. It has a point only where the weights are pretrained: at
        once, or loaded from a checkpoint afterwards.

    Raises
    ------
    NuxelError
        If there is no such backbone, or its weights cannot be had or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str = "none", frozen_norm: bool = False) -> None:
        super().__init__()
        mean: tuple[float, ...] = IMAGENET_MEAN
        std: tuple[float, ...] = IMAGENET_STD
        self.strides = [4, 8, 16, 32]
        if name in torchvision.models.list_models(module=torchvision.models, include=_RESNETS):
            self.body, self.channels = _resnet_body(name)
            if weights != "none":
                _load_resnet(self.body, name, weights)
        else:
            encoder = Encoder(name, 5)
            if weights == "coco":
                raise _no_coco(name)
            if weights != "none":
                load_imagenet_weights(encoder, name, None if weights == "imagenet" else weights)
            self.body, self.channels = encoder, encoder.channels[1:]
            mean, std = encoder.mean, encoder.std
        if frozen_norm:
            freeze_batch_norm_2d(self.body)  # type: ignore[no-untyped-call]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._stages = self._split()

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: Any = self.body((images - self.mean) / self.std)
        return list(maps.values()) if isinstance(maps, dict) else maps[1:]

    def stages(self) -> dict[str, list[nn.Module]]:
        """The modules that hold weights, for training in stages: ``stem`` up to C3, ``top`` for C4 and C5.

        To hold a stage still, set ``requires_grad_(False)`` on its modules, and ``eval()`` where batch normalisation
        is not frozen: its statistics move with ``train()``.
        """
        return {stage: list(modules) for stage, modules in self._stages.items()}

    def _split(self) -> dict[str, list[nn.Module]]:
        """Split by what C3 depends on, which holds for every layout of modules that a backbone may have."""
        weights = list(self.parameters())
        self.eval()
        with torch.enable_grad():
            c3 = self(torch.zeros(1, 3, 64, 64))[1]
            found = torch.autograd.grad(c3.sum(), weights, allow_unused=True)
        self.train()
        used = {id(weight) for weight, slope in zip(weights, found, strict=True) if slope is not None}
        stages: dict[str, list[nn.Module]] = {"stem": [], "top": []}
        for module in self.modules():
            own = [id(weight) for weight in module.parameters(recurse=False)]
            if own:
                stages["stem" if used.intersection(own) else "top"].append(module)
        return stages


def _resnet_body(name: str) -> tuple[nn.Module, list[int]]:
    resnet: Any = torchvision.models.get_model(name)
    layers = {f"layer{number}": f"C{number + 1}" for number in range(1, 5)}
    return IntermediateLayerGetter(resnet, layers), [resnet.inplanes >> shift for shift in (3, 2, 1, 0)]


def _load_resnet(body: nn.Module, name: str, weights: str) -> None:
    where = ""
    if weights == "imagenet":
        state = _published(torchvision.models.get_model_weights(name)["IMAGENET1K_V1"])
    elif weights == "coco":
        if name != "resnet50":
            raise _no_coco(name)
        state = _published(MaskRCNN_ResNet50_FPN_Weights.COCO_V1)
    else:
        state = read_state(Path(weights))
        where = f"{weights}: "
    prefix = _MASK_RCNN if any(key.startswith(_MASK_RCNN) for key in state) else ""
    given = _needed({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    own = _needed(body.state_dict())
    # The shallower ResNets' keys are among the deeper ones', so keys that are left over count too.
    unfit = sorted(
        key
        for key in own.keys() | given.keys()
        if key not in own or key not in given or own[key].shape != given[key].shape
    )
    if unfit:
        raise NuxelError(
            f"{where}the weights do not fit {name}: {len(unfit)} keys are missing, left over or of another shape, "
            f"first {unfit[:3]}; the first of its own are {sorted(state)[:3]}"
        )
    body.load_state_dict(given, strict=False)


def _needed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """All but the classifier, and but the counters, which frozen normalisation and old files lack and nothing reads."""
    return {
        k: v for k, v in state.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")
    }


def _published(weights: Any) -> dict[str, Tensor]:
    """The state dict of torchvision's published weights."""
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise NuxelError(
            f"the weights {weights} cannot be fetched from {weights.url} ({error}); give a local file"
        ) from None
    return state


def _no_coco(name: str) -> NuxelError:
    return NuxelError(f"there are COCO weights for resnet50, and none for {name}; give a local file")
