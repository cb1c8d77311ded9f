"""Mask R-CNN: what it is given, what it learns from, and that its model file finds the same nuclei."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import masks_to_boxes

from nuxel.decode.detections import DetectionRule, Detections, decode_detections
from nuxel.errors import NuxelError, UsageError
from nuxel.image.resample import ScaledImage
from nuxel.predict.detect import find
from nuxel.predict.model import Model
from nuxel.predict.pipeline import Options, segment_normalised
from nuxel.systems import attention_mask_rcnn
from nuxel.systems.attention_mask_rcnn import instances_of
from nuxel.systems.unknown import unknown_table
from nuxel.training.export import export_module
from nuxel.training.module import TrainingModule
from nuxel.training.recipe import make_recipe
from nuxel.training.validate import TorchNetwork

SMALL: dict[str, Any] = {
    "backbone": "resnet18", "weights": "none", "width": 8, "box_head": 16, "mask_head": [8],
    "anchors": [8, 16, 32],
}  # fmt: skip
VARIANTS = ("vanilla", "no_gamma", "pixel", "concat", "proposed", "non_local")


def recipe(crop: int = 64, **network: Any) -> Any:
    return make_recipe(
        {
            "system": "attention_mask_rcnn",
            "network": {**SMALL, **network},
            "sampling": {"rpn_samples": 32, "rois": 32},
            "detection": {"proposals": 50, "most": 20, "box_min_score": 0.0},
            "schedule": {"crop": crop},
        }
    )


def module(**network: Any) -> TrainingModule:
    torch.manual_seed(0)
    return TrainingModule(recipe(**network))


def two_nuclei() -> NDArray[np.int32]:
    labels = np.zeros((64, 64), np.int32)
    labels[10:26, 8:30], labels[40:41, 50:51] = 3, 7
    return labels


def losses(trained: TrainingModule, labels: NDArray[np.int32]) -> dict[str, torch.Tensor]:
    system = trained.recipe.system
    targets = torch.from_numpy(system.draw_targets(labels))[None]
    torch.manual_seed(1)
    return system.compute_loss(
        trained.network, torch.rand(1, 3, *labels.shape), targets, (targets >= 0).float()
    )


class TestInstances:
    def test_boxes_are_those_of_the_masks(self) -> None:
        labels = torch.from_numpy(two_nuclei()).float()
        found = instances_of(labels)
        # torchvision's corners are the centres of the outermost pixels
        expected = masks_to_boxes(found["masks"]) + torch.tensor([-0.5, -0.5, 0.5, 0.5])
        assert torch.equal(found["boxes"], expected)
        assert found["boxes"].tolist() == [[7.5, 9.5, 29.5, 25.5], [49.5, 39.5, 50.5, 40.5]]
        assert found["masks"].sum((1, 2)).tolist() == [16 * 22, 1]
        assert found["labels"].tolist() == [1, 1]

    def test_what_the_mask_head_learns_is_pasted_where_it_was(self) -> None:
        """Torchvision's mask targets, through our decoder: no shift, by half a pixel or less."""
        rows, columns = np.mgrid[:64, :64]
        labels = np.zeros((64, 64), np.int32)
        for number, (y, x, radius) in enumerate([(15, 17, 9), (40.5, 30, 12), (20, 48, 6.5)], 1):
            labels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
        found = instances_of(torch.from_numpy(labels))
        count = len(found["boxes"])
        masks = project_masks_on_boxes(found["masks"], found["boxes"], torch.arange(count), 28)
        boxes = found["boxes"][:, [1, 0, 3, 2]] + 0.5  # as the network's answer has them
        detections = Detections(boxes.numpy(), np.ones(count, np.float32), masks.numpy())
        drawn = decode_detections(detections, (64, 64), DetectionRule()).labels > 0
        assert drawn.sum() == pytest.approx((labels > 0).sum(), rel=0.01)
        centres = [np.mean(np.nonzero(part), axis=1) for part in (drawn, labels > 0)]
        assert np.abs(centres[0] - centres[1]).max() < 0.05
        assert np.count_nonzero(drawn != (labels > 0)) < 0.02 * drawn.sum()

    @pytest.mark.parametrize("value", [0, -1])
    def test_none(self, value: int) -> None:
        found = instances_of(torch.full((5, 7), float(value)))
        assert {name: tuple(array.shape) for name, array in found.items()} == {
            "boxes": (0, 4), "labels": (0,), "masks": (0, 5, 7),
        }  # fmt: skip

    def test_a_nucleus_that_fills_the_image(self) -> None:
        assert instances_of(torch.ones(4, 6))["boxes"].tolist() == [[-0.5, -0.5, 5.5, 3.5]]


class TestLosses:
    @pytest.mark.parametrize("pyramid", VARIANTS)
    def test_every_part_learns(self, pyramid: str) -> None:
        trained = module(pyramid=pyramid)
        found = losses(trained, two_nuclei())
        assert set(found) == {"objectness", "rpn_box", "classifier", "box", "mask", "loss"}
        assert found["loss"].item() == pytest.approx(sum(v.item() for k, v in found.items() if k != "loss"))
        found["loss"].backward()
        for name, part in trained.network.named_children():
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters()), name

    def test_a_nucleus_that_no_anchor_overlaps_is_not_all_of_them(self) -> None:
        """Torchvision would take every anchor that has the greatest IoU with it, though that is 0."""
        rpn = module().network.rpn
        anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
        near, far = [1.0, 1.0, 7.0, 8.0], [60.0, 60.0, 61.0, 61.0]
        for boxes, expected in (([far], [0, 0]), ([near, far], [1, 0]), ([], [0, 0])):
            target = {"boxes": torch.tensor(boxes).reshape(-1, 4)}
            labels, _ = rpn.assign_targets_to_anchors([anchors], [target])
            assert labels[0].tolist() == expected

    def test_nor_is_what_the_module_proposes(self) -> None:
        rpn = module().network.rpn
        anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [24.0, 0.0, 32.0, 8.0]])
        target = {
            "boxes": torch.tensor([[1.0, 1.0, 7.0, 8.0]]),
            "unknown": unknown_table(torch.zeros(64, 64, dtype=torch.bool)),
            "proposed": torch.tensor([[60.0, 60.0, 61.0, 61.0]]),
        }
        labels, _ = rpn.assign_targets_to_anchors([anchors], [target])
        assert labels[0].tolist() == [1, 0, 0]  # unlike anything proposed, so background

    def test_a_batch_of_one_where_normalisation_has_one_value_left(self) -> None:
        trained = module(backbone="skresnet18")
        with pytest.raises(NuxelError, match=r"batch of 1 of 64 x 64 pixels .* batch of at least 2"):
            losses(trained, two_nuclei())

    def test_an_image_without_nuclei_teaches_that_there_are_none(self) -> None:
        trained = module()
        found = losses(trained, np.zeros((64, 64), np.int32))
        found["loss"].backward()
        assert all(torch.isfinite(value) for value in found.values())
        assert found["mask"].item() == found["rpn_box"].item() == 0
        assert found["objectness"].item() > 0

    def test_what_is_not_annotated_teaches_nothing(self) -> None:
        trained = module()
        found = losses(trained, np.full((64, 64), -1, np.int32))
        assert {value.item() for value in found.values()} == {0}
        partly = np.full((64, 64), -1, np.int32)
        partly[:, :32] = two_nuclei()[:, :32]
        some, all_, naive = (
            losses(trained, labels) for labels in (partly, two_nuclei(), np.maximum(partly, 0))
        )
        assert some["objectness"].item() > 0
        assert len({found["objectness"].item() for found in (some, all_, naive)}) == 3

    def test_weights_of_the_losses(self) -> None:
        trained = module()
        plain = losses(trained, two_nuclei())
        weights = dataclasses.replace(trained.recipe.system.loss, mask=3.0, box=0.0)
        system = dataclasses.replace(trained.recipe.system, loss=weights)
        targets = torch.from_numpy(system.draw_targets(two_nuclei()))[None]
        torch.manual_seed(1)
        everywhere = torch.ones_like(targets)
        found = system.compute_loss(trained.network, torch.rand(1, 3, 64, 64), targets, everywhere)
        assert found["mask"].item() == pytest.approx(3 * plain["mask"].item(), rel=1e-5)
        assert found["box"].item() == 0

    def test_the_same_step_samples_the_same_proposals(self) -> None:
        """What a run draws follows from its seed and the step, so that it can be killed and resumed."""
        trained = module()
        trained.log = trained.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
        targets = torch.from_numpy(trained.recipe.system.draw_targets(two_nuclei()))[None]
        batch = (torch.rand(1, 3, 64, 64), targets, torch.ones_like(targets))
        first = trained.training_step(batch, 0)
        torch.rand(100)
        assert torch.equal(first, trained.training_step(batch, 0))


class TestParts:
    @pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
    def test_every_parameter_is_in_one_group(self, backbone: str) -> None:
        trained = module(backbone=backbone)
        groups = trained.recipe.system.parameter_groups(trained.network)
        assert tuple(groups) == trained.recipe.system.parts
        numbers = [id(p) for group in groups.values() for p in group]
        assert len(set(numbers)) == len(numbers) == len(list(trained.network.parameters()))
        assert all(groups.values())

    def test_stages_freeze_the_stem(self) -> None:
        stages = [{"epochs": 1, "freeze": ["stem", "encoder"]}, {"epochs": 1, "freeze": ["stem"]}]
        raw = {**recipe().raw, "schedule": {"crop": 64, "stages": stages}}
        trained = TrainingModule(make_recipe(raw))
        trained.on_train_epoch_start()
        groups = trained.recipe.system.parameter_groups(trained.network)
        learning = {part: any(p.requires_grad for p in group) for part, group in groups.items()}
        assert learning == {"stem": False, "encoder": False, "decoder": True}

    def test_a_stage_names_parts_that_there_are(self) -> None:
        raw = {
            **recipe().raw,
            "schedule": {"crop": 64, "stages": [{"epochs": 1, "freeze": ["head"]}]},
        }
        with pytest.raises(UsageError, match="freeze must list some of stem, encoder, decoder"):
            make_recipe(raw)


WRONG = [
    ({"anchors": [8, 16]}, "anchors must hold one positive side for each of the 3 levels, got .8.0, 16.0."),
    (
        {"anchors": [1, 16, 32]},
        "anchors must be more than 1 pixel wide and high at all ratios, got one of 0.71",
    ),
    ({"extra": "pool"}, "for each of the 4 levels"),
    ({"levels": 5}, "1 to 4 levels, got levels 5"),
    ({"ratios": [1, -1]}, "ratios must hold positive numbers"),
    ({"pyramid": "plain"}, "pyramid must be one of vanilla, "),
    ({"extra": "p7"}, "extra must be one of none, pool"),
    ({"width": 0}, "width must be at least 1"),
    ({"mask_head": []}, "mask_head must hold positive widths"),
]


@pytest.mark.parametrize(("network", "words"), WRONG)
def test_what_is_wrong_is_one_sentence(network: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        recipe(**network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "values", "words"),
    [
        ("sampling", {"rois": 0}, "rois must be at least 1"),
        ("sampling", {"roi_iou": 0.0}, "roi_iou must lie above 0"),
        ("sampling", {"rpn_negative_iou": 0.8}, "must not be above rpn_positive_iou"),
        ("detection", {"rpn_nms": 1.5}, "rpn_nms must lie above 0 and not above 1"),
        ("detection", {"most": 0}, "most must be at least 1"),
        ("detection", {"box_min_score": 1.0}, "box_min_score must lie between 0 and 1"),
        ("decoder_rule", {"mask_scale": 1.5}, "mask_scale must be 1, got 1.5: masks of this network span"),
    ],
)
def test_sampling_and_detection_are_checked(table: str, values: dict[str, Any], words: str) -> None:
    raw = recipe().raw
    with pytest.raises(UsageError, match=words):
        make_recipe({**raw, table: {**raw.get(table, {}), **values}})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingModule, Model]:
    trained = module().eval()
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export_module(trained, path)
    return trained, Model(path, threads=1)


class TestExported:
    def test_onnx_runtime_gives_torchs_answer(self, exported: tuple[TrainingModule, Model]) -> None:
        trained, model = exported
        window = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        expected, found = TorchNetwork(trained, trained.card).detect(window), model.detect(window)
        assert len(expected) == len(found) == 20
        assert np.abs(expected.boxes - found.boxes).max() < 1e-2
        assert np.abs(expected.scores - found.scores).max() < 1e-4
        assert np.abs(expected.masks - found.masks).max() < 1e-3

    def test_its_card(self, exported: tuple[TrainingModule, Model]) -> None:
        card = exported[1].card
        assert (card.context, card.window, card.most, card.decoder) == ("global", 64, 20, "detections")
        assert card.maps == ("boxes", "scores", "masks", "attention_2", "attention_3", "attention_4")

    def test_a_cap_that_is_hit_is_reported(self, exported: tuple[TrainingModule, Model]) -> None:
        image = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
        result = segment_normalised(image, exported[1], Options())
        assert "2 window(s) of 64 pixels hold as many as the model reports at most (20)" in result.warning

    def test_attention_has_the_levels_resolution(self, exported: tuple[TrainingModule, Model]) -> None:
        model = exported[1]
        window = np.zeros((64, 64, 3), np.uint8)
        assert [model.attend(window, level).shape for level in (2, 3, 4)] == [(16, 16), (8, 8), (4, 4)]
        with pytest.raises(UsageError, match="no attention map of level 5; it has levels 2, 3, 4"):
            model.attend(window, 5)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 40), (30, 20)])
    def test_images_smaller_than_the_stride(
        self, exported: tuple[TrainingModule, Model], shape: tuple[int, int]
    ) -> None:
        result = segment_normalised(np.zeros((*shape, 3), np.uint8), exported[1], Options())
        assert result.nuclei.labels.shape == shape

    def test_vanilla_has_no_attention(self, tmp_path: Path) -> None:
        export_module(module(pyramid="vanilla").eval(), tmp_path / "m.onnx")
        with pytest.raises(UsageError, match="it has none at all"):
            Model(tmp_path / "m.onnx", threads=1).attend(np.zeros((64, 64, 3), np.uint8), 4)

    def test_test_time_augmentation_is_refused(self, exported: tuple[TrainingModule, Model]) -> None:
        with pytest.raises(UsageError, match="reports boxes"):
            segment_normalised(np.zeros((64, 64, 3), np.uint8), exported[1], Options(tta=True))


class Bright:
    """Detects every bright rectangle of a window, with a full mask and a box that hugs it."""

    def __init__(self, card: Any) -> None:
        self.card = card

    def detect(self, window: NDArray[np.uint8]) -> Detections:
        from scipy import ndimage

        found = ndimage.find_objects(ndimage.label(window[..., 0] > 128)[0])
        boxes = [(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in found]
        count = len(boxes)
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.full(count, 0.9, np.float32),
            np.ones((count, 4, 4), np.float32),
        )


class TestWindows:
    """A toy that detects perfectly: what goes wrong then is the windows' fault."""

    @pytest.fixture
    def bright(self) -> Bright:
        return Bright(dataclasses.replace(module().card, window=64, most=1000))

    def scene(self) -> tuple[NDArray[np.uint8], int]:
        """Squares of 7 x 7 every 11 pixels: on every seam and corner."""
        image = np.zeros((330, 210, 3), np.uint8)
        starts = [(y, x) for y in range(2, 320, 11) for x in range(2, 200, 11)]
        for y, x in starts:
            image[y : y + 7, x : x + 7] = 255
        return image, len(starts)

    def test_each_nucleus_has_one_owner(self, bright: Bright) -> None:
        image, count = self.scene()
        nuclei = segment_normalised(image, bright, Options()).nuclei
        assert len(nuclei) == count > 500
        assert np.array_equal(nuclei.labels > 0, image[..., 0] > 0)
        assert set(np.bincount(nuclei.labels.ravel())[1:]) == {49}

    def test_boxes_are_in_pixels_of_the_image_at_any_scale(self, bright: Bright) -> None:
        image, count = self.scene()
        found = find(ScaledImage(image, 2.0), bright)
        sides = found.detections.boxes[:, 2:] - found.detections.boxes[:, :2]
        assert sides.mean() == pytest.approx(7, abs=0.5)
        nuclei = segment_normalised(image, bright, Options(scale=2.0)).nuclei
        assert len(nuclei) == count


class TestEveryNumber:
    """Of the recipe reaches the part of torchvision that it is for: each has a value that no other has."""

    @pytest.fixture
    def unlike(self) -> TrainingModule:
        return TrainingModule(
            make_recipe(
                {
                    "system": "attention_mask_rcnn",
                    "network": {**SMALL, "ratios": [0.5, 2.0]},
                    "sampling": {
                        "rpn_positive_iou": 0.66,
                        "rpn_negative_iou": 0.22,
                        "rpn_samples": 31,
                        "rpn_positive_share": 0.41,
                        "rois": 37,
                        "roi_positive_share": 0.27,
                        "roi_iou": 0.55,
                    },
                    "detection": {
                        "rpn_nms": 0.77,
                        "proposals": 53,
                        "box_nms": 0.44,
                        "box_min_score": 0.11,
                        "most": 19,
                    },
                }
            )
        )

    def test_of_proposals(self, unlike: TrainingModule) -> None:
        rpn: Any = unlike.network.rpn
        assert rpn.anchor_generator.sizes == ((8,), (16,), (32,))
        assert rpn.anchor_generator.aspect_ratios == ((0.5, 2.0),) * 3
        assert (rpn.proposal_matcher.high_threshold, rpn.proposal_matcher.low_threshold) == (0.66, 0.22)
        assert (rpn.fg_bg_sampler.batch_size_per_image, rpn.fg_bg_sampler.positive_fraction) == (31, 0.41)
        assert rpn.nms_thresh == 0.77
        for training in (True, False):
            rpn.train(training)
            assert (rpn.pre_nms_top_n(), rpn.post_nms_top_n()) == (53, 53)

    def test_of_heads(self, unlike: TrainingModule) -> None:
        heads: Any = unlike.network.heads
        assert (heads.proposal_matcher.high_threshold, heads.proposal_matcher.low_threshold) == (0.55, 0.55)
        assert (heads.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.positive_fraction) == (37, 0.27)
        assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.11, 0.44, 19)
        for pool, side in ((heads.box_roi_pool, 7), (heads.mask_roi_pool, 14)):
            assert (pool.output_size, pool.sampling_ratio) == ((side, side), 2)

    def test_of_what_teaches(self, unlike: TrainingModule, monkeypatch: pytest.MonkeyPatch) -> None:
        given = []
        kept = attention_mask_rcnn.certain_proposals

        def record(boxes: torch.Tensor, one: dict[str, torch.Tensor], *ious: float) -> torch.Tensor:
            given.append(ious)
            return kept(boxes, one, *ious)

        monkeypatch.setattr(attention_mask_rcnn, "certain_proposals", record)
        losses(unlike, two_nuclei())
        assert set(given) == {(0.55, 0.22)}

    def test_attention_is_the_mean_over_channels(
        self, unlike: TrainingModule, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network: Any = unlike.network.eval()
        look = network._look
        alpha = torch.arange(12.0).view(1, 3, 2, 2)
        monkeypatch.setattr(network, "_look", lambda image: (look(image)[0], [alpha]))
        with torch.no_grad():
            (found,) = network.detect(torch.rand(1, 3, 64, 64))[3]
        assert torch.equal(found, alpha.mean(1))

    @pytest.mark.parametrize(
        ("table", "values", "words"),
        [
            ("network", {"anchors": [8, -16, 32]}, "anchors"),
            ("network", {"ratios": []}, "ratios must hold positive numbers"),
            ("network", {"anchors": [1, 16, 32]}, "anchors must be more than 1 pixel"),
            ("network", {"box_head": 0}, "box_head must be at least 1"),
            ("network", {"mask_head": [8, 0]}, "mask_head must hold positive widths"),
            ("detection", {"proposals": 0}, "proposals must be at least 1"),
        ],
    )
    def test_that_cannot_be_is_refused(self, table: str, values: dict[str, Any], words: str) -> None:
        raw = {"system": "attention_mask_rcnn", "network": SMALL}
        with pytest.raises(UsageError, match=words):
            make_recipe({**raw, table: {**raw.get(table, {}), **values}})

    @pytest.mark.parametrize("values", [{"roi_iou": 1.0}, {"rpn_negative_iou": 0.7}])
    def test_at_the_end_of_its_range_is_taken(self, values: dict[str, float]) -> None:
        make_recipe({"system": "attention_mask_rcnn", "network": SMALL, "sampling": values})
