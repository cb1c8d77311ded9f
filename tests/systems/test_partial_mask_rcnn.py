"""Partly annotated images: what counts as background, what the module is taught, and that its model file agrees."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import box_iou

from nuxel.data.thin import thin
from nuxel.errors import NuxelError, UsageError
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.systems.attention_mask_rcnn import MaskRCNNNetwork, batch_of, instances_of
from nuxel.systems.partial_mask_rcnn import (
    PartialDetectionConfig,
    PartialMaskRCNNNetwork,
    PartialNetworkConfig,
    PartialSamplingConfig,
    attention_of_nucleus,
)
from nuxel.systems.system import Prepares
from nuxel.systems.unknown import CautiousProposals, certain_proposals, is_doubtful, unknown_table
from nuxel.training.export import export_module
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import make_recipe, read_recipe
from nuxel.training.validate import TorchNetwork

Labels = NDArray[np.int32]
SMALL: dict[str, Any] = {
    "backbone": "resnet18", "weights": "none", "width": 8, "box_head": 16, "mask_head": [8],
    "anchors": [8, 16, 32],
}  # fmt: skip
MASK_RCNN = {"objectness", "rpn_box", "classifier", "box", "mask"}
MODULE = {"centerness", "centre_box"}


def recipe(sampling: dict[str, Any] | None = None, crop: int = 64, **network: Any) -> Any:
    return make_recipe(
        {
            "system": "partial_mask_rcnn",
            "network": {**SMALL, **network},
            "sampling": {"rpn_samples": 32, "rois": 32, **(sampling or {})},
            "detection": {"proposals": 50, "most": 20, "box_min_score": 0.0},
            "schedule": {"crop": crop},
        }
    )


def module(sampling: dict[str, Any] | None = None, **network: Any) -> TrainingModule:
    torch.manual_seed(0)
    return TrainingModule(recipe(sampling, **network))


def two_nuclei(elsewhere: int = -1) -> Labels:
    labels = np.full((64, 64), elsewhere, np.int32)
    labels[10:26, 8:30], labels[40:41, 50:51] = 3, 7
    return labels


def losses(trained: TrainingModule, *labels: Labels) -> dict[str, Tensor]:
    system = trained.recipe.system
    targets = torch.from_numpy(np.stack([system.draw_targets(one) for one in labels]))
    torch.manual_seed(1)
    images = torch.rand(len(labels), 3, *labels[0].shape)
    return system.compute_loss(trained.network, images, targets, (targets >= 0).float())


def values(found: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(value.item(), 6) for name, value in found.items()}


def propose_everywhere(trained: TrainingModule) -> PartialMaskRCNNNetwork:
    """Make the module propose boxes all over the image: where noise is highest, with anchors of 16 pixels."""
    network = trained.network
    assert isinstance(network, PartialMaskRCNNNetwork)
    assert network.centre is not None
    torch.manual_seed(2)
    torch.nn.init.normal_(network.centre.conv.weight)
    torch.nn.init.normal_(network.centre.score.weight)
    network.centre.anchor.fill_(16.0)
    with torch.no_grad():
        features, _ = network._look(torch.rand(2, 3, 64, 64))
        logits, _ = network.centre(features["2"])
        network.centre.score.bias += 3 - logits.quantile(0.9)
    return network


class TestLosses:
    def test_every_part_learns(self) -> None:
        trained = module()
        found = losses(trained, two_nuclei(), two_nuclei())
        assert set(found) == {*MASK_RCNN, *MODULE, "loss"}
        assert found["loss"].item() == pytest.approx(sum(v.item() for k, v in found.items() if k != "loss"))
        found["loss"].backward()
        for name, part in trained.network.named_children():
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()), name

    def test_the_baseline_is_mask_rcnn(self) -> None:
        """Without the module, and with what is unknown ignored, nothing differs from the other system."""
        baseline = module({"unknown": "ignore"}, module=False)
        raw = dict(baseline.recipe.raw)
        raw["network"] = {**SMALL, "pyramid": "vanilla"}
        raw["sampling"] = {"rpn_samples": 32, "rois": 32}
        torch.manual_seed(0)
        plain = TrainingModule(make_recipe({**raw, "system": "attention_mask_rcnn"}))
        assert values(losses(baseline, two_nuclei())) == values(losses(plain, two_nuclei()))
        assert set(baseline.state_dict()) == set(plain.state_dict())

    def test_weights_of_the_losses(self) -> None:
        trained = module()
        plain = losses(trained, two_nuclei())
        weights = dataclasses.replace(trained.recipe.system.loss, centerness=3.0, centre_box=0.0)
        system = dataclasses.replace(trained.recipe.system, loss=weights)
        trained.recipe = dataclasses.replace(trained.recipe, system=system)
        found = losses(trained, two_nuclei())
        assert found["centerness"].item() == pytest.approx(3 * plain["centerness"].item(), rel=1e-5)
        assert found["centre_box"].item() == 0

    @pytest.mark.parametrize("unknown", ["unproposed", "ignore", "background"])
    def test_where_all_is_annotated_there_is_nothing_unknown(self, unknown: str) -> None:
        """What the module proposes on annotated background stays background."""
        trained = module({"unknown": unknown})
        propose_everywhere(trained)
        expected = module({"unknown": "background"})
        propose_everywhere(expected)
        assert values(losses(trained, two_nuclei(0))) == values(losses(expected, two_nuclei(0)))

    def test_what_is_ignored_teaches_nothing(self) -> None:
        """Neither is an image without an annotation wrong, nor does it make a loss that is no number."""
        trained = module({"unknown": "ignore"})
        found = losses(trained, np.full((64, 64), -1, np.int32), np.full((64, 64), -1, np.int32))
        assert set(values(found).values()) == {0}
        found["loss"].backward()
        gradients = [p.grad for p in trained.network.parameters() if p.grad is not None]
        assert all((gradient == 0).all() for gradient in gradients)

    def test_an_image_without_annotation_beside_another(self) -> None:
        trained = module({"unknown": "ignore"})
        found = losses(trained, np.full((64, 64), -1, np.int32), two_nuclei(0))
        assert all(torch.isfinite(value) for value in found.values())
        assert found["mask"].item() > 0

    def test_naively_unknown_is_background(self) -> None:
        trained = module({"unknown": "background"})
        assert values(losses(trained, two_nuclei(-1))) == values(losses(trained, two_nuclei(0)))

    def test_what_nobody_proposes_is_background(self) -> None:
        """As long as the module finds nothing, the paper's rule is the naive one."""
        trained, naive = module(), module({"unknown": "background"})
        assert values(losses(trained, two_nuclei())) == values(losses(naive, two_nuclei()))

    def test_what_is_proposed_is_not(self) -> None:
        trained, naive = module(), module({"unknown": "background"})
        propose_everywhere(trained)
        propose_everywhere(naive)
        cautious, plain = values(losses(trained, two_nuclei())), values(losses(naive, two_nuclei()))
        assert cautious["objectness"] != plain["objectness"]
        assert {k: cautious[k] for k in MODULE} == {k: plain[k] for k in MODULE}

    def test_a_single_tiny_nucleus_teaches(self) -> None:
        labels = np.full((64, 64), -1, np.int32)
        labels[33, 21] = 1
        found = losses(module(), labels)
        assert all(torch.isfinite(value) for value in found.values())
        assert min(found[name].item() for name in MODULE) > 0

    def test_nuclei_that_touch_and_enclose_each_other(self) -> None:
        labels = np.full((64, 64), -1, np.int32)
        labels[8:40, 8:40], labels[20:24, 20:24], labels[40:56, 8:40] = 1, 2, 3
        found = losses(module(), labels)
        assert all(torch.isfinite(value) for value in found.values())

    @pytest.mark.parametrize("split", [1, 2])
    def test_a_finer_map_learns_too(self, split: int) -> None:
        found = losses(module(centre_split=split), two_nuclei())
        assert min(found[name].item() for name in MODULE) > 0


def proposals() -> CautiousProposals:
    kept = {"training": 50, "testing": 50}
    return CautiousProposals(
        AnchorGenerator(((8,),), ((1.0,),)), RPNHead(4, 1), 0.7, 0.3, 32, 0.5, kept, kept, 0.7
    )


def some_boxes(count: int = 300, seed: int = 0) -> Tensor:
    """Boxes in and around an image of 48 x 64."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-12, 56, (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + rng.uniform(2, 24, (count, 2))], 1)).float()


class TestDoubt:
    def test_it_is_about_what_is_mostly_not_annotated(self) -> None:
        """Pixel by pixel."""
        annotated = torch.from_numpy(np.random.default_rng(1).random((48, 64)) < 0.5)
        annotated[:20] = False
        boxes = some_boxes()
        found = is_doubtful(boxes, unknown_table(annotated), None)
        for box, doubtful in zip((boxes + 0.5).round().int().tolist(), found.tolist(), strict=True):
            x0, y0, x1, y1 = (max(0, corner) for corner in box)
            part = ~annotated[y0:y1, x0:x1]
            assert doubtful == (part.numel() > 0 and part.sum().item() > part.numel() / 2)
        assert 20 < found.sum() < 280

    def test_boxes_outside_of_the_image_are_not(self) -> None:
        boxes = torch.tensor([[-20.0, -20, -4, -4], [90, 90, 99, 99]])
        assert not is_doubtful(boxes, unknown_table(torch.zeros(48, 64, dtype=torch.bool)), None).any()

    @pytest.mark.parametrize("proposed", [0, 5])
    def test_anchors_that_would_match_a_proposed_box_are_no_background(self, proposed: int) -> None:
        """By the thresholds that make an anchor no background beside a nucleus, written out."""
        anchors, truth, others = some_boxes(), some_boxes(6, 1), some_boxes(proposed, 2)
        annotated = torch.zeros(48, 64, dtype=torch.bool)
        annotated[:, :30] = True
        unknown = unknown_table(annotated)
        target = {"boxes": truth, "unknown": unknown, "proposed": others}
        (found,), _ = proposals().assign_targets_to_anchors([anchors], [target])
        (before,), _ = proposals().assign_targets_to_anchors([anchors], [{"boxes": truth}])
        ious = box_iou(others, anchors)
        like = torch.zeros(len(anchors), dtype=torch.bool)
        if proposed:
            like = (ious.max(0).values >= 0.3) | (ious == ious.max(1, keepdim=True).values).any(0)
        expected = before.clone()
        expected[(before == 0) & like & is_doubtful(anchors, unknown, None)] = -1
        assert torch.equal(found, expected)
        assert (found != before).any() == bool(proposed)

    def test_all_are_in_doubt_where_what_is_unknown_is_ignored(self) -> None:
        anchors, truth = some_boxes(), some_boxes(6, 1)
        unknown = unknown_table(torch.zeros(48, 64, dtype=torch.bool))
        (found,), _ = proposals().assign_targets_to_anchors([anchors], [{"boxes": truth, "unknown": unknown}])
        assert not ((found == 0) & is_doubtful(anchors, unknown, None)).any()
        assert (found == 1).any()

    def test_proposals_in_doubt_do_not_reach_the_heads(self) -> None:
        boxes, truth, others = some_boxes(), some_boxes(6, 1), some_boxes(5, 2)
        unknown = unknown_table(torch.zeros(48, 64, dtype=torch.bool))
        target = {"boxes": truth, "unknown": unknown, "proposed": others}
        kept = certain_proposals(boxes, target, positive_iou=0.5, like_iou=0.3)
        like_truth = box_iou(truth, boxes).max(0).values >= 0.5
        like_others = box_iou(others, boxes).max(0).values >= 0.3
        inside = is_doubtful(boxes, unknown, None)
        assert torch.equal(kept, boxes[like_truth | ~like_others | ~inside])
        assert len(kept) < len(boxes)


class TestPrepare:
    def test_the_anchor_has_the_median_size_of_all_nuclei(self) -> None:
        trained = module()
        system, network = trained.recipe.system, trained.network
        assert isinstance(system, Prepares)
        first, second = np.full((40, 40), -1, np.int32), np.zeros((50, 30), np.int32)
        first[1:5, 1:11], first[10:20, 10:22] = 1, 5  # numbers may be missing
        second[2:9, 2:16] = 1
        system.prepare(network, [first, second])
        assert network.centre.anchor.tolist() == [12, 7]

    def test_one_nucleus_in_the_whole_set_is_enough(self) -> None:
        trained = module()
        one = np.full((40, 40), -1, np.int32)
        one[3, 4:6] = 1
        trained.recipe.system.prepare(trained.network, [np.full((30, 30), -1, np.int32), one])
        assert trained.network.centre.anchor.tolist() == [2, 1]

    def test_none_is_not(self) -> None:
        trained = module()
        with pytest.raises(NuxelError, match="no training image has an annotated nucleus"):
            trained.recipe.system.prepare(trained.network, [np.full((30, 30), -1, np.int32)])

    def test_the_baseline_has_no_anchor_of_its_own(self) -> None:
        trained = module({"unknown": "ignore"}, module=False)
        trained.recipe.system.prepare(trained.network, [np.full((30, 30), -1, np.int32)])

    def test_the_anchor_is_saved_with_the_weights(self) -> None:
        assert "network.centre.anchor" in module().state_dict()


class TestNetwork:
    def test_the_module_adds_less_than_two_per_cent_to_a_resnet_50(self) -> None:
        with torch.device("meta"):
            config = PartialNetworkConfig(
                "resnet50", "none", levels=4, extra="pool", anchors=(32, 64, 128, 256, 512)
            )
            network = PartialMaskRCNNNetwork(config, PartialSamplingConfig(), PartialDetectionConfig())
        assert network.centre is not None
        total, added = (sum(p.numel() for p in part.parameters()) for part in (network, network.centre))
        assert total - added == pytest.approx(44.4e6, rel=0.01)  # as torchvision's Mask R-CNN has
        assert 0 < added / (total - added) < 0.02

    @pytest.mark.parametrize("with_module", [True, False])
    def test_every_parameter_is_in_one_group(self, with_module: bool) -> None:
        trained = module({"unknown": "ignore"}, module=with_module)
        groups = trained.recipe.system.parameter_groups(trained.network)
        numbers = [id(p) for group in groups.values() for p in group]
        assert len(set(numbers)) == len(numbers) == len(list(trained.network.parameters()))

    def test_boxes_of_centres_are_proposed_first(self) -> None:
        trained = module().eval()
        network = propose_everywhere(trained)
        features, _ = network._look(torch.rand(1, 3, 64, 64))
        batch = batch_of(torch.zeros(1, 3, 64, 64))
        (proposed,) = network.propose(batch, features)
        (plain,) = MaskRCNNNetwork.propose(network, batch, features)
        strong = len(proposed) - len(plain)
        assert strong > 1
        assert torch.equal(proposed[strong:], plain)
        assert torch.equal(proposed[:strong], network._centres(*network.centre(features["2"]), 0.95)[0])

    def test_training_may_propose_from_a_lower_score(self) -> None:
        """With every score at 0.8, a map is one component for the lower and nothing for the higher."""
        for score, expected in ((0.95, 0), (0.7, 1)):
            trained = module({"proposed_score": score})
            network = trained.network
            assert isinstance(network, PartialMaskRCNNNetwork)
            assert network.centre is not None
            torch.nn.init.zeros_(network.centre.score.weight)
            torch.nn.init.constant_(network.centre.score.bias, math.log(0.8 / 0.2))
            seen, centres = [], network._centres
            network._centres = lambda *given: seen.append(centres(*given)) or seen[-1]  # type: ignore[method-assign]  # noqa: B023
            losses(trained, two_nuclei())
            assert [min(len(boxes), 1) for (boxes,) in seen] == [expected]

    def test_thinned_labels_are_what_it_is_given(self) -> None:
        """Of what nuxel thin makes, the rest is unknown."""
        (thinned,) = thin([two_nuclei(0)], 0.5)
        found = losses(module(), thinned)
        assert torch.isfinite(found["loss"])
        assert len(instances_of(torch.from_numpy(thinned))["boxes"]) == 1


class TestAttention:
    def test_of_a_nucleus(self) -> None:
        trained = module().eval()
        image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
        mask = np.zeros((50, 70), bool)
        mask[20:30, 40:50] = True
        drawn = attention_of_nucleus(trained.network, image, mask)
        assert drawn.shape == (50, 70)
        assert drawn.dtype == np.float32
        assert drawn.max() == 1
        assert drawn.min() >= 0
        blocks = drawn[:48, :68].reshape(12, 4, 17, 4)
        assert (blocks == blocks[:, :1, :, :1]).all()
        with torch.no_grad():
            window = np.pad(image, ((0, 14), (0, 26), (0, 0)), mode="symmetric")
            features, _ = trained.network._look(
                torch.from_numpy(window.transpose(2, 0, 1)[None]).float() / 255
            )
            places = [(row, column) for row in range(5, 8) for column in range(10, 13)]
            expected = trained.network.centre.attention.attention_map(features["2"][0], places)
        assert np.allclose(drawn[::4, ::4], (expected / expected[:13, :18].max())[:13, :18], atol=1e-6)

    def test_of_a_single_pixel_at_the_edge(self) -> None:
        mask = np.zeros((33, 64), bool)
        mask[32, 63] = True
        assert attention_of_nucleus(module().eval().network, np.zeros((33, 64, 3), np.uint8), mask).max() == 1

    def test_without_the_module_there_is_none(self) -> None:
        for network in (module({"unknown": "ignore"}, module=False).network, torch.nn.Identity()):
            with pytest.raises(UsageError, match="attention"):
                attention_of_nucleus(network, np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))

    def test_nothing_attends_to_nothing(self) -> None:
        with pytest.raises(UsageError, match="its mask has none"):
            attention_of_nucleus(module().network, np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool))


@pytest.fixture(scope="module", params=[1, 2])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingModule, Model]:
    trained = module(centre_split=request.param).eval()
    propose_everywhere(trained)
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export_module(trained, path)
    return trained, Model(path, threads=1)


class TestExported:
    def test_onnx_runtime_gives_torchs_answer(self, exported: tuple[TrainingModule, Model]) -> None:
        trained, model = exported
        for seed in range(3):
            window = np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)
            expected, found = TorchNetwork(trained, trained.card).detect(window), model.detect(window)
            assert len(expected) == len(found) == 20
            assert np.abs(expected.boxes - found.boxes).max() < 1e-2
            assert np.abs(expected.scores - found.scores).max() < 1e-4
            assert np.abs(expected.masks - found.masks).max() < 1e-3

    def test_its_card(self, exported: tuple[TrainingModule, Model]) -> None:
        card = exported[1].card
        assert (card.system, card.context, card.window, card.most) == ("partial_mask_rcnn", "global", 64, 20)
        assert card.maps == ("boxes", "scores", "masks")

    def test_images_of_other_sizes(self, exported: tuple[TrainingModule, Model]) -> None:
        result = segment_normalised(np.zeros((70, 100, 3), np.uint8), exported[1], Options())
        assert result.nuclei.labels.shape == (70, 100)


def test_without_a_single_centre_the_model_file_still_runs(tmp_path: Path) -> None:
    trained = module().eval()  # a new head's scores are 0.5 everywhere
    export_module(trained, tmp_path / "m.onnx")
    window = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    expected = TorchNetwork(trained, trained.card).detect(window)
    found = Model(tmp_path / "m.onnx", threads=1).detect(window)
    assert len(expected) == 20
    assert np.abs(expected.boxes - found.boxes).max() < 1e-2


WRONG = [
    ("network", {"attention": 0}, "attention must be at least 1, got 0"),
    ("network", {"centre_split": 4}, "centre_split must be 1 or 2, got 4"),
    ("network", {"pyramid": "plain"}, "pyramid must be one of vanilla, "),
    ("network", {"module": False}, "needs the module; without it choose"),
    ("sampling", {"unknown": "none"}, "unknown must be one of unproposed, ignore, background, got 'none'"),
    ("sampling", {"centre_samples": 0}, "centre_samples must be at least 1"),
    ("sampling", {"centre_positive_share": 1.5}, "centre_positive_share must lie above 0"),
    ("sampling", {"proposed_score": 0.0}, "proposed_score must lie between 0 and 1"),
    ("detection", {"centre_min_score": 1.0}, "centre_min_score must lie between 0 and 1"),
    ("detection", {"most": 0}, "most must be at least 1"),
]


@pytest.mark.parametrize(("table", "changes", "words"), WRONG)
def test_what_is_wrong_is_one_sentence(table: str, changes: dict[str, Any], words: str) -> None:
    raw = recipe().raw
    with pytest.raises(UsageError, match=words) as caught:
        make_recipe({**raw, table: {**raw[table], **changes}})
    assert "\n" not in str(caught.value)


def test_the_recipe_s_baseline() -> None:
    path = Path(__file__).parents[2] / "recipes" / "partially_labeled" / "partial.toml"
    assert read_recipe(path).system.network.module
    baseline = read_recipe(path, ["network.module=false", "sampling.unknown=background"])
    assert not baseline.system.network.module


class TestEveryNumber:
    """Of the recipe reaches the part that it is for."""

    @pytest.fixture
    def unlike(self) -> TrainingModule:
        return TrainingModule(
            make_recipe(
                {
                    "system": "partial_mask_rcnn",
                    "network": SMALL,
                    "sampling": {"centre_samples": 29, "centre_positive_share": 0.23, "proposed_score": 0.83},
                    "detection": {
                        "centre_min_score": 0.93,
                        "rpn_nms": 0.66,
                        "proposals": 51,
                        "box_nms": 0.34,
                        "most": 17,
                    },
                }
            )
        )

    def test_of_the_module(self, unlike: TrainingModule, monkeypatch: pytest.MonkeyPatch) -> None:
        centre: Any = unlike.network.centre
        sampled, proposed = [], []
        losses_of, boxes_of = centre.losses, centre.boxes
        monkeypatch.setattr(centre, "losses", lambda *a: sampled.append(a[4:]) or losses_of(*a))
        monkeypatch.setattr(centre, "boxes", lambda *a: proposed.append(a[2:]) or boxes_of(*a))
        losses(unlike, two_nuclei())
        assert sampled == [(29, 0.23)]
        assert proposed == [(0.83, 0.66, 51)]
        with torch.no_grad():
            unlike.network.eval().detect(torch.rand(1, 3, 64, 64))
        assert proposed[1:] == [(0.93, 0.66, 51)]
