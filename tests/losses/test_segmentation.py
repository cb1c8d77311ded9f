import math
from functools import partial

import pytest
import torch

from nuxel.losses.segmentation import (
    cross_entropy,
    masked_smooth_l1,
    soft_dice,
    weighted_cross_entropy,
)

LOGIT = 40.0  # as good as certain in float32


def certain(mask: torch.Tensor) -> torch.Tensor:
    return (2 * mask - 1) * LOGIT


@pytest.fixture
def mask() -> torch.Tensor:
    """``(2, 3, 4, 5)``: maps of a different share of ones each."""
    torch.manual_seed(0)
    return (torch.rand(2, 3, 4, 5) < torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1)).float()


def everywhere(mask: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(mask), 1, *mask.shape[2:])


class TestCrossEntropy:
    def test_is_log_two_for_an_even_guess(self, mask: torch.Tensor) -> None:
        found = cross_entropy(torch.zeros_like(mask), mask, everywhere(mask))
        assert found.tolist() == pytest.approx([math.log(2)] * 3)

    def test_two_pixels_by_hand(self) -> None:
        logits = torch.tensor([math.log(3), math.log(1 / 4)]).view(1, 1, 1, 2)  # probabilities 3/4 and 1/5
        target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
        found = cross_entropy(logits, target, torch.ones(1, 1, 1, 2))
        assert found.item() == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2)

    def test_each_map_has_a_value_of_its_own(self, mask: torch.Tensor) -> None:
        logits = certain(mask)
        logits[:, 1] *= -1
        found = cross_entropy(logits, mask, everywhere(mask))
        assert found.tolist() == pytest.approx([0, LOGIT, 0], abs=1e-6)

    def test_divides_by_the_annotated_pixels_only(self) -> None:
        annotated = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
        found = cross_entropy(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), annotated)
        assert found.item() == pytest.approx(math.log(2))


class TestWeightedCrossEntropy:
    def test_is_the_mean_of_the_two_classes_means(self, mask: torch.Tensor) -> None:
        torch.manual_seed(3)
        logits = torch.randn(mask.shape)
        annotated = (torch.rand(2, 1, 4, 5) < 0.8).float()
        found = weighted_cross_entropy(logits, mask, annotated)
        there = annotated.expand_as(mask) == 1
        for k in range(3):
            means = []
            for value in (0, 1):
                chosen = there[:, k] & (mask[:, k] == value)
                probability = torch.sigmoid(logits[:, k][chosen]).double()
                means.append(-torch.log(probability if value else 1 - probability).mean())
            assert found[k].item() == pytest.approx(sum(means).item() / 2, rel=1e-5)

    def test_the_rarer_class_has_a_limited_weight(self) -> None:
        """One pixel in a hundred weighs 50 by its frequency, the others 50 / 99; here at most 4."""
        target = torch.zeros(1, 1, 10, 10)
        target[..., 0, 0] = 1
        logits = torch.where(target == 1, -2.0, 0.0)
        of_one, of_zero = math.log(1 + math.exp(2)), math.log(2)
        found = weighted_cross_entropy(logits, target, everywhere(target), greatest_weight=4.0)
        assert found.item() == pytest.approx((4 * of_one + 50 * of_zero) / 54)

    @pytest.mark.parametrize("truth", [0.0, 1.0])
    def test_is_the_plain_mean_where_a_class_is_absent(self, truth: float) -> None:
        torch.manual_seed(4)
        logits = torch.randn(2, 2, 3, 3)
        target = torch.full_like(logits, truth)
        found = weighted_cross_entropy(logits, target, everywhere(target))
        assert found.tolist() == pytest.approx(cross_entropy(logits, target, everywhere(target)).tolist())

    def test_a_single_annotated_pixel(self) -> None:
        annotated = torch.zeros(1, 1, 2, 2)
        annotated[..., 0, 0] = 1
        found = weighted_cross_entropy(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), annotated)
        assert found.item() == pytest.approx(math.log(2))


class TestSoftDice:
    def test_perfect_is_nearly_zero(self, mask: torch.Tensor) -> None:
        assert soft_dice(certain(mask), mask, everywhere(mask)).abs().max() < 1e-6

    def test_opposite_is_nearly_one(self, mask: torch.Tensor) -> None:
        found = soft_dice(-certain(mask), mask, everywhere(mask), smooth=1e-3)
        assert found.min() > 1 - 1e-3
        assert found.max() <= 1

    def test_three_pixels_by_hand(self) -> None:
        logits = torch.tensor([0.0, 0.0, LOGIT]).view(1, 1, 1, 3)  # probabilities 1/2, 1/2, 1
        target = torch.tensor([1.0, 0.0, 1.0]).view(1, 1, 1, 3)
        # intersection 1.5, sizes 2 and 2, one smoothing pixel
        assert soft_dice(logits, target, torch.ones(1, 1, 1, 3)).item() == pytest.approx(1 - 4 / 5)

    def test_is_of_the_whole_batch_not_of_each_image(self) -> None:
        target = torch.zeros(2, 1, 1, 4)
        target[0] = 1
        logits = certain(torch.tensor([1.0, 1, 0, 0])).view(1, 1, 1, 4).expand(2, 1, 1, 4)
        # found 4 pixels, true 4, both 2
        assert soft_dice(logits, target, everywhere(target), smooth=0).item() == pytest.approx(1 / 2)

    def test_stays_between_zero_and_one(self) -> None:
        torch.manual_seed(1)
        for _ in range(20):
            target = (torch.rand(1, 2, 3, 3) < torch.rand(())).float()
            found = soft_dice(torch.randn(1, 2, 3, 3) * 5, target, torch.ones(1, 1, 3, 3))
            assert (found >= 0).all()
            assert (found <= 1).all()


class TestSmoothL1:
    def test_quadratic_below_a_quarter_then_linear(self) -> None:
        predicted = torch.tensor([0.1, 1.0]).view(1, 1, 1, 2)
        zeros, ones = torch.zeros_like(predicted), torch.ones_like(predicted)
        expected = (0.5 * 0.1**2 / 0.25 + (1 - 0.5 * 0.25)) / 2
        assert masked_smooth_l1(predicted, zeros, ones, beta=0.25).item() == pytest.approx(expected)

    def test_only_where_asked(self) -> None:
        predicted = torch.tensor([1.0, 100.0]).view(1, 1, 1, 2)
        where = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
        found = masked_smooth_l1(predicted, torch.zeros_like(predicted), where, beta=0.25)
        assert found.item() == pytest.approx(0.875)

    def test_channels_are_added_and_pixels_averaged(self) -> None:
        predicted = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 2, 1, 2)  # two channels of two pixels
        found = masked_smooth_l1(predicted, torch.zeros_like(predicted), torch.ones(1, 1, 1, 2), beta=1.0)
        assert found.item() == pytest.approx((1 + 2 + 3 + 4 - 4 * 0.5) / 2)


def combined(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """The paper's third loss, the sum of the other two."""
    return cross_entropy(logits, target, annotated) + soft_dice(logits, target, annotated)


LOSSES = [
    cross_entropy,
    weighted_cross_entropy,
    soft_dice,
    combined,
    partial(masked_smooth_l1, beta=0.25),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("annotated", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
def test_empty_and_full_masks_are_finite(loss, truth: float, annotated: float, logit: float) -> None:
    logits = torch.full((2, 1, 4, 4), logit, requires_grad=True)
    value = loss(logits, torch.full((2, 1, 4, 4), truth), torch.full((2, 1, 4, 4), annotated)).sum()
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if not annotated:
        assert value.item() == pytest.approx(0)
        assert not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_pixels_that_nobody_annotated_change_nothing(loss) -> None:
    torch.manual_seed(2)
    annotated = (torch.rand(2, 1, 6, 6) < 0.6).float()
    logits, target = torch.randn(2, 1, 6, 6), (torch.rand(2, 1, 6, 6) < 0.4).float()
    hidden = annotated == 0
    other_logits = torch.where(hidden, torch.full_like(logits, 7), logits).requires_grad_()
    other_target = torch.where(hidden, 1 - target, target)
    logits.requires_grad_()
    first, second = loss(logits, target, annotated).sum(), loss(other_logits, other_target, annotated).sum()
    first.backward()
    second.backward()
    assert torch.equal(first, second)
    assert torch.equal(logits.grad, other_logits.grad)
    assert not logits.grad[hidden].any()
    assert logits.grad[~hidden].any()
