"""A picture of an image with its true nuclei in green and the predicted ones in red, as SVG text."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy import ndimage

from nuxel.metrics.matching import Threshold, match
from nuxel.metrics.overlap import overlap_table

LONGEST_SIDE = 1024
_FONT = (4.0, 16.0)

Window = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Drawing:
    """What is drawn.

    Parameters
    ----------
    truth, predicted
        ``(H, W)`` int32 label images; negative in the truth is not annotated, and shown in grey.
    display
        ``(H, W, 3)`` uint8, or None for outlines on black.
    scores
        Score of each predicted nucleus by its label, shown behind the IoU.
    threshold
        IoU that a match must exceed.
    """

    truth: NDArray[np.int32]
    predicted: NDArray[np.int32]
    display: NDArray[np.uint8] | None = None
    scores: Mapping[int, float] | None = None
    threshold: Threshold = 0.5


def draw(drawing: Drawing) -> tuple[str, Window]:
    """The picture, and the window of the image that it shows: all of it, or where most is wrong.

    Each match is captioned with its IoU, and with the score of the prediction where it is known.
    """
    table = overlap_table(drawing.truth, drawing.predicted)
    found = match(table, None, drawing.threshold)
    dropped = np.isin(drawing.predicted, table.dropped_labels)
    wrong = ~np.isin(drawing.truth, [0, *found.truth_labels]) & (drawing.truth > 0)
    wrong |= ~np.isin(drawing.predicted, [0, *found.predicted_labels])
    wrong &= (drawing.truth >= 0) & ~dropped  # what nobody annotated counts neither for nor against
    rows, columns = window = worst_window(wrong)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    truth, predicted = drawing.truth[window], np.where(dropped, 0, drawing.predicted)[window]
    ignored = np.where(dropped, drawing.predicted, 0)[window]
    display = None if drawing.display is None else drawing.display[window]
    iou = dict(zip(found.predicted_labels.tolist(), found.iou.tolist(), strict=True))
    parts = [
        f'<svg class="picture" viewBox="0 0 {width} {height}" role="img">',
        _background(display, height, width),
        f'<path class="ignored" d="{outline_path((truth < 0).astype(np.int32))}"/>',
        f'<path class="ignored" d="{outline_path(ignored)}"/>',
        f'<path class="truth" d="{outline_path(truth.clip(min=0))}"/>',
        f'<path class="predicted" d="{outline_path(predicted)}"/>',
        *_captions(predicted, iou, drawing.scores or {}),
        "</svg>",
    ]
    return "".join(parts), window


def outline_path(labels: NDArray[np.int32]) -> str:
    """The borders between pixels of different label, as the ``d`` of an SVG path in pixels.

    Examples
    --------
    >>> outline_path(np.array([[0, 3]], np.int32))
    'M1 0V1M2 0V1M1 0H2M1 1H2'
    """
    padded = np.pad(labels, 1)
    upright = _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)
    level = _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])
    lines = [f"M{x} {y}V{end}" for x, y, end in upright.tolist()]
    return "".join(lines + [f"M{x} {y}H{end}" for y, x, end in level.tolist()])


def _runs(edges: NDArray[np.bool_]) -> NDArray[np.int64]:
    """``(R, 3)``: row, start and stop of each horizontal stretch of true values."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(steps > 0)
    return np.stack([row, start, np.nonzero(steps < 0)[1]], axis=1)


def worst_window(wrong: NDArray[np.bool_], side: int = LONGEST_SIDE) -> Window:
    """The window of at most ``side`` x ``side`` pixels, of a grid, with most pixels of nuclei that are wrong."""
    height, width = wrong.shape
    if height <= side and width <= side:
        return slice(0, height), slice(0, width)
    tops = np.unique(np.append(np.arange(0, max(height - side, 1), side // 2), max(height - side, 0)))
    lefts = np.unique(np.append(np.arange(0, max(width - side, 1), side // 2), max(width - side, 0)))
    bottoms, rights = np.minimum(tops + side, height), np.minimum(lefts + side, width)
    counts = [
        [int(wrong[t:b, x:r].sum()) for x, r in zip(lefts, rights, strict=True)]
        for t, b in zip(tops, bottoms, strict=True)
    ]
    row, column = np.unravel_index(int(np.argmax(counts)), (len(tops), len(lefts)))
    return slice(int(tops[row]), int(bottoms[row])), slice(int(lefts[column]), int(rights[column]))


def _background(display: NDArray[np.uint8] | None, height: int, width: int) -> str:
    if display is None:
        return f'<rect width="{width}" height="{height}"/>'
    buffer = io.BytesIO()
    Picture.fromarray(display).save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>'


def _captions(
    predicted: NDArray[np.int32], iou: Mapping[int, float], scores: Mapping[int, float]
) -> list[str]:
    labels = np.unique(predicted[predicted > 0])
    ranks = np.searchsorted(labels, predicted) + 1
    boxes = ndimage.find_objects(np.where(predicted > 0, ranks, 0))
    texts = []
    for label, (y, x) in zip(labels.tolist(), boxes, strict=True):
        if label not in iou:
            continue
        text = f"{iou[label]:.2f}" + (f" ({scores[label]:.2f})" if label in scores else "")
        # as large as fits the nucleus, a letter being about 0.6 times as wide as high
        fits = min(0.4 * (y.stop - y.start), (x.stop - x.start) / (0.6 * len(text)))
        size = float(np.clip(fits, *_FONT))
        middle_x, middle_y = (x.start + x.stop) / 2, (y.start + y.stop) / 2 + size / 3
        texts.append(f'<text x="{middle_x:g}" y="{middle_y:.1f}" font-size="{size:.1f}">{text}</text>')
    return texts
