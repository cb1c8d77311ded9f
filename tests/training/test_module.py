"""Stages: what is frozen stays, what is not learns, and a killed run goes on in the next one unharmed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from nuxel.cli.main import main
from nuxel.training.module import TrainingModule, train_all_but
from nuxel.training.recipe import make_recipe, read_recipe

STAGES = """
optimiser = "adam"
weight_decay = 0
policy = "step"
factor = 0.5
every = 1
decoder_rate = 2e-2

[[schedule.stages]]
epochs = 2
freeze = ["encoder"]

[[schedule.stages]]
epochs = 2
encoder_rate = 1e-3
decoder_rate = 1e-3
"""

# Runs the command in a process that kills itself in training step N.
KILLED = """
import os, signal, sys
from nuxel.cli.main import main
from nuxel.training.module import TrainingModule

step = TrainingModule.training_step
def step_or_die(self, *args):
    if self.global_step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args)
TrainingModule.training_step = step_or_die
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def staged(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe with two stages of two epochs of two steps, without validation."""
    text = recipe_file.read_text(encoding="utf-8")
    before, validation, rest = text.partition("[[data.val]]")
    network = validation + rest
    tables = network[network.index("[network]") :].replace("epochs = 4\n", "")
    tables = tables.replace("widths = [8, 8, 8]", "depth = 2\nwidths = [8]")
    path = tmp_path_factory.mktemp("staged") / "staged.toml"
    path.write_text(before + tables + STAGES, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def unbroken(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main(["train", str(staged), "--out", str(out)]) == 0
    return out


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def killed(step: int, recipe: Path, out: Path, *more: str) -> None:
    command = [sys.executable, "-c", KILLED, str(step), "train", str(recipe), "--out", str(out), *more]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def initial(recipe: Path) -> dict[str, torch.Tensor]:
    read = read_recipe(recipe)
    pl.seed_everything(read.seed, workers=False, verbose=False)
    return TrainingModule(read).state_dict()


def test_a_run_killed_between_stages_ends_like_an_unbroken_one(
    staged: Path, unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    killed(5, staged, run)
    first = checkpoint(run)
    assert first["epoch"] == 1  # the last of the first stage

    started = initial(staged)
    for name, value in first["current_model_state"].items():
        if "num_batches_tracked" not in name:
            assert torch.equal(value, started[name]) == name.startswith("network.encoder."), name
    for name, value in first["state_dict"].items():
        if name.startswith("network.encoder."):  # the average of equal weights, up to rounding
            torch.testing.assert_close(value, started[name], rtol=1e-6, atol=1e-9)

    assert main(["train", str(staged), "--out", str(run), "--resume"]) == 0
    found, expected = checkpoint(run), checkpoint(unbroken)
    assert found["global_step"] == expected["global_step"] == 8
    for kind in ("state_dict", "current_model_state"):
        assert all(torch.equal(found[kind][name], value) for name, value in expected[kind].items())
    moments, others = (c["optimizer_states"][0]["state"] for c in (found, expected))
    assert moments.keys() == others.keys()
    for number, state in others.items():
        assert all(torch.equal(moments[number][name], value) for name, value in state.items())
    assert found["lr_schedulers"] == expected["lr_schedulers"]
    assert (run / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()

    changed = [n for n, v in found["current_model_state"].items() if not torch.equal(v, started[n])]
    assert any(name.startswith("network.encoder.") and name.endswith("weight") for name in changed)
    assert any(name.startswith("network.encoder.") and name.endswith("running_mean") for name in changed)


def test_rates_follow_the_schedule_in_training(unbroken: Path) -> None:
    state = checkpoint(unbroken)
    rates = [group["lr"] for group in state["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx([1e-3 * 0.5**2, 1e-3 * 0.5**2])  # the step after the last


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_the_optimiser_is_the_one_asked_for(name: str, kind: type) -> None:
    recipe = make_recipe(
        {
            "system": "multihead_unet",
            "network": {"weights": "none", "widths": [8, 8, 8]},
            "schedule": {"optimiser": name, "weight_decay": 0.25, "warmup_steps": 1},
        }
    )
    module = TrainingModule(recipe)
    optimiser = module.configure_optimizers()["optimizer"]
    assert type(optimiser) is kind
    encoder, decoder = optimiser.param_groups
    assert (encoder["lr"], decoder["lr"]) == (5e-4 / 2, 2e-3 / 2)
    assert {encoder["weight_decay"], decoder["weight_decay"]} == {0.25}
    everything = {id(p) for p in module.parameters()}
    assert {id(p) for group in optimiser.param_groups for p in group["params"]} == everything


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.9))
        self.second = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(self.first(images))
        return found


class TestFreezing:
    def test_frozen_weights_and_statistics_stay(self) -> None:
        network = Halves()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        train_all_but(network, network.first.parameters())
        optimiser = torch.optim.AdamW(network.parameters(), 0.1)
        for _ in range(2):
            network(torch.randn(4, 1, 3, 3)).square().sum().backward()
            optimiser.step()
        for name, value in network.state_dict().items():
            if "num_batches_tracked" not in name and name != "second.0.bias":  # the mean takes the bias away
                assert torch.equal(value, before[name]) == name.startswith("first."), name

    def test_a_frozen_part_answers_as_in_evaluation(self) -> None:
        network = Halves()
        train_all_but(network, network.first.parameters())
        images = torch.randn(4, 1, 3, 3)
        assert torch.equal(network.first(images), network.first.eval()(images))

    def test_thawing_undoes_it(self) -> None:
        network = Halves()
        train_all_but(network, network.first.parameters())
        train_all_but(network, [])
        assert all(part.training for part in network.modules())
        assert all(parameter.requires_grad for parameter in network.parameters())

    def test_what_is_shared_with_trained_parts_keeps_training(self) -> None:
        network = Halves()
        train_all_but(network, network.first[0].parameters())
        assert not network.first[0].training
        assert network.training
        assert network.first.training
        assert network.first[1].training
