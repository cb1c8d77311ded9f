"""Every network of the family leaves the training half as the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from nuxel.predict.card import METADATA_KEY, read_card
from nuxel.training.export import export_module
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import make_recipe

PLAIN = {
    "encoder": "plain",
    "depth": 2,
    "encoder_widths": [4, 6, 8],
    "activation": "selu",
    "padding": "mirror",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {**PLAIN, "decoder": "concat", "widths": [6, 4]},
    "plain-inception_se": {**PLAIN, "padding": "zero", "decoder": "inception_se", "widths": [8, 4]},
    "xception-inception_se": {
        "encoder": "legacy_xception", "depth": 2, "decoder": "inception_se", "widths": [8, 4], "activation": "elu",
    },
    "lite0": {"depth": 3, "widths": [8, 8], "convolutions": [2, 1]},
    "lite0-one-head": {"depth": 2, "widths": [4], "heads": ["nucleus"]},
}  # fmt: skip


def module(network: dict[str, Any]) -> TrainingModule:
    """Random weights and, as after training, statistics of batch normalisation that are not 0 and 1."""
    torch.manual_seed(0)
    raw = {
        "system": "multihead_unet",
        "network": {"weights": "none", **network},
        "decoder_rule": {"split": "none"},
        "schedule": {"crop": 32},
    }
    built = TrainingModule(make_recipe(raw))
    built.train()
    with torch.no_grad():
        for _ in range(3):
            built(torch.rand(2, 3, 32, 32))
    return built.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_gives_torchs_answer(name: str, tmp_path: Path) -> None:
    trained = module(NETWORKS[name])
    path = tmp_path / "model.onnx"
    card = export_module(trained, path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for height, width in ((32, 32), (24, 40)):
        image = rng.random((1, 3, height, width), np.float32)
        (found,) = session.run(None, {"image": image})
        with torch.no_grad():
            expected = trained(torch.from_numpy(image)).numpy()
        assert found.shape == (1, len(card.maps), height, width)
        assert np.abs(found - expected).max() < 1e-4
        assert expected.std() > 1e-3

    is_global = "inception_se" in name
    assert (card.context, card.window) == (("global", 32) if is_global else ("local", None))
    (entry,) = onnx.load(path).metadata_props
    assert entry.key == METADATA_KEY
    assert read_card(entry.value, "model") == card
