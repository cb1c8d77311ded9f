"""US-Net: what it learns from, its two optimisers, and that its model file finds the same nuclei."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.ops import box_iou

from nuxel.cli.main import main
from nuxel.data.dataset import Source, find_annotated, read_annotated
from nuxel.decode.detections import Detections, decode_detections
from nuxel.errors import UsageError
from nuxel.instances import Instances
from nuxel.labels.read import read_labels
from nuxel.labels.relabel import relabel
from nuxel.nn.ssd import best_boxes, encode, match
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, look_at, segment_normalised
from nuxel.systems import us_net
from nuxel.systems.us_net import USNet, USNetNetwork, USNetRule, cut, jittered, nuclei_of
from nuxel.training.export import export_module
from nuxel.training.module import Several, TrainingModule
from nuxel.training.recipe import Recipe, make_recipe, read_recipe
from nuxel.training.schedule import Schedule
from nuxel.training.train import train
from nuxel.training.validate import TorchNetwork, Validation

RECIPE = Path(__file__).parents[2] / "recipes" / "us_net" / "us_net.toml"
DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

KINDS: dict[str, dict[str, Any]] = {
    "joint": {},
    "residual": {"block": "residual"},
    "dense": {"block": "dense"},
    "no refinement": {"refinement": False},
    "detection": {"branches": "detection"},
    "segmentation": {"branches": "segmentation"},
}
PARTS = {
    "joint": {"segmentation", "confidence", "location", "refinement"},
    "no refinement": {"segmentation", "confidence", "location"},
    "detection": {"confidence", "location", "refinement"},
    "segmentation": {"segmentation"},
}


def recipe(network: dict[str, Any] | None = None, **tables: Any) -> Recipe:
    raw = {
        "system": "us_net",
        "network": {"widths": [4] * 7, **(network or {})},
        "detection": {"most": 20, "candidates": 60, "box_min_score": 0.0},
        "schedule": {"crop": 70},
    }
    return make_recipe({**raw, **tables})


def module(network: dict[str, Any] | None = None, **tables: Any) -> TrainingModule:
    torch.manual_seed(0)
    return TrainingModule(recipe(network, **tables))


def two_nuclei() -> NDArray[np.int32]:
    labels = np.zeros((70, 70), np.int32)
    labels[10:36, 8:40], labels[50:52, 60:61] = 3, 7
    return labels


def losses(
    trained: TrainingModule, labels: NDArray[np.int32], system: USNet | None = None
) -> dict[str, torch.Tensor]:
    """Of two images that differ, with these labels."""
    used = system or trained.recipe.system
    targets = torch.from_numpy(used.draw_targets(labels))[None].expand(2, -1, -1, -1)
    torch.manual_seed(1)
    images = torch.rand(2, 3, *labels.shape)
    return used.compute_loss(trained.network, images, targets, (targets >= 0).float())


class TestLosses:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_part_learns(self, kind: str) -> None:
        trained = module(KINDS[kind])
        found = losses(trained, two_nuclei())
        assert set(found) == {*PARTS.get(kind, PARTS["joint"]), "loss"}
        assert found["loss"].item() == pytest.approx(sum(v.item() for k, v in found.items() if k != "loss"))
        found["loss"].backward()
        for name, part in trained.network.named_children():
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()), name

    @pytest.mark.parametrize("kind", ["joint", "no refinement", "detection", "segmentation"])
    @pytest.mark.parametrize("label", [0, -1])
    def test_finite_without_nuclei_or_annotation(self, kind: str, label: int) -> None:
        trained = module(KINDS[kind])
        found = losses(trained, np.full((70, 70), label, np.int32))
        found["loss"].backward()
        assert all(torch.isfinite(value) for value in found.values())
        assert all(p.grad.isfinite().all() for p in trained.parameters() if p.grad is not None)
        assert found.get("location", torch.zeros(())).item() == 0
        assert found.get("refinement", torch.zeros(())).item() == 0
        if (
            trained.network.refinement is not None
        ):  # on several devices each needs a gradient of every parameter
            assert all(p.grad is not None for p in trained.network.refinement.parameters())
            assert all(b.isfinite().all() for b in trained.network.refinement.buffers())
        if label == 0:
            assert found["loss"] > 0
        else:
            assert found["loss"].item() == 0

    def test_one_image_of_several_may_be_empty(self) -> None:
        trained = module()
        system = trained.recipe.system
        targets = np.stack([system.draw_targets(labels) for labels in (two_nuclei(), 0 * two_nuclei())])
        found = system.compute_loss(
            trained.network, torch.rand(2, 3, 70, 70), torch.from_numpy(targets), torch.ones(2, 1, 70, 70)
        )
        assert found["refinement"] > 0
        assert all(torch.isfinite(value) for value in found.values())

    def test_it_falls_as_the_prediction_improves(self) -> None:
        """Right answers, put in the place of what the branches give."""
        trained = module({"refinement": False})
        network = trained.network
        assert isinstance(network, USNetNetwork)
        labels = two_nuclei()
        truth = nuclei_of(torch.from_numpy(labels).float())["boxes"]
        boxes = network.default_boxes.around(70, 70)
        matches = match(boxes, truth, 0.5)
        nucleus = matches >= 0
        right = torch.where(nucleus, 1.0, -1.0)
        offsets = torch.zeros(len(boxes), 4)
        offsets[nucleus] = encode(truth[matches[nucleus]], boxes[nucleus])
        drawn = torch.from_numpy(labels > 0).float()[None, None] * 2 - 1
        values = []
        for share in (0.0, 0.3, 0.7, 1.0):
            network.detection.forward = lambda _, share=share: (  # type: ignore[union-attr, method-assign]
                (9 * share * right).expand(2, -1), (share * offsets).expand(2, -1, -1),
            )  # fmt: skip
            network.segmentation.forward = lambda _, share=share: (9 * share * drawn).expand(2, -1, -1, -1)  # type: ignore[union-attr, method-assign]
            values.append(losses(trained, labels)["loss"].item())
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.01

    def test_a_perfect_prediction_is_the_box_of_the_nucleus(self) -> None:
        """What the losses ask for, decoded as prediction decodes it: to the pixel, no half of one off."""
        labels = two_nuclei()
        truth = nuclei_of(torch.from_numpy(labels).float())["boxes"]
        boxes = USNet().build().default_boxes.around(70, 70)
        matches = match(boxes, truth, 0.5)
        nucleus = matches >= 0
        logits = torch.where(nucleus, 9.0, -9.0)
        offsets = torch.zeros(len(boxes), 4)
        offsets[nucleus] = encode(truth[matches[nucleus]], boxes[nucleus])
        found, _ = best_boxes(
            logits, offsets, boxes, (70, 70), candidates=100, min_score=0.5, greatest_iou=0.5, most=9
        )
        expected = Instances(relabel(labels)).boxes[:, [1, 0, 3, 2]]
        assert sorted(found.round(decimals=3).tolist()) == sorted(expected.astype(float).tolist())

    def test_weights_of_the_losses(self) -> None:
        trained = module()
        plain = losses(trained, two_nuclei())
        weights = dataclasses.replace(trained.recipe.system.loss, location=3.0, segmentation=0.0)
        trained.network.loss = weights
        found = losses(trained, two_nuclei())
        assert found["location"].item() == pytest.approx(3 * plain["location"].item(), rel=1e-5)
        assert found["segmentation"].item() == 0
        assert found["confidence"].item() == pytest.approx(plain["confidence"].item(), rel=1e-5)

    def test_beta_is_a_tenth(self) -> None:
        trained = module(loss={"segmentation": 1.0})
        other = module()
        found, plain = losses(trained, two_nuclei()), losses(other, two_nuclei())
        assert plain["segmentation"].item() == pytest.approx(found["segmentation"].item() / 10, rel=1e-5)

    def test_area_weights_only_change_the_confidence(self) -> None:
        """An untrained map gives every pixel to one class, so the other weighs tenfold."""
        trained = module()
        nn.init.constant_(trained.network.segmentation.head.bias, -9)
        with_eta = losses(trained, two_nuclei())
        trained.network.loss = dataclasses.replace(trained.network.loss, area_ratio=False)
        without = losses(trained, two_nuclei())
        assert with_eta["confidence"] > 5 * without["confidence"]
        for name in ("location", "segmentation", "refinement"):
            assert torch.equal(with_eta[name], without[name])

    def test_without_a_map_there_is_no_area(self) -> None:
        of_both = [
            losses(module(KINDS["detection"], loss={"area_ratio": value}), two_nuclei())
            for value in (True, False)
        ]
        assert torch.equal(of_both[0]["confidence"], of_both[1]["confidence"])

    def test_refinement_teaches_nobody_else(self) -> None:
        trained = module()
        losses(trained, two_nuclei())["refinement"].backward()
        taught = {name.split(".")[0] for name, p in trained.network.named_parameters() if p.grad is not None}
        assert taught == {"refinement"}

    def test_nuclei_where_nobody_annotated_are_not_taught_as_background(self) -> None:
        trained = module({"refinement": False})
        labels = two_nuclei()
        labels[:, 42:] = np.where(labels[:, 42:] > 0, labels[:, 42:], -1)
        logits = torch.zeros(2, len(trained.network.default_boxes.around(70, 70)), requires_grad=True)
        trained.network.detection.forward = lambda _: (logits, torch.zeros(*logits.shape, 4))
        losses(trained, labels)["confidence"].backward()
        boxes = trained.network.default_boxes.around(70, 70)
        middle = (boxes[:, 0] + boxes[:, 2]) / 2
        assert logits.grad is not None
        ignored = logits.grad[0] == 0
        assert (middle[ignored] >= 42).all()
        assert 1 <= (~ignored[middle >= 42]).sum() <= 4  # boxes of the nucleus there
        assert (~ignored[middle < 42]).all()

    def test_the_same_step_draws_the_same_patches(self) -> None:
        """What a run draws follows from its seed and the step, so that it can be killed and resumed."""
        trained = module()
        trained.log = trained.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
        targets = torch.from_numpy(trained.recipe.system.draw_targets(two_nuclei()))[None]
        batch = (torch.rand(1, 3, 70, 70), targets, torch.ones_like(targets))
        first = trained.training_step(batch, 0)
        torch.rand(100)
        assert torch.equal(first, trained.training_step(batch, 0))

    def test_one_image_that_is_too_small_to_normalise(self) -> None:
        trained = module()
        for side, count in ((64, 1), (65, 1), (64, 2)):
            arrays = torch.rand(count, 3, side, side), torch.zeros(count, 1, side, side)
            if (side, count) == (64, 1):
                with pytest.raises(UsageError, match="halves its input 6 times"):
                    trained.recipe.system.compute_loss(trained.network, *arrays, torch.ones_like(arrays[1]))
            else:
                trained.recipe.system.compute_loss(trained.network, *arrays, torch.ones_like(arrays[1]))


class TestPatches:
    def test_cells_are_where_the_decoder_expects_them(self) -> None:
        """Of an image of its own coordinates, cell k of 48 shows (k + 0.5) / 48 of the side of the box."""
        y, x = torch.meshgrid(torch.arange(80) + 0.5, torch.arange(90) + 0.5, indexing="ij")
        box = torch.tensor([[20.0, 10, 68, 46]])
        found = cut(torch.stack([y, x])[None], [box])[0]
        cells = (torch.arange(48) + 0.5) / 48
        assert torch.allclose(found[0], (10 + 36 * cells)[:, None].expand(-1, 48), atol=1e-4)
        assert torch.allclose(found[1], (20 + 48 * cells)[None].expand(48, -1), atol=1e-4)

    def test_boxes_are_those_of_their_images(self) -> None:
        maps = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 60, 60)
        boxes = [torch.rand(count, 4) + torch.tensor([5.0, 5, 30, 30]) for count in (2, 0, 1)]
        assert cut(maps, boxes).mean((1, 2, 3)).tolist() == [0, 0, 2]

    def test_jittered_boxes_are_about_as_wrong_as_found_ones(self) -> None:
        torch.manual_seed(0)
        boxes = torch.tensor([[10.0, 20, 40, 90]]).expand(2000, 4)
        found = jittered(boxes)
        ious = box_iou(found, boxes[:1])[:, 0]
        assert ious.min() > 0.45
        assert 0.7 < ious.mean() < 0.85
        shifts = ((found[:, :2] + found[:, 2:]) / 2 - torch.tensor([25.0, 55])) / torch.tensor([30.0, 70])
        assert shifts.abs().max() <= 0.1
        assert shifts.mean(0).abs().max() < 0.01
        assert shifts.std(0).min() > 0.05  # even over the tenth
        stretches = torch.log((found[:, 2:] - found[:, :2]) / torch.tensor([30.0, 70]))
        assert 0.19 < stretches.abs().max() <= 0.2001
        assert jittered(boxes[:0]).shape == (0, 4)

    @needs_data
    def test_true_masks_of_jittered_boxes_give_real_nuclei_back(self) -> None:
        """Cut, as refinement learns them, and pasted, as it is decoded: 1.2 times a box that is a tenth off."""
        labels = read_labels(DATA / "tnbc" / "labels" / "01_1.png")[:300, :300].copy()
        truth = nuclei_of(torch.from_numpy(labels).float())
        torch.manual_seed(0)
        boxes = jittered(truth["boxes"])
        network = USNet().build()
        masks = cut(truth["masks"][:, None].float(), list(network._grown(boxes)[:, None]))[:, 0]
        found = Detections(boxes[:, [1, 0, 3, 2]].numpy(), np.ones(len(boxes), np.float32), masks.numpy())
        nuclei = decode_detections(found, (300, 300), USNetRule(min_area=1))
        best = []
        for number in np.unique(labels[labels > 0]):
            mask = labels == number
            own = np.bincount(nuclei.labels[mask]).argmax()
            best.append((mask & (nuclei.labels == own)).sum() / (mask | (nuclei.labels == own)).sum())
        assert len(best) > 10
        assert np.median(best) > 0.9


class TestLearning:
    def test_three_nuclei_are_learned_by_heart(self) -> None:
        y, x = np.mgrid[:80, :80]
        labels = np.zeros((80, 80), np.int32)
        for number, (row, column, tall, wide) in enumerate(
            ((20, 24, 11, 13), (55, 50, 14, 12), (22, 60, 11, 11)), 1
        ):
            labels[((y - row) / tall) ** 2 + ((x - column) / wide) ** 2 < 1] = number
        noise = np.random.default_rng(0).normal(0, 12, (80, 80, 3))
        colours = np.where(labels[..., None] > 0, (90, 60, 140), (230, 200, 220))
        image = np.clip(colours + noise, 0, 255).astype(np.uint8)
        rates = {
            "encoder_rate": 2e-2,
            "decoder_rate": 3e-3,
            "warmup_steps": 0,
            "factor": 1.0,
            "policy": "step",
        }
        optimisers = {"optimiser": "sgd", "decoder_optimiser": "adam", "weight_decay": 1e-4}
        trained = module({"widths": [8] * 7}, detection={}, schedule={"crop": 80, **rates, **optimisers})
        optimiser = trained.configure_optimizers()["optimizer"]
        turned = [np.rot90(image, k).transpose(2, 0, 1) for k in range(3)]
        images = torch.from_numpy(np.stack(turned).astype(np.float32) / 255)
        targets = torch.from_numpy(np.stack([np.rot90(labels, k)[None] for k in range(3)]).astype(np.float32))
        for _ in range(100):
            found = trained.recipe.system.compute_loss(
                trained.network, images, targets, torch.ones_like(targets)
            )
            optimiser.zero_grad()
            found["loss"].backward()
            optimiser.step()
        trained.eval()
        validation = Validation(TorchNetwork(trained, trained.card))
        validation.add(image, labels)
        scores = validation.scores()
        assert scores["box_AP50"] == 1
        assert scores["mAP"] > 0.7
        assert scores["pixel_accuracy"] > 0.7


class TestParts:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_parameter_is_in_one_group(self, kind: str) -> None:
        trained = module(KINDS[kind])
        groups = trained.recipe.system.parameter_groups(trained.network)
        assert tuple(groups) == trained.recipe.system.parts
        numbers = [id(p) for group in groups.values() for p in group]
        assert len(set(numbers)) == len(numbers) == len(list(trained.network.parameters()))
        assert bool(groups["decoder"]) == (kind != "segmentation")
        trained.configure_optimizers()

    def test_the_base_is_the_unets(self) -> None:
        trained = module()
        unet = {id(p) for p in trained.recipe.system.parameter_groups(trained.network)["unet"]}
        assert {id(p) for p in trained.network.base.parameters()} < unet

    def test_a_stage_can_freeze_all_but_detection_and_refinement(self) -> None:
        stages = [{"epochs": 1}, {"epochs": 1, "freeze": ["unet"]}]
        trained = module(schedule={"crop": 70, "stages": stages})
        assert trained.recipe.schedule.stage_at(1)[0].freeze == ("unet",)


TWO = {
    "optimiser": "sgd",
    "encoder_rate": 1e-2,
    "weight_decay": 1e-2,
    "decoder_optimiser": "adam",
    "decoder_rate": 1e-3,
    "decoder_weight_decay": 0.0,
    "policy": "step",
    "warmup_steps": 2,
    "every": 1,
}


class TestTwoOptimisers:
    def both(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        torch.manual_seed(0)
        first, second = (
            [nn.Parameter(torch.randn(shape)) for shape in shapes] for shapes in (((3, 2), (2,)), ((4,),))
        )
        return first, second

    def together(self, first: list[nn.Parameter], second: list[nn.Parameter]) -> Several:
        sgd = torch.optim.SGD(first, 0.1, momentum=0.9, weight_decay=0.01)
        return Several([sgd, torch.optim.Adam(second, 0.01)])

    def step(self, optimiser: Any, number: int, *parameters: list[nn.Parameter]) -> None:
        for parameter in (p for group in parameters for p in group):
            parameter.grad = torch.cos(parameter.detach() * (number + 1))
        optimiser.step()

    def test_each_steps_as_it_would_alone(self) -> None:
        first, second = self.both()
        optimiser = self.together(first, second)
        alone_first, alone_second = self.both()
        alone = (
            torch.optim.SGD(alone_first, 0.1, momentum=0.9, weight_decay=0.01),
            torch.optim.Adam(alone_second, 0.01),
        )
        for number in range(4):
            self.step(optimiser, number, first, second)
            self.step(alone[0], number, alone_first)
            self.step(alone[1], number, alone_second)
        for one, other in zip((*first, *second), (*alone_first, *alone_second), strict=True):
            assert torch.equal(one, other)

    def test_it_goes_on_from_its_state(self) -> None:
        first, second = self.both()
        optimiser = self.together(first, second)
        for number in range(2):
            self.step(optimiser, number, first, second)
        copies = [[nn.Parameter(p.detach().clone()) for p in group] for group in (first, second)]
        resumed = self.together(*copies)
        resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        for number in range(2, 4):
            for group in (*optimiser.param_groups, *resumed.param_groups):
                group["lr"] *= 0.5
            self.step(optimiser, number, first, second)
            self.step(resumed, number, *copies)
        for one, other in zip((*first, *second), (*copies[0], *copies[1]), strict=True):
            assert torch.equal(one, other)
        assert {"momentum_buffer"} == set(resumed.state[copies[0][0]])
        assert {"step", "exp_avg", "exp_avg_sq"} == set(resumed.state[copies[1][0]])

    def test_a_closure_is_called_once_with_gradients(self) -> None:
        first, second = self.both()
        optimiser, calls = self.together(first, second), []

        def closure() -> float:
            calls.append(torch.is_grad_enabled())
            loss = torch.stack([(p**2).sum() for p in (*first, *second)]).sum()
            optimiser.zero_grad()
            loss.backward()
            return loss.item()

        before = [p.detach().clone() for p in (*first, *second)]
        with torch.no_grad():
            assert optimiser.step(closure) == pytest.approx(
                sum(float((p**2).sum()) for p in before), rel=1e-5
            )
        assert calls == [True]
        assert not any(torch.equal(p, old) for p, old in zip((*first, *second), before, strict=True))

    def test_the_papers_settings(self) -> None:
        trained = TrainingModule(dataclasses.replace(recipe(), schedule=read_recipe(RECIPE).schedule))
        optimiser = trained.configure_optimizers()["optimizer"]
        assert isinstance(optimiser, Several)
        assert [type(one) for one in optimiser.optimisers] == [torch.optim.SGD, torch.optim.Adam]
        unet, detection = optimiser.param_groups
        assert (unet["lr"], unet["momentum"], unet["weight_decay"]) == (1e-4, 0.9, 1e-4)
        assert (detection["lr"], detection["weight_decay"]) == (1e-3, 0)

    def test_one_kind_is_one_plain_optimiser(self) -> None:
        schedule = {"crop": 70, "weight_decay": 0.5, "decoder_weight_decay": 0.0}
        optimiser = module(schedule=schedule).configure_optimizers()["optimizer"]
        assert type(optimiser) is torch.optim.AdamW
        assert [group["weight_decay"] for group in optimiser.param_groups] == [0.5, 0]

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("decoder_optimiser", "lion", "decoder_optimiser must be one of adamw, adam, sgd, got 'lion'"),
            ("decoder_weight_decay", -1.0, "decoder_weight_decay must not be negative"),
        ],
    )
    def test_what_cannot_be(self, key: str, value: Any, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            Schedule(**{key: value})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One noisy image of 80 pixels with two bright discs of 24, and its labels."""
    folder = tmp_path_factory.mktemp("discs")
    y, x = np.mgrid[:80, :80]
    labels = ((y - 25) ** 2 + (x - 25) ** 2 < 144) + 2 * ((y - 50) ** 2 + (x - 58) ** 2 < 144)
    grey = np.where(labels > 0, 190, 30) + np.random.default_rng(0).normal(0, 8, labels.shape)
    for name, array in (
        ("images", np.clip(grey, 0, 255).astype(np.uint8)),
        ("labels", labels.astype(np.uint16)),
    ):
        (folder / name).mkdir()
        Image.fromarray(array).save(folder / name / "a.png")
    return folder


def on_disk(folder: Path) -> Recipe:
    schedule = {"crop": 70, "epochs": 2, "steps_per_epoch": 2, "batch": 2, "validate_every": 2, "workers": 0}
    sources = [{"folder": folder.as_posix()}]
    return recipe(
        schedule={**schedule, **TWO},
        data={"train": sources, "val": sources},
        augmentation={"zoom_range": [1, 1]},
        decoder_rule={"mask_threshold": 0.0},
    )


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    train(on_disk(folder), out)
    return out


class TestRun:
    def test_an_interrupted_run_ends_like_an_unbroken_one(
        self, folder: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step = TrainingModule.training_step

        def fail(self: TrainingModule, *args: Any) -> torch.Tensor:
            if self.global_step == 3:
                raise RuntimeError("power cut")
            return step(self, *args)

        with monkeypatch.context() as broken:
            broken.setattr(TrainingModule, "training_step", fail)
            with pytest.raises(RuntimeError, match="power cut"):
                train(on_disk(folder), tmp_path / "run")
        train(on_disk(folder), tmp_path / "run", resume=True)
        found, expected = (
            torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
            for run in (tmp_path / "run", unbroken)
        )
        assert found["global_step"] == expected["global_step"] == 4
        for kind in ("state_dict", "current_model_state"):
            assert all(torch.equal(found[kind][name], value) for name, value in expected[kind].items())
        ((first,), (second,)) = found["optimizer_states"], expected["optimizer_states"]
        assert first["param_groups"] == second["param_groups"]
        kinds = {frozenset(state) for state in second["state"].values()}
        assert kinds == {frozenset({"momentum_buffer"}), frozenset({"step", "exp_avg", "exp_avg_sq"})}
        for number, state in second["state"].items():
            for name, value in state.items():
                assert torch.equal(torch.as_tensor(first["state"][number][name]), torch.as_tensor(value))
        assert (tmp_path / "run" / "metrics.csv").read_bytes() == (unbroken / "metrics.csv").read_bytes()

    def test_its_log_has_the_papers_curves(self, unbroken: Path) -> None:
        names, *_, last = (unbroken / "metrics.csv").read_text().splitlines()
        row = dict(zip(names.split(","), last.split(","), strict=True))
        wanted = {f"train/{name}" for name in (*PARTS["joint"], "loss")} | {
            "val/box_AP50",
            "val/pixel_accuracy",
        }
        assert wanted <= {name for name, value in row.items() if value}

    def test_the_command_line_from_run_to_nuclei(self, folder: Path, unbroken: Path, tmp_path: Path) -> None:
        """The scores of the boxes are those of the nuclei in the table."""
        model = tmp_path / "m.onnx"
        assert main(["export-model", str(unbroken), "--out", str(model)]) == 0
        given = [
            "--model",
            str(model),
            "--out",
            str(tmp_path / "out"),
            "--threshold",
            "0.001",
            "--threads",
            "1",
        ]
        assert main(["segment", str(folder / "images"), *given]) == 0
        labels = read_labels(tmp_path / "out" / "a_labels.tif")
        header, *rows = (tmp_path / "out" / "a_nuclei.csv").read_text().splitlines()
        assert labels.shape == (80, 80)
        assert len(rows) == labels.max() > 0
        found = [float(row.split(",")[header.split(",").index("score")]) for row in rows]
        image, _ = read_annotated(find_annotated(Source(str(folder)))[0])
        _, seen = look_at(image, Model(model, threads=1), Options())
        boxes = seen.detections.scores
        assert all(np.abs(boxes - score).min() < 1e-5 for score in found)


class TestSizes:
    def labels(self) -> NDArray[np.int32]:
        labels = np.zeros((200, 200), np.int32)
        labels[0:10, 0:12], labels[20:50, 20:50], labels[60:195, 60:200] = 1, 2, 3
        return labels

    def test_nuclei_beyond_the_default_boxes_are_counted_and_reported(self) -> None:
        system = USNet()
        assert [round(value) for value in system.diameters] == [20, 128]
        with pytest.warns(
            UserWarning, match="of 6 nuclei in the training images 2 are smaller than 20 pixels and 2"
        ):
            system.prepare(nn.Identity(), [self.labels(), -1 * self.labels(), self.labels()])

    def test_the_command_says_so_in_one_line(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = f'[[data.train]]\nfolder = "{folder.as_posix()}"\n'
        small = "[network]\nwidths = [4, 4, 4, 4, 4, 4, 4]\nsizes = [50, 60, 107]\n"
        schedule = "[schedule]\nepochs = 1\nsteps_per_epoch = 1\nbatch = 2\ncrop = 70\nworkers = 0\n"
        (tmp_path / "r.toml").write_text(f'system = "us_net"\n{source}{small}{schedule}')
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert main(["train", str(tmp_path / "r.toml"), "--out", str(tmp_path / "run")]) == 0
        said = capsys.readouterr().err.splitlines()
        assert [line.split(":")[0] for line in said] == ["nuxel train"]
        assert "of 2 nuclei in the training images 2 are smaller than 40 pixels and 0 larger" in said[0]

    def test_nothing_is_said_if_all_is_well(self) -> None:
        fine = np.where(self.labels() == 2, 1, 0).astype(np.int32)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            USNet().prepare(nn.Identity(), [fine, 0 * fine])

    def test_a_map_knows_no_sizes(self) -> None:
        recipe(KINDS["segmentation"]).system.prepare(nn.Identity(), [self.labels()])

    def test_they_are_learned_from_all_the_same(self) -> None:
        trained = module({"refinement": False})
        tiny = np.zeros((70, 70), np.int32)
        tiny[30:33, 40:43] = 1
        assert losses(trained, tiny)["location"] > 0

    @needs_data
    def test_default_boxes_span_the_nuclei_of_histology(self) -> None:
        """Of 300 x 300 pixels of each of five patients; so much of what there is can be found at all."""
        boxes = USNet().build().default_boxes.around(300, 300)
        best = []
        for name in ("01_1", "03_2", "05_1", "08_2", "10_1"):
            labels = read_labels(DATA / "tnbc" / "labels" / f"{name}.png")[:300, :300].astype(np.float32)
            best.append(box_iou(nuclei_of(torch.from_numpy(labels))["boxes"], boxes).amax(1))
        found = torch.cat(best)
        assert len(found) > 50
        assert (found >= 0.5).float().mean() > 0.8


WRONG = [
    ("network", {"branches": "both"}, "branches must be one of joint, detection, segmentation, got 'both'"),
    ("network", {"block": "inception"}, "block must be one of plain, residual, dense"),
    ("network", {"widths": [8] * 6}, "widths must hold 7 positive numbers"),
    ("network", {"widths": [8] * 6 + [0]}, "widths must hold 7 positive numbers"),
    ("network", {"block": "dense", "widths": [8] * 6 + [6]}, "multiples of 4"),
    ("network", {"sizes": [25, 52]}, "sizes must hold one for each of the 3 maps, got .25.0, 52.0."),
    ("network", {"scales": []}, "scales must hold positive numbers"),
    (
        "network",
        {"sizes": [1, 2, 3]},
        "boxes must be more than 1 pixel wide and high at all sizes, scales and",
    ),
    ("network", {"ratios": [1, -1]}, "ratios must hold positive numbers"),
    ("network", {"branches": "detection", "refinement": False}, "no map to cut masks out of"),
    ("detection", {"matched_iou": 0.0}, "matched_iou must lie above 0"),
    ("detection", {"box_nms": 1.5}, "box_nms must lie above 0 and not above 1"),
    ("detection", {"box_min_score": 1.0}, "box_min_score must lie between 0 and 1"),
    ("detection", {"most": 0}, "most must be at least 1"),
    ("loss", {"segmentation": -0.1}, "segmentation is a weight and must be finite and not negative"),
    ("loss", {"gamma": 0.5}, "gamma must be 0 or at least 1, got 0.5"),
    ("decoder_rule", {"mask_scale": 0.5}, "mask_scale must be a number of at least 1"),
]


@pytest.mark.parametrize(("table", "values", "words"), WRONG)
def test_what_is_wrong_is_one_sentence(table: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make_recipe({"system": "us_net", table: values})
    assert "\n" not in str(caught.value)


def test_a_table_of_the_decoder_keeps_its_other_defaults() -> None:
    rule = recipe(decoder_rule={"min_score": 0.25}).system.decoder_rule
    assert (rule.min_score, rule.overlap, rule.mask_scale) == (0.25, "probability", 1.2)


def test_the_recipe_is_the_papers() -> None:
    read = read_recipe(RECIPE)
    assert (read.schedule.crop, read.system.loss.location, read.system.loss.segmentation) == (300, 1, 0.1)
    assert len(read.system.build().default_boxes.around(300, 300)) == 7620
    patients = [source.include for source in (*read.data.train, *read.data.val) if "tnbc" in source.folder]
    assert patients == [("0[1-7]_*",), ("08_*",)]


def spread(trained: TrainingModule) -> TrainingModule:
    """An untrained network whose scores and boxes lie far enough apart that rounding cannot change their order."""
    torch.manual_seed(2)
    for part in trained.network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.bias, 0, 1)  # few activations are cut off
            part.momentum = 1
    labels = torch.from_numpy(two_nuclei()).float().expand(2, 1, -1, -1)
    with torch.no_grad():
        trained.network.losses(torch.rand(2, 3, 70, 70), labels, torch.ones_like(labels))
    if trained.network.detection is not None:
        for level in trained.network.detection.levels:
            nn.init.normal_(level[1].weight, std=0.02)
            nn.init.normal_(level[1].weight.data[::5], std=0.3)
    return trained.eval()


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[TrainingModule, Model]]:
    made: dict[str, tuple[TrainingModule, Model]] = {}

    def export(kind: str) -> tuple[TrainingModule, Model]:
        if kind not in made:
            trained = spread(module(KINDS[kind]))
            path = tmp_path_factory.mktemp("model") / "m.onnx"
            export_module(trained, path)
            made[kind] = trained, Model(path, threads=1)
        return made[kind]

    return export


Export = Callable[[str], tuple[TrainingModule, Model]]


class TestExported:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "segmentation"])
    def test_onnx_runtime_gives_torchs_answer(self, export: Export, kind: str) -> None:
        trained, model = export(kind)
        window = np.random.default_rng(0).integers(0, 256, (70, 70, 3)).astype(np.uint8)
        expected, found = TorchNetwork(trained, trained.card).detect(window), model.detect(window)
        assert 10 < len(expected) == len(found) <= 20
        assert expected.masks.shape[1:] == (48, 48)
        assert np.diff(expected.scores).max() < -2e-6
        assert np.ptp(expected.boxes, axis=0).min() > 1
        assert np.abs(expected.boxes - found.boxes).max() < 1e-2
        assert np.abs(expected.scores - found.scores).max() < 1e-4
        assert np.abs(expected.masks - found.masks).max() < 1e-3

    def test_the_map_is_an_output(self, export: Export) -> None:
        trained, model = export("joint")
        window = np.random.default_rng(0).integers(0, 256, (70, 70, 3)).astype(np.uint8)
        (found,) = model._run(["nucleus"], window)
        assert found.shape == (1, 70, 70)
        assert np.abs(found[0] - TorchNetwork(trained, trained.card).map_of(window, "nucleus")).max() < 1e-4

    def test_without_refinement_masks_are_cut_out_of_the_map(self, export: Export) -> None:
        trained, _ = export("no refinement")
        window = np.random.default_rng(0).integers(0, 256, (70, 70, 3)).astype(np.uint8)
        network = TorchNetwork(trained, trained.card)
        found = network.detect(window)
        inside = found.boxes[:, :2].min(1) > 10
        inside &= found.boxes[:, 2:].max(1) < 60
        assert inside.any()
        y0, x0, y1, x1 = found.take(inside).grown(1.2).boxes[0]
        middle = network.map_of(window, "nucleus")[round(y0) : round(y1), round(x0) : round(x1)].mean()
        assert found.take(inside).masks[0].mean() == pytest.approx(middle, abs=0.02)

    def test_cards(self, export: Export) -> None:
        card = export("joint")[1].card
        assert (card.context, card.window, card.most, card.decoder) == ("global", 70, 20, "detections")
        assert card.maps == ("boxes", "scores", "masks", "nucleus")
        assert card.decoder_rule["mask_scale"] == 1.2
        assert card.diameters == pytest.approx((20, 128.4))
        assert export("detection")[1].card.maps == ("boxes", "scores", "masks")

    def test_the_map_alone_reports_no_nucleus(self, export: Export) -> None:
        trained, model = export("segmentation")
        window = np.random.default_rng(0).integers(0, 256, (70, 70, 3)).astype(np.uint8)
        assert len(model.detect(window)) == len(TorchNetwork(trained, trained.card).detect(window)) == 0
        assert segment_normalised(window, model, Options()).nuclei.labels.max() == 0
        validation = Validation(TorchNetwork(trained, trained.card))
        validation.add(window, two_nuclei())
        assert validation.scores()["box_AP50"] == 0
        assert 0 < validation.scores()["pixel_accuracy"] < 1

    @pytest.mark.parametrize("shape", [(1, 1), (1, 40), (30, 20), (70, 200)])
    def test_images_of_any_size(self, export: Export, shape: tuple[int, int]) -> None:
        """Those smaller than the window are continued beyond their edges."""
        result = segment_normalised(
            np.zeros((*shape, 3), np.uint8), export("joint")[1], Options(threshold=0.01)
        )
        assert result.nuclei.labels.shape == shape

    def test_nothing_is_found_in_nothing(self, export: Export) -> None:
        _, model = export("joint")
        result = segment_normalised(np.zeros((70, 70, 3), np.uint8), model, Options(threshold=0.999999))
        assert len(result.nuclei) == 0

    def test_a_window_without_a_box(self, tmp_path: Path) -> None:
        """Refinement of no patch at all, in the exported graph."""
        trained = spread(module(detection={"box_min_score": 0.9999}))
        for level in trained.network.detection.levels:
            nn.init.constant_(level[1].bias[::5], -50)
        export_module(trained, tmp_path / "m.onnx")
        found = Model(tmp_path / "m.onnx", threads=1).detect(np.zeros((70, 70, 3), np.uint8))
        assert found.masks.shape == (0, 48, 48)


class TestEveryNumber:
    """Of the recipe reaches what it is for, and what is drawn around a nucleus is what the refinement sees."""

    def test_of_detection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unlike = module(detection={"candidates": 77, "box_min_score": 0.12, "box_nms": 0.37, "most": 13})
        given = {}

        def record(*_: torch.Tensor, **numbers: float) -> tuple[torch.Tensor, torch.Tensor]:
            given.update(numbers)
            return torch.zeros(0, 4), torch.zeros(0)

        monkeypatch.setattr(us_net, "best_boxes", record)
        with torch.no_grad():
            unlike.network.eval().detect(torch.rand(1, 3, 70, 70))
        assert given == {"candidates": 77, "min_score": 0.12, "greatest_iou": 0.37, "most": 13}

    def test_patches_are_sampled_between_pixels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = {}
        monkeypatch.setattr(us_net, "roi_align", lambda *_, **how: given.update(how))
        cut(torch.rand(1, 1, 9, 9), [torch.zeros(1, 4)])
        assert given == {"sampling_ratio": 2, "aligned": True}

    def test_refinement_learns_from_at_most_32_nuclei_in_jittered_and_grown_boxes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network = module().network
        labels = torch.zeros(120, 120)
        for number in range(49):
            row, column = divmod(number, 7)
            labels[16 * row + 2 : 16 * row + 12, 16 * column + 2 : 16 * column + 12] = number + 1
        seen = []
        kept = us_net.cut

        def record(maps: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
            seen.append(boxes)
            return kept(maps, boxes)

        monkeypatch.setattr(us_net, "cut", record)
        network._refinement_loss(
            network.refinement, torch.rand(1, 4, 120, 120), [nuclei_of(labels)], torch.ones(1, 1, 120, 120)
        )
        (boxes,) = seen[-1]
        assert len(boxes) == 32
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides.std() > 0.1
        assert sides.mean() == pytest.approx(10 * network.mask_scale, rel=0.1)
