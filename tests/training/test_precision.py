"""Mixed precision: what it leaves in float32, and that every system learns in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nuxel.training.module import TrainingModule
from nuxel.training.precision import GroupedConvolutionsInFull, resolve_precision
from nuxel.training.recipe import SYSTEMS, make_recipe

_NARROW = {
    "width": 8,
    "box_head": 16,
    "mask_head": [8],
    "weights": "none",
}
NETWORKS: dict[str, dict[str, Any]] = {
    "multihead_unet": {"network": {"weights": "none"}},
    "attention_mask_rcnn": {"network": _NARROW},
    "partial_mask_rcnn": {"network": {**_NARROW, "attention": 4}},
    "fcn8s": {"network": {"width": 0.05, "fc_channels": 8, "weights": "none"}},
    "us_net": {"network": {"widths": [8] * 7}},
}


def test_only_auto_depends_on_the_machine() -> None:
    assert [resolve_precision(name) for name in ("32-true", "16-mixed", "bf16-mixed")] == [
        "32-true",
        "16-mixed",
        "bf16-mixed",
    ]
    assert resolve_precision("auto") in ("32-true", "bf16-mixed")


def test_auto_is_full_without_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert resolve_precision("auto") == "32-true"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    assert resolve_precision("auto") == "32-true"


@pytest.mark.parametrize("hardware", ["amx_bf16", "avx512_bf16"])
def test_auto_is_mixed_with_the_hardware(hardware: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {hardware: True})
    assert resolve_precision("auto") == "bf16-mixed"


def test_convolutions_in_groups_are_those_of_full_precision() -> None:
    torch.manual_seed(0)
    depthwise, dense = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3)
    x = torch.randn(1, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16), GroupedConvolutionsInFull():
        of_groups, of_all = depthwise(x.bfloat16()), dense(x)
        by_name = nn.functional.conv2d(x, depthwise.weight, groups=8)
    assert of_groups.dtype == by_name.dtype == torch.float32
    assert torch.equal(of_groups, depthwise(x.bfloat16().float()))
    assert of_all.dtype == torch.bfloat16


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_learns_in_it_and_answers_in_float32(name: str) -> None:
    torch.manual_seed(0)
    recipe = make_recipe({"system": name, **NETWORKS[name]})
    module = TrainingModule(recipe)
    labels = np.zeros((2, 128, 128), np.int32)
    labels[:, 10:40, 20:55], labels[:, 60:100, 60:90] = 1, 2
    images = torch.rand(2, 3, 128, 128)
    targets = torch.from_numpy(np.stack([recipe.system.draw_targets(one) for one in labels])).float()
    losses = {}
    for mixed in (False, True):
        torch.manual_seed(0)
        module.zero_grad()
        module.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed), GroupedConvolutionsInFull():
            parts = recipe.system.compute_loss(module.network, images, targets, torch.ones(2, 1, 128, 128))
        parts["loss"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
        losses[mixed] = {part: float(value.detach()) for part, value in parts.items()}
    assert losses[True]["loss"] == pytest.approx(losses[False]["loss"], rel=0.1)
    module.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answer = module(images[:1])
    assert all(
        one.dtype == torch.float32 for one in ([answer] if isinstance(answer, torch.Tensor) else answer)
    )
