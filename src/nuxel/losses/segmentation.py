"""Losses on maps of probabilities. Every one leaves out pixels that nobody annotated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
    """Mean binary cross-entropy over the annotated pixels.

    ``logits`` and ``target`` are ``(N, K, H, W)``, ``annotated`` ``(N, 1, H, W)`` in {0, 1}. Returns ``(K,)``, zeros
    where nothing is annotated.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * annotated
    return loss.sum((0, 2, 3)) / annotated.sum().clamp(min=1)


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, annotated: Tensor, greatest_weight: float = 20.0
) -> Tensor:
    """Binary cross-entropy with both classes of a map made to count alike: ``sum(w CE) / sum(w)``.

    The weight of a pixel is ``n / (2 n_c)``, the inverse frequency of its class c among the n annotated pixels of
    the batch, of each map by itself, and at most ``greatest_weight``, so that a few pixels cannot rule a batch.
    Without the limit it is the mean of the two classes' mean cross-entropies. Where a class is absent, it is
    the plain mean. Source: the weighted loss of the multi-head U-Net paper's section 5.5, whose weights it does
    not state.

    Shapes as for :func:`cross_entropy`; returns ``(K,)``, zeros where nothing is annotated.
    """
    positive = target * annotated
    pixels = annotated.sum()
    ones = positive.sum((0, 2, 3), keepdim=True)
    weight_of_one = (pixels / (2 * ones.clamp(min=1))).clamp(max=greatest_weight)
    weight_of_zero = (pixels / (2 * (pixels - ones).clamp(min=1))).clamp(max=greatest_weight)
    weight = positive * weight_of_one + (annotated - positive) * weight_of_zero
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    # A class that is there weighs at least one half a pixel: below that there is nothing to divide.
    return loss.sum((0, 2, 3)) / weight.sum((0, 2, 3)).clamp(min=0.5)


def soft_dice(logits: Tensor, target: Tensor, annotated: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss ``1 - 2 sum(AB) / (sum A + sum B)`` over the whole batch, in ``[0, 1]``; returns ``(K,)``.

    Equation 3 of the multi-head U-Net paper prints ``1 - 2 |A and B| / |A or B|``, which is -1 at perfect overlap;
    this is the Dice that it means. ``smooth`` pixels are added above and below so that empty masks are finite.
    """
    probability = torch.sigmoid(logits) * annotated
    target = target * annotated
    both = (probability * target).sum((0, 2, 3))
    total = probability.sum((0, 2, 3)) + target.sum((0, 2, 3))
    return 1 - (2 * both + smooth) / (total + smooth)


def masked_smooth_l1(predicted: Tensor, target: Tensor, where: Tensor, beta: float) -> Tensor:
    """Smooth L1, summed over channels and averaged over the pixels where ``where`` is 1; zero where there are none.

    ``predicted`` and ``target`` are ``(N, K, H, W)``, ``where`` ``(N, 1, H, W)`` in {0, 1}; errors below
    ``beta`` count by their square. Returns a scalar.
    """
    loss = functional.smooth_l1_loss(predicted, target, reduction="none", beta=beta) * where
    return loss.sum() / where.sum().clamp(min=1)
