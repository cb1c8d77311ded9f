"""FCN-8s as a system: its target, its losses, its model file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nuxel.errors import UsageError
from nuxel.losses.segmentation import cross_entropy, soft_dice
from nuxel.nn.fcn8s import FCN8s
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.training.export import export_module
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import make_recipe
from nuxel.training.validate import TorchNetwork


def recipe(**loss: float) -> Any:
    network = {"width": 0.125, "fc_channels": 16, "weights": "none"}
    return make_recipe({"system": "fcn8s", "network": network, "loss": loss, "schedule": {"crop": 64}})


def test_the_target_is_the_foreground() -> None:
    labels = np.array([[0, 1, 2], [-1, 0, 2]], np.int32)
    assert recipe().system.draw_targets(labels).tolist() == [[[0, 1, 1], [0, 0, 1]]]


def test_the_loss_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    annotated = (torch.rand(2, 1, 8, 8) > 0.2).float()
    found = recipe(cross_entropy=2, soft_dice=0.5).system.compute_loss(
        nn.Identity(), logits, targets, annotated
    )
    assert found["cross_entropy"].item() == pytest.approx(
        2 * cross_entropy(logits, targets, annotated).item()
    )
    assert found["soft_dice"].item() == pytest.approx(0.5 * soft_dice(logits, targets, annotated).item())
    assert found["loss"].item() == pytest.approx(found["cross_entropy"].item() + found["soft_dice"].item())
    assert set(recipe().system.compute_loss(nn.Identity(), logits, targets, annotated)) == {
        "cross_entropy",
        "loss",
    }


@pytest.mark.parametrize("loss", [{"cross_entropy": 0.0}, {"soft_dice": -1.0}, {"soft_dice": float("inf")}])
def test_weights_that_cannot_be(loss: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"must be finite and not negative|all weights of losses are 0"):
        recipe(**loss)


def test_every_parameter_is_in_one_group() -> None:
    system = recipe().system
    network = system.build()
    assert isinstance(network, FCN8s)
    groups = system.parameter_groups(network)
    numbers = [id(p) for group in groups.values() for p in group]
    assert tuple(groups) == system.parts
    assert len(set(numbers)) == len(numbers) == len(list(network.parameters()))


def test_the_model_file_finds_what_torch_finds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = TrainingModule(recipe()).eval()
    card = export_module(trained, tmp_path / "m.onnx")
    assert (card.context, card.decoder, card.maps, card.stride) == ("local", "opening", ("nucleus",), 32)
    assert (
        150 < card.reach < 320
    )  # half of VGG16's receptive field with fc6, 404 pixels, and the deconvolutions'
    model = Model(tmp_path / "m.onnx", threads=1)
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8)
    expected = TorchNetwork(trained, card)(image)
    assert np.abs(model(image) - expected).max() < 1e-4
    labels = segment_normalised(image, model, Options(threshold=0.4)).nuclei.labels
    assert labels.shape == (96, 160)


def test_tiles_change_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    export_module(TrainingModule(recipe()).eval(), tmp_path / "m.onnx")
    model = Model(tmp_path / "m.onnx", threads=1)
    image = np.random.default_rng(0).integers(0, 256, (420, 520, 3)).astype(np.uint8)
    whole, tiled = (
        segment_normalised(image, model, Options(threshold=0.48, tile_size=size)).nuclei.labels
        for size in (None, 64)
    )
    assert np.count_nonzero((whole > 0) != (tiled > 0)) <= whole.size / 10_000
