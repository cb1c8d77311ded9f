"""Training that starts from a model file, whose normalisations have been folded away."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nuxel.cli.main import main
from nuxel.errors import NuxelError, UsageError
from nuxel.image.normalise import normalise
from nuxel.image.read import read_image
from nuxel.nn.inception_se import InceptionSEUpBlock
from nuxel.nn.multihead_unet import ConcatUpBlock
from nuxel.predict.model import Model, model_path
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.training import graph
from nuxel.training import train as training
from nuxel.training.export import export_module, load_run
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import make_recipe, read_recipe
from nuxel.training.start import start_from
from nuxel.training.validate import TorchNetwork

PLAIN = {"encoder": "plain", "depth": 2, "encoder_widths": [4, 6, 8]}
NETWORKS: dict[str, dict[str, Any]] = {
    "lite0": {"depth": 3, "widths": [8, 8], "convolutions": [2, 1]},
    "plain": {**PLAIN, "decoder": "concat", "widths": [6, 4], "activation": "selu", "padding": "mirror"},
    "inception_se": {**PLAIN, "decoder": "inception_se", "widths": [8, 4], "heads": ["nucleus"]},
}


def module(network: dict[str, Any], seed: int = 0) -> TrainingModule:
    """Random weights, and statistics of batch normalisation that are not 0 and 1."""
    torch.manual_seed(seed)
    raw = {
        "system": "multihead_unet",
        "network": {"weights": "none", **network},
        "decoder_rule": {"split": "none"},
        "schedule": {"crop": 32},
    }
    built = TrainingModule(make_recipe(raw)).train()
    with torch.no_grad():
        for part in built.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.3, 0.3)
        for _ in range(3):
            built(torch.rand(2, 3, 32, 32))
    return built


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> dict[str, Any]:
    return NETWORKS[request.param]


@pytest.fixture
def model(network: dict[str, Any], tmp_path: Path) -> Path:
    export_module(module(network), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_weights_of_half_the_size(
    network: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are computed with as before, answer nearly the same, and can be started from."""
    monkeypatch.setattr(graph, "_LARGE", 8)
    built, views = module(network), torch.rand(2, 3, 32, 32)
    for half in (False, True):
        export_module(built, tmp_path / f"{half}.onnx", half=half)
    window = (views[0].permute(1, 2, 0) * 255).byte().numpy()
    whole, halved = (Model(tmp_path / f"{half}.onnx")(window) for half in (False, True))
    assert 0 < np.abs(halved - whole).max() < 0.01
    stored = [
        sum(len(one.raw_data) for one in onnx.load(tmp_path / f"{half}.onnx").graph.initializer)
        for half in (False, True)
    ]
    assert stored[1] < 0.6 * stored[0]
    started = module(network, seed=1)
    start_from(started, str(tmp_path / "True.onnx"), [views])
    found = answer(started.eval(), torch.from_numpy(window).permute(2, 0, 1)[None] / 255)
    assert np.allclose(found[0], halved, atol=1e-4)


def answer(of: TrainingModule, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return of(images)


def test_it_answers_as_the_model_does(network: dict[str, Any], model: Path) -> None:
    started = module(network, seed=1)
    window = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
    images = torch.from_numpy(window).permute(2, 0, 1)[None] / 255
    before = np.abs(answer(started.eval(), images)[0].numpy() - Model(model)(window)).max()
    start_from(started, str(model), [torch.rand(2, 3, 32, 32) for _ in range(2)])
    after = np.abs(answer(started.eval(), images)[0].numpy() - Model(model)(window)).max()
    assert after < 1e-4 < 0.01 < before


def test_normalisations_have_the_statistics_of_the_views(network: dict[str, Any], model: Path) -> None:
    """But those that exporting does not fold, after transposed convolutions: they keep their own."""
    started, views = module(network, seed=1), torch.rand(4, 3, 32, 32) ** 2
    start_from(started, str(model), [views])
    assert started.training
    kept = [
        block.up[1] for block in started.modules() if isinstance(block, ConcatUpBlock | InceptionSEUpBlock)
    ]
    norms = {part: [] for part in started.modules() if isinstance(part, nn.BatchNorm2d) and part not in kept}
    for norm, seen in norms.items():
        norm.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
    answer(started.eval(), views)
    assert norms
    for norm, (values,) in norms.items():
        assert torch.allclose(norm.running_mean, values.mean((0, 2, 3)), atol=1e-4)
        assert torch.allclose(norm.running_var, values.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-5)


def test_weights_have_the_size_of_fresh_ones(tmp_path: Path) -> None:
    """Where a normalisation takes it out again: otherwise the learning rate would mean another thing in each layer.

    Of an additive block that is the sum of two convolutions, each channel by itself.
    """
    built = module(NETWORKS["lite0"])
    with torch.no_grad():
        for part in built.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.mul_(torch.logspace(-1, 0, part.num_features))
    export_module(built, tmp_path / "model.onnx")
    started = module(NETWORKS["lite0"], seed=1)
    fresh = {name: value.clone() for name, value in started.named_parameters()}
    start_from(started, str(tmp_path / "model.onnx"), [torch.rand(2, 3, 32, 32)])
    joined, alone = [], []
    for name, value in started.named_parameters():
        if name.endswith("skip.weight"):
            joined.append([name, name.replace("skip", "coarse")])
        elif value.ndim == 4 and "coarse" not in name and "head" not in name:
            alone.append([name])
    assert len(joined) == 2
    assert len(alone) > 10
    for names in joined + alone:
        now = sum(started.get_parameter(name).square().sum((1, 2, 3)) for name in names)
        then = sum(fresh[name].square().sum() / len(fresh[name]) for name in names)
        assert torch.allclose(now, then.expand_as(now), rtol=1e-3), names


def test_a_channel_that_is_switched_off_stays_off(tmp_path: Path) -> None:
    """Its weights in the file are zeros, which no factor makes as large as fresh ones."""
    built, views = module(NETWORKS["lite0"]), torch.rand(2, 3, 32, 32)
    norms = [part for part in built.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight[0] = 0
    export_module(built, tmp_path / "model.onnx")
    started = module(NETWORKS["lite0"], seed=1)
    start_from(started, str(tmp_path / "model.onnx"), [views])
    assert all(value.isfinite().all() for value in started.state_dict().values())
    assert torch.allclose(answer(started.eval(), views), answer(built.eval(), views), atol=1e-4)


def test_statistics_are_those_of_all_batches(tmp_path: Path) -> None:
    export_module(module(NETWORKS["plain"]), tmp_path / "model.onnx")
    views = [torch.rand(2, 3, 32, 32) * scale for scale in (0.3, 1.0)]
    apart, together = module(NETWORKS["plain"], 1), module(NETWORKS["plain"], 1)
    start_from(apart, str(tmp_path / "model.onnx"), views)
    start_from(together, str(tmp_path / "model.onnx"), [torch.cat(views)])
    for name, value in apart.state_dict().items():
        assert torch.allclose(value, together.state_dict()[name], atol=1e-5), name


def test_a_run_starts_from_a_file(recipe_file: Path, tmp_path: Path) -> None:
    def train(out: str, *more: str) -> int:
        quick = [f"--set=schedule.{key}" for key in ("epochs=1", "steps_per_epoch=1", "validate_every=5")]
        return main(["train", str(recipe_file), "--out", str(tmp_path / out), *quick, *more])

    assert train("first") == 0
    assert main(["export-model", str(tmp_path / "first"), "--out", str(tmp_path / "model.onnx")]) == 0
    still = ["--set=seed=9", *(f"--set=schedule.{key}=0" for key in ("encoder_rate", "decoder_rate"))]
    assert (
        train("second", *still, "--set=schedule.weight_decay=0", "--init", str(tmp_path / "model.onnx")) == 0
    )
    model, run = Model(tmp_path / "model.onnx"), load_run(tmp_path / "second")
    head = run.network.head.conv.bias  # no normalisation follows it, so that it is as it was
    assert torch.equal(head, load_run(tmp_path / "first").network.head.conv.bias)
    assert run.recipe.init == str(tmp_path / "model.onnx")
    assert model.card.maps == run.card.maps


def test_a_run_measures_on_the_first_views(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_: TrainingModule, init: str, views: Iterable[torch.Tensor]) -> None:
        batches = list(views)
        assert [batch.shape for batch in batches] == [(2, 3, 32, 32)] * 8
        assert len(torch.unique(torch.cat(batches).flatten(1), dim=0)) == 16
        raise NuxelError(f"seen, from {init}")

    monkeypatch.setattr(training, "start_from", look)
    recipe = read_recipe(recipe_file, ["init=somewhere.onnx"])
    with pytest.raises(NuxelError, match=r"seen, from somewhere.onnx"):
        training.train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_shipped_model_starts_its_own_recipe() -> None:
    path = Path(__file__).parents[2] / "recipes" / "default.toml"
    recipe = read_recipe(path, ["network.weights=none"])
    views = torch.rand(2, 3, 64, 64)
    started = TrainingModule(recipe)
    start_from(started, "default", [views])
    window = (views[1].permute(1, 2, 0) * 255).byte()
    found = answer(started.eval(), window.permute(2, 0, 1)[None] / 255)
    assert np.allclose(found[0], Model(model_path("default"))(window.numpy()), atol=1e-3)


class TestRefused:
    @pytest.mark.parametrize(
        "changes",
        [{"widths": [8, 4]}, {"encoder_widths": [4, 6, 10]}, {"heads": ["nucleus", "shrunk", "touching"]},
         {"activation": "relu"}],
    )  # fmt: skip
    def test_another_network(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        export_module(module(NETWORKS["plain"]), tmp_path / "model.onnx")
        other = module({**NETWORKS["plain"], **changes})
        with pytest.raises(NuxelError, match="its weights do not fit the recipe's network"):
            start_from(other, str(tmp_path / "model.onnx"), [torch.rand(2, 3, 32, 32)])

    def test_the_same_shapes_for_other_maps(self, tmp_path: Path) -> None:
        heads = [{"heads": ["nucleus", other]} for other in ("shrunk", "touching")]
        one, other = ({**NETWORKS["plain"], **change} for change in heads)
        export_module(module(one), tmp_path / "model.onnx")
        with pytest.raises(NuxelError, match="its weights do not fit the recipe's network"):
            start_from(module(other), str(tmp_path / "model.onnx"), [torch.rand(2, 3, 32, 32)])

    @pytest.mark.parametrize("encoder", ["densenet121", "nf_regnet_b0"])
    def test_an_encoder_whose_weights_cannot_be_told_from_the_file(
        self, tmp_path: Path, encoder: str
    ) -> None:
        built = module({"encoder": encoder, "depth": 2, "widths": [4]})
        export_module(built, tmp_path / "model.onnx")
        with pytest.raises(NuxelError, match="not every weight of its encoder can be told from the file"):
            start_from(built, str(tmp_path / "model.onnx"), [torch.rand(2, 3, 32, 32)])

    def test_a_network_that_has_no_plain_order_of_convolutions(self, tmp_path: Path) -> None:
        export_module(module(NETWORKS["plain"]), tmp_path / "model.onnx")
        recipe = make_recipe({"system": "fcn8s", "network": {"weights": "none"}})
        with pytest.raises(NuxelError, match="a multihead_unet model file cannot be the start of a fcn8s"):
            start_from(TrainingModule(recipe), str(tmp_path / "model.onnx"), [torch.rand(2, 3, 32, 32)])

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such model"):
            start_from(module(NETWORKS["plain"]), str(tmp_path / "gone.onnx"), [])

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("text")
        with pytest.raises(NuxelError, match=r"text.onnx: not an ONNX model"):
            start_from(module(NETWORKS["plain"]), str(tmp_path / "text.onnx"), [])


def test_torch_finds_the_same_nuclei_with_the_shipped_weights() -> None:
    """As stored in the file, on real images: answers within 1e-4, at most one pixel in 100,000 different."""
    root = Path(__file__).parents[2]
    module = TrainingModule(read_recipe(root / "recipes" / "default.toml", ["network.weights=none"]))
    shipped = Model(model_path("default"), threads=1)
    images = [normalise(read_image(path).pixels) for path in sorted((root / "examples").glob("*.png"))]
    view = torch.from_numpy(images[0][:128, :128].transpose(2, 0, 1)[None] / np.float32(255))
    start_from(module, "default", [view])
    network = TorchNetwork(module.eval(), shipped.card)
    different = total = 0
    for image in images:
        window = image[: image.shape[0] // 16 * 16, : image.shape[1] // 16 * 16]
        assert np.abs(network(window) - shipped(window)).max() < 1e-4
        mine, theirs = (segment_normalised(image, one, Options()).nuclei for one in (network, shipped))
        assert len(mine) == len(theirs) > 5
        different += np.count_nonzero(mine.labels != theirs.labels)
        total += mine.labels.size
    assert different <= total / 100_000
