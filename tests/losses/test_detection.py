"""US-Net's losses against the equations written out, and that they fall where the prediction gets better."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from nuxel.losses.detection import LEAST_SHARE, area_weights, box_loss, focal_loss, mean_absolute

ONES = torch.ones(1, 2)


def everything(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


class TestMeanAbsolute:
    def test_equation_2(self) -> None:
        probability = torch.tensor([0.9, 0.2, 0.6, 0.5]).view(1, 1, 2, 2)
        target = torch.tensor([1.0, 0, 0, 1]).view(1, 1, 2, 2)
        found = mean_absolute(probability, target, torch.ones_like(target))
        assert found.item() == pytest.approx((0.1 + 0.2 + 0.6 + 0.5) / 4)

    def test_only_what_is_annotated_counts(self) -> None:
        probability = torch.tensor([0.9, 0.2, 0.6, 0.5]).view(1, 1, 2, 2).requires_grad_()
        annotated = torch.tensor([1.0, 0, 1, 0]).view(1, 1, 2, 2)
        loss = mean_absolute(probability, torch.ones(1, 1, 2, 2), annotated)
        assert loss.item() == pytest.approx((0.1 + 0.4) / 2)
        (gradient,) = torch.autograd.grad(loss, probability)
        assert gradient.flatten().tolist() == [-0.5, 0, -0.5, 0]
        assert mean_absolute(probability, torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item() == 0


class TestAreaWeights:
    def test_equation_4_of_each_image(self) -> None:
        """10 of 100 and 50 of 100 pixels."""
        probability = torch.zeros(2, 1, 10, 10)
        probability[0, 0, 0], probability[1, 0, :5] = 0.8, 0.5
        found = area_weights(probability, torch.ones(2, 1, 10, 10))
        expected = [[math.sqrt(100 / 90), math.sqrt(100 / 10)], [math.sqrt(2)] * 2]
        assert found.tolist() == [pytest.approx(row) for row in expected]

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_a_class_without_a_pixel_weighs_tenfold(self, value: float) -> None:
        found = area_weights(torch.full((1, 1, 8, 8), value), torch.ones(1, 1, 8, 8))[0].tolist()
        assert sorted(found) == pytest.approx([1, 10])
        assert found.index(max(found)) == (value == 0)
        assert LEAST_SHARE == 0.01

    def test_pixels_that_nobody_annotated_are_no_area(self) -> None:
        probability = torch.tensor([0.9, 0.9, 0.1, 0.1]).view(1, 1, 1, 4)
        annotated = torch.tensor([1.0, 0, 1, 1]).view(1, 1, 1, 4)
        assert area_weights(probability, annotated)[0].tolist() == pytest.approx(
            [math.sqrt(1.5), math.sqrt(3)]
        )
        assert area_weights(probability, torch.zeros(1, 1, 1, 4)).tolist() == [[1, 1]]

    def test_the_map_learns_nothing_from_it(self) -> None:
        probability = torch.rand(1, 1, 4, 4, requires_grad=True)
        assert not area_weights(probability, torch.ones(1, 1, 4, 4)).requires_grad


class TestFocal:
    def test_equation_3_with_a_minus_by_hand(self) -> None:
        """A nucleus given 3/4 and a background box given 1/5, eta 2 and 3."""
        logits = torch.tensor([[math.log(3), math.log(1 / 4)]])
        nucleus = torch.tensor([[True, False]])
        found = focal_loss(logits, nucleus, everything(logits), torch.tensor([[3.0, 2.0]]), 2.0)
        expected = -2 * (1 / 4) ** 2 * math.log(3 / 4) - 3 * (1 / 5) ** 2 * math.log(4 / 5)
        assert found.item() == pytest.approx(expected)

    @pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
    def test_with_weights_of_one_it_is_torchvisions(self, gamma: float) -> None:
        torch.manual_seed(0)
        logits, nucleus = torch.randn(3, 20) * 3, torch.rand(3, 20) < 0.2
        expected = sigmoid_focal_loss(logits, nucleus.float(), alpha=-1, gamma=gamma, reduction="sum")
        found = focal_loss(logits, nucleus, everything(logits), ONES.expand(3, 2), gamma)
        assert found.item() == pytest.approx(expected.item() / nucleus.sum().item(), rel=1e-5)

    def test_what_does_not_count(self) -> None:
        logits = torch.tensor([[2.0, 5.0, -1.0]], requires_grad=True)
        nucleus = torch.tensor([[True, False, False]])
        counted = torch.tensor([[True, False, True]])
        loss = focal_loss(logits, nucleus, counted, ONES, 2.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert (gradient[0] != 0).tolist() == [True, False, True]

    @given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 2.0, 5.0]), st.floats(0.05, 3))
    @settings(max_examples=60)
    def test_it_falls_as_any_prediction_improves(self, seed: int, gamma: float, step: float) -> None:
        torch.manual_seed(seed)
        logit, weights = torch.randn(1, 1, dtype=torch.float64) * 3, torch.rand(1, 2) + 1
        for nucleus in (torch.tensor([[True]]), torch.tensor([[False]])):
            better = logit + (step if nucleus else -step)
            before, after = (focal_loss(x, nucleus, everything(x), weights, gamma) for x in (logit, better))
            assert 0 <= after < before

    def test_the_greater_gamma_the_less_counts_what_is_right_already(self) -> None:
        logits, nucleus = torch.tensor([[3.0, 1.0]]), torch.tensor([[True, False]])
        shares = []
        for gamma in (0.0, 2.0):
            easy = focal_loss(logits[:, :1], nucleus[:, :1], everything(logits[:, :1]), ONES, gamma)
            hard = focal_loss(logits[:, 1:], nucleus[:, 1:], everything(logits[:, 1:]), ONES, gamma)
            shares.append((easy / hard).item())
        assert shares[1] < shares[0] / 50

    @pytest.mark.parametrize("logit", [-1e4, -60.0, 0.0, 60.0, 1e4])
    @pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
    @pytest.mark.parametrize("any_nucleus", [False, True])
    def test_finite_at_both_ends_and_without_nuclei(
        self, logit: float, gamma: float, any_nucleus: bool
    ) -> None:
        logits = torch.full((2, 5), logit, requires_grad=True)
        nucleus = torch.zeros(2, 5, dtype=torch.bool)
        nucleus[0, 0] = any_nucleus
        loss = focal_loss(logits, nucleus, everything(logits), 10 * ONES.expand(2, 2), gamma)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert loss >= 0
        assert gradient.isfinite().all()


class TestBoxes:
    def test_equations_5_and_6(self) -> None:
        offsets = torch.tensor([[0.5, 0, 0, 0], [0, 3, -0.1, 0]])
        assert box_loss(offsets, torch.zeros(2, 4)).item() == pytest.approx(
            (0.5 * 0.25 + (3 - 0.5) + 0.5 * 0.01) / 2
        )

    def test_without_boxes(self) -> None:
        offsets = torch.zeros(0, 4, requires_grad=True)
        loss = box_loss(offsets, torch.zeros(0, 4))
        loss.backward()
        assert loss.item() == 0

    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=30)
    def test_it_falls_on_the_way_to_the_truth(self, seed: int) -> None:
        torch.manual_seed(seed)
        start, end = torch.randn(3, 4) * 3, torch.randn(3, 4) * 3
        values = [box_loss(start + share * (end - start), end).item() for share in (0, 0.3, 0.6, 0.9, 1)]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 1e-9
