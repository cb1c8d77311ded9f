"""US-Net's networks: the sizes of their maps, what their blocks compute, and which default box stands for what."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from nuxel.nn.ssd import DefaultBoxes, DetectionBranch, best_boxes, encode, match
from nuxel.nn.us_net import BLOCKS, DenseBlock, RefinementUNet, SegmentationBranch, SharedBase

STRIDES, SIZES, SCALES, RATIOS = (8, 16, 32), (25.0, 52.0, 107.0), (0.8, 1.2), (1.0, 0.75)
WIDTHS = (4, 4, 8, 8, 8, 8)


def default_boxes() -> DefaultBoxes:
    return DefaultBoxes(STRIDES, SIZES, SCALES, RATIOS)


class TestBase:
    @pytest.mark.parametrize("block", BLOCKS)
    def test_the_papers_maps_of_300_pixels(self, block: str) -> None:
        maps = SharedBase(WIDTHS, block)(torch.rand(1, 3, 300, 300))
        assert [tuple(one.shape[1:]) for one in maps] == [
            (4, 300, 300), (4, 150, 150), (8, 75, 75), (8, 38, 38), (8, 19, 19), (8, 10, 10),
        ]  # fmt: skip

    @given(st.integers(1, 150), st.integers(1, 150))
    @settings(max_examples=25)
    def test_the_map_of_nuclei_is_as_large_as_the_image(self, height: int, width: int) -> None:
        base, segmentation = (
            SharedBase((2,) * 6, "plain").eval(),
            SegmentationBranch((2,) * 6, 2, "plain").eval(),
        )
        with torch.no_grad():
            maps = base(torch.rand(1, 3, height, width))
            assert segmentation(maps).shape == (1, 1, height, width)
        sides = [math.ceil(height / 2**level) for level in range(6)]
        assert [one.shape[2] for one in maps] == sides

    def test_the_last_row_is_seen_although_it_has_no_partner(self) -> None:
        base = SharedBase((3,) * 6, "plain")
        base.layers = nn.ModuleList(nn.Identity() for _ in range(6))
        image = torch.rand(1, 3, 5, 4)
        maps = base(image)
        assert torch.equal(maps[1][..., 2, 1], image[..., 4, 2:].amax(-1))
        assert torch.equal(maps[3][..., 0, 0], image.amax((2, 3)))

    def test_every_layer_is_needed(self) -> None:
        torch.manual_seed(0)
        base, segmentation = SharedBase(WIDTHS, "plain"), SegmentationBranch(WIDTHS, 8, "plain")
        segmentation(base(torch.rand(2, 3, 70, 70))).square().mean().backward()
        for network in (base, segmentation):
            for name, values in network.named_parameters():
                assert values.grad is not None, name
                assert values.grad.abs().sum() > 0, name

    def test_six_layers(self) -> None:
        with pytest.raises(ValueError, match="6 down-sampling layers, got 5 widths"):
            SharedBase((4,) * 5, "plain")

    def test_an_enlarged_map_is_cropped_where_pooling_rounded_up(self) -> None:
        """What the up-sampling layer joins lies where it was, its last row and column left out."""
        branch = SegmentationBranch((2,) * 6, 2, "plain").eval()
        layer = branch.layers[0]
        seen = []
        layer.block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        x, skip = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 5, 6)
        layer(x, skip)
        enlarged = layer.up(x)
        assert torch.equal(seen[0][:, :2], enlarged[..., :5, :6])
        assert torch.equal(seen[0][:, 2:], skip)


class TestBlocks:
    def test_four_convolutions_of_three_by_three(self) -> None:
        for block in BLOCKS.values():
            convs = [part for part in block(6, 8).modules() if isinstance(part, nn.Conv2d)]
            assert len([conv for conv in convs if conv.kernel_size == (3, 3)]) == 4

    def test_a_residual_block_adds_what_it_is_given(self) -> None:
        """Without its convolutions it is the identity of what is positive."""
        block = BLOCKS["residual"](4, 4).eval()
        for unit in block:
            nn.init.zeros_(unit.convs[-1].weight)
        x = torch.rand(1, 4, 5, 5)
        assert torch.allclose(block(x), x)

    def test_a_residual_block_is_the_sum_of_two_ways(self) -> None:
        unit = BLOCKS["residual"](3, 4).eval()[0]
        x = torch.randn(2, 3, 6, 6)
        norm = (1 + 1e-5) ** -0.5  # of untrained batch normalisation
        first, second = (conv.weight for conv in unit.convs.modules() if isinstance(conv, nn.Conv2d))
        inner = functional.relu(functional.conv2d(x, first, padding=1) * norm)
        way = functional.conv2d(inner, second, padding=1) * norm
        beside = functional.conv2d(x, unit.shortcut[0].weight) * norm
        assert torch.allclose(unit(x), functional.relu(way + beside), atol=1e-6)

    def test_in_a_dense_block_each_sees_all_before_it(self) -> None:
        block = DenseBlock(6, 8)
        assert [conv[0].in_channels for conv in block.convs] == [6, 8, 10, 12]
        assert {conv[0].out_channels for conv in block.convs} == {2}
        assert block.transition[0].in_channels == 14
        with pytest.raises(ValueError, match="cannot have 6 outputs"):
            DenseBlock(4, 6)


class TestRefinement:
    def test_a_patch_gives_a_mask_of_its_size(self) -> None:
        assert RefinementUNet(4)(torch.rand(3, 4, 48, 48)).shape == (3, 1, 48, 48)
        assert RefinementUNet(3).eval()(torch.rand(0, 3, 48, 48)).shape == (0, 1, 48, 48)

    def test_four_convolutional_layers(self) -> None:
        convs = [part for part in RefinementUNet(4).modules() if isinstance(part, nn.Conv2d)]
        assert [conv.kernel_size for conv in convs] == [(5, 5)] * 4 + [(1, 1)]

    def test_each_pixel_sees_most_of_the_patch(self) -> None:
        network = RefinementUNet(1, 2).eval()
        with torch.no_grad():
            for name, values in network.named_parameters():
                if name.endswith("weight"):
                    values.fill_(0.1)
        network.pool = nn.AvgPool2d(2)
        patch = torch.ones(1, 1, 48, 48, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(patch)[0, 0, 24, 24], patch)
        rows = torch.nonzero(gradient[0, 0].abs().sum(1)).flatten()
        assert rows[-1] - rows[0] + 1 >= 40


class TestDefaultBoxes:
    def test_the_papers_number(self) -> None:
        boxes = default_boxes()
        assert boxes.each == 4
        assert len(boxes.around(300, 300)) == 4 * (38 * 38 + 19 * 19 + 10 * 10) == 7620

    @given(st.integers(1, 150), st.integers(1, 150))
    @settings(max_examples=20)
    def test_as_many_as_there_are_predictions(self, height: int, width: int) -> None:
        boxes, base = default_boxes(), SharedBase((2,) * 6, "plain").eval()
        with torch.no_grad():
            maps = base(torch.rand(1, 3, height, width))[3:]
            logits, offsets = DetectionBranch((2, 2, 2), boxes.each).eval()(maps)
        assert len(boxes.around(height, width)) == logits.shape[1] == offsets.shape[1]

    def test_centres_are_torchvisions_and_those_of_the_cells(self) -> None:
        """torchvision's generator for SSD, which has other shapes of boxes, agrees on the centres."""
        theirs = DefaultBoxGenerator([[2]] * 3, scales=[0.1, 0.2, 0.3, 0.4], steps=list(STRIDES), clip=False)
        maps = [torch.zeros(1, 1, side, side) for side in (38, 19, 10)]
        (expected,) = theirs(ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)]), maps)
        found = default_boxes().around(300, 300)
        assert torch.allclose(centres(found), centres(expected), atol=1e-3)
        assert centres(found)[0].tolist() == [4, 4]
        assert centres(found)[4].tolist() == [12, 4]  # along the row

    def test_sizes_and_shapes(self) -> None:
        """The areas are those of the sizes times the scales, up to the rounding of sides to pairs of pixels."""
        boxes = default_boxes().around(300, 300)
        sides = boxes[:, 2:] - boxes[:, :2]
        area = sides.prod(1).sqrt()
        for first, size in zip((0, 4 * 38 * 38, 4 * (38 * 38 + 19 * 19)), SIZES, strict=True):
            assert area[first : first + 4].tolist() == pytest.approx([0.8 * size, 1.2 * size] * 2, rel=0.05)
            shapes = (sides[first : first + 4, 1] / sides[first : first + 4, 0]).tolist()
            assert shapes == pytest.approx([1, 1, 0.75, 0.75], abs=0.04)
        assert 19 < area.min() < 21
        assert 126 < area.max() < 129


def centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


class TestDetectionBranch:
    def test_predictions_are_in_the_order_of_the_boxes(self) -> None:
        """One cell of one map changes: only the four boxes around it are predicted otherwise."""
        boxes = default_boxes()
        branch = DetectionBranch((2, 3, 4), 4).eval()
        for level in branch.levels:
            level[0] = nn.Identity()
            nn.init.zeros_(level[1].weight)
            level[1].weight.data[:, :, 1, 1] = 1
        maps = [torch.zeros(1, c, side, side) for c, side in ((2, 7), (3, 4), (4, 2))]
        before = branch(maps)
        maps[1][0, :, 2, 1] = 1
        after = branch(maps)
        changed = torch.nonzero((before[0] != after[0])[0]).flatten()
        assert torch.equal(changed, torch.nonzero((before[1] != after[1]).any(2)[0]).flatten())
        around = boxes.around(56, 56)[changed]
        assert len(around) == 4
        assert centres(around).tolist() == [[24, 40]] * 4

    def test_every_box_begins_as_most_probably_empty(self) -> None:
        torch.manual_seed(0)
        logits, offsets = DetectionBranch((8, 8, 8), 4)([torch.randn(2, 8, side, side) for side in (7, 4, 2)])
        assert torch.sigmoid(logits).mean().item() == pytest.approx(0.01, abs=0.005)
        assert offsets.mean().item() == pytest.approx(0, abs=0.05)


class TestMatching:
    def test_background_everywhere_without_nuclei(self) -> None:
        assert match(default_boxes().around(50, 50), torch.zeros(0, 4), 0.5).unique().tolist() == [-1]

    @given(st.integers(0, 2**32 - 1), st.integers(1, 12))
    @settings(max_examples=25)
    def test_equal_to_the_plain_way(self, seed: int, count: int) -> None:
        """Each box looks for the nucleus that it overlaps most; each nucleus then has the box that it overlaps most."""
        rng = np.random.default_rng(seed)
        corner, side = rng.uniform(-5, 45, (count, 2)), rng.uniform(2, 60, (count, 2))
        truth = torch.from_numpy(np.concatenate([corner, corner + side], 1)).float()
        boxes = default_boxes().around(50, 50)
        table = box_iou(truth, boxes)
        expected = [int(column.argmax()) if column.max() >= 0.5 else -1 for column in table.T]
        for number, row in enumerate(table):
            expected[int(row.argmax())] = number
        assert match(boxes, truth, 0.5).tolist() == expected

    def test_no_nucleus_is_too_small_or_too_large_to_have_a_box(self) -> None:
        truth = torch.tensor([[10.0, 10, 11, 11], [60, 60, 66, 66], [-100, -100, 400, 400], [290, 2, 300, 4]])
        assert set(match(default_boxes().around(300, 300), truth, 0.5).tolist()) == {-1, 0, 1, 2, 3}


class TestFinding:
    def settings(self, **changes: float) -> dict[str, float]:
        return {"candidates": 50, "min_score": 0.3, "greatest_iou": 0.5, "most": 10, **changes}

    def test_what_is_encoded_is_found(self) -> None:
        boxes = default_boxes().around(300, 300)
        truth = torch.tensor([[30.0, 40, 70, 76], [100, 100, 124, 130], [150, 20, 260, 150]])
        matches = match(boxes, truth, 0.5)
        nucleus = matches >= 0
        logits, offsets = torch.full((len(boxes),), -9.0), torch.zeros(len(boxes), 4)
        offsets[nucleus] = encode(truth[matches[nucleus]], boxes[nucleus])
        logits[nucleus] = matches[nucleus].float() + 1
        found, scores = best_boxes(logits, offsets, boxes, (300, 300), **self.settings())
        assert torch.allclose(found, truth.flip(0), atol=1e-2)
        assert torch.allclose(scores, torch.sigmoid(torch.tensor([3.0, 2.0, 1.0])))

    def test_the_offsets_are_ssds(self) -> None:
        """Of a box of 20 x 10, a shift by a tenth of each side is 1; sides e to the fifth as large are 1 more."""
        box = torch.tensor([[0.0, 0, 20, 10]])
        half = torch.tensor([10.0, 5.0]) * math.exp(0.2)
        wanted = torch.cat([torch.tensor([12.0, 6.0]) - half, torch.tensor([12.0, 6.0]) + half])[None]
        assert torch.allclose(encode(wanted, box), torch.ones(1, 4), atol=1e-5)

    def test_limits(self) -> None:
        """Nine boxes in a row, the third within the second."""
        boxes = torch.tensor([[float(10 * k), 0, 10 * k + 8, 8] for k in range(9)])
        boxes[2] = boxes[1] + torch.tensor([0.0, 0, 1, 0])
        logits, offsets = torch.linspace(2, -2, 9), torch.zeros(9, 4)

        def found(**changes: float) -> list[float]:
            return best_boxes(logits, offsets, boxes, (8, 85), **self.settings(**changes))[0][:, 0].tolist()

        assert found() == [0, 10, 30, 40, 50]
        assert found(greatest_iou=0.99) == [0, 10, 10, 30, 40, 50]
        assert found(min_score=0.5) == [0, 10, 30, 40]
        assert found(candidates=3) == [0, 10]
        assert found(most=1) == [0]
        assert found(min_score=0.99) == []

    def test_boxes_end_where_the_image_does(self) -> None:
        boxes = torch.tensor([[-5.0, -5, 5, 5]])
        found, _ = best_boxes(torch.ones(1), torch.zeros(1, 4), boxes, (4, 3), **self.settings())
        assert found.tolist() == [[0, 0, 3, 4]]


def test_a_true_box_that_overlaps_no_default_box_has_none() -> None:
    """And takes none from another: SSD's rule would give it the first of all."""
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0], [16.0, 0.0, 24.0, 8.0]])
    far, near = [50.0, 50.0, 51.0, 51.0], [9.0, 1.0, 12.0, 7.0]
    assert match(boxes, torch.tensor([far]), 0.5).tolist() == [-1, -1, -1]
    assert match(boxes, torch.tensor([far, near]), 0.5).tolist() == [-1, 1, -1]
    assert match(boxes, torch.zeros(0, 4), 0.5).tolist() == [-1, -1, -1]


def test_the_refinement_is_what_its_docstring_says() -> None:
    """Layer by layer, with functions of torch."""
    torch.manual_seed(0)
    network = RefinementUNet(5, 3).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    patches = torch.randn(2, 5, 48, 48)

    def wide(layer: nn.Module, x: Tensor) -> Tensor:
        conv, norm = layer[0], layer[1]  # type: ignore[index]
        answer = functional.conv2d(x, conv.weight, padding=2)
        answer = (answer - norm.running_mean.view(1, -1, 1, 1)) / (
            norm.running_var.view(1, -1, 1, 1) + norm.eps
        ).sqrt()
        return (answer * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).clamp(min=0)

    def doubled(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    with torch.no_grad():
        fine = wide(network.first, patches)
        middle = wide(network.second, functional.max_pool2d(fine, 2))
        coarse = wide(network.third, functional.max_pool2d(middle, 2))
        joined = wide(network.fourth, torch.cat([doubled(coarse), middle], 1))
        expected = functional.conv2d(
            torch.cat([doubled(joined), fine], 1), network.head.weight, network.head.bias
        )
        torch.testing.assert_close(network(patches), expected, atol=1e-4, rtol=1e-4)


def test_the_bottleneck_sees_the_greatest_values() -> None:
    branch = SegmentationBranch((2,) * 6, 2, "plain")
    branch.bottleneck = nn.Identity()
    seen = []
    branch.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    maps = [torch.rand(1, 2, -(-64 // 2**level), -(-64 // 2**level)) for level in range(6)]
    branch(maps)
    torch.testing.assert_close(seen[0], maps[-1].amax((2, 3), keepdim=True))
