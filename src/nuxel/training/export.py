"""From a run folder to one self-describing ONNX file."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from nuxel import __version__
from nuxel.errors import NuxelError
from nuxel.predict.card import METADATA_KEY, ModelCard
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import make_recipe

_OPSET = 17
INPUT = "uint8 RGB stretched over the whole image's percentiles, divided by 255, (1, 3, H, W)"


class _Exported(nn.Module):
    """The network as the file holds it: images in ``[0, 1]`` in, probabilities out."""

    def __init__(self, module: TrainingModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> Tensor:
        return self.module(image)  # type: ignore[no-any-return]


def load_run(run: Path) -> TrainingModule:
    """The trained module of a run folder, with averaged weights, in evaluation mode.

    Raises
    ------
    NuxelError
        If the folder holds no finished epoch.
    """
    checkpoint = run / "checkpoints" / "last.ckpt"
    record = run / "recipe.json"
    if not checkpoint.is_file() or not record.is_file():
        raise NuxelError(f"{run}: no run with a finished epoch (expected {record.name} and checkpoints/{checkpoint.name})")
    raw = json.loads(record.read_text(encoding="utf-8"))
    raw.setdefault("network", {})["weights"] = "none"
    module = TrainingModule(make_recipe(raw, str(record)))
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    return module.eval()


def export_run(run: Path, out: Path, *, decoder_rule: Mapping[str, float] | None = None, scores: Mapping[str, float] | None = None) -> ModelCard:
    """Write the model of a run to ``out`` and return its card."""
    return export_module(load_run(run), out, decoder_rule=decoder_rule or {}, scores=scores or {})


def export_module(module: TrainingModule, out: Path, *, decoder_rule: Mapping[str, float], scores: Mapping[str, float]) -> ModelCard:
    """Write a trained module as ONNX with its card in the metadata."""
    recipe = module.recipe
    network: Any = module.network
    about = recipe.about
    card = ModelCard(
        title=about.title or recipe.system.name,
        system=recipe.system.name,
        decoder=recipe.system.decoder,
        decoder_rule=dict(decoder_rule),
        maps=recipe.system.maps,
        stride=network.stride,
        reach=measure_reach(network, network.stride),
        context=recipe.system.context,
        diameters=recipe.system.diameters,
        input=INPUT,
        training_data=about.training_data,
        licence=about.licence,
        nuxel_version=__version__,
        scores=dict(scores),
    )
    graph = _graph(module, network.stride)
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, card.to_json()
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, out)
    return card


def _graph(module: TrainingModule, stride: int) -> onnx.ModelProto:
    """The ONNX graph with free height and width.

    The tracing exporter is used because its graphs keep batch normalisation foldable into the convolutions, and because
    it also exports detection networks.
    """
    # A parameter's memory layout is no part of the model; the exporter wants it contiguous.
    exported = _Exported(copy.deepcopy(module)).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    buffer = io.BytesIO()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            exported,
            (torch.zeros(1, 3, 4 * stride, 4 * stride),),
            buffer,
            input_names=["image"],
            output_names=["maps"],
            dynamic_axes={"image": {2: "height", 3: "width"}, "maps": {2: "height", 3: "width"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    quiet.setLevel(level)
    return onnx.load_from_string(buffer.getvalue())


def measure_reach(network: nn.Module, stride: int) -> int:
    """How far an output pixel looks: the greatest distance of an input pixel that it depends on, in pixels.

    Found from the gradient of a copy whose weights are all positive, so that no path can cancel another.
    """
    probe = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for part in probe.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.fill_(0.5 / part.weight[0].numel())  # small, so that no clipped activation saturates
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
    probe(image).movedim(axis, 0)[first:after].sum().backward()
    assert image.grad is not None
    seen = torch.nonzero(image.grad.abs().movedim(axis, 0).flatten(1).sum(1)).flatten()
    return max(first - int(seen[0]), int(seen[-1]) - after + 1)
