"""From a run folder to one self-describing ONNX file."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor

from nuxel.data.dataset import find_annotated
from nuxel.decode.detections import DetectionRule
from nuxel.errors import NuxelError, UsageError
from nuxel.export.atomic import replacing
from nuxel.names import RUN_RECIPE
from nuxel.nn.multihead_unet import UpBlock
from nuxel.predict.card import METADATA_KEY, ModelCard
from nuxel.predict.model import Model
from nuxel.training.graph import fold_padding, halve_weights, name_sizes
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import SYSTEMS, Recipe, make_recipe
from nuxel.training.stages import find_stages
from nuxel.training.tune import tune_decoder

LAST = "last.ckpt"
"""The checkpoint of a run's last finished epoch."""
_OPSET = 17


def load_run(run: Path) -> TrainingModule:
    """The trained module of a run folder, with averaged weights, in evaluation mode.

    Raises
    ------
    UsageError
        If the folder holds no finished epoch.
    NuxelError
        If its checkpoint is damaged or does not fit its recipe.
    """
    checkpoint = run / "checkpoints" / LAST
    record = run / RUN_RECIPE
    if not checkpoint.is_file() or not record.is_file():
        raise UsageError(
            f"{run}: no run with a finished epoch (expected {record.name} and checkpoints/{checkpoint.name})"
        )
    module = TrainingModule(read_record(record))
    weights = read_weights(checkpoint)
    try:
        module.load_state_dict(weights)
    except RuntimeError:
        raise NuxelError(f"{checkpoint}: the checkpoint does not fit its recipe, {record}") from None
    return module.eval()


def read_record(record: Path) -> Recipe:
    """The recipe of a run, but without weights to start from: those of its checkpoint are all that is needed.

    Raises
    ------
    NuxelError
        If it is damaged.
    """
    try:
        raw = json.loads(record.read_text(encoding="utf-8"))
        kind = SYSTEMS.get(raw["system"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NuxelError(f"{record}: the recipe of the run is damaged ({type(error).__name__})") from None
    if kind and hasattr(kind().network, "weights"):
        raw["network"] = {**raw.get("network", {}), "weights": "none"}
    return make_recipe(raw, str(record))


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, the averaged ones where weights are averaged.

    Raises
    ------
    NuxelError
        If it is damaged.
    """
    try:
        weights: dict[str, Tensor] = torch.load(checkpoint, map_location="cpu", weights_only=True)[
            "state_dict"
        ]
    except Exception as error:  # bytes that are no checkpoint raise anything
        raise NuxelError(f"{checkpoint}: the checkpoint is damaged ({type(error).__name__})") from None
    return weights


def export_run(run: Path, out: Path, *, tune: bool = False, half: bool = False) -> ModelCard:
    """Write the model of a run to ``out`` and return its card.

    With ``tune`` the decoder's parameters are chosen on the recipe's validation images (see
    :mod:`nuxel.training.tune`), and the card records their score. With ``half`` weights are stored as 16-bit floats.

    Raises
    ------
    UsageError
        If the run has no finished epoch, there is nothing to tune on, or ``out`` is there and no model file.
    NuxelError
        If the checkpoint, the validation images or ``out`` cannot be used.
    """
    module = load_run(run)
    _refuse_other_file(out)
    annotated = [item for source in module.recipe.data.val for item in find_annotated(source)] if tune else []
    if tune and not annotated:
        raise UsageError(
            f"{run}: its recipe names no [[data.val]] images to choose the decoder's parameters on"
        )
    if not tune:
        return export_module(module, out, half=half)
    _make_folder_of(out)
    with tempfile.TemporaryDirectory() as folder:  # what stands at ``out`` stays until all has gone well
        untuned = Path(folder) / "model.onnx"
        card = export_module(module, untuned, half=half)
        rule, score = tune_decoder(Model(untuned), annotated)
        graph = onnx.load(untuned)
    card = dataclasses.replace(
        card, decoder_rule=dataclasses.asdict(rule), scores={"val mAP": round(score, 4)}
    )
    for entry in graph.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = card.to_json()
    with replacing(out) as part:
        part.write_bytes(graph.SerializeToString())
    return card


def _refuse_other_file(out: Path) -> None:
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name the model file to write")
    if not out.is_file():
        return
    try:
        Model(out, threads=1, device="cpu")
    except NuxelError:
        raise UsageError(
            f"{out}: exists already, and is no model file of nuxel; choose another name"
        ) from None


def _make_folder_of(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NuxelError(f"{out.parent}: the folder cannot be made ({error.strerror})") from None


def export_module(
    module: TrainingModule, out: Path, scores: Mapping[str, float] | None = None, *, half: bool = False
) -> ModelCard:
    """Write a trained module as ONNX with its card, which also records ``scores``, in the metadata."""
    card = dataclasses.replace(module.card, scores=dict(scores or {}))
    graph = _graph(module, card)
    if card.context == "local":
        card = dataclasses.replace(card, stages=find_stages(graph))
    if half:
        halve_weights(graph)
    entry = graph.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, card.to_json()
    _make_folder_of(out)
    with replacing(out) as part:
        part.write_bytes(graph.SerializeToString())
    return card


def _graph(module: TrainingModule, card: ModelCard) -> onnx.ModelProto:
    """The ONNX graph with free height and width, or of the one window that a network which detects runs at.

    The tracing exporter is used because it folds batch normalisation into the convolutions, and because it also
    exports detection networks.
    """
    # A parameter's memory layout is no part of the model; the exporter wants it contiguous.
    exported = copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)
    for part in exported.modules():
        if isinstance(part, UpBlock):
            part.fold_norm()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        path = Path(folder) / "graph.onnx"
        warnings.simplefilter("ignore")
        detects = card.most is not None
        side = card.window if detects and card.window else 4 * card.stride
        free = {2: "height", 3: "width"}
        torch.onnx.export(
            exported,
            (torch.zeros(1, 3, side, side),),
            path,
            input_names=["image"],
            output_names=list(card.maps) if detects else ["maps"],
            dynamic_axes=_numbers_of_nuclei(card) if detects else {"image": free, "maps": free},
            opset_version=_OPSET,
            dynamo=False,
        )
        quiet.setLevel(level)
        graph = fold_padding(onnx.load(path))
        return graph if detects else name_sizes(graph, card.stride)


def _numbers_of_nuclei(card: ModelCard) -> dict[str, dict[int, str]]:
    return {name: {0: "nuclei"} for name in DetectionRule().maps if name in card.maps}
