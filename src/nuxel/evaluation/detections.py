"""How sure the predictions are: scores beside label images, and the average precision of their boxes."""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nuxel.data.label_sets import PRODUCT_END, LabelArray, LabelFile, LabelSource, Nothing
from nuxel.data.nuclei_table import read_nuclei_table
from nuxel.errors import NuxelError
from nuxel.evaluation.pairs import Pair
from nuxel.metrics.box_average_precision import eleven_point, voc_average_precision
from nuxel.metrics.coco_average_precision import coco_average_precision
from nuxel.metrics.overlap import overlap_table
from nuxel.names import TABLE_END


def nucleus_scores(source: LabelSource) -> dict[int, float] | None:
    """The score of each nucleus by its label, from the ``<stem>_nuclei.csv`` beside ``<stem>_labels.tif``.

    A nucleus that somebody annotated has none. None where there is no such table, or no column ``score`` in it.

    Raises
    ------
    NuxelError
        If the table is damaged.
    """
    if isinstance(source, LabelArray):
        return source.scores
    if not isinstance(source, LabelFile) or not source.path.stem.endswith(PRODUCT_END):
        return None
    table = source.path.with_name(source.path.stem.removesuffix(PRODUCT_END) + TABLE_END)
    if not table.is_file():
        return None
    try:
        columns, rows = read_nuclei_table(table)
        if not {"label", "score"} <= set(columns):
            return None
        return {int(row["label"]): float(row["score"]) for row in rows if row["score"]}
    except (OSError, ValueError, csv.Error) as error:
        raise NuxelError(
            f"{table}: cannot be read as the table of the nuclei of {source.path.name}."
        ) from error


def box_scores(pairs: Sequence[Pair]) -> dict[str, float]:
    """Average precision of the nuclei's bounding boxes, with the scores beside the label images.

    Nuclei on pixels that are not annotated are left out.

    Returns
    -------
    ``voc_ap50`` (area under the curve), ``voc_ap50_11_point``, ``coco_ap``, ``coco_ap50``, ``coco_ap75``.

    Raises
    ------
    NuxelError
        If a prediction has no scores.
    """
    truth, predicted, scores = [], [], []
    for pair in pairs:
        of_label = {} if isinstance(pair.predicted, Nothing) else nucleus_scores(pair.predicted)
        if of_label is None:
            raise NuxelError(
                f"{pair.predicted.where}: has no scores; average precision of boxes needs the table _nuclei.csv "
                "that nuxel segment writes beside it."
            )
        true_labels, predicted_labels = pair.read()
        table = overlap_table(true_labels, predicted_labels)
        unscored = set(table.predicted_labels.tolist()) - set(of_label)
        if unscored:
            raise NuxelError(
                f"{pair.predicted.where}: the table beside it has no score of nucleus {min(unscored)}."
            )
        truth.append(_boxes(true_labels, table.truth_labels))
        predicted.append(_boxes(np.where(true_labels < 0, 0, predicted_labels), table.predicted_labels))
        scores.append(np.array([of_label[label] for label in table.predicted_labels.tolist()], np.float64))
    coco = coco_average_precision(truth, predicted, scores)
    return {
        "voc_ap50": voc_average_precision(truth, predicted, scores),
        "voc_ap50_11_point": voc_average_precision(truth, predicted, scores, interpolation=eleven_point),
        **{f"coco_{name}": value for name, value in coco._asdict().items()},
    }


def _boxes(labels: NDArray[np.int32], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(N, 4)`` boxes ``(y0, x0, y1, x1)`` of the chosen labels."""
    ranks = np.searchsorted(chosen, labels).clip(max=max(len(chosen) - 1, 0))
    known = np.isin(labels, chosen)
    found = ndimage.find_objects(np.where(known, ranks + 1, 0), max_label=len(chosen))
    boxes = [(y.start, x.start, y.stop, x.stop) for y, x in found]
    return np.array(boxes, np.int64).reshape(-1, 4)
