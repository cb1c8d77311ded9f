"""Centres of nuclei, learnt from the annotated ones and found for all of them.

Source: "Robust Nucleus Detection With Partially Labeled Exemplars", section II and figure 2.

Boxes are torchvision's: ``(x0, y0, x1, y1)``, the centre of pixel i at i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

from nuxel.errors import UsageError
from nuxel.nn.blocks import in_full
from nuxel.nn.decomposed_attention import DecomposedSelfAttention

CENTRAL = 0.3
"""Share of a box's sides that its centre has."""
SPLITS = (1, 2)

_SPREAD = 16
"""Locations that the best score of a component travels: at stride 4 the centre of a nucleus of 200 pixels."""
_LEAST_SIDE = 1.0
"""Pixels; a smaller box holds no nucleus that a head could classify."""


class CenternessHead(nn.Module):
    """For each location of a map: is it the centre of a nucleus, and where is that nucleus' box?

    The map goes through decomposed self-attention, so that what is like an annotated nucleus anywhere in the window is
    found as one; then a 3 x 3 convolution, and one 1 x 1 convolution each for score and box. The paper does not say
    how many layers follow the attention; with one of the map's width the module stays below the 1.0 million parameters
    of its table 2.

    Parameters
    ----------
    channels
        Of the map, and of the convolution.
    hidden
        Channels of the attention, C_b = C_v.
    stride
        Of the map, in pixels.
    split
        Locations along each side of one of the map's: with 2 there are four, a sub-pixel convolution, for nuclei so
        small that several have their centre in one location of the map.

    Attributes
    ----------
    anchor
        ``(2,)`` float32 buffer: width and height in pixels of the box that every location starts from, the median of
        the training set's nuclei. It is saved with the weights.

    Raises
    ------
    UsageError
        If ``split`` is neither 1 nor 2.

    Examples
    --------
    >>> head = CenternessHead(channels=8, hidden=4)
    >>> logits, codes = head(torch.randn(2, 8, 6, 5))
    >>> tuple(logits.shape), tuple(codes.shape)
    ((2, 6, 5), (2, 4, 6, 5))
    """

    anchor: Tensor

    def __init__(self, channels: int, hidden: int = 64, stride: int = 4, split: int = 1) -> None:
        super().__init__()
        if split not in SPLITS:
            raise UsageError(f"a location is split into 1 or 2 along each side, got {split}")
        self.stride = stride // split
        self.split = split
        self.attention = DecomposedSelfAttention(channels, hidden)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, split**2, 1)
        self.box = nn.Conv2d(channels, 4 * split**2, 1)
        for conv in (self.conv, self.score, self.box):
            nn.init.normal_(conv.weight, std=0.01)  # as torchvision draws the head of its proposals
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.register_buffer("anchor", torch.tensor([24.0, 24.0]))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, C, h, w)`` -> logits of the score ``(N, split h, split w)`` and codes of the box, ``(N, 4, ...)``."""
        seen = torch.relu(self.conv(self.attention(features)))
        logits, codes = (
            functional.pixel_shuffle(in_full(layer(seen)), self.split) for layer in (self.score, self.box)
        )
        return logits[:, 0], codes

    def losses(
        self,
        logits: Tensor,
        codes: Tensor,
        labels: Tensor,
        boxes: Sequence[Tensor],
        samples: int,
        positive_share: float,
    ) -> tuple[Tensor, Tensor]:
        """L_centerness and L_centerbox of a batch (equation 1), 0 where there is nothing to sample.

        Cross-entropy is the mean over the sampled locations; smooth L1 (its quadratic part up to 1, the paper's
        reference 37) is summed over a box's four codes and averaged over the sampled centres.

        Parameters
        ----------
        logits, codes
            What :meth:`forward` gives.
        labels, boxes
            ``(N, H, W)`` label images, and of each the ``(n, 4)`` boxes of its nuclei in the order of their numbers.
        samples, positive_share
            Locations of the batch to sample, and the greatest share of centres among them: 128 and one half in the
            paper, "up to 1:1". Fewer centres are made up for by more locations that are none.
        """
        drawn = [
            centerness_targets(one, of_one, self.stride) for one, of_one in zip(labels, boxes, strict=True)
        ]
        target = torch.stack([centre for centre, _ in drawn]).flatten()
        centres, others = BalancedPositiveNegativeSampler(samples, positive_share)([target])
        centre, other = torch.where(centres[0])[0], torch.where(others[0])[0]
        chosen = torch.cat([centre, other])
        if not len(chosen):
            return logits.sum() * 0, codes.sum() * 0
        score = functional.binary_cross_entropy_with_logits(
            logits.flatten()[chosen], target[chosen].to(logits.dtype)
        )
        if not len(centre):
            return score, codes.sum() * 0
        # the nuclei of all images in one list, and in each image's map the place of its own there
        first = torch.tensor([0, *(len(of_one) for of_one in boxes)], device=logits.device).cumsum(0)
        place = torch.stack(
            [owner + start for (_, owner), start in zip(drawn, first, strict=False)]
        ).flatten()
        height, width = logits.shape[1:]
        anchors = self.anchors(height, width).repeat(len(labels), 1)[centre]
        wanted = self.coder.encode_single(torch.cat(list(boxes))[place[centre]], anchors)
        found = codes.movedim(1, -1).reshape(-1, 4)[centre]
        return score, functional.smooth_l1_loss(found, wanted, reduction="sum") / len(centre)

    @torch.no_grad()
    def boxes(self, logits: Tensor, codes: Tensor, least: float, overlap: float, most: int) -> list[Tensor]:
        """The boxes of each image's nuclei: of the best location of every connected component, the best box first.

        Parameters
        ----------
        logits, codes
            What :meth:`forward` gives.
        least
            The score from which on locations are connected, 0.95 in the paper.
        overlap, most
            The IoU from which on only the better of two boxes is kept, and how many are.

        Returns
        -------
        ``(k, 4)`` for each image, within it; k may be 0.
        """
        found = []
        height, width = logits.shape[1:]
        anchors = self.anchors(height, width)
        size = (height * self.stride, width * self.stride)
        for scores, peaks, of_one in zip(logits, component_peaks(logits, least), codes, strict=True):
            (place,) = torch.where(peaks.flatten())
            boxes = self.coder.decode_single(of_one.flatten(1).T[place], anchors[place])
            boxes = clip_boxes_to_image(boxes + 0.5, size) - 0.5
            kept = remove_small_boxes(boxes, _LEAST_SIDE)
            boxes, best = boxes[kept], scores.flatten()[place][kept]
            found.append(boxes[nms(boxes, best, overlap)[:most]])
        return found

    def anchors(self, height: int, width: int) -> Tensor:
        """``(height width, 4)``: the box that each location of a map starts from, row by row."""
        rows, columns = (
            (torch.arange(length, device=self.anchor.device) + 0.5) * self.stride - 0.5
            for length in (height, width)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        middle = torch.stack([x.flatten(), y.flatten()], 1)
        return torch.cat([middle - self.anchor / 2, middle + self.anchor / 2], 1)


def centerness_targets(labels: Tensor, boxes: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """What a centerness map should be, and whose centre each location is (section II of the paper).

    A location is 1 if it lies in the central 0.3 x 0.3 of a nucleus' box, or is the one nearest to its middle; 0
    elsewhere in a nucleus; and -1, which teaches nothing, everywhere else. Where the centres of several nuclei meet,
    the location is that of the smallest, so that each nucleus has one, unless the middles of two lie in one location.
    A location lies in a nucleus if the pixel at its middle does: tiny nuclei may have no 0.

    Parameters
    ----------
    labels
        ``(H, W)``, sides multiples of ``stride``; 0 or less is no nucleus.
    boxes
        ``(n, 4)`` of the nuclei, in the order of their numbers.
    stride
        Pixels from one location to the next.

    Returns
    -------
    centre, owner
        ``(H / stride, W / stride)`` int64: 1, 0 or -1; and the place of the nucleus in ``boxes``, -1 where it is no
        centre.

    Examples
    --------
    >>> row = torch.tensor([[0] * 4 + [1] * 20 + [0] * 4] * 4)
    >>> centerness_targets(row, torch.tensor([[3.5, -0.5, 23.5, 3.5]]), 4)[0].tolist()
    [[-1, 0, 0, 1, 0, 0, -1]]
    """
    height, width = (side // stride for side in labels.shape)
    owner = torch.full((height, width), -1)
    x0, y0, x1, y1 = ((boxes.cpu() + 0.5) / stride).unbind(1)  # so that location i spans i to i + 1
    middle = torch.stack([y0 + y1, x0 + x1], 1) / 2
    reach = torch.stack([y1 - y0, x1 - x0], 1) * CENTRAL / 2
    first, stop = torch.ceil(middle - reach - 0.5).int(), torch.floor(middle + reach + 0.5).int()
    falling = torch.argsort((y1 - y0) * (x1 - x0), descending=True, stable=True).tolist()
    for nucleus in falling:
        (top, left), (bottom, right) = first[nucleus].tolist(), stop[nucleus].tolist()
        owner[top:bottom, left:right] = nucleus
    for nucleus in falling:
        row, column = middle[nucleus].int().tolist()
        owner[row, column] = nucleus
    owner = owner.to(labels.device)
    inside = labels[stride // 2 :: stride, stride // 2 :: stride] > 0
    return torch.where(owner >= 0, 1, torch.where(inside, 0, -1)), owner


def component_peaks(logits: Tensor, least: float) -> Tensor:
    """The best location of each connected component of those with a score above ``least``.

    The best score of a component is handed on from neighbour to neighbour (diagonal ones too) by max-pooling, which
    unlike a labelling of components can be exported. That is the same but where the way from a component's best
    location to another of its locations is longer than 16 steps: such a component may have several peaks, as one has
    whose best score comes twice.

    Parameters
    ----------
    logits
        ``(N, h, w)``, the scores before the sigmoid.
    least
        A probability.

    Returns
    -------
    ``(N, h, w)`` bool.

    Examples
    --------
    >>> component_peaks(torch.tensor([[[0.0, 4.0, 5.0, 4.5, -1.0, 9.0]]]), 0.95).int().tolist()
    [[[0, 0, 1, 0, 0, 1]]]
    """
    floor = math.log(least / (1 - least))
    inside = logits > floor
    best = torch.where(inside, logits, floor)
    for _ in range(_SPREAD):
        best = torch.where(inside, functional.max_pool2d(best[:, None], 3, 1, 1)[:, 0], floor)
    return inside & (logits == best)
