"""US-Net's losses: of default boxes, each nucleus or background, and of the map of nuclei that weighs them.

Source: US-Net paper, equations 2 to 6.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LEAST_SHARE = 0.01
"""Of the pixels, that a class counts as having: an untrained or empty map weighs no class more than tenfold."""


def mean_absolute(probability: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
    """L_seg, equation 2: the mean of ``|s - s^|`` over the annotated pixels; 0 if there are none.

    ``probability`` in ``[0, 1]``, ``target`` and ``annotated`` in {0, 1} are ``(N, 1, H, W)``. Returns a scalar.
    """
    error = (probability - target).abs() * annotated
    return error.sum() / annotated.sum().clamp(min=1)


def area_weights(probability: Tensor, annotated: Tensor) -> Tensor:
    """eta of each image and class, equation 4: ``sqrt(S_all / S^_c)``, ``(N, 2)``, background first.

    S_all is the number of annotated pixels, S^_c the number of those that the map, cut at 0.5, gives to class c, and at
    least ``LEAST_SHARE`` of S_all. A number of pixels has no gradient, so the map learns nothing from it. Shapes as for
    :func:`mean_absolute`; of an image without an annotated pixel both weights are 1.

    Examples
    --------
    >>> a_quarter = torch.tensor([0.9, 0.1, 0.1, 0.1]).view(1, 1, 2, 2)
    >>> [round(weight, 3) for weight in area_weights(a_quarter, torch.ones(1, 1, 2, 2))[0].tolist()]
    [1.155, 2.0]
    """
    nucleus = ((probability.detach() >= 0.5) * annotated).sum((1, 2, 3))
    pixels = annotated.sum((1, 2, 3))
    shares = torch.stack([pixels - nucleus, nucleus], 1) / pixels.clamp(min=1)[:, None]
    weights = shares.clamp(min=LEAST_SHARE).rsqrt()
    return torch.where(pixels[:, None] > 0, weights, 1.0)


def focal_loss(logits: Tensor, nucleus: Tensor, counted: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """L_conf, equation 3: ``-eta_c (1 - c^)^gamma log c^``, summed over default boxes and divided by those of nuclei.

    c^ is the probability that a box is given of being what it is. The equation is printed without the minus, as a gain
    that would grow with the prediction; with it, the loss is 0 for a perfect prediction, as in the focal loss that the
    paper adapts (Lin et al. 2017, equation 4). Nor does it print the sum or what it is divided by; the latter is
    theirs, over the batch, and at least 1.

    Parameters
    ----------
    logits
        ``(N, A)``, of "nucleus".
    nucleus
        ``(N, A)`` bool: the boxes that stand for one.
    counted
        ``(N, A)`` bool: others count neither for nor against.
    weights
        ``(N, 2)``: eta of background and nucleus.
    gamma
        0 for cross-entropy; the greater, the less do boxes count that are right already.
    """
    signed = torch.where(nucleus, logits, -logits)
    each = -(torch.sigmoid(-signed) ** gamma) * functional.logsigmoid(signed)
    weight = torch.where(nucleus, weights[:, 1:], weights[:, :1]) * counted
    return (weight * each).sum() / nucleus.sum().clamp(min=1)


def box_loss(offsets: Tensor, wanted: Tensor) -> Tensor:
    """L_loc, equations 5 and 6: smooth L1, summed over the four offsets, averaged over boxes; 0 if there are none.

    Both are ``(P, 4)``, of the default boxes that stand for nuclei.
    """
    loss: Tensor = functional.smooth_l1_loss(offsets, wanted, reduction="sum")
    return loss / max(len(offsets), 1)
