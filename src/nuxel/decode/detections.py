"""From boxes, scores and small masks to nuclei: paste each mask, drop repeats, and let no two nuclei overlap.

Source: FCN-8s and Mask R-CNN paper, section 2.2 and figure 2: the masks of Mask R-CNN may overlap, and some show only
a part of a nucleus that another shows whole. So the biggest of overlapping masks is kept unchanged and the overlap is
subtracted from the others. The threshold of 0.3 for the suppression of masks is that of its section 3.4.2.
US-Net's masks, each redrawn by itself, share an overlap instead: each pixel goes where it is most probable.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.decode.paste import CROSS, Nucleus, largest_region, paste
from nuxel.errors import NuxelError, UsageError
from nuxel.instances import Instances

OVERLAPS = ("biggest", "best", "probability")
LEAST_LEFT = 0.5
"""Share of its mask that a nucleus must keep. Of two masks of equal size that pass the suppression at 0.3, neither
loses as much as half to the other; who does lies mostly inside a bigger one, and shows a part of the same nucleus."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What an instance-first network finds in one image: a box, a score and a mask for each nucleus.

    Parameters
    ----------
    boxes
        ``(N, 4)`` float32 ``(y0, x0, y1, x1)`` in pixels. Coordinates are continuous: pixel ``i`` spans ``[i, i + 1)``.
        A box may reach beyond the image. One whose sides are not positive holds no pixel.
    scores
        ``(N,)`` float32 in ``[0, 1]``.
    masks
        ``(N, M, M)`` float32 in ``[0, 1]``: the probability that a point of the box belongs to the nucleus, on a
        regular grid over the box; cell ``k`` has its centre at ``(k + 0.5) / M`` of the side. The rule may say that
        the grid reaches beyond the box.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or an array is not float32.
    NuxelError
        If a number is not finite, or a score or probability lies outside of ``[0, 1]``.

    Examples
    --------
    >>> box = np.array([[2, 3, 6, 9]], np.float32)
    >>> found = Detections(box, np.ones(1, np.float32), np.ones((1, 28, 28), np.float32))
    >>> len(found), found.scaled(2, 0.5).boxes.tolist()
    (1, [[4.0, 1.5, 12.0, 4.5]])
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: NDArray[np.float32]

    def __post_init__(self) -> None:
        count, cells = len(self.scores), self.masks.shape[-1] if self.masks.ndim else 0
        shapes = {"boxes": (count, 4), "scores": (count,), "masks": (count, max(cells, 1), cells)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} must be {shape} float32, got {array.shape} {array.dtype}")
        if not np.isfinite(self.boxes).all():
            raise NuxelError(
                "the network gave a box that is not of finite numbers; its weights are of no use"
            )
        for name in ("scores", "masks"):
            array = getattr(self, name)
            # Written so that it holds for NaN, too.
            if not (array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
                raise NuxelError(
                    f"the network gave {name} outside of 0 to 1, which are no probabilities; use another model"
                )

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls, cells: int = 28) -> Detections:
        """No detection at all, with masks of ``cells`` x ``cells``."""
        nothing = np.empty((0, cells, cells), np.float32)
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), nothing)

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """The detections of all parts, one after another; parts without any may have masks of any size.

        Raises
        ------
        ValueError
            If their masks differ in size.
        """
        parts = [part for part in parts if len(part)] or [cls.empty()]
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.masks for part in parts]),
        )

    def take(self, indices: NDArray[np.intp] | NDArray[np.bool_]) -> Detections:
        """The detections at these indices, in this order, or those where a ``(N,)`` array of bool is true."""
        return Detections(self.boxes[indices], self.scores[indices], self.masks[indices])

    def scaled(self, factor_y: float, factor_x: float) -> Detections:
        """The same in an image whose height and width are these factors times as large."""
        factors = np.array([factor_y, factor_x, factor_y, factor_x], np.float32)
        return Detections(self.boxes * factors, self.scores, self.masks)

    def shifted(self, dy: float, dx: float) -> Detections:
        """The same, with all boxes moved by so many pixels down and to the right."""
        return Detections(self.boxes + np.array([dy, dx, dy, dx], np.float32), self.scores, self.masks)

    def grown(self, factor: float) -> Detections:
        """The same, with all boxes this many times as tall and as wide, about their centres."""
        more = (self.boxes[:, 2:] - self.boxes[:, :2]) * np.float32((factor - 1) / 2)
        return Detections(self.boxes + np.concatenate([-more, more], axis=1), self.scores, self.masks)


@dataclass(frozen=True)
class DetectionRule:
    """Parameters of the decoder; scores, probabilities and IoU in ``[0, 1]``, areas in pixels.

    Parameters
    ----------
    min_score
        Detections with a lower score are dropped.
    mask_threshold
        A pixel belongs to a nucleus where its mask is at least this.
    mask_nms
        Of two masks with a greater IoU the one with the lower score is dropped.
    overlap
        Which of the masks that still overlap keeps the pixels: the ``"biggest"``, or that with the ``"best"`` score;
        or, pixel by pixel, the one with the greatest ``"probability"`` there.
    min_area
        Smaller nuclei are dropped.
    dilate
        Whether each nucleus grows into the background around it, by a square of 3 x 3 pixels (partially labeled
        exemplars paper, section III).
    mask_scale
        A mask spans so many times the sides of its box, about the same centre: it may draw what the box leaves out.
        A property of the network, not to be chosen afterwards.

    Raises
    ------
    UsageError
        If a value is out of its range.
    """

    min_score: float = 0.5
    mask_threshold: float = 0.5
    mask_nms: float = 0.3
    overlap: str = "biggest"
    min_area: int = 8
    dilate: bool = False
    mask_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, what in (
            ("min_score", "a probability"),
            ("mask_threshold", "a probability"),
            ("mask_nms", "an IoU"),
        ):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {what} and must lie between 0 and 1, got {value}")
        if self.min_area < 0:
            raise UsageError(f"min_area must not be negative, got {self.min_area}")
        if self.overlap not in OVERLAPS:
            raise UsageError(f"overlap must be one of {', '.join(OVERLAPS)}, got {self.overlap!r}")
        if not 1 <= self.mask_scale < math.inf:
            raise UsageError(f"mask_scale must be a number of at least 1, got {self.mask_scale}")

    @property
    def maps(self) -> tuple[str, ...]:
        """The network's outputs that are needed."""
        return ("boxes", "scores", "masks")

    def with_threshold(self, threshold: float) -> Self:
        """The rule with the threshold that a user asks for: the least score."""
        return replace(self, min_score=threshold)

    def enlarged(self, area: float) -> Self:
        """The rule for an image in which everything has ``area`` times as many pixels."""
        return replace(self, min_area=round(self.min_area * area))


def decode_detections(detections: Detections, shape: tuple[int, int], rule: DetectionRule) -> Instances:
    """Find the nuclei in the detections of one whole image.

    A mask is interpolated linearly between the centres of its cells, and keeps the value of its outermost cells up to
    the edge of the box. A pixel is asked at its centre, and belongs to the box if its centre does. In
    ``torchvision``, ``paste_masks_in_image`` lets the mask fade to zero beyond the box, and stretches the box to whole
    pixels and one more at the bottom and right: its masks are up to a pixel larger.

    The nucleus of a mask is the largest 4-connected region that is left of it once its holes are filled.

    Parameters
    ----------
    detections
        In any order; boxes in pixels of this image.
    shape
        ``(H, W)`` of the image.
    rule
        Thresholds, and who keeps the pixels of an overlap.

    Returns
    -------
    The nuclei, numbered in the order of their first pixel, row by row; the scores are those of the detections. Every
    nucleus is one 4-connected region without holes, but for those that another nucleus fills. The biggest (or best)
    of nuclei that overlap keeps its whole mask; of the others the largest region that remains is kept, unless it is
    below ``min_area`` or less than ``LEAST_LEFT`` of the mask: such a nucleus is dropped, and takes nothing from
    any other. By ``"probability"`` none need keep its whole mask; what a nucleus cannot keep, because it is apart from
    its largest region or that is too small, goes to the next in probability.
    The order of the detections does not matter: ties are broken by score, then by box. Dilation comes last,
    and may close a bay to a hole.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 1, 4], [0, 3, 1, 6], [0, 4, 1, 6]], np.float32)
    >>> scores = np.array([0.7, 0.9, 0.8], np.float32)
    >>> found = Detections(boxes, scores, np.ones((3, 28, 28), np.float32))
    >>> nuclei = decode_detections(found, (1, 7), DetectionRule(min_area=1))
    >>> nuclei.labels.tolist(), [round(score, 3) for score in nuclei.scores.tolist()]
    ([[1, 1, 1, 1, 2, 2, 0]], [0.7, 0.9])
    """
    ranked = _ranked(detections, rule.min_score).grown(rule.mask_scale)
    windows = _windows(ranked.boxes, shape)
    pasted = paste(ranked.boxes, windows, ranked.masks, ranked.scores, rule.mask_threshold)
    least, side = max(rule.min_area, 1), _square(windows)
    nuclei = _distinct((one for one in pasted if one.area >= least), rule.mask_nms, side)
    if rule.overlap == "biggest":
        nuclei.sort(key=lambda one: -one.area)
    elif rule.overlap == "probability":
        nuclei = _shared(nuclei, shape, least, side)
    drawn = _draw(nuclei, shape, least)
    return _dilated(drawn) if rule.dilate and len(drawn) else drawn


def _ranked(detections: Detections, min_score: float) -> Detections:
    """The best first; those of equal score by their boxes, so that their order in the input does not matter."""
    order = np.lexsort((*detections.boxes.T[::-1], -detections.scores))
    return detections.take(order[detections.scores[order] >= min_score])


def _windows(boxes: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.intp]:
    """``(N, 4)``: the pixels of the image whose centres lie in each box, half-open."""
    return np.ceil(boxes.astype(np.float64) - 0.5).clip(0, [*shape, *shape]).astype(np.intp)


def _distinct(ranked: Iterable[Nucleus], threshold: float, side: int) -> list[Nucleus]:
    """The nuclei, best first, whose IoU with no better one that is kept is above the threshold.

    The kept ones are found by the squares, of this side, that their windows touch, so that the work grows with the
    nuclei and not with their pairs; the masks of the others need no memory.
    """
    kept: list[Nucleus] = []
    in_square: dict[tuple[int, int], list[int]] = defaultdict(list)
    for nucleus in ranked:
        squares = [in_square[square] for square in _squares(nucleus, side)]
        near = set().union(*squares)
        if all(_iou(nucleus, kept[index]) <= threshold for index in near):
            for square in squares:
                square.append(len(kept))
            kept.append(nucleus)
    return kept


def _square(windows: NDArray[np.intp]) -> int:
    """A side for squares that hold few nuclei each, while each nucleus touches few: twice that of the mean window."""
    sides = (windows[:, 2:] - windows[:, :2]).clip(0)
    return max(16, 2 * int(sides.sum()) // max(sides.size, 1))


def _squares(nucleus: Nucleus, side: int) -> Iterator[tuple[int, int]]:
    """The squares of a grid that the window of a nucleus touches."""
    rows = range(nucleus.top // side, (nucleus.bottom - 1) // side + 1)
    columns = range(nucleus.left // side, (nucleus.right - 1) // side + 1)
    return product(rows, columns)


def _iou(one: Nucleus, other: Nucleus) -> float:
    top, bottom = max(one.top, other.top), min(one.bottom, other.bottom)
    left, right = max(one.left, other.left), min(one.right, other.right)
    if top >= bottom or left >= right:
        return 0.0
    mine, theirs = (
        n.mask[top - n.top : bottom - n.top, left - n.left : right - n.left] for n in (one, other)
    )
    shared = int(np.count_nonzero(mine & theirs))
    return shared / (one.area + other.area - shared)


def _shared(nuclei: list[Nucleus], shape: tuple[int, int], min_area: int, side: int) -> list[Nucleus]:
    """The nuclei, best first, each with the part of its mask in which it is the most probable; of equal ones the first.

    Only the largest region of a part counts, and not even that if it is too small. What a nucleus loses so goes to the
    next in probability, who can only grow by it: the last in rank loses first, until nobody does.
    """
    in_square: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, nucleus in enumerate(nuclei):
        for square in _squares(nucleus, side):
            in_square[square].append(index)
    masks = [nucleus.mask for nucleus in nuclei]
    owner = np.full(shape, -1, np.int32)
    highest = np.full(shape, -1, np.float32)

    def claim(index: int) -> bool:
        """Take the pixels that nobody has with at least the same probability; whether there were any."""
        window = nuclei[index].window
        held, probability = highest[window], nuclei[index].probability()
        won = masks[index] & (probability > held)
        owner[window][won], held[won] = index, probability[won]
        return bool(won.any())

    to_judge = [-index for index in reversed(range(len(nuclei)))]  # a heap, the last in rank first
    waiting = set(range(len(nuclei)))
    for index in range(len(nuclei)):
        claim(index)
    while to_judge:
        index = -heappop(to_judge)
        waiting.remove(index)
        nucleus = nuclei[index]
        mine = owner[nucleus.window] == index
        region = largest_region(mine)
        if np.count_nonzero(region) < max(min_area, LEAST_LEFT * nucleus.area):
            region = masks[index] = np.zeros_like(mine)
        lost = mine & ~region
        if lost.any():
            masks[index] = masks[index] & ~lost
            owner[nucleus.window][lost] = highest[nucleus.window][lost] = -1
            near = set().union(*(in_square[square] for square in _squares(nucleus, side)))
            for other in sorted(near):
                if claim(other) and other not in waiting:
                    waiting.add(other)
                    heappush(to_judge, -other)
    parts = ((one, owner[one.window] == index) for index, one in enumerate(nuclei))
    return [one._replace(mask=part) for one, part in parts if part.any()]


def _draw(nuclei: list[Nucleus], shape: tuple[int, int], min_area: int) -> Instances:
    """Give each nucleus in turn what those before it left of its mask, and number those that remain."""
    labels = np.zeros(shape, np.int32)
    first, scores = [], []
    for nucleus in nuclei:
        window = labels[nucleus.window]
        free = nucleus.mask & (window == 0)
        remains = np.count_nonzero(free)
        if remains < nucleus.area:
            free = largest_region(free)
            remains = np.count_nonzero(free)
            if remains < max(min_area, LEAST_LEFT * nucleus.area):
                continue
        row, column = divmod(int(free.argmax()), free.shape[1])
        first.append((nucleus.top + row) * shape[1] + nucleus.left + column)
        scores.append(nucleus.score)
        window[free] = len(first)
    order = np.argsort(first)
    number = np.zeros(len(first) + 1, np.int32)
    number[order + 1] = np.arange(1, len(first) + 1)
    return Instances(number[labels], np.array(scores, np.float32)[order])


def _dilated(nuclei: Instances) -> Instances:
    """Each nucleus with the background within a square of 3 x 3 around it; of two, the first one has it.

    First along rows and columns, then at the corners, so that a nucleus stays connected where others take what is
    between it and a corner.
    """
    labels, nobody = nuclei.labels, np.iinfo(np.int32).max
    reached = ndimage.maximum_filter(labels, 3) > 0
    for _ in range(2):
        nearest = ndimage.minimum_filter(np.where(labels > 0, labels, nobody), footprint=CROSS)
        labels = np.where((labels == 0) & reached & (nearest < nobody), nearest, labels)
    numbers, first = np.unique(labels, return_index=True)
    order = np.argsort(first[numbers > 0])
    number = np.zeros(len(nuclei) + 1, np.int32)
    number[order + 1] = np.arange(1, len(nuclei) + 1)
    return Instances(number[labels], nuclei.scores[order])
